"""Image names, as everybody means them: ``nginx`` is ``docker.io/library/nginx:latest``.

A name whose first part has a dot or a colon, or is ``localhost``, names its registry; else it is Docker Hub's, and a
name of one part is of Docker Hub's ``library``. ``localhost/name`` is how local builds are called: it needs no registry
as long as the image is in the store.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_DOMAIN = re.compile(r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{32,}")
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}")


class InvalidReference(ValueError):
    """The text is not an image name. The message is Kubernetes' (reason InvalidImageName)."""


@dataclass(frozen=True)
class Reference:
    """A full name: registry, path, and a tag or a digest (or both)."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        return f"{self.domain}/{self.path}"

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def is_id(text: str) -> bool:
    """Whether the text is an image's id rather than a name."""
    return _ID.fullmatch(text) is not None


def parse(text: str) -> Reference:
    """The full reference of what a user wrote. Raises InvalidReference."""
    rest, _, digest = text.partition("@")
    if (digest or text.endswith("@")) and not _DIGEST.fullmatch(digest):
        raise _invalid(text)
    head, _, tail = rest.partition("/")
    if tail and (any(c in head for c in ".:") or head == "localhost" or head != head.lower()):
        domain, path = head, tail
    else:
        domain, path = "docker.io", rest
    path, _, tag = path.partition(":")
    if domain in ("docker.io", "index.docker.io"):
        domain = "docker.io"
        if "/" not in path:
            path = f"library/{path}"
    if not tag and not digest:
        if rest.endswith(":"):
            raise _invalid(text)
        tag = "latest"
    if tag and not _TAG.fullmatch(tag):
        raise _invalid(text)
    if not _DOMAIN.fullmatch(domain) or not _NAME.fullmatch(path) or is_id(rest):
        raise _invalid(text)
    return Reference(domain, path, tag, digest)


def _invalid(text: str) -> InvalidReference:
    return InvalidReference(f'couldn\'t parse image name "{text}": invalid reference format')
