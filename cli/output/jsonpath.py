"""kubectl's JSONPath templates: ``{.items[*].metadata.name}``, ``{range .items[*]}...{end}``, filters, slices, unions.

A template is text with expressions in braces. An expression selects any number of values, printed with blanks between
them. A missing field selects nothing (kubectl's --allow-missing-template-keys, its default).
"""

from __future__ import annotations

import json
import operator as operators
import re
from collections.abc import Callable
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<recursive>\.\.)(?P<deep>[\w-]+|\*)?
    | \.(?P<field>(?:\\.|[^\s.\[\]{}()'",=<>!])+)
    | (?P<dot>\.)(?=\s|$|\[)
    | \[(?P<inside>(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\[\]'"]|\[[^\]]*\])*)\]
    | (?P<root>[$@])
    | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<word>[\w-][\w.-]*)
    )""",
    re.VERBOSE,
)
_COMPARISON = re.compile(r"^(?P<left>.+?)\s*(?P<operator>==|!=|<=|>=|<|>)\s*(?P<right>.+)$")


class JSONPathError(ValueError):
    """The template cannot be read."""


def relaxed(text: str) -> str:
    """``.status.phase`` and ``status.phase`` as ``{.status.phase}``: what --for and --sort-by take."""
    text = text.strip()
    if text.startswith("{"):
        return text
    return "{" + (text if text.startswith((".", "$", "[")) else f".{text}") + "}"


def evaluate(template: str, tree: Any) -> str:
    """The text of a template for an object. Raises JSONPathError."""
    pieces = _split(template)
    out: list[str] = []
    _run(pieces, 0, tree, tree, out)
    return "".join(out)


def select(expression: str, tree: Any) -> list[Any]:
    """The values that one expression (in braces or not) selects."""
    return _select(relaxed(expression)[1:-1], tree, tree)


def _split(template: str) -> list[tuple[str, str]]:
    """Pieces ("text" | "expression", content)."""
    out: list[tuple[str, str]] = []
    position = 0
    while position < len(template):
        start = template.find("{", position)
        if start < 0:
            out.append(("text", template[position:]))
            break
        if start > position:
            out.append(("text", template[position:start]))
        end = _closing(template, start)
        out.append(("expression", template[start + 1 : end].strip()))
        position = end + 1
    return out


def _closing(template: str, start: int) -> int:
    quote, depth, index = "", 0, start
    while index < len(template):
        character = template[index]
        if quote:
            if character == "\\":
                index += 1
            elif character == quote:
                quote = ""
        elif character in "'\"":
            quote = character
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if not depth:
                return index
        index += 1
    raise JSONPathError("unclosed action")


def _run(pieces: list[tuple[str, str]], at: int, node: Any, root: Any, out: list[str]) -> int:
    """Runs pieces from ``at`` to the matching {end} or the end; gives the place behind it."""
    while at < len(pieces):
        kind, content = pieces[at]
        at += 1
        if kind == "text":
            out.append(content)
        elif content == "end":
            return at
        elif content == "range" or content.startswith(("range ", "range.")):
            values = _select(content[5:].strip(), node, root)
            after = _skip(pieces, at)
            for value in values:
                _run(pieces, at, value, root, out)
            at = after
        else:
            out.append(" ".join(_shown(value) for value in _select(content, node, root)))
    return at


def _skip(pieces: list[tuple[str, str]], at: int) -> int:
    depth = 1
    while at < len(pieces):
        kind, content = pieces[at]
        at += 1
        if kind == "expression":
            if content == "end":
                depth -= 1
            elif content.split(" ")[0].split(".")[0] == "range":
                depth += 1
            if not depth:
                return at
    raise JSONPathError("not in range, nothing to end" if depth < 1 else "unclosed range")


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)


def _select(expression: str, node: Any, root: Any) -> list[Any]:
    values: list[Any] = [node]
    position, text = 0, expression.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.end() == position:
            raise JSONPathError(f"unrecognized character in action: {text[position : position + 1]!r} in {text!r}")
        position = match.end()
        groups = match.groupdict()
        if groups["root"]:
            values = [root] if groups["root"] == "$" else [node]
        elif groups["recursive"]:
            values = [v for value in values for v in _descend(value)]
            if groups["deep"]:
                values = [v for value in values for v in _field(value, groups["deep"])]
        elif groups["field"] is not None:
            name = re.sub(r"\\(.)", r"\1", groups["field"])
            values = [v for value in values for v in _field(value, name)]
        elif groups["inside"] is not None:
            inside = groups["inside"].strip()
            values = [v for value in values for v in _index(value, inside, root)]
        elif groups["text"] is not None:
            values = [_unquoted(groups["text"])]
        elif groups["word"] is not None:
            values = [v for value in values for v in _field(value, groups["word"])]
    return values


def _field(value: Any, name: str) -> list[Any]:
    if name == "*":
        return list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
    if isinstance(value, dict) and name in value:
        return [value[name]]
    return []


def _descend(value: Any) -> list[Any]:
    out = [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        out += _descend(each)
    return out


def _index(value: Any, inside: str, root: Any) -> list[Any]:
    if inside == "*":
        return _field(value, "*")
    if inside.startswith("?(") and inside.endswith(")"):
        test = _filter(inside[2:-1].strip(), root)
        candidates = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
        return [each for each in candidates if test(each)]
    out: list[Any] = []
    for part in (p.strip() for p in inside.split(",")):
        if part[:1] in ("'", '"'):
            out += _field(value, _unquoted(part))
        elif re.fullmatch(r"-?\d+", part):
            if isinstance(value, list) and -len(value) <= int(part) < len(value):
                out.append(value[int(part)])
        elif re.fullmatch(r"-?\d*:-?\d*(:\d*)?", part):
            bounds = [int(b) if b else None for b in part.split(":")]
            out += value[slice(*bounds)] if isinstance(value, list) else []
        else:
            raise JSONPathError(f"invalid array index {inside}")
    return out


def _filter(text: str, root: Any) -> Callable[[Any], bool]:
    comparison = _COMPARISON.match(text)
    if comparison is None:
        return lambda each: bool(_select(text, each, root))
    left, operator, right = comparison["left"], comparison["operator"], comparison["right"]

    def test(each: Any) -> bool:
        lefts, rights = _operand(left, each, root), _operand(right, each, root)
        return any(_compare(a, operator, b) for a in lefts for b in rights)

    return test


def _operand(text: str, node: Any, root: Any) -> list[Any]:
    text = text.strip()
    if text[:1] in ("'", '"'):
        return [_unquoted(text)]
    if text[:1] in ("@", "$", "."):
        return _select(text, node, root)
    try:
        return [json.loads(text)]
    except ValueError:
        return [text]


def _compare(left: Any, operator: str, right: Any) -> bool:
    if operator in ("==", "!="):
        return bool((left == right) == (operator == "=="))
    try:
        return bool(
            {"<": operators.lt, "<=": operators.le, ">": operators.gt, ">=": operators.ge}[operator](left, right)
        )
    except TypeError:
        return False


def _unquoted(text: str) -> str:
    body = text[1:-1]
    escapes = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda m: escapes.get(m[1], m[1]), body)
