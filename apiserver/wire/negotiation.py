"""Content negotiation: which shape of a reply the client asked for in its Accept header, and what a body's type is."""

from __future__ import annotations

import functools
from typing import NamedTuple

from navarch.api.errors import NotAcceptable

JSON, YAML = "application/json", "application/yaml"
META_GROUP = "meta.k8s.io"
_SHAPES = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")


class Accept(NamedTuple):
    """``shape`` is "" for the object itself, else Table, PartialObjectMetadata or PartialObjectMetadataList."""

    media_type: str = JSON
    shape: str = ""
    version: str = "v1"

    @property
    def content_type(self) -> bytes:
        return self.media_type.encode()


PLAIN = Accept()


@functools.lru_cache(256)
def clauses(header: str) -> list[tuple[str, dict[str, str]]]:
    """The media types of an Accept header with their parameters, in the order of preference."""
    weighted: list[tuple[float, int, str, dict[str, str]]] = []
    for at, clause in enumerate(header.split(",")):
        media_type, *rest = (part.strip() for part in clause.split(";"))
        parameters = {k.strip().lower(): v.strip().strip('"') for k, _, v in (p.partition("=") for p in rest)}
        try:
            weight = float(parameters.pop("q", "1"))
        except ValueError:
            weight = 1.0
        weighted.append((-weight, at, media_type.lower(), parameters))
    return [(media_type, parameters) for _, _, media_type, parameters in sorted(weighted, key=lambda f: f[:2])]


@functools.lru_cache(256)
def accept(header: str, shapes: bool = True) -> Accept:
    """The first thing in the header that we can send. Raises NotAcceptable (406) if there is none.

    ``shapes`` False: the reply has no Table or metadata-only form.
    """
    if not header:
        return PLAIN
    for media_type, parameters in clauses(header):
        if media_type in ("*/*", "application/*"):
            media_type = JSON
        if media_type not in (JSON, YAML):
            continue
        shape = parameters.get("as", "")
        if not shape:
            return Accept(media_type)
        version, group = parameters.get("v", ""), parameters.get("g", "")
        is_version = version in (("v1", "v1beta1") if shape == "Table" else ("v1",))
        if shapes and shape in _SHAPES and group == META_GROUP and is_version:
            return Accept(media_type, shape, version)
    raise NotAcceptable(f"only the following media types are accepted: {JSON}, {YAML}")


def media_type(header: str) -> str:
    """The type in a Content-Type header, without parameters, in lower case."""
    return header.partition(";")[0].strip().lower()
