"""Checks an object by a structural schema, and says what is wrong in Kubernetes' words.

A :class:`Check` is a schema compiled once. Given the object before the change it lets pass whatever did not change
(validation ratcheting): an object that a stricter definition made invalid can still be mended bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from apiserver.cel.patterns import Pattern, compile_pattern
from apiserver.crd.formats import FORMATS, RANGES
from navarch.api.errors import Cause, invalid, required, show, too_long, too_many, type_invalid
from navarch.api.patch import same
from navarch.api.pruning import MAX_EXACT

Schema = Mapping[str, Any]
ABSENT: Any = object()
_BLOCKING = ("FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid")
ROOT = "<nil>"


def type_name(value: Any) -> str:
    """The JSON type of a value as messages name it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def blocking(causes: list[Cause]) -> bool:
    """Whether rules cannot be looked at because of these."""
    return any(c.reason in _BLOCKING for c in causes)


def _number(value: float) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else f"{value}"


class Check:
    """The checks of one schema. ``nested``: inside allOf and the like, where nothing is said about unknown fields."""

    def __init__(self, schema: Schema) -> None:
        get = schema.get
        kind: str = get("type") or ""
        self.types: tuple[str, ...] = (kind,) if kind else ()
        if get("x-kubernetes-int-or-string"):
            self.types = ("integer", "string")
        self.nullable = bool(get("nullable"))
        self.properties = {name: Check(s) for name, s in (get("properties") or {}).items()}
        extra = get("additionalProperties")
        self.extra = Check(extra) if isinstance(extra, Mapping) else None
        items = get("items")
        self.items = Check(items) if isinstance(items, Mapping) else None
        self.required = tuple(get("required") or ())
        self.enum: list[Any] | None = get("enum")
        self.format: str = get("format") or ""
        self.text = FORMATS.get(self.format) if self.format else None
        self.range = RANGES.get(self.format)
        self.pattern: Pattern | None = compile_pattern(get("pattern")) if get("pattern") else None
        self.pattern_text: str = get("pattern") or ""
        self.lengths = get("minLength"), get("maxLength")
        self.counts = get("minItems"), get("maxItems")
        self.sizes = get("minProperties"), get("maxProperties")
        self.unique = bool(get("uniqueItems"))
        self.low, self.high = get("minimum"), get("maximum")
        self.open_low, self.open_high = bool(get("exclusiveMinimum")), bool(get("exclusiveMaximum"))
        self.multiple = get("multipleOf")
        self.all_of = [Check(s) for s in get("allOf") or ()]
        self.any_of = [Check(s) for s in get("anyOf") or ()]
        self.one_of = [Check(s) for s in get("oneOf") or ()]
        self.none_of = Check(schema["not"]) if get("not") is not None else None
        self.combined = bool(self.all_of or self.any_of or self.one_of or self.none_of)
        self.map_keys: tuple[str, ...] = tuple(get("x-kubernetes-list-map-keys") or ())
        self.map_list = get("x-kubernetes-list-type") == "map"

    def run(self, value: Any, path: str, out: list[Cause], old: Any = ABSENT) -> None:
        """Adds what is wrong to ``out``. ``old``: the value before, if there is one that corresponds."""
        if old is not ABSENT and same(old, value):
            return
        if not self._type(value, path, out):
            return
        if self.combined:
            self._combined(value, path, out)
        kind = type(value)
        if kind is str:
            self._text(value, path, out)
        elif kind is int or kind is float:
            self._amount(value, path, out)
        if self.enum is not None and not any(same(value, e) for e in self.enum):
            listed = ", ".join(show(e if isinstance(e, str) else show(e)) for e in self.enum)
            out.append(
                Cause("FieldValueNotSupported", f"Unsupported value: {show(value)}: supported values: {listed}", path)
            )
        if kind is dict:
            self._object(value, path, out, old if type(old) is dict else ABSENT)
        elif kind is list:
            self._list(value, path, out, old if type(old) is list else ABSENT)

    def _type(self, value: Any, path: str, out: list[Cause]) -> bool:
        if not self.types or (value is None and self.nullable):
            return value is not None or self.enum is not None
        actual = type_name(value)
        if actual in self.types:
            return True
        if actual == "integer" and "number" in self.types:
            return True
        if actual == "number" and "integer" in self.types and value.is_integer() and abs(value) <= MAX_EXACT:
            return True
        types = ",".join(self.types)
        out.append(type_invalid(path or ROOT, actual, f'{path} in body must be of type {types}: "{actual}"'))
        return False

    def _text(self, value: str, path: str, out: list[Cause]) -> None:
        least, most = self.lengths
        if most is not None and len(value) > most:
            out.append(too_long(path, most))
        if least is not None and len(value) < least:
            out.append(invalid(path, value, f"{path} in body should be at least {least} chars long"))
        if self.pattern is not None and not self.pattern(value):
            out.append(invalid(path, value, f"{path} in body should match '{self.pattern_text}'"))
        if self.text is not None and not self.text(value):
            out.append(type_invalid(path, value, f"{path} in body must be of type {self.format}: {show(value)}"))

    def _amount(self, value: float, path: str, out: list[Cause]) -> None:
        if self.multiple and not _is_multiple(value, self.multiple):
            out.append(invalid(path, value, f"{path} in body should be a multiple of {_number(self.multiple)}"))
        high, low = self.high, self.low
        if high is not None and (value >= high if self.open_high else value > high):
            words = "less than" if self.open_high else "less than or equal to"
            out.append(invalid(path, value, f"{path} in body should be {words} {_number(high)}"))
        if low is not None and (value <= low if self.open_low else value < low):
            words = "greater than" if self.open_low else "greater than or equal to"
            out.append(invalid(path, value, f"{path} in body should be {words} {_number(low)}"))
        if self.range is not None and not self.range[0] <= value <= self.range[1]:
            types = ",".join(self.types)
            out.append(invalid(path, value, f"Checked value must be of type {types} with format {self.format} in {path}"))

    def _object(self, value: dict[str, Any], path: str, out: list[Cause], old: Any) -> None:
        least, most = self.sizes
        if least is not None and len(value) < least:
            out.append(invalid(path, len(value), f"{path} in body should have at least {least} properties"))
        if most is not None and len(value) > most:
            out.append(too_many(path, len(value), most))
        prefix = f"{path}." if path else ""
        for name in self.required:
            if name not in value:
                out.append(required(prefix + name))
        if self.properties:
            for name, check in self.properties.items():
                if name in value:
                    check.run(value[name], prefix + name, out, ABSENT if old is ABSENT else old.get(name, ABSENT))
        if self.extra is not None:
            for key, child in value.items():
                if key not in self.properties:
                    self.extra.run(child, prefix + key, out, ABSENT if old is ABSENT else old.get(key, ABSENT))

    def _list(self, value: list[Any], path: str, out: list[Cause], old: Any) -> None:
        least, most = self.counts
        if least is not None and len(value) < least:
            out.append(invalid(path, len(value), f"{path} in body should have at least {least} items"))
        if most is not None and len(value) > most:
            out.append(too_many(path, len(value), most))
        if self.unique and any(same(one, other) for i, one in enumerate(value) for other in value[:i]):
            out.append(invalid(path, "", f"{path} in body shouldn't contain duplicates"))
        if self.items is None:
            return
        before = self.correlated(old) if self.map_list and old is not ABSENT else {}
        for i, one in enumerate(value):
            self.items.run(one, f"{path}[{i}]", out, before.get(self.identity(one), ABSENT) if before else ABSENT)

    def identity(self, element: Any) -> Any:
        """The key by which two elements of a map list are the same one."""
        if not isinstance(element, dict):
            return None
        return tuple(show(element.get(key)) for key in self.map_keys)

    def correlated(self, old: list[Any]) -> dict[Any, Any]:
        """The elements of a map list by identity."""
        return {self.identity(one): one for one in old if isinstance(one, dict)}

    def _combined(self, value: Any, path: str, out: list[Cause]) -> None:
        def run(check: Check) -> list[Cause]:
            causes: list[Cause] = []
            check.run(value, path, causes)
            return causes

        def tell(text: str) -> None:
            out.append(invalid(ROOT, "", f'"{path}" {text}'))

        if self.any_of:
            results = [run(check) for check in self.any_of]
            if all(results):
                tell("must validate at least one schema (anyOf)")
                out.extend(_fewest(results))
        if self.one_of:
            results = [run(check) for check in self.one_of]
            good = sum(not r for r in results)
            if good == 0:
                tell("must validate one and only one schema (oneOf). Found none valid")
                out.extend(_fewest(results))
            elif good > 1:
                tell(f"must validate one and only one schema (oneOf). Found {good} valid alternatives")
        if self.all_of:
            results = [run(check) for check in self.all_of]
            for result in results:
                out.extend(result)
            if any(results):
                tell("must validate all the schemas (allOf)" + (". None validated" if all(results) else ""))
        if self.none_of is not None and not run(self.none_of):
            tell("must not validate the schema (not)")


def _is_multiple(value: float, of: float) -> bool:
    ratio = value / of
    return math.isclose(ratio, round(ratio), rel_tol=1e-12, abs_tol=1e-9)


def _fewest(results: list[list[Cause]]) -> list[Cause]:
    return min(results, key=len)
