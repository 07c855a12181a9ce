"""OpenAPI v3, from which kubectl learns how to apply, explain and validate.

The definitions come from the package kubernetes-validate, which carries a transformed swagger; we undo the
transformation and serve only what belongs to the kinds that are served. Each group-version's document is built when
it is first asked for. kubectl trusts the patch tags in it: they must be complete.

OpenAPI v2 is answered with an empty document, which makes older kubectl take everything from v3.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from apiserver.crd.custom import CustomStrategy, definitions_of
from apiserver.http.asgi import Request
from apiserver.http.negotiation import JSON, clauses
from apiserver.registry.patches import supported
from apiserver.registry.strategy import Strategy
from navarch.api.errors import MethodNotAllowed, NotAcceptable, NotFound
from navarch.api.kinds import Kind

if TYPE_CHECKING:
    from apiserver.http.discovery import Entry
    from apiserver.server import APIServer

Tree = dict[str, Any]

LEVEL = "v1.34.0"
V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
V2_OLD_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_SCHEMAS = "#/components/schemas/"


def definitions() -> dict[str, Tree]:
    """The definitions of every type of the API level, by full name."""
    import kubernetes_validate

    root = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"{LEVEL}-local"
    return json.loads((root / "_definitions.json").read_bytes())["$defs"]  # type: ignore[no-any-return]


def restored(schema: Any) -> Any:
    """A definition as Kubernetes publishes it."""
    if isinstance(schema, list):
        return [restored(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out: Tree = {}
    ref = schema.get("$ref")
    if isinstance(ref, str):
        # A sibling of $ref counts for nothing in OpenAPI 3.0.
        link = {"$ref": _SCHEMAS + ref.rsplit("/", 1)[1]}
        rest = {k: restored(v) for k, v in schema.items() if k != "$ref"}
        return {"allOf": [link], **rest} if rest else link
    for key, value in schema.items():
        if key == "type" and isinstance(value, list):
            out[key] = next(t for t in value if t != "null")
        elif key == "properties":
            out[key] = {name: _property(name, child) for name, child in value.items()}
        elif key in ("description", "enum", "default", "required") or key.startswith("x-kubernetes"):
            out[key] = value
        else:
            out[key] = restored(value)
    return out


def _property(name: str, child: Tree) -> Tree:
    out: Tree = restored(child)
    if name in ("apiVersion", "kind") and isinstance(out.get("enum"), list):
        del out["enum"]  # put in by the package: these fields are free
    return out


def definition(name: str, found: Tree) -> Tree:
    """The published definition of a type."""
    if name == _INT_OR_STRING:
        return {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}
    if name == _QUANTITY:
        return {"oneOf": [{"type": "string"}, {"type": "number"}]}
    out: Tree = restored(found)
    return out


def _links(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        ref = value.get("$ref")
        if isinstance(ref, str):
            yield ref.removeprefix(_SCHEMAS)
        for child in value.values():
            yield from _links(child)
    elif isinstance(value, list):
        for child in value:
            yield from _links(child)


class OpenAPI:
    """Serves /openapi/v3, its documents, and the empty /openapi/v2."""

    def __init__(self, server: APIServer) -> None:
        self.server = server
        self._documents: dict[str, tuple[bytes, str]] = {}  # group-version path -> JSON, hash

    async def handle(self, request: Request) -> None:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        path = request.path.rstrip("/")
        if path == "/openapi/v2":
            return await self._v2(request)
        if path == "/openapi/v3":
            return await request.reply_tree(200, self.index())
        name = path.removeprefix("/openapi/v3/")
        if name == path or name not in self._names():
            raise NotFound("the server could not find the requested resource")
        self._check_accept(request)
        data, digest = self.document(name)
        etag = f'"{digest}"'.encode()
        headers = [(b"etag", etag), (b"vary", b"Accept")]
        if request.query.get("hash") == digest:
            headers += [(b"cache-control", b"public, immutable")]
        if request.header(b"if-none-match") == etag.decode():
            return await request.reply(304, b"", JSON.encode(), headers)
        await request.reply(200, data, JSON.encode(), headers)

    def _check_accept(self, request: Request) -> None:
        header = request.header(b"accept")
        if header and not any(m in (JSON, "*/*", "application/*") for m, _ in clauses(header)):
            raise NotAcceptable(f"only the following media types are accepted: {JSON}")

    async def _v2(self, request: Request) -> None:
        for media_type, _ in clauses(request.header(b"accept") or JSON):
            if media_type in (V2_PROTOBUF, V2_OLD_PROTOBUF):
                # Asked for with an "@", answered without: Go cannot parse a Content-Type that has one.
                return await request.reply(200, _v2_document(), V2_PROTOBUF.encode())
            if media_type in (JSON, "*/*", "application/*"):
                info = {"title": "Kubernetes", "version": LEVEL}
                return await request.reply_tree(200, {"swagger": "2.0", "info": info, "paths": {}, "definitions": {}})
        raise NotAcceptable(f"only the following media types are accepted: {JSON}, {V2_PROTOBUF}")

    def _names(self) -> dict[str, list[Entry]]:
        """``api/v1``, ``apis/apps/v1`` ... with what they serve."""
        out = {}
        for group, versions in self.server.discovery.groups.items():
            for version, found in versions.items():
                out[f"apis/{group}/{version}" if group else f"api/{version}"] = found
        return out

    def index(self) -> Tree:
        """The paths of all documents, with their hashes."""
        paths = {}
        for name in sorted(self._names()):
            # The hash of what goes in, not of what comes out: the index must not build every document.
            paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={self.digest(name)}"}
        return {"paths": paths}

    def digest(self, name: str) -> str:
        """Changes whenever the document would."""
        entries = self._names()[name]
        shown: list[Any] = [(e.kind.resource, e.verbs, [(s.name, s.verbs) for s in e.subs]) for e in entries]
        shown += [s.fingerprint for e in entries if isinstance(s := self._strategy(e), CustomStrategy)]
        return hashlib.sha512(orjson.dumps([LEVEL, name, shown, 1])).hexdigest()[:64].upper()

    @cached_property
    def _by_kind(self) -> dict[tuple[str, str, str], str]:
        out: dict[tuple[str, str, str], str] = {}
        for name, found in self._definitions.items():
            own = found.get("x-kubernetes-group-version-kind") or []
            if len(own) == 1:
                out[own[0]["group"], own[0]["version"], own[0]["kind"]] = name
        return out

    @cached_property
    def _definitions(self) -> dict[str, Tree]:
        return definitions()

    def document(self, name: str) -> tuple[bytes, str]:
        """The JSON of one group-version's document, and its hash."""
        digest = self.digest(name)
        found = self._documents.get(name)
        if found is None or found[1] != digest:
            found = self._documents[name] = (orjson.dumps(self._build(self._names()[name])), digest)
        return found

    def _build(self, entries: list[Entry]) -> Tree:
        paths: Tree = {}
        custom: dict[str, Tree] = {}
        roots = {_META + "Patch", _META + "DeleteOptions", _META + "Status", _META + "WatchEvent"}
        for entry in entries:
            kinds = [entry.kind, *(s.kind for s in entry.subs)]
            own = self._custom(entry)
            custom |= own
            known = {k: self._by_kind.get((k.group, k.version, k.kind)) for k in kinds}
            listed = self._by_kind.get((entry.kind.group, entry.kind.version, entry.kind.list_kind))
            if own:
                first, listed = own
                known[entry.kind] = first
            roots |= {n for n in (*known.values(), listed) if n}
            paths |= self._paths(entry, known, listed)
        schemas: Tree = {}
        todo = sorted(roots)
        while todo:
            at = todo.pop()
            if at in schemas:
                continue
            if at in custom:
                schemas[at] = custom[at]
            elif at in self._definitions:
                schemas[at] = definition(at, self._definitions[at])
            else:
                continue
            todo += _links(schemas[at])
        return {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": LEVEL},
            "paths": dict(sorted(paths.items())),
            "components": {"schemas": dict(sorted(schemas.items()))},
        }

    def _custom(self, entry: Entry) -> dict[str, Tree]:
        """The definitions of a custom kind and of its list; nothing for a built-in one."""
        strategy = self._strategy(entry)
        return definitions_of(strategy) if isinstance(strategy, CustomStrategy) else {}

    def _strategy(self, entry: Entry) -> Strategy | None:
        kind = entry.kind
        resource = self.server.served.get((kind.group, kind.version, kind.resource))
        return resource.strategy if resource else None

    def _paths(self, entry: Entry, known: Mapping[Kind, str | None], listed: str | None) -> Tree:
        kind, verbs = entry.kind, entry.verbs
        collection = kind.path("{namespace}")
        item = kind.path("{namespace}", "{name}")
        outer = [_parameter("namespace", "path")] if kind.namespaced else []
        resource = self.server.served.get((kind.group, kind.version, kind.resource))
        patches = supported(resource.strategy.strategic_patch) if resource else []
        name = known[kind]
        out: Tree = {}

        def operation(action: str, of: Kind, schema: str | None, body: bool = False, patch: bool = False) -> Tree:
            return _operation(action, of, schema, schema if body else None, patches if patch else [])

        top: Tree = {"parameters": outer}
        if "list" in verbs:
            top["get"] = operation("list", kind, listed)
        if "create" in verbs:
            top["post"] = operation("post", kind, name, body=True)
        if "deletecollection" in verbs:
            top["delete"] = operation("deletecollection", kind, _META + "Status")
        out[collection] = top
        if kind.namespaced and "list" in verbs:
            out[kind.path()] = {"get": operation("list", kind, listed)}
        if set(verbs) & {"get", "update", "patch", "delete"}:
            one: Tree = {"parameters": [*outer, _parameter("name", "path")]}
            for verb, method in (("get", "get"), ("update", "put"), ("patch", "patch"), ("delete", "delete")):
                if verb in verbs:
                    schema = _META + "Status" if verb == "delete" else name
                    one[method] = operation(method, kind, schema, method == "put", method == "patch")
            out[item] = one
        for sub in entry.subs:
            below: Tree = {"parameters": [*outer, _parameter("name", "path")]}
            methods = {"get": "get", "update": "put", "patch": "patch", "create": "post"}
            for verb, method in methods.items():
                if verb in sub.verbs:
                    schema = known[sub.kind]
                    below[method] = operation(method, sub.kind, schema, method in ("put", "post"), method == "patch")
            out[f"{item}/{sub.name}"] = below
        return out


def _parameter(name: str, where: str, kind: str = "string") -> Tree:
    out: Tree = {"name": name, "in": where, "schema": {"type": kind, "uniqueItems": True}}
    return out | {"required": True} if where == "path" else out


_WRITE = [_parameter(n, "query") for n in ("dryRun", "fieldManager", "fieldValidation")]
_LIST = [
    _parameter("allowWatchBookmarks", "query", "boolean"), _parameter("continue", "query"),
    _parameter("fieldSelector", "query"), _parameter("labelSelector", "query"), _parameter("limit", "query", "integer"),
    _parameter("resourceVersion", "query"), _parameter("resourceVersionMatch", "query"),
    _parameter("sendInitialEvents", "query", "boolean"), _parameter("timeoutSeconds", "query", "integer"),
    _parameter("watch", "query", "boolean"),
]  # fmt: skip
_DELETE = [
    _parameter("dryRun", "query"), _parameter("gracePeriodSeconds", "query", "integer"),
    _parameter("orphanDependents", "query", "boolean"), _parameter("propagationPolicy", "query"),
]  # fmt: skip


def _operation(action: str, kind: Kind, schema: str | None, body: str | None, patches: list[str]) -> Tree:
    content = {JSON: {"schema": {"$ref": _SCHEMAS + schema}}} if schema else {JSON: {}}
    code = "201" if action == "post" else "200"
    out: Tree = {
        "tags": ["_".join((kind.group.partition(".")[0] or "core", kind.version))],
        "operationId": f"{action}_{kind.group.partition('.')[0] or 'core'}_{kind.version}_{kind.kind}",
        "responses": {code: {"description": "OK", "content": content}, "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
    }
    if action in ("post", "put", "patch"):
        out["parameters"] = [*_WRITE, *([_parameter("force", "query", "boolean")] if action == "patch" else [])]
    elif action in ("delete", "deletecollection"):
        out["parameters"] = _DELETE + (_LIST if action == "deletecollection" else [])
        body = _META + "DeleteOptions"
    elif action == "list":
        out["parameters"] = _LIST
    if patches:
        patch = {"schema": {"$ref": _SCHEMAS + _META + "Patch"}}
        out["requestBody"] = {"content": {p: patch for p in patches}, "required": True}
    elif body:
        out["requestBody"] = {"content": {"*/*": {"schema": {"$ref": _SCHEMAS + body}}}}
    return out


def _v2_document() -> bytes:
    """An openapi.v2.Document with nothing in it: swagger "2.0", info, no paths, no definitions."""

    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    info = field(1, b"Kubernetes") + field(2, LEVEL.encode())
    return field(1, b"2.0") + field(2, info) + field(8, b"") + field(9, b"")
