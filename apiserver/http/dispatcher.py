"""The ASGI application: authentication, authorization, then a resource, a page, or an error as a Status.

One path through plain functions: every layer that a framework would add costs more than our own work on a GET.
"""

from __future__ import annotations

import asyncio
import functools
import logging

from apiserver.audit.audit import AuditedRequest
from apiserver.authn import impersonation
from apiserver.authn.authenticator import ANNOTATIONS
from apiserver.authz.authorizer import forbidden
from apiserver.flowcontrol.flows import LONG_RUNNING, Flows, list_seats
from apiserver.flowcontrol.levels import Ticket
from apiserver.http.apis import APIs
from apiserver.http.deadlines import Deadlines, timeout_of, too_late
from apiserver.http.gates import Gates
from apiserver.http.lean import Lean
from apiserver.http.metrics import Metrics
from apiserver.http.pages import Pages
from apiserver.http.requestinfo import parse_request
from apiserver.http.resources import ResourceHandler, no_such_path
from apiserver.http.websockets import MessageReply
from apiserver.offload import Offload
from apiserver.request import ANONYMOUS, Context, RequestInfo, User
from apiserver.storage.store import StoreFull, StoreUnavailable
from apiserver.wire.asgi import Disconnected, Receive, Request, Scope, Send, warning_headers
from navarch.api.errors import (
    InternalError,
    NotFound,
    ServiceUnavailable,
    StatusError,
    TooManyRequests,
    Unauthorized,
)  # fmt: skip

log = logging.getLogger(__name__)
UNFORESEEN = "the API server met a mistake of its own; its log tells more"

HEALTH = ("/healthz", "/livez", "/readyz")


class Dispatcher:
    """``await dispatcher(scope, receive, send)``."""

    def __init__(
        self, gates: Gates, apis: APIs, resources: ResourceHandler, pages: Pages, metrics: Metrics, request_timeout: float
    ) -> None:
        """``request_timeout``: seconds for whatever is no watch and no stream."""
        self.gates, self.apis, self.resources, self.pages, self.metrics = gates, apis, resources, pages, metrics
        self.streams, self.world = resources.streams, resources.world
        self.offload = Offload(self.world)
        self.deadlines = Deadlines(self.world, request_timeout)
        self.turning_away = False
        self.lean = Lean(self.world, gates, apis, metrics)

    def turn_away(self, whether: bool) -> None:
        """The server stops soon: new requests are sent elsewhere, if ``whether``."""
        self.turning_away = self.lean.off = whether

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._http(self._request(scope, receive, send))
        elif kind == "websocket":
            await self._websocket(self._request(scope, receive, send))
        elif kind == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return

    def _request(self, scope: Scope, receive: Receive, send: Send) -> Request:
        if self.gates.audit is None:
            return Request(self.offload, scope, receive, send)
        return AuditedRequest(self.world, self.offload, scope, receive, send)

    async def _http(self, request: Request) -> None:
        metrics = self.metrics
        began = self.world.monotonic()
        info = parse_request(request.method, request.path, request.query)
        context: Context | None = None
        flows = self.gates.flows
        failure: Exception | None = None
        verb, stream = info.verb, info.subresource in LONG_RUNNING
        try:
            if not stream and verb != "watch":
                self.deadlines.begin(request, began, timeout_of(request.query))
            if self.turning_away:
                self._turn_away(request, info)
            user = await self._identify(request, info)
            if flows is not None and not stream:
                flow = flows.flow_of(user, info)
                request.extra = flow.headers
                seats = self._seats(request, info) if verb == "list" else 1
                ticket = flows.enter(flow, began, seats)
                if ticket.turn is not None:
                    await self._turn(request, flows, ticket)
                request.ticket = ticket  # not before: whoever waits in vain has given back what it had
                if verb == "watch":
                    request.release = functools.partial(self._release, request)
            context = self._admit(request, info, user)
            other = self.apis.extensions.get((info.group, info.version)) if info.is_resource else None
            if other is not None:
                if request.release is not None:
                    request.release()
                await other.handle(request, context)
            elif info.is_resource:
                await self.resources.handle(request, context)
                if verb in ("get", "list") and request.status == 200 and flows is not None and not stream:
                    self.lean.learn(request, context, flow)
            else:
                await self.pages.handle(request, context)
        except Disconnected:
            request.status = 499
        except asyncio.CancelledError:
            if not request.expired:
                raise
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            failure = too_late()
            if request.started:
                request.abort()  # the client does not read what it asked for
            else:
                await request.reply_error(too_late())
        except Exception as error:
            if info.is_resource and isinstance(error, KeyError) and not self.apis.resources.is_served(info):
                error = NotFound("the server could not find the requested resource")  # its definition went meanwhile
            status = failure = as_status(error, request.path)
            if request.started:
                failure = error
                raise
            await request.reply_error(status, warning_headers(context.warnings) if context else [])
        finally:
            now = self.world.monotonic()
            self.deadlines.end(request)
            if request.ticket is not None:
                assert flows is not None
                flows.leave(request.ticket, now)
            metrics.request(info, request.status, now - began)
            if isinstance(request, AuditedRequest) and request.audited is not None:
                request.audited.finished(context, failure)

    async def _websocket(self, request: Request) -> None:
        """Streams of pods and proxies come as WebSockets; errors before the handshake are plain HTTP replies."""
        info = parse_request("GET", request.path, request.query)
        context: Context | None = None
        try:
            if (await request.receive())["type"] != "websocket.connect":
                return
            context = self._admit(request, info, await self._identify(request, info))
            if (other := self.apis.extensions.get((info.group, info.version))) is not None:
                return await other.handle(request, context)
            stream = self.streams.get(info)
            if isinstance(request, AuditedRequest) and request.audited is not None:
                request.audited.started(101)
            if stream is not None:
                await stream(request, context)
            elif info.is_resource and info.verb == "watch":
                offered = request.scope.get("subprotocols") or []
                reply = MessageReply(request, offered[0] if len(offered) == 1 else "", lines=True)
                await self.resources.handle(reply, context)
            else:
                raise no_such_path()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            status = as_status(error, request.path)
            request.status = status.http_code
            await self.streams.refuse(request, status)
        finally:
            if isinstance(request, AuditedRequest) and request.audited is not None:
                request.audited.finished(context, None)

    def _turn_away(self, request: Request, info: RequestInfo) -> None:
        """Raises TooManyRequests for all but health checks."""
        if not info.path.startswith(HEALTH):
            request.extra = [(b"connection", b"close")]
            raise TooManyRequests("The apiserver is shutting down, please try again later.", {"retryAfterSeconds": 5})

    def _seats(self, request: Request, info: RequestInfo) -> int:
        """How much of the server a list takes: a large one more than a small one."""
        resource = self.apis.resources.served.get((info.group, info.version, info.resource))
        if resource is None or info.name:
            return 1
        return list_seats(resource.cache.count(resource.prefix), request.query.get("limit", ""))

    async def _turn(self, request: Request, flows: Flows, ticket: Ticket) -> None:
        """Waits for the turn of a request, unless its client leaves. Raises TooManyRequests, Disconnected."""
        assert ticket.turn is not None
        request.when_lost(ticket.turn.cancel)
        try:
            await flows.wait(ticket)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Disconnected from None
        finally:
            request.when_lost(None)

    def _release(self, request: Request) -> None:
        """A watch has begun: it takes no seat any more."""
        ticket, request.ticket = request.ticket, None
        if ticket is not None and self.gates.flows is not None:
            self.gates.flows.leave(ticket, self.world.monotonic())

    async def _identify(self, request: Request, info: RequestInfo) -> User:
        """Identifies the user. Raises Unauthorized, and Forbidden for an impersonation that is not allowed."""
        gates, scope = self.gates, request.scope
        user: User | None = scope.get("navarch.user")
        if isinstance(request, AuditedRequest):
            scope[ANNOTATIONS] = {}
            assert gates.audit is not None
            try:
                user = user or await self._authenticate(scope, info)
            except StatusError as error:
                gates.audit.refused(request, info, error)
                raise
            gates.audit.begin(request, info, user)
        user = user or await self._authenticate(scope, info)
        target = impersonation.impersonation_of(scope["headers"])
        if target is None:
            return user
        for right in impersonation.rights(target, info.path):
            allowed, reason = gates.authorizer.authorize(user, right)
            if not allowed:
                raise forbidden(user, right, reason)
        user = impersonation.impersonated(target)
        if isinstance(request, AuditedRequest) and request.audited is not None:
            request.audited.as_user = user
        return user

    async def _authenticate(self, scope: Scope, info: RequestInfo) -> User:
        user = await self.gates.authenticator.authenticate(scope)
        if user is None:
            if not self.gates.anonymous(info.path):
                raise Unauthorized()
            return ANONYMOUS
        return user

    def _admit(self, request: Request, info: RequestInfo, user: User) -> Context:
        """Whether they may. Raises Forbidden."""
        allowed, reason = self.gates.authorizer.authorize(user, info)
        if isinstance(request, AuditedRequest) and request.audited is not None:
            request.audited.decided(allowed, reason, request.scope[ANNOTATIONS])
        if not allowed:
            raise forbidden(user, info, reason)
        return Context(self.world, user, info, request.header(b"user-agent"))


def as_status(error: Exception, path: str) -> StatusError:
    """Any exception as the error that the client sees."""
    if isinstance(error, StatusError):
        return error
    if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        return as_status(error.exceptions[0], path)
    if isinstance(error, StoreFull):
        return StatusError(str(error), code=500)
    if isinstance(error, StoreUnavailable):
        return ServiceUnavailable(f"the store is unavailable: {error}", {"retryAfterSeconds": 1})
    log.error("%s: %s", path, error, exc_info=error)
    # An exception's own words are for those who mend the server, and may tell of what others asked.
    return InternalError(f"Internal error occurred: {UNFORESEEN}", {"causes": [{"message": UNFORESEEN}]})
