"""The short way of a GET that was asked before: the same head on the same connection, another name in the same collection.

A request goes the long way (:mod:`apiserver.http.dispatcher`) first. If nothing in its answer hung on the object's name,
the way is noted as a :class:`Route`: who asks, what they may, where they belong in flow control, which kind it is. The next
GET that differs from it in nothing but the last part of the path is answered from the watch cache, without a task and
without being parsed. Everything that a route relies on is compared each time: the time of the certificate, the
generations of permissions and of flow control, the kind that is served there, whether the cache is up to date. If
anything is not as it was, the request goes the long way, whatever its answer will be then.

Only client certificates: what a token is good for can end in more ways.
"""

from __future__ import annotations

from typing import Any, Protocol

from apiserver.cache.cache import Entry
from apiserver.http.apis import APIs
from apiserver.http.gates import Gates
from apiserver.http.metrics import Metrics
from apiserver.registry.resource import Resource
from apiserver.request import Context, RequestInfo, User
from apiserver.wire.asgi import GZIP_FROM, Headers, Request
from apiserver.wire.negotiation import PLAIN, accept
from navarch.world import World

PEER = "navarch.peer_certificate"
CONNECTION = "navarch.connection"
STATUS = b"HTTP/1.1 200 OK\r\n"


class Connection(Protocol):
    """A connection that can go the short way."""

    def learn(self, path: bytes, route: Route) -> None: ...


class Route:
    """The way of the GETs of one collection on one connection."""

    __slots__ = (
        "dates", "flow", "flows", "head", "headers", "info", "namespace", "not_after", "not_before", "permissions", "resource",
    )  # fmt: skip

    def __init__(
        self, info: RequestInfo, resource: Resource, flow: Any, headers: Headers, times: tuple[float, float],
        generations: tuple[int, int],
    ) -> None:  # fmt: skip
        self.info, self.resource, self.flow = info, resource, flow
        self.namespace = info.namespace if resource.kind.namespaced else ""
        self.headers = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.not_before, self.not_after = times
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
        certificate = scope.get(PEER)
        if connection is None or certificate is None or self.gates.audit is not None or context.warnings:
            return
        if info.subresource or not info.name or scope["query_string"] or request.pretty or request.method != "GET":
            return
        resource = self.served.get((info.group, info.version, info.resource))
        # Of a Namespace, permissions and flows are looked up in that namespace: they hang on the name.
        if resource is None or resource.converted is not None or (info.namespace and not resource.kind.namespaced):
            return
        entry = self.cache.get(resource.prefix, info.namespace, info.name)
        if entry is None or resource.render(entry) is not entry.data:  # stored in another shape, as most of its kind are
            return
        if accept(request.header(b"accept")) != PLAIN:
            return
        shown = self.gates.authenticator.certificate(certificate)
        if shown.user is not context.user or not self._may(context.user, info):
            return
        generations = self.gates.authorizer.generation, self.gates.flows.generation
        headers = [(b"content-type", PLAIN.content_type), *request.extra]
        times = shown.not_before, shown.not_after
        connection.learn(scope["raw_path"], Route(info, resource, flow, headers, times, generations))

    def _may(self, user: User, info: RequestInfo) -> bool:
        return self.gates.authorizer.every_name(user, info)

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
        """The reply to a GET of an object; None if the request has to go the long way."""
        gates, flows, info, resource = self.gates, self.gates.flows, route.info, route.resource
        if self.off or not route.not_before <= self.world.now() <= route.not_after:
            return None
        if flows.generation != route.flows or gates.authorizer.generation != route.permissions:
            return None
        if self.served.get((info.group, info.version, info.resource)) is not resource:
            return None
        if (info.group, info.version) in self.apis.extensions or not self.cache.is_current():
            return None
        entry = self.cache.get(resource.prefix, route.namespace, name)
        if entry is None or len(entry.data) >= GZIP_FROM or not self._as_stored(resource, entry):
            return None
        began = self.world.monotonic()
        ticket = flows.at_once(route.flow, began)
        if ticket is None:
            return None
        data = entry.data
        reply = b"%bcontent-length: %d\r\n\r\n%b" % (route.head_at(dates), len(data), data)
        now = self.world.monotonic()
        flows.leave(ticket, now)
        self.metrics.request(info, 200, now - began)
        return reply
