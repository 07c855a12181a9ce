"""The image store: one directory that every node of a machine shares.

::

    blobs/sha256/HEX     manifests, configs and layers, as they came
    layers/HEX           each layer, by its diff id, unpacked once: lower directories of the containers' overlays
    images/HEX.json      a Record an image, by the digest of its config
    names/QUOTED         reference -> image id (and the reference once more, where it is too long for a file's name)
    partial/HEX          blobs that are being fetched, or were when it broke: the next pull goes on there
    uses/NODE/CONTAINER  image id, for images that a container of some node stands on; uses/NODE/.directory says where
                         that node keeps its data: uses of a node that has been deleted count no more

Every file appears by rename and never changes, so readers take no lock. Writers lock what they make (flock: gone with
the process), so that two nodes that want the same layer unpack it once.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import stat
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from navarch.linux import syscalls
from nodeagent.images import layers
from nodeagent.images.reference import InvalidReference, Reference, is_id, parse
from nodeagent.linux import diskusage, trees

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MAX_QUOTED = 200  # bytes of a name of a file; the kernel's limit is 255, and what is written first has a longer one
_LONG = "~"  # begins the files of longer names, and no name


class Record(msgspec.Struct, frozen=True):
    """The store's record of an image. ``id`` is its config's digest, ``layers`` are diff ids, lowest first."""

    id: str
    manifest: str
    layers: tuple[str, ...]
    size: int
    digests: tuple[str, ...] = ()  # repository@digest, for names it was pulled by
    pulled: bool = False  # from a registry, so that it can come back; what was built or imported cannot

    def identity(self, name: str) -> str:
        """The image as a container's status names it that asked for it by this name: by its registry's digest, if one has
        it, else by id."""
        try:
            reference = parse(name)
        except InvalidReference:
            return self.id
        start = f"{reference.repository}@"
        local = reference.domain == "localhost"  # a build's name: no registry knows it
        return self.id if local else next((d for d in reversed(self.digests) if d.startswith(start)), self.id)


class Settings(msgspec.Struct, frozen=True):
    """The part of an image's config that containers are made from. Wire names are OCI's."""

    user: str = msgspec.field(default="", name="User")
    entrypoint: list[str] | None = msgspec.field(default=None, name="Entrypoint")
    cmd: list[str] | None = msgspec.field(default=None, name="Cmd")
    env: list[str] | None = msgspec.field(default=None, name="Env")
    working_dir: str = msgspec.field(default="", name="WorkingDir")
    stop_signal: str = msgspec.field(default="", name="StopSignal")
    volumes: dict[str, Any] | None = msgspec.field(default=None, name="Volumes")
    labels: dict[str, str] | None = msgspec.field(default=None, name="Labels")
    exposed_ports: dict[str, Any] | None = msgspec.field(default=None, name="ExposedPorts")


class RootFS(msgspec.Struct, frozen=True):
    diff_ids: list[str] = []
    type: str = "layers"


class Config(msgspec.Struct, frozen=True):
    """An image's config blob."""

    architecture: str = ""
    os: str = "linux"
    created: str | None = None
    config: Settings | None = None
    rootfs: RootFS = RootFS()


class ImageInUse(Exception):
    """The image cannot be removed: a container stands on it."""


def hexadecimal(digest: str) -> str:
    """The part after ``sha256:``. Raises ValueError for anything else: digests become file names."""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ValueError(f"unsupported digest {digest!r}")
    return value


class ImageStore:
    """See the module. Methods block (they read and write files): call them from a thread."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).resolve()
        for name in ("blobs/sha256", "layers", "images", "names", "partial", "uses", "locks", "tmp"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "layers").chmod(0o700)  # set-user-id programs of images are for containers only
        (self.root / "tmp").chmod(0o700)
        (self.root / "partial").chmod(0o700)

    # -- blobs and layers

    def blob(self, digest: str) -> Path:
        return self.root / "blobs/sha256" / hexadecimal(digest)

    def layer(self, diff_id: str) -> Path:
        # Half of the digest: an overlay names all its layers within one page.
        return self.root / "layers" / hexadecimal(diff_id)[:32]

    @contextlib.contextmanager
    def lock(self, name: str, shared: bool = False) -> Iterator[None]:
        """Holds the lock of that name against other threads and processes."""
        fd = os.open(self.root / "locks" / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def try_lock(self, name: str) -> int | None:
        """Takes a lock for as long as the descriptor is open; None if another process or thread has it."""
        fd = os.open(self.root / "locks" / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            os.close(fd)
            return None

    def partial(self, digest: str) -> Path:
        return self.root / "partial" / hexadecimal(digest)

    @contextlib.contextmanager
    def temporary(self) -> Iterator[str]:
        """A scratch directory on the store's file system."""
        place = tempfile.mkdtemp(dir=self.root / "tmp")
        try:
            yield place
        finally:
            _discard(place)

    def add_blob(self, stream: Any, digest: str | None = None) -> tuple[str, int]:
        """Stores a stream. Returns digest and length; raises ValueError if it is not the digest asked for."""
        fd, name = tempfile.mkstemp(dir=self.root / "tmp")
        try:
            reader = layers.Hashing(stream)
            with os.fdopen(fd, "wb") as file:
                while data := reader.read(1 << 20):
                    file.write(data)
            if digest is not None and reader.digest != digest:
                raise ValueError(f"blob is {reader.digest}, not {digest} as announced")
            os.chmod(name, 0o644)
            os.rename(name, self.blob(reader.digest))
            return reader.digest, reader.length
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)

    def budget(self, sizes: Iterable[int]) -> layers.Budget:
        """Returns the budget of an image whose layers have blobs of these sizes."""
        return layers.Budget(layers.size_limit(sum(sizes)), self.root)

    def add_layer(self, diff_id: str, blob: str, budget: layers.Budget | None = None) -> Path:
        """Unpacks a layer's blob unless that is done; checks the diff id."""
        target = self.layer(diff_id)
        if target.exists():
            return target
        with self.lock(target.name):
            if target.exists():
                return target
            with self.temporary() as scratch:
                directory = Path(scratch) / "layer"
                directory.mkdir(mode=0o755)
                with layers.uncompressed(self.blob(blob)) as stream:
                    limit = layers.size_limit(self.blob(blob).stat().st_size)
                    digest = layers.extract(stream, directory, limit, budget)
                if digest != diff_id:
                    raise ValueError(f"layer is {digest}, not {diff_id} as the image's config says")
                directory.rename(target)
        return target

    # -- images

    def add(
        self, manifest_digest: str, names: Iterable[str] = (), repository_digest: str = "", *, pulled: bool = False
    ) -> Record:
        """Makes an image of blobs that are here already: unpacks its layers, then names it.

        ``repository_digest`` is the digest a registry knows it by (an index's, maybe); by default the manifest's.
        """
        manifest = msgspec.json.decode(self.blob(manifest_digest).read_bytes())
        config_digest = manifest["config"]["digest"]
        config = self._config(config_digest)
        blobs = manifest.get("layers") or []
        diff_ids = config.rootfs.diff_ids
        if len(blobs) != len(diff_ids):
            raise ValueError(f"manifest has {len(blobs)} layers, config has {len(diff_ids)}")
        full = [parse(name) for name in names]
        with self.lock("collection", shared=True):
            budget = self.budget(self.blob(layer["digest"]).stat().st_size for layer in blobs)
            for layer, diff_id in zip(blobs, diff_ids, strict=True):
                self.add_layer(diff_id, layer["digest"], budget)
            record_ = self.record(config_digest)
            digests = dict.fromkeys(record_.digests if record_ else ())
            for name in full:
                digests[f"{name.repository}@{repository_digest or manifest_digest}"] = None
            size = sum(layer["size"] for layer in blobs) + manifest["config"]["size"]
            comes_back = pulled and (record_ is None or record_.pulled)
            record = Record(config_digest, manifest_digest, tuple(diff_ids), size, tuple(digests), comes_back)
            syscalls.write_atomic(self._record_path(config_digest), msgspec.json.encode(record))
            for name in full:
                self.tag(name, config_digest)
        return record

    def tag(self, name: Reference | str, image_id: str) -> None:
        """Gives an image a name (taking it from another image, if need be)."""
        reference = parse(name) if isinstance(name, str) else name
        path = self._name_path(reference)
        text = f"{image_id}\n{reference}" if path.name.startswith(_LONG) else image_id
        syscalls.write_atomic(path, text.encode())

    def _name_path(self, reference: Reference) -> Path:
        """The file of a name. A name with many slashes may be longer than a file's: then its digest stands for it."""
        quoted = urllib.parse.quote(str(reference), safe="")
        if len(quoted) > MAX_QUOTED:
            quoted = _LONG + hashlib.sha256(quoted.encode()).hexdigest()
        return self.root / "names" / quoted

    def _record_path(self, image_id: str) -> Path:
        return self.root / "images" / f"{hexadecimal(image_id)}.json"

    def record(self, image_id: str) -> Record | None:
        try:
            return msgspec.json.decode(self._record_path(image_id).read_bytes(), type=Record)
        except FileNotFoundError:
            return None

    def is_whole(self, record: Record) -> bool:
        """Returns true if nothing of the image has been lost."""
        return self.blob(record.id).exists() and all(self.layer(diff_id).exists() for diff_id in record.layers)

    def last_used(self, image_id: str) -> float:
        """When the image was made, pulled, or last left by a container: Unix seconds, 0 if it is not here."""
        try:
            return self._record_path(image_id).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _touch(self, image_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._record_path(image_id))

    def find(self, name: str) -> Record | None:
        """The image of a name or id, None if it is not here. Raises InvalidReference."""
        if is_id(name):
            return self.record(name if name.startswith("sha256:") else f"sha256:{name}")
        reference = parse(name)
        candidates = [reference]
        if reference.tag and reference.digest:
            candidates = [Reference(reference.domain, reference.path, "", reference.digest)]
        for candidate in candidates:
            try:
                image_id = self._name_path(candidate).read_text().partition("\n")[0]
            except FileNotFoundError:
                continue
            return self.record(image_id)
        if reference.digest:
            pinned = f"{reference.repository}@{reference.digest}"
            for record in self.records():
                if pinned in record.digests:
                    return record
        return None

    def records(self) -> list[Record]:
        """Every image, by id."""
        records = []
        for path in sorted((self.root / "images").glob("*.json")):
            with contextlib.suppress(FileNotFoundError):
                records.append(msgspec.json.decode(path.read_bytes(), type=Record))
        return records

    def names(self) -> dict[str, list[str]]:
        """Image id -> its names, sorted."""
        names: dict[str, list[str]] = {}
        for path in sorted((self.root / "names").iterdir()):
            if not path.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):
                    image_id, _, long_name = path.read_text().partition("\n")
                    names.setdefault(image_id, []).append(long_name or urllib.parse.unquote(path.name))
        return names

    def config(self, image_id: str) -> Config:
        """The config of an image that is here. It never changes, hence the cache."""
        return self._config(image_id)

    @functools.lru_cache(maxsize=512)  # noqa: B019 - a store lives as long as its process
    def _config(self, digest: str) -> Config:
        return msgspec.json.decode(self.blob(digest).read_bytes(), type=Config)

    # -- uses and removal

    def _uses(self, node: Path) -> Path:
        return self.root / "uses" / hashlib.sha256(os.fsencode(node)).hexdigest()[:32]

    def use(self, node: Path, container: str, image_id: str) -> None:
        """Notes that a container stands on the image, so that nobody removes it. A node is known by the directory of its
        data, since names of nodes repeat from lab to lab. Raises KeyError if the image is not here."""
        directory = self._uses(node)
        with self.lock("collection", shared=True):
            if self.record(image_id) is None:
                raise KeyError(image_id)
            if not directory.exists():
                directory.mkdir(exist_ok=True)
                syscalls.write_atomic(directory / ".directory", os.fsencode(node))
            syscalls.write_atomic(directory / container, image_id.encode())
            self._touch(image_id)

    def release(self, node: Path, container: str) -> None:
        """The container is gone."""
        path = self._uses(node) / container
        with contextlib.suppress(FileNotFoundError, ValueError):
            self._touch(path.read_text())
            path.unlink()

    def release_node(self, node: Path, keep: Iterable[str] = ()) -> None:
        """Forgets the uses of a node but for some containers: a node that lost its power has none left."""
        to_keep = frozenset(keep)
        directory = self._uses(node)
        if directory.exists():
            for path in directory.iterdir():
                if path.name not in to_keep and path.name != ".directory":
                    path.unlink(missing_ok=True)

    def used(self) -> set[str]:
        """Ids of the images that some container of some node stands on."""
        ids: set[str] = set()
        for directory in (self.root / "uses").iterdir():
            try:
                alive = os.path.exists((directory / ".directory").read_bytes())
            except FileNotFoundError:  # just being made
                alive = True
            if not alive:
                _discard(directory)
                continue
            for path in directory.iterdir():
                if not path.name.startswith("."):
                    with contextlib.suppress(FileNotFoundError):
                        ids.add(path.read_text())
        return ids

    def untag(self, name: str) -> bool:
        """Takes a name away. The image stays until it is removed by id or collected."""
        try:
            self._name_path(parse(name)).unlink()
            return True
        except FileNotFoundError:
            return False

    def remove(self, image_id: str) -> bool:
        """Removes an image, its names, and the layers and blobs no other image has. False if it was not here.

        Raises ImageInUse.
        """
        with self.lock("collection"):
            if self.record(image_id) is None:
                return False
            if image_id in self.used():
                raise ImageInUse(f"image {image_id} is in use by a container")
            for name in self.names().get(image_id, []):
                self.untag(name)
            self._record_path(image_id).unlink()
            leaving = self._set_aside()
        _discard(leaving)
        return True

    def clean(self, older_than: float) -> int:
        """Removes what crashes and broken pulls left before a moment (Unix seconds); bytes that this freed."""
        freed = 0
        for folder in ("partial", "tmp"):
            for path in (self.root / folder).iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if path.lstat().st_mtime >= older_than:
                        continue
                    freed += size_of(path)
                    _discard(path)
        return freed

    def disk_of(self, record: Record) -> int:
        """Bytes on disk that no other image needs: what removing it frees."""
        others = [other for other in self.records() if other.id != record.id]
        shared_layers = {diff_id for other in others for diff_id in other.layers}
        shared_blobs = {blob for other in others for blob in self._blobs(other)}
        paths = [self.layer(diff_id) for diff_id in dict.fromkeys(record.layers) if diff_id not in shared_layers]
        paths += [self.blob(blob) for blob in self._blobs(record) if blob not in shared_blobs]
        return sum(size_of(path) for path in paths)

    def _blobs(self, record: Record) -> dict[str, None]:
        """The digests of an image's blobs; without its layers' if its manifest is lost."""
        blobs = dict.fromkeys((record.id, record.manifest))
        with contextlib.suppress(FileNotFoundError):
            manifest = msgspec.json.decode(self.blob(record.manifest).read_bytes())
            blobs.update(dict.fromkeys(layer["digest"] for layer in manifest.get("layers") or []))
        return blobs

    def _set_aside(self) -> Path:
        """Moves blobs and layers that no image has (under the exclusive lock) into a scratch directory: a layer is there
        as a whole or not at all, whoever looks."""
        blobs: set[str] = set()
        layer_names: set[str] = set()
        for record in self.records():
            blobs.update(self._blobs(record))
            layer_names.update(self.layer(diff_id).name for diff_id in record.layers)
        aside = Path(tempfile.mkdtemp(dir=self.root / "tmp"))
        for path in (self.root / "layers").iterdir():
            if path.name not in layer_names:
                path.rename(aside / f"layer-{path.name}")
        for path in (self.root / "blobs/sha256").iterdir():
            if f"sha256:{path.name}" not in blobs:
                path.rename(aside / path.name)
        return aside


def size_of(path: Path) -> int:
    """Bytes on disk of a file, or of all in a directory, however deep."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return 0
    return diskusage.measure(str(path)).bytes if stat.S_ISDIR(info.st_mode) else info.st_blocks * 512


def _discard(path: str | Path) -> None:
    """Removes what nobody needs any more, however deep; what does not go has its turn in :meth:`ImageStore.clean`."""
    with contextlib.suppress(OSError):
        trees.remove(path)


__all__ = ["Config", "ImageInUse", "ImageStore", "InvalidReference", "Record", "Settings"]
