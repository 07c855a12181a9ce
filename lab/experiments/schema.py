"""Reads a tree strictly into structs, and gathers every mistake with its path and what was probably meant.

msgspec stops at the first mistake; a person who writes a file wants all of them.
"""

from __future__ import annotations

import difflib
import functools
import math
import types
import typing
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import msgspec

from lab.experiments import load as loads
from lab.experiments.expressions import Expression, ExpressionError, meant
from nodeagent.runtime.spread import spread

T = TypeVar("T")


class Problem(typing.NamedTuple):
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path or 'the file'}: {self.text}"


class WrongFile(ValueError):
    """The file is wrong; ``problems`` are all that is."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class Strict(msgspec.Struct, forbid_unknown_fields=True, rename="kebab", kw_only=True):
    """Base of the parts of a file. Names are written with hyphens; fields without a default must be there."""


Words = str | int | float | bool
"""A value that may be written bare."""


def read(kind: type[T], tree: Any, path: str, problems: list[Problem]) -> T | None:
    """The struct that a tree is; None, with ``problems`` added, if it is none."""
    before = len(problems)
    value = _value(kind, tree, path, problems)
    return value if len(problems) == before else None


def _value(kind: Any, tree: Any, path: str, problems: list[Problem]) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return tree
    if origin in (typing.Union, types.UnionType):
        if tree is None and type(None) in arguments:
            return None
        fitting = [a for a in arguments if _fits(a, tree)]
        if not fitting:
            names = " or ".join(_name(a) for a in arguments if a is not type(None))
            problems.append(Problem(path, f"{_shown(tree)} is not {names}"))
            return None
        return _value(fitting[0], tree, path, problems)
    if not _fits(kind, tree):
        problems.append(Problem(path, f"{_shown(tree)} is not {_name(kind)}"))
        return None
    if origin is list:
        return [_value(arguments[0], one, f"{path}[{n}]", problems) for n, one in enumerate(tree)]
    if origin is dict:
        return {str(k): _value(arguments[1], v, f"{path}.{k}" if path else str(k), problems) for k, v in tree.items()}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct(kind, tree, path, problems)
    return float(tree) if kind is float else tree


def _struct(kind: type[msgspec.Struct], tree: dict[str, Any], path: str, problems: list[Problem]) -> Any:
    fields = _fields(kind)
    values: dict[str, Any] = {}
    for key, value in tree.items():
        where = f"{path}.{key}" if path else str(key)
        if key not in fields:
            problems.append(Problem(where, f"there is no such field{meant(str(key), fields)}"))
            continue
        values[fields[key].name] = _value(fields[key].type, value, where, problems)
    for name, field in fields.items():
        if field.required and name not in tree:
            problems.append(Problem(f"{path}.{name}" if path else name, "is required"))
            return None
    return None if problems else kind(**values)


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {f.encode_name: f for f in msgspec.structs.fields(kind)}


def _fits(kind: Any, tree: Any) -> bool:
    origin = typing.get_origin(kind)
    if origin is list:
        return isinstance(tree, list)
    if origin is dict or (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return isinstance(tree, dict)
    if kind in (int, float):
        return isinstance(tree, int if kind is int else (int, float)) and not isinstance(tree, bool)
    return isinstance(tree, kind)


def _name(kind: Any) -> str:
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    origin = typing.get_origin(kind)
    if origin is list:
        return "a list"
    if origin is dict or (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return "a mapping"
    return names.get(kind, str(kind))


def _shown(tree: Any) -> str:
    text = repr(tree)
    return text if len(text) < 60 else text[:57] + "..."


def time_of(value: Any, path: str, problems: list[Problem]) -> None:
    """Adds a problem unless the value is a time or a distribution of times."""
    try:
        spread(str(value))
    except ValueError as error:
        problems.append(Problem(path, str(error)))


def seconds_of(value: Any, path: str, problems: list[Problem]) -> float:
    """A time such as ``30s``, ``2m`` or a number; 0, with a problem added, if it is none."""
    try:
        number = spread(str(value))
    except ValueError as error:
        problems.append(Problem(path, str(error)))
        return 0.0
    if not isinstance(number, float):
        problems.append(Problem(path, f"{value!r}: a time is expected here, not a distribution"))
        return 0.0
    return number


def above_0(value: Any, path: str, problems: list[Problem]) -> None:
    """Adds a problem unless the value is a time above 0."""
    before = len(problems)
    if seconds_of(value, path, problems) <= 0 and len(problems) == before:
        problems.append(Problem(path, "must be above 0"))


def part_of(value: Any) -> float:
    """0.1 of ``10%`` or 0.1. Raises ValueError."""
    text = str(value).strip()
    part = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    if not 0 < part < math.inf:
        raise ValueError
    return part


def rate_of(value: Any, path: str = "", problems: list[Problem] | None = None) -> float:
    """Of ``20/s``, ``12/min``, ``100/h``, a number a second. Raises WrongFile, or adds to ``problems``."""
    try:
        rate = loads.per_second(value)
        if not rate:
            raise ValueError
        return rate
    except ValueError:
        problem = Problem(path, f"{value!r} is no rate such as 20/s, 12/min, 100/h")
        if problems is None:
            raise WrongFile([problem]) from None
        problems.append(problem)
        return 1.0


def one_of(path: str, word: str, choices: Collection[str], problems: list[Problem]) -> None:
    """Adds a problem unless the word is one of the choices."""
    if word not in choices:
        near = difflib.get_close_matches(word, list(choices), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        problems.append(Problem(path, f"{word!r} is none of {', '.join(choices)}{hint}"))


def attempt(read: Callable[[], Any], path: str, problems: list[Problem]) -> None:
    """Adds a problem if the call raises ValueError."""
    try:
        read()
    except ValueError as error:
        problems.append(Problem(path, str(error)))


def expression(text: str, path: str, functions: Collection[str], names: Any, problems: list[Problem]) -> None:
    """Adds a problem unless the text is an expression of these functions and names."""
    try:
        Expression(text).check(functions, names)
    except ExpressionError as error:
        problems.append(Problem(path, str(error)))
