"""Rules of a structural schema beyond values: no duplicates in sets and map lists, embedded resources that are ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from navarch.api import names
from navarch.api.errors import Cause, duplicate, invalid, required, show

Schema = Mapping[str, Any]
Parts = Callable[[Any, str, list[Cause]], None]


def compile_parts(schema: Schema, *, root: bool = True) -> Parts | None:
    """Compiles the function that checks all parts below a value; None if there is nothing to check."""
    checks: list[Parts] = []
    fields = {}
    for name, child in (schema.get("properties") or {}).items():
        if (below := compile_parts(child, root=False)) is not None:
            fields[name] = below
    if fields:
        checks.append(_fields(fields))
    extra, items = schema.get("additionalProperties"), schema.get("items")
    if isinstance(extra, Mapping) and (below := compile_parts(extra, root=False)) is not None:
        checks.append(_values(below))
    if isinstance(items, Mapping) and (below := compile_parts(items, root=False)) is not None:
        checks.append(_elements(below))
    kind = schema.get("x-kubernetes-list-type")
    if kind == "set":
        checks.append(_set)
    elif kind == "map":
        checks.append(_map_list(schema))
    if schema.get("x-kubernetes-embedded-resource") and not root:
        checks.append(_embedded)
    if not checks:
        return None

    def run(value: Any, path: str, out: list[Cause]) -> None:
        for check in checks:
            check(value, path, out)

    return run


def _fields(fields: Mapping[str, Parts]) -> Parts:
    def run(value: Any, path: str, out: list[Cause]) -> None:
        if type(value) is dict:
            for name, check in fields.items():
                if value.get(name) is not None:
                    check(value[name], f"{path}.{name}" if path else name, out)

    return run


def _values(check: Parts) -> Parts:
    def run(value: Any, path: str, out: list[Cause]) -> None:
        if type(value) is dict:
            for key, one in value.items():
                check(one, f"{path}[{key}]", out)

    return run


def _elements(check: Parts) -> Parts:
    def run(value: Any, path: str, out: list[Cause]) -> None:
        if type(value) is list:
            for i, one in enumerate(value):
                check(one, f"{path}[{i}]", out)

    return run


def _set(value: Any, path: str, out: list[Cause]) -> None:
    if type(value) is list:
        texts: dict[str, None] = {}
        for i, one in enumerate(value):
            shown = show(one)
            if shown in texts:
                out.append(duplicate(f"{path}[{i}]", one))
            texts[shown] = None


def _map_list(schema: Schema) -> Parts:
    keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
    properties = (schema.get("items") or {}).get("properties") or {}
    defaults = {key: (properties.get(key) or {}).get("default") for key in keys}

    def run(value: Any, path: str, out: list[Cause]) -> None:
        if type(value) is not list:
            return
        texts: dict[str, None] = {}
        for i, one in enumerate(value):
            if type(one) is not dict:
                continue
            identity = {key: one.get(key, defaults[key]) for key in keys}
            identity = {key: key_value for key, key_value in identity.items() if key_value is not None}
            shown = show(identity)
            if shown in texts:
                out.append(duplicate(f"{path}[{i}]", dict(sorted(identity.items()))))
            texts[shown] = None

    return run


def _embedded(value: Any, path: str, out: list[Cause]) -> None:
    if type(value) is not dict:
        return
    version, kind = value.get("apiVersion"), value.get("kind")
    if not version:
        out.append(required(f"{path}.apiVersion", "must not be empty"))
    elif not isinstance(version, str):
        out.append(invalid(f"{path}.apiVersion", version, "must be a string"))
    elif version.count("/") > 1:
        out.append(invalid(f"{path}.apiVersion", version, f"unexpected GroupVersion string: {version}"))
    if not kind:
        out.append(required(f"{path}.kind", "must not be empty"))
    elif not isinstance(kind, str):
        out.append(invalid(f"{path}.kind", kind, "must be a string"))
    elif (faults := names.dns1035(kind.lower())):
        text = "may have mixed case, but should otherwise match: " + ",".join(faults)
        out.append(invalid(f"{path}.kind", kind, text))
    metadata = value.get("metadata")
    if isinstance(metadata, dict):  # of a wrong type inside only where it was stored before that was refused
        labels, name = metadata.get("labels"), metadata.get("name")
        for key, text in labels.items() if isinstance(labels, dict) else ():
            out += [invalid(f"{path}.metadata.labels", key, m) for m in names.qualified_name(key)]
            if isinstance(text, str):
                out += [invalid(f"{path}.metadata.labels", text, m) for m in names.label_value(text)]
        if name and isinstance(name, str):
            out += [invalid(f"{path}.metadata.name", name, m) for m in names.dns_subdomain(name)]
