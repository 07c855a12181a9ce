"""Label and field selectors: parsed from the text of a query parameter or from a LabelSelector object.

A selector is a tuple of requirements that must all hold. ``exact`` tells an index which keys must equal which value.
Errors are ValueErrors with Kubernetes' wording; the server turns them into BadRequest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from navarch.api import names
from navarch.api.errors import show
from navarch.api.types import meta_v1

Labels = Mapping[str, str]


class SelectorError(ValueError):
    """The selector does not parse."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """``key operator values``; operators: = == != in notin exists ! > <."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Labels) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "=" | "==" | "in":
                return value is not None and value in self.values
            case "!=" | "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
        if value is None:
            return False
        try:
            number, limit = int(value), int(self.values[0])
        except ValueError:
            return False
        return number > limit if self.operator == ">" else number < limit

    def __str__(self) -> str:
        if self.operator == "exists":
            return self.key
        if self.operator == "!":
            return "!" + self.key
        if self.operator in ("in", "notin"):
            return f"{self.key} {self.operator} ({','.join(sorted(self.values))})"
        return f"{self.key}{self.operator}{self.values[0]}"


@dataclass(frozen=True)
class LabelSelector:
    """All requirements must hold; none at all match everything; ``nothing`` matches nothing."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    @property
    def empty(self) -> bool:
        """Matches everything."""
        return not self.requirements and not self.nothing

    @cached_property
    def exact(self) -> dict[str, str]:
        """Keys that must have one given value."""
        return {r.key: r.values[0] for r in self.requirements if r.operator in ("=", "==", "in") and len(r.values) == 1}

    @cached_property
    def _others(self) -> tuple[Requirement, ...]:
        exact = self.exact
        return tuple(
            r for r in self.requirements if not (exact.get(r.key) in r.values and r.operator in ("=", "==", "in"))
        )

    def matches(self, labels: Labels | None) -> bool:
        if self.nothing:
            return False
        labels = labels or {}
        for key, value in self.exact.items():
            if labels.get(key) != value:
                return False
        return all(r.matches(labels) for r in self._others)

    def __str__(self) -> str:
        return ",".join(str(r) for r in self.requirements)


EVERYTHING = LabelSelector()
NOTHING = LabelSelector(nothing=True)

_token = re.compile(r"\s*(?:(==|!=|[=!<>(),])|([^\s=!<>(),]+)|$)").match


def _tokens(text: str) -> list[str]:
    out, at = [], 0
    while at < len(text):
        token = _token(text, at)
        if token is None:  # cannot be: every character starts a token
            raise SelectorError(f"unable to parse requirement: {text!r}")
        out.append(token[1] or token[2] or "")
        at = token.end()
    return [t for t in out if t]


def _fail(token: str, expected: str) -> SelectorError:
    return SelectorError(f"unable to parse requirement: found '{token}', expected: {expected}")


_SYMBOLS = {"=", "==", "!=", "!", "<", ">", "(", ")", ","}


class _Parser:
    """Recursive descent over the tokens of a label selector."""

    def __init__(self, text: str) -> None:
        self.tokens, self.at = _tokens(text), 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def parse(self) -> tuple[Requirement, ...]:
        out: list[Requirement] = []
        while True:
            if not self.peek():
                return tuple(sorted(out, key=lambda r: r.key))
            if self.peek() in _SYMBOLS - {"!"}:
                raise _fail(self.peek(), "!, identifier, or 'end of string'")
            out.append(self.requirement())
            if not self.peek():
                continue
            if self.next() != ",":
                raise _fail(self.tokens[self.at - 1], "',' or 'end of string'")
            if self.peek() in _SYMBOLS - {"!"} or not self.peek():
                raise _fail(self.peek(), "identifier after ','")

    def requirement(self) -> Requirement:
        absent = self.peek() == "!"
        if absent:
            self.next()
        key = self.next()
        if key in _SYMBOLS or not key:
            raise _fail(key, "identifier")
        if absent or self.peek() in ("", ","):
            return make_requirement(key, "!" if absent else "exists", ())
        operator = self.next()
        if operator in ("in", "notin"):
            return make_requirement(key, operator, self.several())
        if operator not in ("=", "==", "!=", "<", ">"):
            raise _fail(operator, "in, notin, =, ==, !=, gt, lt")
        value = ""
        if self.peek() not in ("", ","):
            value = self.next()
            if value in _SYMBOLS:
                raise _fail(value, "identifier")
        return make_requirement(key, operator, (value,))

    def several(self) -> tuple[str, ...]:
        if self.next() != "(":
            raise _fail(self.tokens[self.at - 1] if self.at <= len(self.tokens) else "", "'('")
        values: list[str] = [""]
        while True:
            token = self.next()
            if token == ")":
                return tuple(sorted(set(values)))
            if token == ",":
                values.append("")
            elif token and token not in _SYMBOLS and not values[-1]:
                values[-1] = token
            else:
                raise _fail(token, "',', ')' or identifier")


def make_requirement(key: str, operator: str, values: Sequence[str]) -> Requirement:
    """A checked requirement. Raises SelectorError."""
    problems = [f"key: Invalid value: {show(key)}: {m}" for m in names.qualified_name(key)]
    if operator in ("<", ">"):
        try:
            int(values[0])
        except ValueError:
            problems.append(
                f"values[0]: Invalid value: {show(values[0])}: for 'Gt', 'Lt' operators, the value must be an integer"
            )
    for i, value in enumerate(values):
        problems += [f"values[{i}][{key}]: Invalid value: {show(value)}: {m}" for m in names.label_value(value)]
    if problems:
        text = problems[0] if len(problems) == 1 else "[" + ", ".join(problems) + "]"
        raise SelectorError(f"unable to parse requirement: {text}")
    return Requirement(key, operator, tuple(values))


def parse_label_selector(text: str | None) -> LabelSelector:
    """A selector as ``kubectl -l`` takes it: ``a=b,c!=d,e in (f,g),!h``. Raises SelectorError (a ValueError)."""
    if not text or not text.strip():
        return EVERYTHING
    return LabelSelector(_Parser(text).parse())


_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


def from_struct(selector: meta_v1.LabelSelector | None) -> LabelSelector:
    """The selector of a spec: none matches nothing, an empty one everything. Raises SelectorError."""
    if selector is None:
        return NOTHING
    expressions = [(e.key, e.operator, e.values or ()) for e in selector.match_expressions or ()]
    return _assemble(selector.match_labels or {}, expressions)


def from_tree(selector: Mapping[str, Any] | None) -> LabelSelector:
    """As :func:`from_struct`, from a JSON tree."""
    if selector is None:
        return NOTHING
    expressions = [(e["key"], e["operator"], e.get("values") or ()) for e in selector.get("matchExpressions") or ()]
    return _assemble(selector.get("matchLabels") or {}, expressions)


def selector_matches(selector: Mapping[str, Any] | None, labels: Labels | None) -> bool:
    """Whether a valid metav1.LabelSelector tree selects the labels; an empty one selects all, None nothing."""
    return from_tree(selector).matches(labels or {})


def _assemble(labels: Labels, expressions: Sequence[tuple[str, str, Sequence[str]]]) -> LabelSelector:
    out = [Requirement(key, "=", (value,)) for key, value in labels.items()]
    for key, operator, values in expressions:
        if operator not in _OPERATORS:
            raise SelectorError(f"{show(operator)} is not a valid label selector operator")
        out.append(Requirement(key, _OPERATORS[operator], tuple(sorted(values))))
    return LabelSelector(tuple(sorted(out, key=lambda r: r.key)))


def from_labels(labels: Labels | None) -> LabelSelector:
    """The selector of a map of labels (Service.spec.selector): none or empty matches nothing."""
    return _assemble(labels, ()) if labels else NOTHING


@dataclass(frozen=True)
class FieldSelector:
    """Equality (or not) of a few fields, e.g. ``spec.nodeName=node-1,status.phase!=Running``."""

    requirements: tuple[Requirement, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.requirements

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields asked for, to be checked against those that the resource supports."""
        return tuple(r.key for r in self.requirements)

    @cached_property
    def exact(self) -> dict[str, str]:
        """Fields that must have one given value."""
        return {r.key: r.values[0] for r in self.requirements if r.operator == "="}

    def required_value(self, field: str) -> str | None:
        """The one value that ``field`` must have, if there is one: the watch cache looks it up in its index."""
        return self.exact.get(field)

    def matches(self, fields: Mapping[str, str]) -> bool:
        """An absent field counts as ""."""
        return all((fields.get(r.key, "") == r.values[0]) == (r.operator == "=") for r in self.requirements)

    def __str__(self) -> str:
        return ",".join(f"{r.key}{r.operator}{_escape(r.values[0])}" for r in self.requirements)


ALL_FIELDS = FieldSelector()


def _escape(value: str) -> str:
    return re.sub(r"([\\,=])", r"\\\1", value)


def _unescape(value: str, text: str) -> str:
    out, at = [], 0
    while at < len(value):
        c = value[at]
        if c == "\\":
            at += 1
            if at >= len(value) or value[at] not in "\\,=":
                raise SelectorError(f"invalid field selector: invalid escape sequence in {value!r} of {text!r}")
            c = value[at]
        elif c in "=,":
            raise SelectorError(f"invalid field selector: unescaped character in value: {c}")
        out.append(c)
        at += 1
    return "".join(out)


_term = re.compile(r"((?:\\.|[^=!\\])*?)(!=|==|=)(.*)", re.DOTALL).fullmatch


def escaped(value: str) -> str:
    """A value as it stands in the text of a field selector."""
    return re.sub(r"[\\,=]", r"\\\g<0>", value)


def parse_field_selector(text: str | None) -> FieldSelector:
    """A selector as ``--field-selector`` takes it. Raises SelectorError (a ValueError)."""
    out = []
    for part in re.findall(r"(?:\\.|[^,\\]|\\$)+", text or "", re.DOTALL):
        term = _term(part)
        if not term or not term[1]:
            raise SelectorError(f"invalid selector: '{text}'; can't understand '{part}'")
        operator = "!=" if term[2] == "!=" else "="
        out.append(Requirement(term[1], operator, (_unescape(term[3], text or ""),)))
    return FieldSelector(tuple(out)) if out else ALL_FIELDS
