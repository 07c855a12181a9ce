"""The strategy of a custom kind in one of its versions, made from its definition."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from apiserver.cache.cache import Extract, extract_fields, extract_metadata
from apiserver.crd import paths
from apiserver.crd.defaults import compile_defaults
from apiserver.crd.parts import compile_parts
from apiserver.crd.rules import compile_rules
from apiserver.crd.values import ABSENT, ROOT, Check, blocking
from apiserver.registry.codec import Codec, ConversionWebhook
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, ScalePaths, Strategy, Tree
from apiserver.request import Context
from navarch.api import pruning
from navarch.api.durations import age
from navarch.api.errors import Cause, MethodNotAllowed, invalid
from navarch.api.kinds import Kind
from navarch.api.patch import copy_tree, same
from navarch.api.schema import Node, from_openapi

UNCHECKED = (
    "some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)
COLUMN_TEXT = "Custom resource definition column (in JSONPath format): "
Cell = Callable[[Tree, float], Any]


def stored_version(definition: Tree) -> str:
    """The version in which objects are stored."""
    return next(str(v["name"]) for v in definition["spec"]["versions"] if v.get("storage"))


def kind_of(definition: Tree, version: str) -> Kind:
    """The kind of a definition: names as accepted, where they are."""
    spec = definition["spec"]
    names = spec["names"]
    accepted = (definition.get("status") or {}).get("acceptedNames") or {}
    return Kind(
        spec["group"], version, names["kind"], names["plural"], spec.get("scope") == "Namespaced",
        tuple(accepted.get("shortNames") or ()), tuple(accepted.get("categories") or ()),
        accepted.get("singular") or names.get("singular") or "", accepted.get("listKind") or names.get("listKind") or "",
    )  # fmt: skip


def prefix_of(definition: Tree) -> str:
    """Where the store keeps the objects of a definition."""
    return f"/registry/{definition['spec']['group']}/{definition['spec']['names']['plural']}/"


class CustomCodec(Codec):
    """``storage``: the API version in which objects are stored. ``since``, ``finish``: see :class:`CustomStrategy`."""

    same = False

    def __init__(
        self, kind: Kind, storage: str, since: int, finish: Callable[[Tree], None], webhook: ConversionWebhook | None
    ) -> None:
        self.webhook = webhook
        self._api_version, self._storage, self._since, self._finish = kind.api_version, storage, since, finish
        self._head, self._stored_head = _head(kind.kind, kind.api_version), _head(kind.kind, storage)

    def served(self, data: bytes, revision: int) -> bytes:
        if revision > self._since and data.startswith(self._head):
            return data
        return orjson.dumps(self.served_tree(orjson.loads(data)))

    def served_tree(self, obj: Tree) -> Tree:
        obj["apiVersion"] = self._api_version
        self._finish(obj)
        return obj

    def stored(self, obj: Tree) -> Tree:
        return obj if obj["apiVersion"] == self._storage else obj | {"apiVersion": self._storage}

    def needs_rewrite(self, data: bytes) -> bool:
        return not data.startswith(self._stored_head)

    def needs_webhook(self, data: bytes) -> bool:
        return self.webhook is not None and not data.startswith(self._head)


class CustomStrategy(Strategy):
    """``since``: the revision of the definition. Objects stored later have passed through this very schema; older ones
    are pruned and given defaults when they are read. ``terminating``: whether the definition is being deleted, now."""

    strategic_patch = False
    strict_types = False
    unconditional_update = False

    def __init__(
        self, definition: Tree, version: Tree, since: int, terminating: Callable[[], bool],
        webhook: ConversionWebhook | None = None,
    ) -> None:  # fmt: skip
        self.kind = kind_of(definition, version["name"])
        self._terminating = terminating
        self.stored = f"{self.kind.group}/{stored_version(definition)}"
        self._prefix = prefix_of(definition)
        self.codec = CustomCodec(self.kind, self.stored, since, self.finish, webhook)
        if version.get("deprecated"):
            default = f"{self.kind.api_version} {self.kind.kind} is deprecated"
            self.deprecation = version.get("deprecationWarning") or default
        subresources = version.get("subresources") or {}
        self.has_status = "status" in subresources
        if scale := subresources.get("scale"):
            self.scale_path = True
            selector = scale.get("labelSelectorPath")
            self.scale_paths = ScalePaths(
                paths.simple(scale["specReplicasPath"]), paths.simple(scale["statusReplicasPath"]),
                paths.simple(selector) if selector else None,
            )  # fmt: skip
        self.open_schema: Tree = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        self._schema = from_openapi(self.open_schema)
        self._fill = compile_defaults(self.open_schema)
        self._check = Check(self.open_schema)
        self._parts = compile_parts(self.open_schema)
        self._rules = compile_rules(self.open_schema)
        self._selectable = {
            ".".join(p): p for f in version.get("selectableFields") or () for p in [paths.simple(f["jsonPath"])]
        }
        self.selectable_fields = tuple(self._selectable)
        self.columns, self._cells = compile_columns(version.get("additionalPrinterColumns") or ())
        shown = [self.open_schema, sorted(subresources), self.kind.list_kind]
        self.fingerprint = hashlib.sha256(orjson.dumps(shown, option=orjson.OPT_SORT_KEYS)).hexdigest()

    # Storing and reading

    @property
    def prefix(self) -> str:
        return self._prefix

    @property
    def schema(self) -> Node:
        return self._schema

    def finish(self, obj: Tree) -> None:
        """Prunes an object of this version and gives it its defaults, in place."""
        pruning.prepare(obj, self._schema)
        self.default(obj)

    # Rules

    def default(self, obj: Tree) -> None:
        if self._fill is not None:
            self._fill(obj)

    def prepare_create(self, context: Context, obj: Tree) -> None:
        if self._terminating():
            raise MethodNotAllowed("create not allowed while custom resource definition is terminating")
        if self.has_status:
            obj.pop("status", None)

    def prepare_update(self, context: Context, obj: Tree, old: Tree) -> None:
        # Without the status subresource, status is content like any other.
        if not self.has_status and not same(obj.get("status"), old.get("status")):
            obj["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1

    def zero_status(self) -> Tree | None:
        return None

    def validate(self, obj: Tree) -> list[Cause]:
        return self._causes(obj, ABSENT)

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        return self._causes(obj, old)

    def validate_status(self, obj: Tree, old: Tree) -> list[Cause]:
        return self._causes(obj, old)

    def _causes(self, obj: Tree, old: Any) -> list[Cause]:
        out: list[Cause] = []
        self._check.run(obj, "", out, old)
        if self._parts is not None:
            before: list[Cause] = []
            if old is not ABSENT:
                self._parts(old, "", before)
            if not before:
                self._parts(obj, "", out)
        if self._rules is not None:
            if blocking(out):
                out.append(invalid(ROOT, None, UNCHECKED))
            else:
                self._rules.run(obj, "", out, old)
        return out

    # Showing

    def fields(self, obj: Tree) -> dict[str, str]:
        return {name: text_at(obj, path) for name, path in self._selectable.items()}

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [obj["metadata"].get("name", ""), *(cell(obj, now) for cell in self._cells)]


def _head(kind: str, api_version: str) -> bytes:
    """How the JSON of a stored object begins."""
    return orjson.dumps({"kind": kind, "apiVersion": api_version})[:-1] + b","


def text_at(obj: Any, path: Sequence[str]) -> str:
    """A selectable value as field selectors see it."""
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    if obj is None:
        return ""
    return obj if isinstance(obj, str) else orjson.dumps(obj).decode()


def extract_of(definition: Tree) -> tuple[Extract, tuple[str, ...]]:
    """How the cache reads the objects of a definition, and the selectable fields of all its versions."""
    selectable: dict[str, tuple[str, ...]] = {}
    for version in definition["spec"]["versions"]:
        for field in version.get("selectableFields") or ():
            path = paths.simple(field["jsonPath"])
            selectable[".".join(path)] = path
    if not selectable:
        return extract_metadata, ()

    def fields(obj: Mapping[str, Any]) -> dict[str, str]:
        return {name: text_at(obj, path) for name, path in selectable.items()}

    return extract_fields(fields, tuple(selectable)), tuple(selectable)


# --- columns ----------------------------------------------------------------------------------------------------------


def compile_columns(printer_columns: Sequence[Tree]) -> tuple[tuple[Column, ...], list[Cell]]:
    """The columns behind the name, and what fills them."""
    if not printer_columns:
        return (NAME_COLUMN, AGE_COLUMN._replace(type="date")), [
            lambda obj, now: age(obj["metadata"].get("creationTimestamp"), now)
        ]
    columns, cells = [NAME_COLUMN], []
    for one in printer_columns:
        path = one["jsonPath"]
        description = one.get("description") or COLUMN_TEXT + path
        columns.append(Column(one["name"], one["type"], one.get("format") or "", one.get("priority") or 0, description))
        cells.append(_cell(paths.compile_path(path), one["type"]))
    return tuple(columns), cells


def _cell(path: paths.JSONPath, kind: str) -> Cell:
    def cell(obj: Tree, now: float) -> Any:
        value = path.first(obj)
        if value is None:
            return None
        if kind == "string":
            return value if isinstance(value, str) else orjson.dumps(value).decode()
        if kind == "date":
            try:
                return age(value, now) if isinstance(value, str) else None
            except ValueError:
                return "<invalid>"
        if kind == "boolean":
            return value if isinstance(value, bool) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return int(value) if kind == "integer" else float(value)

    return cell


# --- OpenAPI ----------------------------------------------------------------------------------------------------------

META = "io.k8s.apimachinery.pkg.apis.meta.v1."


@functools.cache
def _texts() -> dict[str, str]:
    """How the built-in kinds describe apiVersion, kind and metadata, and how custom ones do, too."""
    from navarch.api.types.generate import definitions

    properties = definitions()["io.k8s.api.core.v1.ConfigMap"]["properties"]
    return {name: properties[name]["description"] for name in ("apiVersion", "kind", "metadata")}


def definition_name(kind: Kind, name: str) -> str:
    """The name of a custom kind's definition: the group backwards."""
    return ".".join([*reversed(kind.group.split(".")), kind.version, name])


def _embedded(schema: Any) -> Iterator[Tree]:
    """All schemas of whole objects inside another."""
    if isinstance(schema, dict):
        if schema.get("x-kubernetes-embedded-resource") is True:
            yield schema
        for child in list(schema.values()):
            yield from _embedded(child)
    elif isinstance(schema, list):
        for child in schema:
            yield from _embedded(child)


def definitions_of(strategy: CustomStrategy) -> dict[str, Tree]:
    """The OpenAPI definitions of a custom kind and of its list."""
    kind = strategy.kind

    def link(name: str, text: str) -> Tree:
        return {"allOf": [{"$ref": f"#/components/schemas/{META}{name}"}], "description": text}

    def head(name: str) -> Tree:
        gvk = {"group": kind.group, "version": kind.version, "kind": name}
        return {"type": "object", "x-kubernetes-group-version-kind": [gvk]}

    texts = _texts()
    typed: Tree = {name: {"type": "string", "description": texts[name]} for name in ("apiVersion", "kind")}
    one: Tree = copy_tree(strategy.open_schema) | head(kind.kind)
    for inner in _embedded(one):
        standard = typed | {"metadata": link("ObjectMeta", "Standard metadata.")}
        inner["properties"] = dict(inner.get("properties") or {}) | standard
        inner["required"] = sorted({*(inner.get("required") or ()), "apiVersion", "kind"})
    if strategy.open_schema:  # without a schema clients would take these for all that there may be
        standard = typed | {"metadata": link("ObjectMeta", texts["metadata"])}
        one["properties"] = dict(one.get("properties") or {}) | standard
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{definition_name(kind, kind.kind)}"}}
    many = head(kind.list_kind) | {
        "description": f"{kind.list_kind} is a list of {kind.kind}",
        "required": ["items"],
        "properties": typed | {"metadata": link("ListMeta", "Standard list metadata."), "items": items},
    }
    return {definition_name(kind, kind.kind): one, definition_name(kind, kind.list_kind): many}
