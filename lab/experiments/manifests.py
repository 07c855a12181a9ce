"""The manifests of an experiment as objects, each with its path in the file. Pure."""

from __future__ import annotations

import copy
import functools
import random
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from lab.experiments.model import Experiment
from nodeagent.runtime.spread import Spread, spread

VARIABLE = re.compile(r"\$\{(draw\.[\w-]+|n)\}")
"""Of templates: what each of the objects that are made of one has for itself."""


class Manifest(NamedTuple):
    """An object that a file makes. ``draw``: of a template, the names that may stand in it."""

    path: str
    tree: dict[str, Any]
    draw: Mapping[str, Any] | None = None


def of_text(what: Any) -> list[Any]:
    """The documents of a text, an object, or a list of objects; a List is its items. Raises yaml.YAMLError."""
    listed = _documents(what) if isinstance(what, str) else what if isinstance(what, list) else [what]
    out: list[Any] = []
    for one in listed:
        is_list = isinstance(one, dict) and one.get("kind") == "List" and isinstance(one.get("items"), list)
        out += one["items"] if is_list else [] if one is None else [one]
    return out


def _documents(text: str) -> list[Any]:
    return copy.deepcopy(_read(text))


@functools.lru_cache(512)
def _read(text: str) -> list[Any]:
    """A file is checked cell by cell, and most cells have the same manifests."""
    return list(yaml.safe_load_all(text))


def written(e: Experiment) -> Iterator[tuple[str, Any, Mapping[str, Any] | None]]:
    """Whatever holds manifests, in the order in which it is applied: path, text or object, ``draw`` of a template."""
    for n, what in enumerate(e.cluster.objects):
        yield f"cluster.objects[{n}]", what, None
    for n, work in enumerate(e.workload):
        if work.apply is not None:
            yield f"workload[{n}].apply", work.apply, None
        for name in ("generate", "arrivals"):
            if (part := getattr(work, name)) is not None:
                yield f"workload[{n}].{name}.template", part.template, part.draw
    for n, step in enumerate(e.steps):
        if "apply" in step.do:
            yield f"steps[{n}].do.apply", step.do["apply"], None


def manifests(e: Experiment) -> list[Manifest]:
    """All objects that a file makes; what is no object is told elsewhere."""
    out = []
    for path, what, draw in written(e):
        try:
            listed = of_text(what)
        except yaml.YAMLError:
            continue
        many = len(listed) > 1
        out += [
            Manifest(f"{path}[{n}]" if many else path, one, draw)
            for n, one in enumerate(listed)
            if isinstance(one, dict) and isinstance(one.get("metadata"), dict)
        ]
    return out


def filled(template: Any, draw: Mapping[str, Any], own: random.Random, n: int) -> str:
    """The text of one object of a template: its number, and what is drawn from distributions, stand in it."""
    values = {f"draw.{k}": v.draw(own) if isinstance(v := drawable(text), Spread) else v for k, text in draw.items()}
    values["n"] = n

    def one(match: re.Match[str]) -> str:
        value = values[match[1]]
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    return VARIABLE.sub(one, template if isinstance(template, str) else yaml.safe_dump(template))


def drawable(text: Any) -> Any:
    """A distribution or a time, as it is drawn from; what is none stands for itself. Raises ValueError for a distribution that
    there is not."""
    try:
        return spread(str(text))
    except ValueError:
        if _CALL.fullmatch(str(text)):
            raise
        return text


_CALL = re.compile(r"\s*\w+\(.*\)\s*")
