"""Images as files: import of OCI layouts (a directory or a tar) and docker archives, export as a tar that both read."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec

from navarch.linux import syscalls
from nodeagent.images.reference import InvalidReference, parse
from nodeagent.images.store import CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE, ImageStore, Record, hexadecimal

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def architecture() -> str:
    """This machine's architecture in OCI's words."""
    machine = platform.machine()
    return _MACHINES.get(machine, machine)


class Source(Protocol):
    """The files of an archive."""

    def open(self, name: str) -> contextlib.AbstractContextManager[IO[bytes]]: ...

    def __contains__(self, name: str) -> bool: ...


class DirectorySource:
    """Names come from the archive's own manifests: none leads out of the directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __contains__(self, name: str) -> bool:
        try:
            return syscalls.path_in_root(self.root, name).is_file()
        except OSError:
            return False

    def open(self, name: str) -> IO[bytes]:
        if name not in self:
            raise ValueError(f"archive has no {name}")
        return open(os.open(syscalls.path_in_root(self.root, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


class TarSource:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self.archive = archive
        self.members = {os.path.normpath(member.name): member for member in archive}

    def __contains__(self, name: str) -> bool:
        return os.path.normpath(name) in self.members

    def open(self, name: str) -> IO[bytes]:
        member = self.members.get(os.path.normpath(name))
        stream = self.archive.extractfile(member) if member else None
        if stream is None:
            raise ValueError(f"archive has no {name}")
        return stream


def load(store: ImageStore, path: str | Path, names: Iterable[str] = ()) -> list[Record]:
    """Imports every image of an archive. ``names`` replace those in the archive when it holds one image.

    Raises ValueError when it is no image archive or is damaged.
    """
    path = Path(path)
    with store.lock("collection", shared=True):
        if path.is_dir():
            return _load(store, DirectorySource(path), list(names))
        try:
            with tarfile.open(path) as archive:
                return _load(store, TarSource(archive), list(names))
        except tarfile.TarError as error:
            raise ValueError(f"{path} is not an image archive: {error}") from error


def _load(store: ImageStore, source: Source, names: list[str]) -> list[Record]:
    if "index.json" in source:
        return _load_layout(store, source, names)
    if "manifest.json" in source:
        return _load_docker(store, source, names)
    raise ValueError("neither an OCI layout (index.json) nor a docker archive (manifest.json)")


def _read(source: Source, name: str) -> Any:
    with source.open(name) as file:
        return msgspec.json.decode(file.read())


def _load_layout(store: ImageStore, source: Source, names: list[str]) -> list[Record]:
    descriptors = _read(source, "index.json").get("manifests") or []
    if names and len(descriptors) > 1:
        raise ValueError("the archive holds several images: their own names must do")
    records = []
    for descriptor in descriptors:
        annotations = descriptor.get("annotations") or {}
        own = next((annotations[key] for key in _NAME_ANNOTATIONS if annotations.get(key)), "")
        manifest = _choose(source, descriptor)
        _copy(store, source, manifest["digest"])
        content = msgspec.json.decode(store.blob(manifest["digest"]).read_bytes())
        _copy(store, source, content["config"]["digest"])
        for layer in content.get("layers") or []:
            _copy(store, source, layer["digest"])
        records.append(store.add(manifest["digest"], names or _valid([own]), descriptor["digest"]))
    return records


def _valid(names: Iterable[str]) -> list[str]:
    """Those names that are image names: an OCI layout's ref.name is often only a tag, which names nothing here."""
    valid = []
    for name in names:
        with contextlib.suppress(InvalidReference):
            if name and (":" in name or "/" in name):
                parse(name)
                valid.append(name)
    return valid


def _choose(source: Source, descriptor: dict[str, Any]) -> dict[str, Any]:
    """The manifest for this machine, when the descriptor is an index of several."""
    if descriptor.get("mediaType") not in _INDEXES:
        return descriptor
    choices = _read(source, _blob_name(descriptor["digest"])).get("manifests") or []
    for choice in choices:
        where = choice.get("platform") or {}
        if where.get("os", "linux") == "linux" and where.get("architecture", architecture()) == architecture():
            return _choose(source, choice)
    raise ValueError(f"no image for linux/{architecture()} in the index {descriptor['digest']}")


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{hexadecimal(digest)}"


def _copy(store: ImageStore, source: Source, digest: str) -> None:
    if not store.blob(digest).exists():
        with source.open(_blob_name(digest)) as stream:
            store.add_blob(stream, digest)


def _load_docker(store: ImageStore, source: Source, names: list[str]) -> list[Record]:
    entries = _read(source, "manifest.json")
    if names and len(entries) > 1:
        raise ValueError("the archive holds several images: their own names must do")
    records = []
    for entry in entries:
        with source.open(entry["Config"]) as stream:
            config, size = store.add_blob(stream)
        blobs = []
        for name in entry.get("Layers") or []:
            with source.open(name) as stream:
                blobs.append(store.add_blob(stream))
        records.append(add_image(store, (config, size), blobs, names or _valid(entry.get("RepoTags") or [])))
    return records


def add_image(
    store: ImageStore, config: tuple[str, int], blobs: Iterable[tuple[str, int]], names: Iterable[str]
) -> Record:
    """Makes an image of a config and layer blobs (digest and length each) that are in the store: writes its manifest."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": config[0], "size": config[1]},
        "layers": [{"mediaType": _layer_type(store, d), "digest": d, "size": size} for d, size in blobs],
    }
    digest, _ = store.add_blob(io.BytesIO(msgspec.json.encode(manifest)))
    return store.add(digest, names)


def _layer_type(store: ImageStore, digest: str) -> str:
    with open(store.blob(digest), "rb") as file:
        magic = file.read(4)
    if magic[:2] == b"\x1f\x8b":
        return LAYER_TYPE + "+gzip"
    return LAYER_TYPE + ("+zstd" if magic == b"\x28\xb5\x2f\xfd" else "")


def save(store: ImageStore, images: Iterable[str], target: IO[bytes]) -> None:
    """Writes images (names or ids) as one tar: an OCI layout that carries a docker archive's manifest.json too.

    Raises KeyError for an image that is not here.
    """
    index: list[dict[str, Any]] = []
    docker: list[dict[str, Any]] = []
    blobs: dict[str, None] = {}
    all_names = store.names()
    with store.lock("collection", shared=True), tarfile.open(fileobj=target, mode="w|") as archive:
        for image in images:
            record = store.find(image)
            if record is None:
                raise KeyError(image)
            raw = store.blob(record.manifest).read_bytes()
            manifest = msgspec.json.decode(raw)
            names = all_names.get(record.id, [])
            if image in names or not image.endswith(record.id.removeprefix("sha256:")):
                names = [str(parse(image))]
            descriptor = {
                "mediaType": manifest.get("mediaType", MANIFEST_TYPE),
                "digest": record.manifest,
                "size": len(raw),
                "platform": {"architecture": store.config(record.id).architecture or architecture(), "os": "linux"},
            }
            for name in names or [""]:
                annotations = {"annotations": dict.fromkeys(_NAME_ANNOTATIONS, name)} if name else {}
                index.append({**descriptor, **annotations})
            inside = [layer["digest"] for layer in manifest.get("layers") or []]
            docker.append(
                {"Config": _blob_name(record.id), "RepoTags": names, "Layers": [_blob_name(d) for d in inside]}
            )
            blobs.update(dict.fromkeys((record.manifest, record.id, *inside)))
        _add(archive, "oci-layout", msgspec.json.encode({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", msgspec.json.encode({"schemaVersion": 2, "manifests": index}))
        _add(archive, "manifest.json", msgspec.json.encode(docker))
        for digest in blobs:
            member = tarfile.TarInfo(_blob_name(digest))
            path = store.blob(digest)
            member.size = path.stat().st_size
            with open(path, "rb") as file:
                archive.addfile(member, file)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
