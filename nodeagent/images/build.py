"""Building an image from a Dockerfile, without a daemon, a network or a cache.

Each stage is an overlay of its base image's layers; instructions work in it, and what they changed becomes one layer.
RUN executes with crun in that root file system, without a network. ``COPY --from=host`` takes files of this machine
(as ``docker buildx build --build-context host=/`` would), and programs bring the shared libraries they need::

    FROM scratch
    COPY --from=host /usr/bin/redis-server /usr/bin/
    ENTRYPOINT ["/usr/bin/redis-server"]

``--exclude=PATTERN`` leaves out what matches below a directory that is copied (``--exclude=**/__pycache__``).
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from navarch.linux import syscalls
from nodeagent.images import archive, binaries, copying, layers
from nodeagent.images.copying import Ignore
from nodeagent.images.dockerfile import BuildError, Instruction, parse, shell_form, substitute
from nodeagent.images.execute import execute
from nodeagent.images.store import ImageStore, Record
from nodeagent.linux import hostnamespace
from nodeagent.runtime import users

HOST = "host"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Stage:
    """An image in the making. ``config`` is the OCI config's inner part, in its own words."""

    root: Path  # the mounted overlay
    upper: Path
    base: Record | None
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])

    def variables(self) -> dict[str, str]:
        pairs = (pair.partition("=") for pair in self.config.get("Env") or ())
        return {**self.arguments, **{name: value for name, _, value in pairs}}

    def path(self, text: str) -> str:
        """A path in the image, absolute; relative ones start at the working directory."""
        joined = os.path.normpath(os.path.join("/", self.config.get("WorkingDir") or "/", text))
        return joined if joined.startswith("/") else f"/{joined}"


def build(
    store: ImageStore,
    context: str | Path,
    names: Iterable[str],
    *,
    text: str | None = None,
    arguments: Mapping[str, str] | None = None,
    target: str = "",
    log: Callable[[str], None] = lambda line: None,
) -> Record:
    """Builds the image that ``text`` (by default the context's Dockerfile) describes, and names it.

    ``log`` gets a line an instruction; output of RUN goes to our own stderr. Raises BuildError. Needs root. It works in
    a forked child with a mount namespace of its own, so that nothing stays mounted whatever happens.
    """
    folder = Path(context).resolve()
    if text is None:
        path = next((folder / n for n in ("Containerfile", "Dockerfile") if (folder / n).is_file()), None)
        if path is None:
            raise BuildError(f"no Dockerfile or Containerfile in {folder}")
        text = path.read_text()
    instructions = parse(text)
    image_names = list(names)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
            hostnamespace.hide_hybrid_mount()
            with store.lock("collection", shared=True), store.temporary() as scratch:
                builder = _Builder(store, folder, Path(scratch), dict(arguments or {}), log)
                record = builder.run(instructions, target, image_names)
            os.write(write, b"=" + record.id.encode())
            status = 0
        except (BuildError, OSError, ValueError, RuntimeError) as error:
            os.write(write, f"!{error}".encode()[:60000])
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        answer = file.read().decode()
    os.waitpid(pid, 0)
    built = store.record(answer[1:]) if answer.startswith("=") else None
    if built is None:
        raise BuildError(answer[1:] or "the build died")
    return built


class _Builder:
    def __init__(
        self, store: ImageStore, context: Path, scratch: Path, arguments: dict[str, str], log: Callable[[str], None]
    ) -> None:
        self.store, self.context, self.scratch, self.arguments, self.log = store, context, scratch, arguments, log
        self.global_arguments: dict[str, str] = {}
        self.stages: list[Stage] = []
        self.ignore = Ignore.of(context)

    def run(self, instructions: list[Instruction], target: str, names: list[str]) -> Record:
        if not any(i.keyword == "FROM" for i in instructions):
            raise BuildError("no FROM instruction")
        try:
            for instruction in instructions:
                self.log(f"{instruction.keyword} {instruction.text}")
                if instruction.keyword == "FROM":
                    if target and self.stages and self.stages[-1].name == target:
                        break
                    self._from(instruction)
                elif not self.stages:
                    if instruction.keyword != "ARG":
                        raise instruction.error("must follow a FROM")
                    self._arg(instruction, self.global_arguments, {})
                else:
                    self._apply(instruction, self.stages[-1])
            return self._commit(self.stages[-1], names)
        finally:
            for stage in self.stages:
                syscalls.umount(stage.root)

    # -- stages

    def _from(self, instruction: Instruction) -> None:
        words = substitute(instruction.text, self.global_arguments).split()
        if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
            raise instruction.error("expected IMAGE [AS NAME]")
        parent = next((stage for stage in self.stages if stage.name == words[0].lower()), None)
        directory = self.scratch / f"stage{len(self.stages)}"
        stage = Stage(directory / "root", directory / "upper", None, words[2].lower() if len(words) == 3 else "")
        lower: list[Path] = []
        if parent is not None:
            stage.base = self._commit(parent, [])
        elif words[0] != "scratch":
            stage.base = self.store.find(words[0])
            if stage.base is None:
                raise instruction.error(f"image {words[0]!r} is not in the store: load or pull it first")
        if stage.base is not None:
            lower = [self.store.layer(layer) for layer in stage.base.layers]
            document = msgspec.json.decode(self.store.blob(stage.base.id).read_bytes())
            stage.config = dict(document.get("config") or {})
        for path in (stage.root, stage.upper, directory / "work", directory / "empty"):
            path.mkdir(parents=True, mode=0o755)
        below = ":".join(str(path) for path in reversed(lower)) or str(directory / "empty")
        options = f"lowerdir={below},upperdir={stage.upper},workdir={directory / 'work'}"
        syscalls.mount("overlay", stage.root, "overlay", 0, options)
        self.stages.append(stage)

    def _commit(self, stage: Stage, names: list[str]) -> Record:
        """Commits what the stage changed as a layer on its base's."""
        document: dict[str, Any] = {"architecture": archive.architecture(), "os": "linux", "config": stage.config}
        manifest_layers: list[tuple[str, int]] = []
        diff_ids: list[str] = []
        if stage.base is not None:
            manifest = msgspec.json.decode(self.store.blob(stage.base.manifest).read_bytes())
            manifest_layers = [(layer["digest"], layer["size"]) for layer in manifest.get("layers") or []]
            diff_ids = list(stage.base.layers)
        with tempfile.TemporaryFile(dir=self.scratch) as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                layers.pack(stage.upper, tar)
            if any(stage.upper.iterdir()) or not diff_ids:
                file.seek(0)
                blob = self.store.add_blob(file)
                manifest_layers.append(blob)
                diff_ids.append(blob[0])  # not compressed, so blob and diff id are one
        document["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
        config = self.store.add_blob(io.BytesIO(msgspec.json.encode(document, order="deterministic")))
        return archive.add_image(self.store, config, manifest_layers, names)

    # -- instructions

    def _arg(self, instruction: Instruction, into: dict[str, str], variables: Mapping[str, str]) -> None:
        for word in substitute(instruction.text, {**into, **variables}).split():
            name, equals, default = word.partition("=")
            value = self.arguments.get(name, default.strip("\"'") if equals else self.global_arguments.get(name))
            if value is not None:
                into[name] = value

    def _apply(self, instruction: Instruction, stage: Stage) -> None:
        keyword, config = instruction.keyword, stage.config
        if keyword in ("RUN", "CMD", "ENTRYPOINT", "SHELL"):  # a shell does its own substitution
            command = shell_form(instruction, stage.shell)
            if keyword == "RUN":
                self._execute(instruction, stage, command)
            elif keyword == "SHELL":
                stage.shell = command
            elif keyword == "CMD":
                config["Cmd"] = command
            else:
                config["Entrypoint"] = command
                config.pop("Cmd", None)  # a base's cmd was meant for the base's entrypoint
            return
        if keyword == "ARG":
            self._arg(instruction, stage.arguments, stage.variables())
            return
        variables = stage.variables()
        text = substitute(instruction.text, variables)
        words = instruction.json and tuple(substitute(word, variables) for word in instruction.json)
        instruction = replace(instruction, text=text, json=words)
        if keyword in ("COPY", "ADD"):
            self._copy(instruction, stage)
        elif keyword == "ENV":
            current = dict(pair.split("=", 1) for pair in config.get("Env") or () if "=" in pair)
            current.update(instruction.pairs())
            config["Env"] = [f"{name}={value}" for name, value in current.items()]
        elif keyword == "LABEL":
            config["Labels"] = {**(config.get("Labels") or {}), **dict(instruction.pairs())}
        elif keyword == "WORKDIR":
            config["WorkingDir"] = stage.path(text)
            copying.put(stage.root, [], directories=[stage.path(text)])
        elif keyword == "USER":
            config["User"] = text
        elif keyword == "STOPSIGNAL":
            config["StopSignal"] = text
        elif keyword == "EXPOSE":
            ports: dict[str, Any] = {word if "/" in word else f"{word}/tcp": {} for word in text.split()}
            config["ExposedPorts"] = {**(config.get("ExposedPorts") or {}), **ports}
        elif keyword == "VOLUME":
            config["Volumes"] = {**(config.get("Volumes") or {}), **{stage.path(w): {} for w in instruction.words()}}

    # -- files

    def _copy(self, instruction: Instruction, stage: Stage) -> None:
        words = instruction.words()
        if len(words) < 2:
            raise instruction.error("expected SOURCE... DESTINATION")
        flags = ("from", "chown", "chmod", "exclude") if instruction.keyword == "COPY" else ("chown", "chmod")
        if unknown := [flag for flag in instruction.flags if flag not in flags]:
            raise instruction.error(f"unsupported flag --{unknown[0]}")
        *sources, destination = words
        origin = instruction.flags.get("from", "")
        ours = origin in ("", HOST)
        exclude = copying.Ignore(instruction.flags.get("exclude", "").splitlines())
        target = stage.path(destination)
        with self._origin(instruction, origin) as (root, ignore):
            try:
                sources_ = [f for source in sources for f in copying.matches(root, source, ignore, follow=ours)]
                into = destination.endswith(("/", "/.")) or destination == "." or len(sources_) > 1
                into = into or copying.is_directory(stage.root, target)
                files: list[tuple[Path, str]] = []
                unpack: list[Path] = []
                for path, name in sources_:
                    if path.is_dir() and not path.is_symlink():
                        files.extend(copying.tree(path, target, root, ignore, exclude))
                    elif instruction.keyword == "ADD" and not path.is_symlink() and copying.is_archive(path):
                        unpack.append(path)
                    else:
                        files.append((path, f"{target}/{name}" if into else target))
                if origin == HOST:
                    copied = {name for _, name in files}
                    needed = binaries.shared_libraries(path for path, _ in files)
                    files.extend((path.resolve(), str(path)) for path in needed if str(path) not in copied)
            except FileNotFoundError as error:
                raise instruction.error(str(error)) from error
            mode = instruction.flags.get("chmod")
            copying.put(
                stage.root,
                files,
                directories=[target] if into else [],
                owner=self._owner(instruction, stage, keep=not ours),
                mode=int(mode, 8) if mode else None,
            )
            for path in unpack:
                copying.unpack(path, stage.root, target)

    @contextlib.contextmanager
    def _origin(self, instruction: Instruction, name: str) -> Iterator[tuple[Path, Ignore]]:
        """Where sources are: the context, this machine, an earlier stage, or another image."""
        if not name:
            yield self.context, self.ignore
            return
        if name == HOST:
            yield Path("/"), Ignore()
            return
        for index, stage in enumerate(self.stages[:-1]):
            if name.lower() == stage.name or name == str(index):
                yield stage.root, Ignore()
                return
        record = self.store.find(name)
        if record is None:
            raise instruction.error(f"no stage, and no image in the store, is called {name!r}")
        with tempfile.TemporaryDirectory(dir=self.scratch) as place:
            below = [str(self.store.layer(layer)) for layer in reversed(record.layers)]
            syscalls.mount("overlay", place, "overlay", syscalls.MS_RDONLY, f"lowerdir={':'.join([*below, place])}")
            try:
                yield Path(place), Ignore()
            finally:
                syscalls.umount(place)

    def _owner(self, instruction: Instruction, stage: Stage, keep: bool) -> tuple[int, int] | None:
        """The owner of the files: root, unless --chown says otherwise; None keeps (copies out of other images)."""
        text = instruction.flags.get("chown")
        if text is None:
            return None if keep else (0, 0)
        try:
            who = users.resolve(stage.root, substitute(text, stage.variables()), None, None)
        except users.UnknownUser as error:
            raise instruction.error(str(error)) from error
        return who.uid, who.gid if ":" in text or who.name else who.uid

    # -- RUN

    def _execute(self, instruction: Instruction, stage: Stage, command: list[str]) -> None:
        if instruction.flags:
            raise instruction.error(f"unsupported flag --{next(iter(instruction.flags))}")
        environment = {"PATH": DEFAULT_PATH, **stage.variables()}
        code = execute(stage.root, command, environment, stage.config, self.scratch)
        if code != 0:
            raise instruction.error(f"the command {instruction.text!r} returned a non-zero code: {code}")

