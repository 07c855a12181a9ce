"""Text to JSON trees and back: JSON as the server gets it, YAML as kubectl reads and writes it.

YAML is read by Go's rules, not by PyYAML's: times stay text, ``y`` and ``on`` are booleans, ``1e3`` is a number, ``1:30``
is text, keys become text. Duplicate keys are reported with their paths.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import orjson
import yaml

from navarch.api.errors import BadRequest
from navarch.api.gojson import syntax_error

Tree = dict[str, Any]

MAX_DEPTH = 250
"""Levels of nesting in an object; orjson writes 254."""


MAX_DUPLICATES = 100
"""Duplicate keys that are told of; upstream's decoder notes as many strict errors."""


_SPACES = b" \t\n\r"
_HALVES = re.compile("[\ud800-\udfff]")


class DecodeError(ValueError):
    """The text is not JSON or YAML."""


def decode_json(data: bytes | str) -> Any:
    """The value. Raises DecodeError (a ValueError)."""
    try:
        tree = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        text = data if isinstance(data, str) else data.decode("utf-8", "replace")
        if why := syntax_error(text):
            raise DecodeError(why) from error
        tree = _as_go_reads(text)
    # Each level takes a bracket: most texts need no walk.
    raw = data if isinstance(data, bytes) else data.encode("utf-8", "replace")
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:
        _check_depth(tree)
    return tree


def _as_go_reads(text: str) -> Any:
    """JSON that orjson refuses and Go does not: halves of characters become U+FFFD. Raises DecodeError for a number beyond
    all floats."""

    def number(digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            raise DecodeError(f"json: cannot unmarshal number {digits} into Go value of type float64")
        return value

    def whole(value: Any) -> Any:
        if isinstance(value, str):
            return _HALVES.sub("\ufffd", value)
        if isinstance(value, list):
            return [whole(v) for v in value]
        if isinstance(value, dict):
            return {whole(k): whole(v) for k, v in value.items()}
        return value

    def integer(digits: str) -> int | float:
        value = int(digits) if len(digits) < 25 else 1 << 64
        return value if -(1 << 63) <= value < 1 << 64 else number(digits)

    try:
        return whole(json.loads(text, parse_float=number, parse_int=integer))
    except RecursionError:
        raise DecodeError("exceeded max depth") from None
    except json.JSONDecodeError:  # cannot be: the scanner took it
        raise DecodeError("invalid JSON") from None


def decode_object(data: bytes | str) -> Tree:
    """The JSON object of a request body. Raises BadRequest."""
    try:
        tree = decode_json(data)
    except DecodeError as error:
        raise BadRequest(f"couldn't get version/kind; json parse error: {error}") from error
    if not isinstance(tree, dict):
        json_type = "array" if isinstance(tree, list) else go_type(tree)
        raise BadRequest(
            f"couldn't get version/kind; json parse error: json: cannot unmarshal {json_type} into Go value of type "
            'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
        )
    return tree


def _check_depth(tree: Any) -> None:
    level, depth = [tree], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise DecodeError("exceeded max depth")
        level = [v for x in level for v in (x.values() if isinstance(x, dict) else x) if isinstance(v, dict | list)]


def go_type(value: Any) -> str:
    """The name that Go's JSON decoder gives a value in its messages."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int | float):
        return "number"
    if value is None:
        return "null"
    return "array" if isinstance(value, list) else "object"


def encode_json(tree: Any) -> bytes:
    return orjson.dumps(tree)


class _Pairs(dict[str, Any]):
    """A decoded object that knows which of its keys came more than once."""

    duplicates: tuple[str, ...] = ()


def _pairs(pairs: list[tuple[str, Any]]) -> _Pairs:
    out = _Pairs(pairs)
    if len(out) != len(pairs):
        counts: dict[str, int] = {}
        for key, _ in pairs:
            counts[key] = counts.get(key, 0) + 1
        out.duplicates = tuple(key for key, n in counts.items() if n > 1)
    return out


def json_duplicates(data: bytes, tree: Any) -> list[str]:
    """Paths of keys that come twice in an object of ``data``; ``tree`` is what ``data`` decoded to.

    Most clients send JSON as orjson writes it, but for spaces: if encoding the tree gives back the same text, nothing can
    have been lost. Spaces go from strings, too, on both sides: that moves no quote, so the tokens stay as many.
    """
    text = orjson.dumps(tree)
    if text == data or text.translate(None, _SPACES) == data.translate(None, _SPACES):
        return []
    paths: list[str] = []
    todo: list[tuple[str, Any]] = [("", json.loads(data.decode("utf-8", "replace"), object_pairs_hook=_pairs))]
    while todo and len(paths) < MAX_DUPLICATES:
        path, value = todo.pop()
        if isinstance(value, _Pairs):
            paths += [join(path, _HALVES.sub("\ufffd", key)) for key in value.duplicates]
            todo += [(join(path, key), v) for key, v in reversed(value.items()) if isinstance(v, dict | list)]
        elif isinstance(value, list):
            todo += [(f"{path}[{i}]", v) for i, v in reversed(list(enumerate(value))) if isinstance(v, dict | list)]
    return paths[:MAX_DUPLICATES]


def join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


# --- YAML -----------------------------------------------------------------------------------------------------------

_BOOLEANS = {
    **dict.fromkeys(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"], True),
    **dict.fromkeys(["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"], False),
}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_integer = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[1-9][0-9_]*|0)").fullmatch
_float = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?").fullmatch
_special = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
_PLAIN = "tag:yaml.org,2002:"
_BARE = "bare"
_RESOLVED = frozenset(_PLAIN + kind for kind in ("int", "float", "bool", "null"))


def resolve(text: str) -> Any:
    """The value of an unquoted scalar."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if text[0] in "0123456789+-.":
        if _integer(text) and (number := _whole(text.replace("_", ""))) is not None:
            return number
        if _float(digits := text.replace("_", "")) and math.isfinite(value := float(digits)):
            return value
        if text.lower() in _special:
            return _special[text.lower()]
    return text


def _whole(digits: str) -> int | None:
    """An integer of 64 bits; None if it is larger, and so a float or a text for Go."""
    if len(digits) > 70:  # not even in binary; Python takes long for very long ones
        return None
    octal = re.fullmatch(r"([-+]?)0o?([0-7]+)", digits)
    number = int(octal[1] + octal[2], 8) if octal else int(digits, 0)
    return number if -(1 << 63) <= number < 1 << 64 else None


def _key(value: Any) -> str:
    """JSON has text keys only: how sigs.k8s.io/yaml spells the others."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    raise DecodeError(f"error converting YAML to JSON: unsupported map key of type: {go_type(value)}")


class _Reader:
    """Makes values of the nodes of one document and notes duplicate keys."""

    def __init__(self) -> None:
        self.duplicates: list[str] = []
        self.open: list[yaml.Node] = []
        self._nodes: set[int] = set()  # ids of nodes, which live as long as their document
        self._values = self._repeated = 0

    def value(self, node: yaml.Node, path: str) -> Any:
        self._count(node)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        if any(node is outer for outer in self.open):
            raise DecodeError("error converting YAML to JSON: yaml: anchor contains itself")
        if len(self.open) == MAX_DEPTH:
            raise DecodeError("error converting YAML to JSON: yaml: exceeded max depth")
        self.open.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(child, f"{path}[{i}]") for i, child in enumerate(node.value)]
            return self.mapping(node, path)
        finally:
            self.open.pop()

    def _count(self, node: yaml.Node) -> None:
        """A few lines of anchors can stand for billions of values; what Go's yaml refuses is refused here."""
        self._values += 1
        if id(node) not in self._nodes:
            self._nodes.add(id(node))
            return
        self._repeated += 1
        if self._repeated > 100 and self._values > 1000:
            over = min(1.0, max(0.0, (self._values - 400_000) / 3_600_000))
            if self._repeated / self._values > 0.99 - 0.89 * over:
                raise DecodeError("error converting YAML to JSON: yaml: document contains excessive aliasing")

    def scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        if node.tag == _BARE or node.tag in _RESOLVED:
            value = resolve(text)
            if isinstance(value, float) and not math.isfinite(value):
                shown = "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
                raise DecodeError(f"error converting YAML to JSON: json: unsupported value: {shown}")
            # Kubernetes makes JSON of YAML, and Go writes 1.0 as 1: an integer field takes it.
            return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < _EXPONENT_FROM else value
        if node.tag == _PLAIN + "binary":
            try:
                return base64.b64decode("".join(text.split()), validate=True).decode("utf-8", "replace")
            except ValueError:
                text = "!!binary value contains invalid base64 data"
                raise DecodeError(f"error converting YAML to JSON: yaml: {text}") from None
        return text

    def mapping(self, node: yaml.MappingNode, path: str) -> Tree:
        out: Tree = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.value == "<<" and key_node.tag == _BARE:
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            key = _key(self.value(key_node, path))
            if key in out and len(self.duplicates) < MAX_DUPLICATES:
                self.duplicates.append(join(path, key))
            out[key] = self.value(value_node, join(path, key))
        for other in merged:
            for key, value in self.value(other, path).items():
                out.setdefault(key, value)
        return out


_EXPONENT_FROM = 1e21  # from here on Go's JSON writes a float with an exponent
_fraction_in_json = re.compile(rb"[:\[,]-?\d+(?:\.\d+(?:[eE][-+]?\d+)?|[eE][-+]?\d+)[,}\]]").search


class _Loader(yaml.CSafeLoader):  # type: ignore[misc]
    """Composes nodes; gives unquoted scalars without a tag of their own the tag ``_BARE``, for :func:`resolve`."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode:
            return _BARE if implicit[0] else _PLAIN + "str"
        return super().resolve(kind, value, implicit)


def _plain_json(data: bytes) -> Any:
    """The value of a YAML text that is JSON as orjson writes it, in plain ASCII: most clients apply such, and YAML's parser
    takes ten times as long. None for all others, and where YAML may differ: escapes, keys above 1,024 characters, depth, and
    numbers that are no integers."""
    if data[:1] != b"{" or not data.isascii() or b"\\" in data or b"\x7f" in data:
        return None
    if _fraction_in_json(data):
        return None
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH or max(map(len, data.split(b'"'))) > 1000:
        return None
    try:
        tree = orjson.loads(data)
        return tree if orjson.dumps(tree) == data else None
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None


def decode_yaml_documents(text: str | bytes) -> Iterator[tuple[Any, list[str]]]:
    """Every document that is not empty, with the paths of its duplicate keys. Raises DecodeError."""
    if isinstance(text, bytes) and (tree := _plain_json(text)) is not None:
        yield tree, []
        return
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            reader = _Reader()
            value = reader.value(node, "")
            if value is not None:
                yield value, reader.duplicates
    except yaml.YAMLError as error:
        raise DecodeError(f"error converting YAML to JSON: yaml: {_yaml_message(error)}") from error
    finally:
        loader.dispose()


def _yaml_message(error: yaml.YAMLError) -> str:
    """The words and the line that Kubernetes' parser gives: it counts from 0, scanner errors from 1, and omits a 0."""
    if isinstance(error, yaml.reader.ReaderError):
        return str(error.reason)
    problem = getattr(error, "problem", None) or str(error)
    mark, context = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    line = mark.line if mark else 0
    if line and isinstance(error, yaml.scanner.ScannerError):
        line += 1
    line = line or (context.line if context else 0)
    return f"line {line}: {problem}" if line else problem


def decode_yaml(text: str | bytes) -> list[Any]:
    """All documents of a YAML (or JSON) text, empty ones left out. Raises DecodeError (a ValueError)."""
    data = text.encode() if isinstance(text, str) else text
    if data.lstrip()[:1] == b"{":
        try:
            return [orjson.loads(data)]
        except orjson.JSONDecodeError:
            pass  # several JSON documents, or YAML in flow style
    return [value for value, _ in decode_yaml_documents(data)]


def expand_lists(trees: list[Any]) -> list[Tree]:
    """Objects of manifests: ``List`` kinds (List, PodList ...) replaced by their items, at any depth.

    Raises DecodeError for a document that is no object.
    """
    out: list[Tree] = []
    for tree in trees:
        if not isinstance(tree, dict):
            raise DecodeError(f"expected an object, found {go_type(tree)}")
        kind = tree.get("kind")
        if isinstance(kind, str) and kind.endswith("List") and isinstance(tree.get("items"), list):
            out += expand_lists(tree["items"])
        else:
            out.append(tree)
    return out


class _Dumper(yaml.CSafeDumper):  # type: ignore[misc]
    """Block style, and quotes around whatever :func:`resolve` would not read back as text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


# Text that other readers of YAML take for a time or a sexagesimal number.
_ambiguous = re.compile(r"\d{4}-\d\d?-\d\d?(?:[Tt ].*)?|[-+]?\d[\d_]*(?::[0-5]?\d)+(?:\.\d*)?").fullmatch


def _text(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    if "\n" in text:
        return dumper.represent_scalar(_PLAIN + "str", text, style="|")
    plain = text and isinstance(resolve(text), str) and not _ambiguous(text)
    style = None if plain else '"'
    return dumper.represent_scalar(_PLAIN + "str", text, style=style)


_Dumper.add_representer(str, _text)


def dump_yaml(value: Any, *, sort_keys: bool = True) -> str:
    """YAML as kubectl prints it: keys sorted, block style, long lines kept."""
    out: str = yaml.dump(value, Dumper=_Dumper, sort_keys=sort_keys, width=2**31 - 1, allow_unicode=True)
    return out
