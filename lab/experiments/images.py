"""The images that an experiment's pods run, and whether the home's store has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from lab.experiments.model import Experiment
from lab.paths import home
from nodeagent.images.reference import InvalidReference
from nodeagent.images.store import ImageStore


def images_of(e: Experiment) -> list[tuple[str, str]]:
    """(path in the file, image) of what is applied at the start and in steps, in order, each image once."""
    out: dict[str, str] = {}
    for path, image in _images(e):
        out.setdefault(image, path)
    return [(path, image) for image, path in out.items()]


def _images(e: Experiment) -> Iterator[tuple[str, str]]:
    for n, what in enumerate(e.cluster.objects):
        for image in _of_manifests(what):
            yield f"cluster.objects[{n}]", image
    for n, work in enumerate(e.workload):
        templates = (
            ("apply", work.apply), ("arrivals.template", work.arrivals and work.arrivals.template),
            ("generate.template", work.generate and work.generate.template),
        )  # fmt: skip
        for name, what in templates:
            for image in _of_manifests(what):
                yield f"workload[{n}].{name}", image
    for n, step in enumerate(e.steps):
        for image in _of_manifests(step.do.get("apply")):
            yield f"steps[{n}].do.apply", image
        for image in _of_manifests(step.do.get("patch")):
            yield f"steps[{n}].do.patch", image
        images = step.do.get("set-image")
        for value in images.values() if isinstance(images, dict) else ():
            for image in value.values() if isinstance(value, dict) else (value,):
                yield f"steps[{n}].do.set-image", str(image)


def _of_manifests(what: Any) -> Iterator[str]:
    if isinstance(what, str):
        try:
            what = list(yaml.safe_load_all(what))
        except yaml.YAMLError:
            return  # who applies it will be told
    yield from _of_tree(what)


def _of_tree(tree: Any) -> Iterator[str]:
    if isinstance(tree, list):
        for one in tree:
            yield from _of_tree(one)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key in ("containers", "initContainers") and isinstance(value, list):
                yield from (str(c["image"]) for c in value if isinstance(c, dict) and c.get("image"))
            else:
                yield from _of_tree(value)


def is_here(image: str) -> bool:
    """Whether the store has an image. An image whose name has a variable in it may be."""
    folder = home() / "images"
    if "${" in image:
        return True
    try:
        return folder.is_dir() and ImageStore(folder).find(image) is not None
    except InvalidReference:
        return False
