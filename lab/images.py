"""The images of a home's labs, for `navarch image`: one store that all nodes share, no registry needed."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from lab.paths import LabError, home, private_directory
from nodeagent.images import archive, reference
from nodeagent.images.build import build as build_image
from nodeagent.images.dockerfile import BuildError
from nodeagent.images.store import ImageInUse, ImageStore, Record

Log = Callable[[str], None]


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


def load(path: Path, names: list[str]) -> list[Record]:
    """Imports an OCI layout (directory or tar) or a docker archive. Raises LabError."""
    try:
        return archive.load(store(), path, names_of(names))
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        raise LabError(f"{path}: {error}") from error


def listed() -> list[Listed]:
    """Every name of every image, by name."""
    listed_images, images = [], store()
    names = images.names()
    for record in images.records():
        for name in names.get(record.id) or ["<none>"]:
            listed_images.append(Listed(name, record.id, record.size))
    return sorted(listed_images)


def remove(name: str) -> None:
    """Removes an image by name or id, with all its names. Raises LabError."""
    images = store()
    record = images.find(name)
    if record is None:
        raise LabError(f'there is no image "{name}"; see: navarch image list')
    try:
        images.remove(record.id)
    except ImageInUse as error:
        raise LabError(f"{name}: {error}") from error
