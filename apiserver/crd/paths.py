"""JSONPath as definitions use it: printer columns, selectable fields, replicas of a scale.

Knows fields (``.a``, ``['a']``), wildcards, indices and slices, recursive descent (``..a``) and filters
(``[?(@.type=="Ready")]``). :func:`compile_path` parses once; the result finds values in trees.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

Step = Callable[[Any], Iterator[Any]]

_TOKEN = re.compile(
    r"""\.\.(?P<deep>[A-Za-z0-9_*-]+)
      | \.(?P<field>[^.\[\]'"]+)
      | \[\s*(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\s*\]
      | \[\s*(?P<star>\*)\s*\]
      | \[\s*(?P<index>-?\d+)\s*\]
      | \[\s*(?P<slice>-?\d*:-?\d*(?::-?\d+)?)\s*\]
      | \[\?\((?P<filter>.*?)\)\]""",
    re.VERBOSE,
)
_FILTER = re.compile(r"\s*@(?P<path>[^=!<>]*?)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*(?P<value>.+?))?\s*")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_SIMPLE = re.compile(r"(?:\.[A-Za-z_$][A-Za-z0-9_$-]*|\['(?:[^'\\]|\\.)+'\]|\[\"(?:[^\"\\]|\\.)+\"\])+")


class PathError(ValueError):
    """The text is no path that we know."""


class JSONPath:
    """A parsed path. :meth:`find` gives every value that it leads to, in order."""

    def __init__(self, text: str, steps: list[Step], fields: tuple[str, ...] | None) -> None:
        self.text = text
        self._steps = steps
        self.fields = fields
        """The names of the fields, if the path is nothing but fields."""

    def find(self, tree: Any) -> list[Any]:
        values = [tree]
        for step in self._steps:
            values = [value for one in values for value in step(one)]
        return values

    def first(self, tree: Any) -> Any:
        """The first value, None if there is none."""
        if self.fields is None:
            values = self.find(tree)
            return values[0] if values else None
        for name in self.fields:
            if not isinstance(tree, dict):
                return None
            tree = tree.get(name)
        return tree


def compile_path(text: str) -> JSONPath:
    """Raises PathError."""
    if not text.startswith((".", "[")):
        raise PathError(f"unrecognized path {text}")
    steps: list[Step] = []
    names: list[str] | None = []
    at = 0
    if text == ".":
        return JSONPath(text, [], ())
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise PathError(f"unrecognized character in path: {text[at:]}")
        at = token.end()
        name = token["field"]
        if token["quoted"] is not None:
            name = token["quoted"][1:-1].replace("\\'", "'").replace('\\"', '"')
        if name is not None and name != "*":
            steps.append(_field(name.replace("\\", "")))
            if names is not None:
                names.append(name.replace("\\", ""))
            continue
        names = None
        if name == "*" or token["star"]:
            steps.append(_children)
        elif token["deep"]:
            steps.append(_descend(token["deep"]))
        elif token["index"] is not None:
            steps.append(_index(int(token["index"])))
        elif token["slice"] is not None:
            parts = [int(p) if p else None for p in token["slice"].split(":")]
            steps.append(_slice(slice(*parts)))
        else:
            steps.append(_filter(token["filter"]))
    return JSONPath(text, steps, None if names is None else tuple(names))


def is_simple(text: str) -> bool:
    """Whether the path is nothing but fields."""
    return _SIMPLE.fullmatch(text) is not None


def simple(text: str) -> tuple[str, ...]:
    """The fields of a simple path. Raises PathError."""
    path = compile_path(text)
    if path.fields is None:
        raise PathError(f"is not a simple json path: {text}")
    return path.fields


def _field(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _descend(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            if name == "*":
                yield from value.values()
            elif name in value:
                yield value[name]
        for child in _children(value):
            yield from step(child)

    return step


def _index(at: int) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= at < len(value):
            yield value[at]

    return step


def _slice(at: slice) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from value[at]

    return step


def _filter(text: str) -> Step:
    match = _FILTER.fullmatch(text)
    if match is None:
        raise PathError(f"unrecognized filter {text}")
    path = compile_path(match["path"] or ".")
    if match["op"] is None:
        return lambda value: (one for one in _children(value) if path.find(one))
    compare, literal = _COMPARE[match["op"]], _literal(match["value"])

    def step(value: Any) -> Iterator[Any]:
        for one in _children(value):
            have = path.find(one)
            try:
                if have and compare(have[0], literal):
                    yield one
            except TypeError:
                continue

    return step


def _literal(text: str) -> Any:
    if text[:1] in "'\"" and text[-1:] == text[:1] and len(text) > 1:
        return text[1:-1]
    try:
        return json.loads(text)
    except ValueError:
        raise PathError(f"unrecognized value {text}") from None
