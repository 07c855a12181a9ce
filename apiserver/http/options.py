"""Query parameters and bodies into the options that the verbs take."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from apiserver.http import protobuf
from apiserver.offload import YAML_COST
from apiserver.registry.options import META_GROUP, ListOptions
from apiserver.request import DeleteOptions, WriteOptions
from apiserver.wire.asgi import Request, flag
from apiserver.wire.negotiation import JSON, YAML, media_type
from navarch.api import pruning
from navarch.api.errors import BadRequest, UnsupportedMediaType, forbidden, invalid, not_supported, resource_invalid
from navarch.api.kinds import Kind
from navarch.api.schema import Node, schema_of
from navarch.api.selectors import ALL_FIELDS, EVERYTHING, SelectorError, parse_field_selector, parse_label_selector
from navarch.api.serialization import DecodeError, decode_object, decode_yaml_documents, go_type, json_duplicates
from navarch.api.types import meta_v1

Query = Mapping[str, str]
IGNORE, WARN, STRICT = "Ignore", "Warn", "Strict"
_DEFAULT_LIST = ListOptions()
MANAGER_LIMIT = 128
_integer = re.compile(r"[+-]?[0-9]+").fullmatch
PROTOBUF_COST = 4  # a byte of protobuf takes as long to read as so many of JSON


BODY_TYPES = (JSON, YAML, protobuf.MEDIA_TYPE)
_DELETE_SCHEMA = schema_of(meta_v1.DeleteOptions)


def unknown_format(accepted: Sequence[str]) -> UnsupportedMediaType:
    listed = ", ".join(accepted)
    return UnsupportedMediaType(
        f"the body of the request was in an unknown format - accepted media types include: {listed}"
    )


class Body(NamedTuple):
    """A decoded object and the paths of keys that it gives twice."""

    tree: dict[str, Any]
    duplicates: list[str]
    size: int = 0  # of the text, in bytes


def list_options(query: Query) -> ListOptions:
    """Of a list, watch or deletecollection. Raises BadRequest."""
    if not query:
        return _DEFAULT_LIST
    try:
        labels = parse_label_selector(query["labelSelector"]) if query.get("labelSelector") else EVERYTHING
        fields = parse_field_selector(query["fieldSelector"]) if query.get("fieldSelector") else ALL_FIELDS
    except SelectorError as error:
        raise BadRequest(str(error)) from None
    timeout = _number(query, "timeoutSeconds")
    return ListOptions(
        labels, fields, max(0, _number(query, "limit") or 0), query.get("continue", ""), query.get("resourceVersion", ""),
        query.get("resourceVersionMatch", ""), timeout, bool(flag(query, "allowWatchBookmarks")),
        flag(query, "sendInitialEvents"),
    )  # fmt: skip


def _number(query: Query, name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not _integer(text):
        raise BadRequest(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    number = int(text[:25])  # what is longer is out of range anyhow
    if not -(1 << 63) <= number < 1 << 63:
        raise BadRequest(f'strconv.ParseInt: parsing "{text}": value out of range')
    return number


def write_options(request: Request, kind: str, apply: bool = False) -> WriteOptions:
    """Of create, update or patch; ``kind`` names the options for messages. Raises Invalid."""
    query = request.query
    manager = query.get("fieldManager", "")
    if not query:
        return WriteOptions(False, "" if apply else manager_of(request.header(b"user-agent")), WARN, False)
    causes = []
    validation, force = query.get("fieldValidation") or WARN, flag(query, "force")
    if validation not in (IGNORE, WARN, STRICT):
        causes.append(not_supported("fieldValidation", validation, [IGNORE, STRICT, WARN, ""]))
    if len(manager) > MANAGER_LIMIT:
        causes.append(invalid("fieldManager", manager, f"must be no more than {MANAGER_LIMIT} characters"))
    elif not manager.isprintable():
        causes.append(invalid("fieldManager", manager, "should only contain printable characters"))
    if force is not None and not apply:
        causes.append(forbidden("force", "may not be specified for non-apply patch"))
    if causes:
        raise resource_invalid(kind, META_GROUP, "", causes)
    dry_run = is_dry_run(request.queries("dryRun") if "dryRun" in query else [], kind)
    if not manager and not apply:
        manager = manager_of(request.header(b"user-agent"))
    return WriteOptions(dry_run, manager, validation, bool(force))


def manager_of(user_agent: str) -> str:
    """The field manager of a client that names none: the first word of its User-Agent."""
    name = user_agent.partition("/")[0]
    if not name.isprintable():
        name = "".join(c for c in name if c.isprintable())
    return name[:MANAGER_LIMIT]


def is_dry_run(values: list[str] | None, kind: str) -> bool:
    """Raises Invalid for anything but All."""
    for value in values or ():
        if value != "All":
            raise resource_invalid(kind, META_GROUP, "", [not_supported("dryRun", value, ["All"])])
    return bool(values)


async def body_of(request: Request, check_duplicates: bool, kind_of_body: Kind, schema: Node) -> Body:
    """The object in the body: JSON, YAML or protobuf.

    Raises UnsupportedMediaType, BadRequest, RequestEntityTooLarge.
    """
    kind = media_type(request.header(b"content-type")) or JSON
    if kind not in BODY_TYPES:
        raise unknown_format(BODY_TYPES)
    if kind == protobuf.MEDIA_TYPE and not protobuf.has_encoding(kind_of_body):
        raise unknown_format((JSON, YAML))
    data = await request.body()
    if kind == YAML:
        return await yaml_body(request, data)
    if kind == protobuf.MEDIA_TYPE:
        name = protobuf.type_name(kind_of_body)
        decoded = await request.offload(PROTOBUF_COST * len(data), protobuf.decode, data, name, schema)
        request.decoded(decoded)
        return Body(decoded, [], len(data))
    return await request.offload(len(data), _json_body, data, check_duplicates)


def _json_body(data: bytes, check_duplicates: bool) -> Body:
    tree = decode_object(data)
    return Body(tree, json_duplicates(data, tree) if check_duplicates else [], len(data))


async def yaml_body(request: Request, data: bytes) -> Body:
    """The object in a YAML text. Raises BadRequest."""
    return await request.offload(YAML_COST * len(data), _yaml_body, data)


def _yaml_body(data: bytes) -> Body:
    try:
        for tree, duplicates in decode_yaml_documents(data):
            if not isinstance(tree, dict):
                raise BadRequest(f"the body is no object: {go_type(tree)}")
            return Body(tree, duplicates, len(data))
    except DecodeError as error:
        raise BadRequest(str(error)) from None
    raise BadRequest("the body is empty")


async def delete_options(request: Request) -> DeleteOptions:
    """metav1.DeleteOptions from the body, or from the query if there is no body. Raises BadRequest, Invalid."""
    data = await request.body()
    query = request.query
    if data.strip():
        kind = media_type(request.header(b"content-type")) or JSON
        if kind == protobuf.MEDIA_TYPE:
            tree = protobuf.decode(data, protobuf.DELETE_OPTIONS, _DELETE_SCHEMA)
            request.decoded(tree)
        elif kind not in (*BODY_TYPES, "application/x-www-form-urlencoded"):
            raise unknown_format(BODY_TYPES)
        else:
            read = yaml_body(request, data) if kind == YAML else request.offload(len(data), _json_body, data, False)
            tree = (await read).tree
        if (tree.get("kind") or "DeleteOptions") != "DeleteOptions":
            raise BadRequest(f"unable to decode the body as DeleteOptions: it is a {tree.get('kind')}")
        pruning.prepare(tree, _DELETE_SCHEMA).raise_types("DeleteOptions", "v1")
    else:
        tree = {}
        if "gracePeriodSeconds" in query:
            tree["gracePeriodSeconds"] = _number(query, "gracePeriodSeconds")
        if query.get("propagationPolicy"):
            tree["propagationPolicy"] = query["propagationPolicy"]
        if "orphanDependents" in query:
            tree["orphanDependents"] = flag(query, "orphanDependents")
        if "dryRun" in query:
            tree["dryRun"] = request.queries("dryRun")
    if not tree and not query:
        return DeleteOptions()
    grace, orphan, policy = tree.get("gracePeriodSeconds"), tree.get("orphanDependents"), tree.get("propagationPolicy")
    preconditions = tree.get("preconditions") or {}
    dry_run = is_dry_run(tree.get("dryRun") or (request.queries("dryRun") if "dryRun" in query else None), "DeleteOptions")
    return DeleteOptions(
        dry_run, grace, policy or None, orphan, preconditions.get("uid"), preconditions.get("resourceVersion")
    )
