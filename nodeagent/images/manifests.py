"""Manifests and indexes, as registries have them: what we take, and which image of an index is this machine's. Pure.

Nothing in them is trusted: digests become file names, sizes are promises, and lists may be endless.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

OCI_INDEX, DOCKER_LIST = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
OCI_MANIFEST, DOCKER_MANIFEST = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEXES, MANIFESTS = (OCI_INDEX, DOCKER_LIST), (OCI_MANIFEST, DOCKER_MANIFEST)
ACCEPT = ", ".join((*MANIFESTS, *INDEXES))
CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
LAYERS = frozenset(
    [base + suffix for base in (_LAYER, _FOREIGN) for suffix in ("", "+gzip", "+zstd")]
    + [f"application/vnd.docker.image.rootfs.{kind}.tar.gzip" for kind in ("diff", "foreign.diff")]
    + ["application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.diff.tar.zstd"]
)
MAX_MANIFEST = 4 << 20  # bytes, as other clients and registries have it
MAX_CONFIG = 8 << 20  # bytes
MAX_LAYERS = 500  # overlayfs takes no more
MAX_SIZE = 1 << 40  # bytes of one layer


class BadManifest(ValueError):
    """It is no image that this machine can run; the message says why."""


@dataclass(frozen=True)
class Descriptor:
    """A blob by digest; ``size`` in bytes as its manifest promises."""

    digest: str
    size: int
    media_type: str = ""


@dataclass(frozen=True)
class Manifest:
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers) + self.config.size


def decode(data: bytes) -> dict[str, Any]:
    """The JSON object. Raises BadManifest."""
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadManifest(f"the manifest is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadManifest("the manifest is no JSON object")
    return document


def kind_of(document: dict[str, Any], content_type: str) -> str:
    """Its media type: as it says itself, else as the registry said, else as it looks. Raises BadManifest."""
    if document.get("schemaVersion") == 1 or "fsLayers" in document:
        raise BadManifest("the manifest is of schema 1, which is no longer supported; push the image anew")
    declared = document.get("mediaType") or content_type.partition(";")[0].strip()
    if declared in (*INDEXES, *MANIFESTS):
        return str(declared)
    return OCI_INDEX if "manifests" in document else OCI_MANIFEST


def read(document: dict[str, Any]) -> Manifest:
    """An image's manifest. Raises BadManifest."""
    config = _descriptor(document.get("config"), "config", MAX_CONFIG)
    if config.media_type not in ("", *CONFIGS):
        raise BadManifest(f"it is no image for containers: its config is {config.media_type}")
    listed = document.get("layers")
    if not isinstance(listed, list) or len(listed) > MAX_LAYERS:
        raise BadManifest(f"an image has a list of at most {MAX_LAYERS} layers")
    layers = tuple(_descriptor(entry, f"layers[{i}]", MAX_SIZE) for i, entry in enumerate(listed))
    for i, layer in enumerate(layers):
        if layer.media_type and layer.media_type not in LAYERS:
            raise BadManifest(f"layers[{i}] is of type {layer.media_type}, which is no layer that can be unpacked")
    return Manifest(config, layers)


def _descriptor(entry: Any, where: str, most: int) -> Descriptor:
    from nodeagent.images.store import hexadecimal

    fields = entry if isinstance(entry, dict) else {}
    digest, size, kind = fields.get("digest"), fields.get("size"), fields.get("mediaType") or ""
    if not isinstance(digest, str) or not isinstance(size, int) or isinstance(size, bool) or not isinstance(kind, str):
        raise BadManifest(f"{where} of the manifest has no digest and size")
    try:
        hexadecimal(digest)
    except ValueError as error:
        raise BadManifest(f"{where}: {error}") from None
    if not 0 <= size <= most:
        raise BadManifest(
            f"{where} has {size} bytes, which is more than {most}" if size > 0 else f"{where} has {size} bytes"
        )
    return Descriptor(digest, size, kind)


def choose(document: dict[str, Any], architecture: str, variant: str = "") -> Descriptor:
    """The entry of an index for linux on this architecture; of several, the one of our variant. Raises BadManifest."""
    entries = document.get("manifests")
    if not isinstance(entries, list) or len(entries) > 10 * MAX_LAYERS:
        raise BadManifest("the index has no list of manifests")
    fits: list[tuple[int, int, Any]] = []
    others: dict[str, None] = {}
    for i, entry in enumerate(entries):
        fields = entry if isinstance(entry, dict) else {}
        where = fields.get("platform") if isinstance(fields.get("platform"), dict) else {}
        assert isinstance(where, dict)
        system, machine, own = (
            where.get("os", "linux"),
            where.get("architecture", architecture),
            where.get("variant") or "",
        )
        if (system, machine) == ("linux", architecture) and own in ("", variant, *_BASE.get(architecture, ())):
            fits.append((0 if own == variant else 1, i, entry))
        else:
            others[f"{system}/{machine}" + (f"/{own}" if own else "")] = None
    if not fits:
        there = ", ".join(o for o in others if o != "unknown/unknown") or "none at all"
        raise BadManifest(f"no image for linux/{architecture}: the index has {there}")
    return _descriptor(min(fits, key=lambda f: f[:2])[2], "the index's entry", MAX_MANIFEST)


_BASE = {"amd64": ("v1",), "arm64": ("v8",), "arm": ("v7", "v6", "v5")}  # variants that every such machine runs


def check_platform(config: dict[str, Any], architecture: str) -> None:
    """The image's config must be for this machine. Raises BadManifest."""
    own = f"{config.get('os') or 'linux'}/{config.get('architecture') or architecture}"
    if own != f"linux/{architecture}":
        raise BadManifest(f"the image is for {own}, this machine is linux/{architecture}")
