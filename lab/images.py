"""The images of a home's labs, for `navarch image`: one store that all nodes share."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, TypeVar

from lab.addresses import Addresses
from lab.paths import LabError, LabPaths, LabRecord, home, private_directory
from navarch import egress
from nodeagent.images import archive, reference
from nodeagent.images.build import build as build_image
from nodeagent.images.dockerfile import BuildError
from nodeagent.images.store import ImageInUse, ImageStore, Record

if TYPE_CHECKING:
    from nodeagent.images.credentials import Login
    from nodeagent.images.distribution import Transport
    from nodeagent.images.pull import Progress
    from nodeagent.images.registries import Registries

Log = Callable[[str], None]
T = TypeVar("T")
PARTIAL_SECONDS = 3600.0  # how long a broken pull may be resumed before `prune` forgets it


class Listed(NamedTuple):
    name: str  # "<none>" for an image without one
    id: str  # sha256:...
    size: int  # bytes


def store() -> ImageStore:
    return ImageStore(private_directory(home() / "images"))


def names_of(texts: list[str]) -> list[str]:
    """Normalised names, such as docker.io/library/redis:latest for redis. Raises LabError."""
    try:
        return [str(reference.parse(text)) for text in texts]
    except reference.InvalidReference as error:
        raise LabError(str(error)) from error


def build(
    context: Path, names: list[str], file: Path | None, arguments: Mapping[str, str], target: str, log: Log
) -> Record:
    """Builds ``context``'s Dockerfile (or ``file``). Raises LabError."""
    if not context.is_dir():
        raise LabError(f"{context} is not a directory")
    try:
        text = file.read_text() if file else None
        return build_image(store(), context, names_of(names), text=text, arguments=arguments, target=target, log=log)
    except (BuildError, OSError) as error:
        raise LabError(f"build failed: {error}") from error


# Archives


def load(path: Path, names: list[str]) -> list[Record]:
    """Imports an OCI layout (directory or tar) or a docker archive. Raises LabError."""
    try:
        return archive.load(store(), path, names_of(names))
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        raise LabError(f"{path}: {error}") from error


def load_anything(what: str, names: list[str], stdin: IO[bytes]) -> list[Record]:
    """Imports an archive, one on standard input ("-"), or an image that docker or podman has. Raises LabError."""
    if what != "-" and Path(what).exists():
        return load(Path(what), names)
    with tempfile.TemporaryDirectory(dir=store().root / "tmp") as scratch:
        path = Path(scratch) / "archive.tar"
        with path.open("wb") as file:
            if what == "-":
                shutil.copyfileobj(stdin, file)
            else:
                _save_elsewhere(what, file)
        try:
            return load(path, names)
        except LabError as error:
            raise LabError(str(error).replace(str(path), "standard input" if what == "-" else what)) from None


def _save_elsewhere(name: str, file: IO[bytes]) -> None:
    """Lets docker or podman save an image. Raises LabError."""
    [full] = names_of([name])
    reasons = []
    for program in filter(shutil.which, ("docker", "podman")):
        line = [program, "save", name]
        done = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.PIPE)
        if done.returncode == 0:
            return
        file.seek(0)
        file.truncate()
        reasons.append(f"{program}: {done.stderr.decode(errors='replace').strip()}")
    why = "; ".join(reasons) or "neither docker nor podman is installed"
    raise LabError(f"{name} is no file, and no image to take over ({why}); to pull it: navarch image pull {full}")


def save(names: list[str], target: IO[bytes]) -> None:
    """Writes images as one tar that docker, podman and `navarch image load` read. Raises LabError."""
    images = store()
    for name in names:
        _find(images, name)
    archive.save(images, names, target)


# What is there


def listed() -> list[Listed]:
    """Every name of every image, by name."""
    rows, images = [], store()
    names = images.names()
    for record in images.records():
        for name in names.get(record.id) or ["<none>"]:
            rows.append(Listed(name, record.id, record.size))
    return sorted(rows)


def _find(images: ImageStore, name: str) -> Record:
    try:
        record = images.find(name)
    except reference.InvalidReference as error:
        raise LabError(str(error)) from error
    if record is None:
        raise LabError(f'there is no image "{name}"; see: navarch image list')
    return record


def remove(name: str) -> None:
    """Removes an image by name or id, with all its names. Raises LabError."""
    images = store()
    record = _find(images, name)
    try:
        images.remove(record.id)
    except ImageInUse as error:
        raise LabError(f"{name}: {error}") from error


def prune(everything: bool, now: float) -> tuple[list[str], int]:
    """Removes images that no container uses: those without a name, or all. Also what broken pulls left. Returns names (ids
    of those without one) and bytes freed."""
    images = store()
    names, used = images.names(), images.used()
    removed, freed = [], images.clean(now - PARTIAL_SECONDS)
    for record in images.records():
        own = names.get(record.id)
        if record.id in used or (own and not everything):
            continue
        size = images.disk_of(record)
        with contextlib.suppress(ImageInUse):  # since a moment ago
            if images.remove(record.id):
                removed += own or [record.id]
                freed += size
    return removed, freed


# Registries


class Access(NamedTuple):
    """Registries as a lab reaches them, and the logins of this user."""

    transport: Transport
    registries: Registries
    paths: LabPaths


def registry_files(paths: LabPaths) -> list[Path]:
    """registries.conf of the home, then of the lab."""
    return [home() / "registries.conf", paths.registries]


def _reaching(lab: str, work: Callable[[Access], Awaitable[T]]) -> T:
    """Runs ``work`` with connections to registries. Raises LabError."""
    from navarch.world import RealWorld
    from nodeagent.images import registries
    from nodeagent.images.distribution import Transport

    paths = LabPaths(lab)
    record = LabRecord.load(paths.config)
    flag = "" if lab == "default" else f" --lab {lab}"
    ranges = (Addresses(record.index).range,) if record else ()
    way_out = egress.of_machine(record.egress if record else True, flag, ranges)
    world = RealWorld(brief=True)

    async def body() -> T:
        transport = Transport(world, way_out)
        try:
            return await work(Access(transport, registries.load(*registry_files(paths)), paths))
        except registries.BadRegistries as error:
            raise LabError(str(error)) from error
        finally:
            await transport.close()

    return world.run(body)


def own_logins(name: reference.Reference) -> list[Login]:
    """The logins that `docker login` has left for this user, for an image."""
    from nodeagent.images.credentials import matching, of_config

    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        document = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return []
    return matching(name, of_config(document.get("auths") if isinstance(document, dict) else None))


def pull(name: str, lab: str, report: Callable[[Progress], None]) -> Record:
    """Fetches an image into the store, as nodes of the lab would. Raises LabError."""
    from nodeagent.images.pull import Puller, PullFailed

    async def work(access: Access) -> Record:
        puller = Puller(access.transport.world, store(), access.transport, lambda: access.registries)
        try:
            return await puller.pull(name, own_logins(reference.parse(names_of([name])[0])), report)
        except PullFailed as error:
            raise LabError(str(error)) from error

    return _reaching(lab, work)


def push(name: str, target: str, lab: str, report: Callable[[Progress], None]) -> str:
    """Sends an image to the registry that ``target`` names; the digest there. Raises LabError."""
    from nodeagent.images.distribution import Repository
    from nodeagent.images.pull import Progress
    from nodeagent.images.push import PushFailed
    from nodeagent.images.push import push as push_image

    images = store()
    record = _find(images, name)
    place = reference.parse(names_of([target])[0])
    if place.domain == "localhost":
        raise LabError(f"{target} names no registry; say where to: navarch image push {name} localhost:5000/{place.path}")

    async def work(access: Access) -> str:
        endpoint = access.registries.endpoints(place)[-1]
        logins = own_logins(place)
        repository = Repository(access.transport, endpoint, logins[0] if logins else None)
        try:
            return await push_image(images, record, place, repository, Progress(report=report))
        except (PushFailed, ValueError) as error:
            raise LabError(str(error)) from error

    return _reaching(lab, work)
