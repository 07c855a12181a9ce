"""Fields that a rule asks for and that its schema does not have.

The engine takes objects as they come, so a misspelled field would only show when the rule runs. This looks at plain chains
of fields that begin with a variable such as ``self`` (texts left out), and is silent about all that it cannot be sure of.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

_LITERAL = re.compile(r"'''.*?'''|\"\"\".*?\"\"\"|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_FIELD = re.compile(r"\s*\.\s*([A-Za-z_]\w*)")
_HAS = re.compile(r"has\s*\(\s*$")
_METADATA = {"type": "object", "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}}}
_HEAD = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": _METADATA}

_WORDS = """true false null in as break const continue else for function if import let loop package namespace return var
void while"""
_RESERVED = frozenset(_WORDS.split())
SELF = ("self", "oldSelf")


def escape(name: str) -> str:
    """The identifier under which CEL knows a property."""
    if name in _RESERVED:
        return f"__{name}__"
    out = name.replace("__", "__underscores__")
    return out.replace(".", "__dot__").replace("-", "__dash__").replace("/", "__slash__")


@functools.lru_cache(maxsize=64)
def _chains(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.])(?:{'|'.join(names)})((?:\s*\.\s*[A-Za-z_]\w*)+)(?!\w)(\s*\()?")


def fields_of(schema: Mapping[str, Any], whole: bool) -> dict[str, Any] | None:
    """The fields of an object as CEL names them; None if it may have any."""
    if schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string"):
        return None
    if schema.get("type") != "object" or schema.get("additionalProperties") or schema.get("nullable"):
        return None
    head = _HEAD if whole or schema.get("x-kubernetes-embedded-resource") else {}
    return {escape(name): child for name, child in (schema.get("properties") or {}).items()} | head


def undefined_field(
    source: str, schema: Any, root: bool, names: tuple[str, ...] = SELF,
    fields_of: Callable[[Any, bool], dict[str, Any] | None] = fields_of,
) -> str:  # fmt: skip
    """The compiler's message for the first undefined field of the variables ``names``, "" if there is none. ``root``: of
    a whole object. ``fields_of``: how to find the fields in this form of schema."""
    plain = _LITERAL.sub(lambda match: " " * len(match[0]), source)
    for chain in _chains(names).finditer(plain):
        parts = list(_FIELD.finditer(plain, chain.start(1), chain.end(1)))
        if chain[2]:
            parts.pop()  # the last one is called: a function
        at: Any = schema
        whole = root
        for i, part in enumerate(parts):
            fields = fields_of(at, whole)
            if fields is None:
                break
            if part[1] not in fields:
                before = _HAS.search(plain, 0, chain.start())
                last = i == len(parts) - 1 and not chain[2]
                position = plain.index("(", before.start()) if before and last else plain.index(".", part.start())
                return _message(source, position, part[1])
            at, whole = fields[part[1]], False
    return ""


def chain_types(
    source: str, schema: Any, root: bool, names: tuple[str, ...], fields_of: Callable[[Any, bool], dict[str, Any] | None],
    type_of: Callable[[Any], str],
) -> dict[str, str]:  # fmt: skip
    """The types of the fields that an expression asks for, by their dotted names (``object.spec.replicas``); those that may
    be of any type are left out."""
    out: dict[str, str] = {}
    plain = _LITERAL.sub(lambda match: " " * len(match[0]), source)
    for chain in _chains(names).finditer(plain):
        parts = [part[1] for part in _FIELD.finditer(plain, chain.start(1), chain.end(1))]
        name = plain[chain.start() : chain.start(1)].strip()
        at, whole = schema, root
        for part in parts[:-1] if chain[2] else parts:
            fields = fields_of(at, whole)
            if fields is None or part not in fields:
                break
            at, whole, name = fields[part], False, f"{name}.{part}"
        if "." in name and (kind := type_of(at)) != "dyn":
            out[name] = kind
    return out


def _message(source: str, position: int, name: str) -> str:
    line = source.count("\n", 0, position) + 1
    start = source.rfind("\n", 0, position) + 1
    text = source[start:].partition("\n")[0]
    column = position - start
    return f"ERROR: <input>:{line}:{column + 1}: undefined field '{name}'\n | {text}\n | {'.' * column}^"
