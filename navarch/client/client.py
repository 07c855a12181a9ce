"""The typed client: the API's verbs as methods, objects as structs, errors as exceptions.

    client = Client(connect(kubeconfig.load()), RealWorld())
    pods = await client[core_v1.Pod].list("default", label_selector="app=web")
    await client[apps_v1.Deployment].patch("web", "default", {"spec": {"replicas": 3}})

``client.tree(kind)`` gives the same methods on plain JSON trees, for kinds without a struct. Failures are
:mod:`navarch.api.errors`; no answer at all is a TransportError, and one that does not fit an UndecodableAnswer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar, cast

import msgspec

from navarch.api import kinds
from navarch.api.errors import StatusError
from navarch.api.kinds import Kind
from navarch.api.types import meta_v1
from navarch.api.types.base import Struct
from navarch.client.codec import Codec, StructCodec, TreeCodec
from navarch.client.decodings import Decodings
from navarch.client.transport import JSON, Query, Response, Stream, Transport, UndecodableAnswer, WebSocket, error_of
from navarch.client.undecodable import DECODE_ERRORS, Undecodable
from navarch.client.watch import Watch
from navarch.world import World, describe

T = TypeVar("T")
V = TypeVar("V")
S = TypeVar("S", bound=Struct)
Tree = dict[str, Any]
Body = Struct | Mapping[str, Any] | Sequence[Any] | bytes

PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}
REQUEST_TIMEOUT = 60.0
BUSY_RETRIES = 10  # how often a 429 that says when to come back is obeyed before it becomes an error

_encoder = msgspec.json.Encoder()


class ObjectList(NamedTuple, Generic[T]):
    """A page of a collection. ``continue_`` is the token of the next page, "" on the last one."""

    items: list[T]
    resource_version: str
    continue_: str = ""
    remaining: int | None = None
    undecodable: Sequence[Undecodable] = ()  # of a tolerant list: items that do not fit their struct


class Client:
    """One identity's view of one API server. Cheap; holds no state but its transport.

    ``user_agent`` names the component; up to its first slash it is the field manager of its writes.
    """

    def __init__(self, transport: Transport, world: World, user_agent: str = "navarch") -> None:
        self.transport = transport
        self.world = world
        self.user_agent = user_agent
        self.tells_events = True  # False: recorders of Events on this client stay silent
        self.decodings: Decodings | None = None  # set: informers share what others of the same process decode
        self._headers = {"User-Agent": user_agent}
        self._resources: dict[type[Struct], ResourceClient[Any]] = {}

    def __getitem__(self, struct: type[S]) -> ResourceClient[S]:
        """The verbs of a built-in kind, by its struct. Raises KeyError for a struct that is not a root kind."""
        resource = self._resources.get(struct)
        if resource is None:
            resource = self._resources[struct] = ResourceClient(self, kinds.kind_of(struct), StructCodec(struct))
        return resource

    def tree(self, kind: Kind) -> ResourceClient[Tree]:
        """The verbs of any kind on plain JSON trees."""
        return ResourceClient(self, kind, TreeCodec(kind))

    def resource(self, kind: Kind, struct: type[S]) -> ResourceClient[S]:
        """The verbs of a kind of your own (a custom resource) with a struct of your own."""
        return ResourceClient(self, kind, StructCodec(struct, kind))

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: bytes | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        timeout: float | None = REQUEST_TIMEOUT,
    ) -> Response:
        """Any path of the server. Raises StatusError for answers of 400 and more, TransportError for none."""
        for attempt in range(BUSY_RETRIES + 1):
            response = await self.transport.request(
                method,
                path,
                query=query,
                body=body,
                content_type=content_type,
                accept=accept,
                headers=self._headers,
                timeout=timeout,
            )
            if response.status < 400:
                return response
            wait = response.headers.get("retry-after", "")
            if response.status != 429 or not wait.isdigit() or attempt == BUSY_RETRIES:
                raise error_of(response.status, response.body)
            await self.world.sleep(int(wait))
        raise AssertionError("unreachable")

    async def get_json(self, path: str, query: Query = (), accept: str = JSON) -> Any:
        """The JSON at any path: discovery, /version ..."""
        return _read(msgspec.json.decode, (await self.request("GET", path, query=query, accept=accept)).body)

    def stream(
        self, method: str, path: str, *, query: Query = (), accept: str = JSON
    ) -> AbstractAsyncContextManager[Stream]:
        """A raw streaming answer (logs). Look at its status: 400 and more is not raised."""
        return self.transport.stream(method, path, query=query, accept=accept, headers=self._headers)

    def websocket(
        self, path: str, *, query: Query = (), protocols: Sequence[str] = ()
    ) -> AbstractAsyncContextManager[WebSocket]:
        return self.transport.websocket(path, query=query, protocols=protocols, headers=self._headers)

    async def close(self) -> None:
        await self.transport.close()


class ResourceClient(Generic[T]):
    """The verbs of one resource. Get it from :class:`Client`."""

    def __init__(self, client: Client, kind: Kind, codec: Codec[T]) -> None:
        self.client = client
        self.kind = kind
        self.codec = codec

    async def get(self, name: str, namespace: str | None = None, *, resource_version: str | None = None) -> T:
        query = _query(resourceVersion=resource_version)
        return _read(self.codec.decode, await self._call("GET", self.kind.path(namespace, name), query))

    async def list(
        self,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int | None = None,
        continue_: str | None = None,
        resource_version: str | None = None,
        resource_version_match: str | None = None,
        tolerant: bool = False,
    ) -> ObjectList[T]:
        """The collection in one namespace or, with None, in all. Without resource_version: the most recent state.
        ``tolerant``: items that cannot be decoded are set aside, in place of an UndecodableAnswer for them all."""
        query = _query(
            labelSelector=label_selector,
            fieldSelector=field_selector,
            limit=limit,
            **{"continue": continue_},
            resourceVersion=resource_version,
            resourceVersionMatch=resource_version_match,
        )
        body = await self._call("GET", self.kind.path(namespace), query)
        bad: Sequence[Undecodable] = ()
        if tolerant:
            items, bad, meta = _read(self.codec.decode_each, body)
        else:
            items, meta = _read(self.codec.decode_list, body)
        return ObjectList(items, meta.resource_version or "", meta.continue_ or "", meta.remaining_item_count, bad)

    def watch(
        self,
        namespace: str | None = None,
        *,
        name: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        resource_version: str | None = None,
        timeout_seconds: int | None = None,
        bookmarks: bool = False,
        tolerant: bool = False,
        share: bool = False,
    ) -> Watch[T]:
        """Changes after ``resource_version``, as they happen; see :class:`navarch.client.watch.Watch`.

        ``share``: objects come without managedFields and may be others', too, if the client has ``decodings``.
        """
        if name is not None:
            field_selector = ",".join(filter(None, (field_selector, f"metadata.name={name}")))
        query = _query(
            watch="true",
            labelSelector=label_selector,
            fieldSelector=field_selector,
            resourceVersion=resource_version,
            timeoutSeconds=timeout_seconds,
            allowWatchBookmarks=bookmarks or None,
        )
        decode: Any = None
        if share and self.client.decodings is not None and isinstance(self.codec, StructCodec):
            decode = partial(self.client.decodings.decode_one, self.codec)
        return Watch(self.client.stream("GET", self.kind.path(namespace), query=query), self.codec, tolerant, decode)

    async def create(
        self,
        obj: T,
        namespace: str | None = None,
        *,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: str | None = None,
    ) -> T:
        """The object as the server made it. Raises AlreadyExists, Invalid ..."""
        path = self.kind.path(namespace or self.codec.namespace(obj))
        query = _write_query(dry_run, field_manager, field_validation)
        return _read(self.codec.decode, await self._call("POST", path, query, self.codec.encode(obj)))

    async def update(
        self,
        obj: T,
        *,
        subresource: str | None = None,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: str | None = None,
    ) -> T:
        """Replaces the object; with metadata.resourceVersion only if nobody changed it since (else Conflict)."""
        path = self.kind.path(self.codec.namespace(obj), self.codec.name(obj), subresource)
        query = _write_query(dry_run, field_manager, field_validation)
        return _read(self.codec.decode, await self._call("PUT", path, query, self.codec.encode(obj)))

    async def update_status(self, obj: T, *, dry_run: bool = False, field_manager: str | None = None) -> T:
        """Replaces the object's status; its spec stays as it is on the server."""
        return await self.update(obj, subresource="status", dry_run=dry_run, field_manager=field_manager)

    async def patch(
        self,
        name: str,
        namespace: str | None,
        body: Body,
        type: str = "merge",
        *,
        subresource: str | None = None,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: str | None = None,
        force: bool = False,
    ) -> T:
        """``type``: "merge", "strategic", "json" or "apply" (server-side: needs a field_manager; ``force`` takes
        over fields that others own)."""
        query = _write_query(dry_run, field_manager, field_validation)
        if force:
            query.append(("force", "true"))
        path = self.kind.path(namespace, name, subresource)
        return _read(self.codec.decode, await self._call("PATCH", path, query, _encode(body), PATCH_TYPES[type]))

    async def patch_status(
        self,
        name: str,
        namespace: str | None,
        body: Body,
        type: str = "merge",
        *,
        dry_run: bool = False,
        field_manager: str | None = None,
    ) -> T:
        return await self.patch(
            name, namespace, body, type, subresource="status", dry_run=dry_run, field_manager=field_manager
        )

    async def delete(
        self,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_seconds: int | None = None,
        propagation_policy: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        dry_run: bool = False,
    ) -> T | None:
        """The object while it goes on terminating, None when it is gone. ``uid`` and ``resource_version`` are
        preconditions: Conflict if the object is another by now."""
        options = _delete_options(grace_period_seconds, propagation_policy, uid, resource_version, dry_run)
        body = await self._call("DELETE", self.kind.path(namespace, name), (), _encoder.encode(options))
        return _read(self.codec.decode_unless_status, body)

    async def delete_collection(
        self,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        grace_period_seconds: int | None = None,
        propagation_policy: str | None = None,
        dry_run: bool = False,
    ) -> None:
        options = _delete_options(grace_period_seconds, propagation_policy, None, None, dry_run)
        query = _query(labelSelector=label_selector, fieldSelector=field_selector)
        await self._call("DELETE", self.kind.path(namespace), query, _encoder.encode(options))

    async def sub(
        self, name: str, namespace: str | None, subresource: str, body: Body, *, method: str = "POST"
    ) -> Tree:
        """Writes to a subresource (binding, token, eviction, scale) and gives its answer as a tree."""
        path = self.kind.path(namespace, name, subresource)
        return cast(Tree, _read(msgspec.json.decode, await self._call(method, path, (), _encode(body))))

    async def get_sub(self, name: str, namespace: str | None, subresource: str) -> Tree:
        """Reads a subresource (scale) as a tree."""
        answer = await self._call("GET", self.kind.path(namespace, name, subresource))
        return cast(Tree, _read(msgspec.json.decode, answer))

    def log(self, name: str, namespace: str, **query: Any) -> AsyncIterator[bytes]:
        """A container's log in pieces; query as the API names it: container, follow, tailLines, previous ..."""
        return _log(self.client, self.kind.path(namespace, name, "log"), _query(**query))

    async def _call(
        self, method: str, path: str, query: Query = (), body: bytes | None = None, content_type: str = JSON
    ) -> bytes:
        response = await self.client.request(method, path, query=query, body=body, content_type=content_type)
        return response.body


async def _log(client: Client, path: str, query: Query) -> AsyncIterator[bytes]:
    async with client.stream("GET", path, query=query, accept="*/*") as stream:
        if stream.status >= 400:
            raise error_of(stream.status, await stream.read())
        async for chunk in stream.chunks():
            yield chunk


def _read(decode: Callable[[bytes], V], body: bytes) -> V:
    """Decodes an answer. Raises UndecodableAnswer."""
    try:
        return decode(body)
    except DECODE_ERRORS as error:
        raise UndecodableAnswer(f"the server's answer cannot be decoded: {describe(error)}") from None


def _encode(body: Body) -> bytes:
    if isinstance(body, bytes):
        return body
    return kinds.encode(body) if isinstance(body, Struct) else _encoder.encode(body)


def _query(**pairs: Any) -> list[tuple[str, str]]:
    """Query parameters without those that are None; booleans and numbers as Kubernetes writes them."""
    return [
        (name, str(value).lower() if isinstance(value, bool) else str(value))
        for name, value in pairs.items()
        if value is not None
    ]


def _write_query(dry_run: bool, field_manager: str | None, field_validation: str | None) -> list[tuple[str, str]]:
    return _query(dryRun="All" if dry_run else None, fieldManager=field_manager, fieldValidation=field_validation)


def _delete_options(
    grace: int | None, policy: str | None, uid: str | None, resource_version: str | None, dry_run: bool
) -> meta_v1.DeleteOptions:
    preconditions = None
    if uid or resource_version:
        preconditions = meta_v1.Preconditions(uid=uid, resource_version=resource_version)
    return meta_v1.DeleteOptions(
        api_version="v1",
        kind="DeleteOptions",
        grace_period_seconds=grace,
        propagation_policy=policy,
        preconditions=preconditions,
        dry_run=["All"] if dry_run else None,
    )


__all__ = ["Body", "Client", "ObjectList", "ResourceClient", "StatusError", "Tree"]
