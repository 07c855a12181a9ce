"""Paths and operations of the server, from what discovery knows. Pure; the documents render it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from apiserver.http.discovery import Entry, Sub
from apiserver.http.openapi import parameters as table
from apiserver.http.openapi.definitions import META, VERSION_INFO
from apiserver.wire.negotiation import JSON, YAML
from navarch.api.kinds import Kind

ANY, STREAM, TEXT = "*/*", "application/json;stream=watch", "text/plain"
STATUS, DELETE_OPTIONS, PATCH, WATCH_EVENT = (
    META + n for n in ("Status", "DeleteOptions", "Patch", "WatchEvent")
)  # fmt: skip
PLAIN = (JSON, YAML)
LISTS = (*PLAIN, STREAM)
STRING, OBJECT = "string", "object"  # in place of a definition's name: a reply that is text, or any object
_ACTS = ("Binding", "Eviction")  # what is done, and not stored: the answer is a Status
_METHODS = {"get": "read", "put": "replace", "patch": "patch"}
_PROXY = ("delete", "get", "head", "options", "patch", "post", "put")


class Reply(NamedTuple):
    """``schemas``: names of definitions, any of which the body may have; none at all: nothing is said about it."""

    code: int
    text: str
    schemas: tuple[str, ...] = ()


class Operation(NamedTuple):
    """One method of a path. ``body`` is the name of a definition; ``consumes`` the media types of bodies."""

    method: str
    id: str
    text: str
    action: str = ""
    kind: Kind | None = None
    parameters: tuple[str, ...] = ()
    body: str = ""
    body_required: bool = True
    consumes: tuple[str, ...] = (ANY,)
    replies: tuple[Reply, ...] = ()
    produces: tuple[str, ...] = PLAIN
    errors: bool = True  # whether other codes come with a Status


class Path(NamedTuple):
    """A path with its operations. ``parameters`` are those that all of them share."""

    path: str
    tag: str
    operations: tuple[Operation, ...]
    parameters: tuple[str, ...] = ()


def group_word(group: str) -> str:
    """How tags name a group: core, apps, rbacAuthorization, stableExampleCom."""
    if not group:
        return "core"
    first, *rest = group.removesuffix(".k8s.io").split(".")
    return first + "".join(_capital(word) for word in rest)


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]


def tag_of(group: str, version: str = "") -> str:
    word = group_word(group)
    return f"{word}_{version}" if version else word


def _ok(*schemas: str) -> tuple[Reply, ...]:
    return (Reply(200, "OK", schemas),)


def _written(schema: str, kind: Kind) -> tuple[Reply, ...]:
    schemas = (schema, STATUS) if kind.kind in _ACTS else (schema,)
    return Reply(200, "OK", schemas), Reply(201, "Created", schemas)


class Names:
    """The operationIds of a resource: ``names("list", "", "ForAllNamespaces")`` is listCoreV1PodForAllNamespaces."""

    def __init__(self, kind: Kind) -> None:
        self.start = _capital(group_word(kind.group)) + _capital(kind.version)
        self.what = ("Namespaced" if kind.namespaced else "") + kind.kind
        self.kind = kind.kind

    def __call__(self, verb: str, before: str = "", after: str = "", *, everywhere: bool = False) -> str:
        return f"{verb}{self.start}{before}{self.kind if everywhere else self.what}{after}"


def paths_of(
    entry: Entry, definition: Callable[[Kind], str], listed: str, patches: Sequence[str], returned: bool
) -> list[Path]:
    """The paths of a resource. ``definition`` names the type of a kind ("" if it has none), ``listed`` that of its
    list; ``patches``: patch types; ``returned``: its deletion answers with the object."""
    kind, verbs = entry.kind, set(entry.verbs)
    tag, called, schema = tag_of(kind.group, kind.version), Names(kind), definition(kind)
    collection, item = kind.path("{namespace}"), kind.path("{namespace}", "{name}")
    outer = ("namespace", "pretty") if kind.namespaced else ("pretty",)
    inner = ("name", *outer)
    listing = Operation(
        "get", called("list"), f"Lists objects of kind {kind.kind}, or watches them.", "list", kind, table.LIST,
        replies=_ok(listed), produces=LISTS,
    )  # fmt: skip
    top: list[Operation] = []
    if "list" in verbs:
        top.append(listing)
    if "create" in verbs:
        replies = (*_written(schema, kind), Reply(202, "Accepted", (schema,)))
        text = f"Creates an object of kind {kind.kind}."
        top.append(Operation("post", called("create"), text, "post", kind, table.WRITE, schema, replies=replies))
    if "deletecollection" in verbs:
        top.append(Operation(
            "delete", called("delete", "Collection"), f"Deletes all objects of kind {kind.kind} that are selected.",
            "deletecollection", kind, tuple(dict.fromkeys((*table.DELETE, *table.SELECT))), DELETE_OPTIONS, False,
            replies=_ok(STATUS, listed),
        ))  # fmt: skip
    out = [Path(collection, tag, tuple(top), outer)] if top else []
    if kind.namespaced and "list" in verbs:
        name = called("list", after="ForAllNamespaces", everywhere=True)
        out.append(Path(kind.path(), tag, (listing._replace(id=name),), ("pretty",)))
    one = [
        operation
        for verb, method in (("get", "get"), ("update", "put"), ("patch", "patch"))
        if verb in verbs
        for operation in [_single(method, called(_METHODS[method]), kind, schema, patches)]
    ]
    if "delete" in verbs:
        answer = (schema,) if returned else (STATUS, schema)
        one.append(Operation(
            "delete", called("delete"), f"Deletes an object of kind {kind.kind}.", "delete", kind, table.DELETE,
            DELETE_OPTIONS, False, replies=(*_ok(*answer), Reply(202, "Accepted", answer)),
        ))  # fmt: skip
    if one:
        out.append(Path(item, tag, tuple(one), inner))
    for sub in entry.subs:
        out += _subresource(sub, kind, f"{item}/{sub.name}", definition(sub.kind), patches, inner)
    if "watch" in verbs:
        out += _watches(kind, called, outer, inner)
    return out


def _single(
    method: str, name: str, kind: Kind, schema: str, patches: Sequence[str], what: str = "an object", code: int = 0
) -> Operation:
    """get, put, patch or post of one object, or of a part of it."""
    verb = {"get": "Reads", "put": "Replaces", "patch": "Changes", "post": "Creates"}[method]
    text = f"{verb} {what} of kind {kind.kind}."
    if method == "get":
        return Operation(method, name, text, method, kind, replies=_ok(schema))
    if method == "patch":
        return Operation(method, name, text, method, kind, table.PATCH, PATCH, True, tuple(patches), _written(schema, kind))
    return Operation(method, name, text, method, kind, table.WRITE, schema, replies=_written(schema, kind))


def _subresource(
    sub: Sub, parent: Kind, path: str, schema: str, patches: Sequence[str], inner: tuple[str, ...]
) -> list[Path]:
    called, tag, word = Names(parent), tag_of(parent.group, parent.version), _capital(sub.name)
    if sub.name == "log":
        text = "Reads the log of a container."
        log = Operation(
            "get", called("read", after=word), text, "get", parent, table.CONNECT["log"], replies=_ok(STRING),
            produces=(TEXT, *PLAIN),
        )  # fmt: skip
        return [Path(path, tag, (log,), inner)]
    if sub.kind.kind.endswith("Options"):  # a connection, not an object
        methods = _PROXY if sub.name == "proxy" else ("get", "post")
        text = f"Connects {', '.join(methods)} requests to {sub.name} of {parent.kind}."
        operations = [
            Operation(
                m, called("connect", _capital(m), word), text, "connect", sub.kind, table.CONNECT.get(sub.name, ()),
                replies=_ok(STRING), produces=(ANY,), errors=False,
            )
            for m in methods
        ]  # fmt: skip
        out = [Path(path, tag, tuple(operations), tuple(p for p in inner if p != "pretty"))]
        if sub.name == "proxy":
            deeper = tuple(o._replace(id=o.id + "WithPath") for o in operations)
            out.append(Path(path + "/{path}", tag, deeper, (*out[0].parameters, "path")))
        return out
    verbs = []
    for verb, method in (("get", "get"), ("update", "put"), ("patch", "patch"), ("create", "post")):
        if verb in sub.verbs:
            name = called({"post": "create"}.get(method) or _METHODS[method], after=word)
            verbs.append(_single(method, name, sub.kind, schema, patches, f"the {sub.name} of an object"))
    return [Path(path, tag, tuple(verbs), inner)]


def _watches(kind: Kind, called: Names, outer: tuple[str, ...], inner: tuple[str, ...]) -> list[Path]:
    """The old paths of watches, which parameters of lists have replaced."""

    def path(where: str, action: str, name: str, shared: tuple[str, ...]) -> Path:
        prefix = kind.path_prefix
        text = f"Watches {kind.kind}. Old: use the parameter watch of a list, with a field selector for one object."
        operation = Operation("get", name, text, action, kind, replies=_ok(WATCH_EVENT), produces=(JSON, STREAM))
        shared = (*table.LIST, *shared)
        return Path(f"{prefix}/watch{where.removeprefix(prefix)}", tag_of(kind.group, kind.version), (operation,), shared)

    collection, item = kind.path("{namespace}"), kind.path("{namespace}", "{name}")
    out = [
        path(collection, "watchlist", called("watch", after="List"), outer),
        path(item, "watch", called("watch"), inner),
    ]
    if kind.namespaced:
        name = called("watch", after="ListForAllNamespaces", everywhere=True)
        out.append(path(kind.path(), "watchlist", name, ("pretty",)))
    return out


def page(path: str, tag: str, name: str, schema: str, text: str, produces: tuple[str, ...] = PLAIN) -> Path:
    """A path that is no resource: discovery, the version, the keys of tokens."""
    return Path(path, tag, (Operation("get", name, text, replies=_ok(schema), produces=produces),))


def pages(groups: Mapping[str, Iterable[str]], documents: Iterable[str]) -> dict[str, list[Path]]:
    """Every such path, by the name of the v3 document in which it stands. ``groups``: the versions of each group."""
    out = {
        "api": [page("/api/", "core", "getCoreAPIVersions", META + "APIVersions", "The versions of the core group.")],
        "apis": [page("/apis/", "apis", "getAPIVersions", META + "APIGroupList", "All groups and their versions.")],
        "version": [page("/version/", "version", "getCodeVersion", VERSION_INFO, "The version of this server.", (JSON, YAML))],
    }
    for path, (tag, name, text) in _DOCUMENTS.items():
        if path in documents:
            out[path.strip("/")] = [page(path, tag, name, OBJECT, text, (JSON,))]
    for group, versions in groups.items():
        start = _capital(group_word(group))
        if group:
            text = f"The versions of {group}."
            name = f"get{start}APIGroup"
            out[f"apis/{group}"] = [page(f"/apis/{group}/", tag_of(group), name, META + "APIGroup", text)]
        for version in versions:
            where = f"apis/{group}/{version}" if group else f"api/{version}"
            name, text = f"get{start}{_capital(version)}APIResources", f"The resources of {group} {version}.".replace("  ", " ")
            out[where] = [page(f"/{where}/", tag_of(group, version), name, META + "APIResourceList", text)]
    return out


_DOCUMENTS = {
    "/.well-known/openid-configuration": (
        "WellKnown", "getServiceAccountIssuerOpenIDConfiguration", "What verifiers of service-account tokens need to know.",
    ),
    "/openid/v1/jwks": (
        "openid", "getServiceAccountIssuerOpenIDKeyset", "The public keys of service-account tokens.",
    ),
}  # fmt: skip
