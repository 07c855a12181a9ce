"""The short way of a GET that was asked before: the same head on the same connection, another name in the same collection,
or the very same small list.

A request goes the long way (:mod:`apiserver.http.dispatcher`) first. If nothing in its answer hung on the object's name,
the way is noted as a :class:`Route`: who asks, what they may, where they belong in flow control, which kind it is. The next
GET that differs from it in nothing but the last part of the path, or the next list that does not differ at all, is
answered from the watch cache, without a task and without being parsed. Everything that a route relies on is compared
each time: the time of the certificate or of the token and the objects that it is bound to, the generations of
permissions and of flow control, the kind that is served there, whether the cache is up to date. If anything is not as
it was, the request goes the long way, whatever its answer will be then.

Watches go the long way: their start is seldom, and all that follows is a stream.
"""

from __future__ import annotations

from typing import Any, Protocol

from apiserver.authn.identity import Proof
from apiserver.authn.impersonation import impersonation_of
from apiserver.cache.cache import Entry
from apiserver.flowcontrol.flows import list_seats
from apiserver.http import options as opts
from apiserver.http.apis import APIs
from apiserver.http.gates import Gates
from apiserver.http.metrics import Metrics
from apiserver.http.shapes import PIECE, pieces
from apiserver.registry.options import ListOptions
from apiserver.registry.resource import Resource
from apiserver.request import Context, RequestInfo
from apiserver.wire.asgi import GZIP_FROM, Headers, Request, Scope
from apiserver.wire.negotiation import PLAIN, accept
from navarch.world import World

PEER = "navarch.peer_certificate"
CONNECTION = "navarch.connection"
STATUS = b"HTTP/1.1 200 OK\r\n"


class Connection(Protocol):
    """A connection that can go the short way."""

    def learn(self, target: bytes, route: Route) -> None: ...


class Route:
    """The way of the GETs of one collection on one connection; of one list, if it has ``options``."""

    __slots__ = (
        "dates", "flow", "flows", "head", "headers", "info", "namespace", "options", "permissions", "proof", "resource",
    )  # fmt: skip

    def __init__(
        self, info: RequestInfo, resource: Resource, flow: Any, headers: Headers, proof: Proof,
        generations: tuple[int, int], options: ListOptions | None,
    ) -> None:  # fmt: skip
        self.info, self.resource, self.flow, self.proof, self.options = info, resource, flow, proof, options
        self.namespace = info.namespace if resource.kind.namespaced else ""
        self.headers = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.permissions, self.flows = generations
        self.head, self.dates = b"", None  # type: bytes, Headers | None

    def head_at(self, dates: Headers) -> bytes:
        """The head of a reply, but for its length; ``dates`` is another list each second."""
        if self.dates is not dates:
            self.head = STATUS + b"".join(b"%b: %b\r\n" % header for header in dates) + self.headers
            self.dates = dates
        return self.head


class Lean:
    """Notes routes, and answers on them."""

    def __init__(self, world: World, gates: Gates, apis: APIs, metrics: Metrics) -> None:
        self.world, self.gates, self.apis, self.metrics = world, gates, apis, metrics
        self.served, self.cache = apis.resources.served, apis.resources.backend.cache
        self.off = False  # the server stops soon, and tells each client so

    def learn(self, request: Request, context: Context, flow: Any) -> None:
        """Notes the way of a GET that was answered with 200, if others can go it."""
        scope, info = request.scope, context.info
        connection: Connection | None = scope.get(CONNECTION)
        if connection is None or self.gates.audit is not None or context.warnings:
            return
        if info.subresource or request.pretty or request.method != "GET":
            return
        resource = self.served.get((info.group, info.version, info.resource))
        # Of a Namespace, permissions and flows are looked up in that namespace: they hang on the name.
        if resource is None or resource.converted is not None or (info.namespace and not resource.kind.namespaced):
            return
        options = opts.list_options(request.query) if info.verb == "list" else None
        if not (self._plain(resource, info, scope) if options is None else self._small(resource, info, options)):
            return
        if accept(request.header(b"accept")) != PLAIN:
            return
        proof = self.gates.authenticator.proof(scope)
        if proof is None or proof.user != context.user or impersonation_of(scope["headers"]) is not None:
            return
        if not self.gates.authorizer.every_name(context.user, info):
            return
        generations = self.gates.authorizer.generation, self.gates.flows.generation
        headers = [(b"content-type", PLAIN.content_type), *request.extra]
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        connection.learn(target, Route(info, resource, flow, headers, proof, generations, options))

    def _plain(self, resource: Resource, info: RequestInfo, scope: Scope) -> bool:
        """Whether a GET is of an object that is stored in the shape that clients see, as most of its kind are then."""
        if scope["query_string"]:
            return False
        entry = self.cache.get(resource.prefix, info.namespace, info.name)
        return entry is not None and self._as_stored(resource, entry)

    def _small(self, resource: Resource, info: RequestInfo, options: ListOptions) -> bool:
        """Whether a list is a first page at no certain revision, and small."""
        if options.continue_ or options.resource_version not in ("", "0") or options.resource_version_match:
            return False
        namespace = info.namespace if resource.kind.namespaced else ""
        return len(resource.list_now(namespace, options).items) <= PIECE

    @staticmethod
    def _as_stored(resource: Resource, entry: Entry) -> bool:
        """Whether the entry's bytes are what clients see."""
        if resource.codec.same:
            return True
        try:
            return resource.render(entry) is entry.data
        except Exception:
            return False  # the long way tells what is wrong with it

    def answer(self, route: Route, name: str, dates: Headers) -> bytes | None:
        """The reply to a GET of an object, or to a list; None if the request has to go the long way."""
        gates, flows, info, resource, options = self.gates, self.gates.flows, route.info, route.resource, route.options
        if self.off or not route.proof.holds(self.world.now()):
            return None
        if flows.generation != route.flows or gates.authorizer.generation != route.permissions:
            return None
        if self.served.get((info.group, info.version, info.resource)) is not resource:
            return None
        if (info.group, info.version) in self.apis.extensions:
            return None
        cache = self.cache
        if not (cache.ready if options is not None and options.resource_version else cache.is_current()):
            return None
        began = self.world.monotonic()
        if options is None:
            entry = cache.get(resource.prefix, route.namespace, name)
            if entry is None or len(entry.data) >= GZIP_FROM or not self._as_stored(resource, entry):
                return None
            data, seats = entry.data, 1
        else:
            listed = self._list(resource, route.namespace, options)
            if listed is None:
                return None
            data, seats = listed, list_seats(cache.count(resource.prefix), str(options.limit))
        ticket = flows.at_once(route.flow, began, seats)
        if ticket is None:
            return None
        reply = b"%bcontent-length: %d\r\n\r\n%b" % (route.head_at(dates), len(data), data)
        now = self.world.monotonic()
        flows.leave(ticket, now)
        self.metrics.request(info, 200, now - began)
        return reply

    @staticmethod
    def _list(resource: Resource, namespace: str, options: ListOptions) -> bytes | None:
        """The body of a list; None for one that has grown, and if somebody has to be told what is wrong with it."""
        try:
            result = resource.list_now(namespace, options)
        except Exception:
            return None
        if len(result.items) > PIECE:
            return None
        size, parts = pieces(resource.kind, result)
        return b"".join(parts) if size < GZIP_FROM else None
