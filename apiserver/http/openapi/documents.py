"""Paths and definitions as documents of OpenAPI v3 and v2. Pure, so that a large document can be made in a thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from apiserver.http.openapi import parameters as table
from apiserver.http.openapi.definitions import LEVEL, V2_SCHEMAS, V3_SCHEMAS, closure, to_v2
from apiserver.http.openapi.operations import ANY, OBJECT, STATUS, STRING, Operation, Path, Reply
from apiserver.wire.negotiation import JSON

Tree = dict[str, Any]

_INFO = {"title": "Kubernetes", "version": LEVEL}
_TOKEN = {"type": "apiKey", "description": "Bearer token", "name": "authorization", "in": "header"}
_SECURITY = [{"BearerToken": list[str]()}]
_UNAUTHORIZED, _ERROR = "Unauthorized", "Any error"


def roots(paths: Iterable[Path]) -> set[str]:
    """The definitions that the operations speak of."""
    out = {STATUS}
    for path in paths:
        for operation in path.operations:
            out |= {operation.body, *(s for reply in operation.replies for s in reply.schemas)}
    return out - {"", STRING, OBJECT}


def v3(paths: Sequence[Path], custom: Mapping[str, Tree], builtin: Mapping[str, Tree]) -> Tree:
    """The document of a group-version. ``custom``, ``builtin``: the definitions to take from."""
    return {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": {p.path: _v3_path(p) for p in sorted(paths)},
        "components": {
            "schemas": closure(roots(paths), custom, builtin),
            "securitySchemes": {"BearerToken": _TOKEN},
        },
        "security": _SECURITY,
    }


def _v3_path(path: Path) -> Tree:
    out: Tree = {o.method: _v3_operation(o, path.tag) for o in path.operations}
    if path.parameters:
        out["parameters"] = [table.v3(p) for p in path.parameters]
    return out


def _v3_operation(operation: Operation, tag: str) -> Tree:
    def content(reply: Reply) -> Tree:
        schema: Tree = {"anyOf": [_v3_schema(s) for s in reply.schemas]}
        if len(reply.schemas) == 1:
            schema = _v3_schema(reply.schemas[0])
        return {media_type: {"schema": schema} for media_type in operation.produces}

    replies: Tree = {str(r.code): {"description": r.text, "content": content(r)} for r in operation.replies}
    out = _common(operation, tag)
    out["responses"] = replies | {"401": {"description": _UNAUTHORIZED}}
    if operation.errors:
        status = {JSON: {"schema": _v3_schema(STATUS)}}
        out["responses"] |= {"401": {"description": _UNAUTHORIZED, "content": status}}
        out["responses"] |= {"default": {"description": _ERROR, "content": status}}
    if operation.parameters:
        out["parameters"] = [table.v3(p) for p in operation.parameters]
    if operation.body:
        schema = {"schema": _v3_schema(operation.body)}
        out["requestBody"] = {"content": {c: schema for c in operation.consumes}}
        if operation.body_required:
            out["requestBody"]["required"] = True
    return out


def _v3_schema(name: str) -> Tree:
    return {"type": name} if name in (STRING, OBJECT) else {"$ref": V3_SCHEMAS + name}


def _common(operation: Operation, tag: str) -> Tree:
    out: Tree = {"description": operation.text, "operationId": operation.id, "tags": [tag]}
    if operation.action:
        out["x-kubernetes-action"] = operation.action
    if kind := operation.kind:
        out["x-kubernetes-group-version-kind"] = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    return out


def v2(paths: Sequence[Path], custom: Mapping[str, Tree], builtin: Mapping[str, Tree]) -> Tree:
    """The one document of everything."""
    schemas = closure(roots(paths), custom, builtin)
    return {
        "swagger": "2.0",
        "info": _INFO,
        "paths": {p.path: _v2_path(p) for p in sorted(paths)},
        "definitions": {name: to_v2(name, schema) for name, schema in schemas.items()},
        "securityDefinitions": {"BearerToken": _TOKEN},
        "security": _SECURITY,
    }


def _v2_path(path: Path) -> Tree:
    out: Tree = {o.method: _v2_operation(o, path.tag) for o in path.operations}
    if path.parameters:
        out["parameters"] = [table.v2(p) for p in path.parameters]
    return out


def _v2_operation(operation: Operation, tag: str) -> Tree:
    out = _common(operation, tag)
    out["produces"], out["schemes"] = list(operation.produces), ["https"]
    parameters = [table.v2(p) for p in operation.parameters]
    if operation.body:
        body: Tree = {"name": "body", "in": "body", "schema": {"$ref": V2_SCHEMAS + operation.body}}
        if operation.body_required:
            body["required"] = True
        parameters.insert(0, body)
        out["consumes"] = list(operation.consumes)
    elif operation.action == "connect" or operation.method == "get":
        out["consumes"] = [ANY]
    if parameters:
        out["parameters"] = parameters
    replies: Tree = {}
    for reply in operation.replies:
        # v2 has no alternatives: the first is what comes as a rule.
        name = reply.schemas[0] if reply.schemas else STRING
        schema = {"type": name} if name in (STRING, OBJECT) else {"$ref": V2_SCHEMAS + name}
        replies[str(reply.code)] = {"description": reply.text, "schema": schema}
    out["responses"] = replies | {"401": {"description": _UNAUTHORIZED}}
    return out
