"""Streams of pods, proxied to the agent of the pod's node: logs over HTTPS; exec, attach and port-forward over WebSocket
or SPDY. The agent speaks the same protocols as the client, so nothing in them is looked at here.

The agent is found through the pod's Node: its InternalIP and the port in status.daemonEndpoints. The server shows it
its own client certificate; whether the user may do this was decided before we get here.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import orjson

from apiserver.admission.connectrequests import STREAM_FLAGS, admit_connection
from apiserver.http import relay
from apiserver.http.agents import Agents
from apiserver.http.websockets import COMMANDS, ERROR, LOGS, PORTS, V5, Dialect, MessageReply
from apiserver.registry.resources import Resources
from apiserver.request import Admission, Context, RequestInfo
from apiserver.serviceresolver import ServiceResolver
from apiserver.wire.asgi import Request, flag, truth
from apiserver.wire.dialing import dial_error
from navarch.api import wellknown
from navarch.api.errors import (
    BadRequest,
    InternalError,
    MethodNotAllowed,
    StatusError,
    forbidden,
    invalid,
    resource_invalid,
)
from navarch.api.kinds import BY_GVK, Kind
from navarch.api.times import parse_time
from navarch.client.transport import HTTPSTransport, TransportError, error_of

if TYPE_CHECKING:
    from apiserver.http.proxying import Proxy

POD = BY_GVK["", "v1", "Pod"]
EXEC_OPTIONS = Kind("", "v1", "PodExecOptions", "pods")
ATTACH_OPTIONS = Kind("", "v1", "PodAttachOptions", "pods")
PORT_FORWARD_OPTIONS = Kind("", "v1", "PodPortForwardOptions", "pods")

PROXY_VERBS = ("create", "delete", "get", "patch", "update")

Stream = Callable[[Request, Context], Awaitable[None]]

_LOG_PARAMETERS = ("follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream")
_LOG_FLAGS = ("follow", "previous", "timestamps")
ERROR_CHANNEL = bytes([ERROR])
SPDY, VERSION = "SPDY/3.1", "X-Stream-Protocol-Version"
PORT_FORWARD = "portforward.k8s.io"


class Streams:
    """Finds the handler of a streaming subresource and runs it."""

    served: Mapping[tuple[str, str, str], tuple[Kind, tuple[str, ...]]] = {
        ("", "pods", "log"): (POD, ("get",)),
        ("", "pods", "exec"): (EXEC_OPTIONS, ("create", "get")),
        ("", "pods", "attach"): (ATTACH_OPTIONS, ("create", "get")),
        ("", "pods", "portforward"): (PORT_FORWARD_OPTIONS, ("create", "get")),
        ("", "pods", "proxy"): (Kind("", "v1", "PodProxyOptions", "pods"), PROXY_VERBS),
        ("", "services", "proxy"): (Kind("", "v1", "ServiceProxyOptions", "services"), PROXY_VERBS),
        ("", "nodes", "proxy"): (Kind("", "v1", "NodeProxyOptions", "nodes"), PROXY_VERBS),
    }

    def __init__(self, resources: Resources, admission: Admission, agents: Agents, resolver: ServiceResolver) -> None:
        self.resources, self.admission, self.agents, self.resolver = resources, admission, agents, resolver
        self.world = resources.backend.world
        self._proxy: Proxy | None = None

    def get(self, info: RequestInfo) -> Stream | None:
        """The handler of a request, None if it is none of ours."""
        if info.verb == "watch":  # /api/v1/watch/...: no path of a stream, and who may watch may not exec
            return None
        stream = self._find(info)
        if stream is None or info.subresource == "log":
            return stream
        return functools.partial(self._admitted, stream)

    async def _admitted(self, stream: Stream, request: Request, context: Context) -> None:
        info = context.info
        kind = self.served[info.group, info.resource, info.subresource][0]
        await admit_connection(self.admission, context, kind, request.scope.get("query_string") or b"")
        await stream(request, context)

    def _find(self, info: RequestInfo) -> Stream | None:
        if info.group or info.version != "v1":
            return None
        if info.subresource == "proxy" and ("", info.resource, "proxy") in self.served and info.name:
            return self.proxy
        if info.resource != "pods":
            return None
        return {
            "log": self.log, "exec": self.exec, "attach": self.exec, "portforward": self.port_forward,
        }.get(info.subresource)  # fmt: skip

    async def close(self) -> None:
        if self._proxy is not None:
            await self._proxy.close()
        await self.agents.close()

    async def proxy(self, request: Request, context: Context) -> None:
        """pods/NAME/proxy, services/NAME/proxy and nodes/NAME/proxy."""
        if self._proxy is None:
            from apiserver.http.proxying import Proxy  # with aiohttp, which few servers ever need
            from apiserver.http.proxytargets import Targets

            self._proxy = Proxy(self.world, Targets(self.resources, self.agents, self.resolver))
        await self._proxy.serve(request, context)

    # Logs

    async def log(self, request: Request, context: Context) -> None:
        """GET pods/NAME/log."""
        if context.info.verb != "get":
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        if request.scope["type"] == "websocket":
            offered = request.scope.get("subprotocols") or [""]
            chosen = next((p for p in offered if p in LOGS), None)
            if chosen is None:
                raise BadRequest(f"unable to upgrade: none of the subprotocols {offered} is supported")
            request = MessageReply(request, chosen, encoded=LOGS[chosen])
        pod = await self._pod(context)
        container = self._container(pod, request.query.get("container", ""), choose=False)
        query = [(k, _plain(k, v, _LOG_FLAGS)) for k in _LOG_PARAMETERS if (v := request.query.get(k)) is not None]
        _check_log(pod["metadata"]["name"], dict(query))
        path = f"/containerLogs/{context.info.namespace}/{context.info.name}/{container}"
        content_type = b"text/plain; charset=utf-8"
        async with self._connected(pod, path) as agent:
            if not flag(request.query, "follow"):
                answer = await agent.request("GET", path, query=query, accept="*/*")
                if answer.status >= 400:
                    raise error_of(answer.status, answer.body)
                return await request.reply(200, answer.body, content_type)
            async with agent.stream("GET", path, query=query, accept="*/*") as answer_stream:
                if answer_stream.status >= 400:
                    raise error_of(answer_stream.status, await answer_stream.read())
                await request.start_stream(200, content_type)
                async with self.world.task_group() as group:
                    copy = group.start(_relay(answer_stream, request), "log-relay")
                    disconnection = group.start(request.disconnected(), "log-disconnect")
                    copy.add_done_callback(lambda _: disconnection.cancel())
                    disconnection.add_done_callback(lambda _: copy.cancel())
                await request.end_stream()

    # Exec, attach, port-forward

    async def exec(self, request: Request, context: Context) -> None:
        """pods/NAME/exec and attach: WebSocket messages or SPDY pass through unchanged."""
        info = context.info
        pod = await self._pod(context)
        pairs = parse_qsl((request.scope.get("query_string") or b"").decode("latin-1"), keep_blank_values=True)
        container = self._container(pod, request.query.get("container", ""), choose=True)
        query = [(k, _plain(k, v, STREAM_FLAGS)) for k, v in pairs if k != "container"]
        if info.subresource == "exec" and not any(k == "command" and v for k, v in query):
            raise BadRequest("you must specify at least one command for the container")
        path = f"/{info.subresource}/{info.namespace}/{info.name}/{container}"
        await self._stream(request, pod, path, query, COMMANDS, "")

    async def port_forward(self, request: Request, context: Context) -> None:
        """pods/NAME/portforward: SPDY, SPDY inside WebSocket messages, or plain WebSocket channels."""
        info = context.info
        pod = await self._pod(context)
        query = [("ports", port) for port in request.queries("ports")]
        path = f"/portForward/{info.namespace}/{info.name}"
        await self._stream(request, pod, path, query, PORTS, PORT_FORWARD)

    async def _stream(
        self,
        request: Request,
        pod: dict[str, Any],
        path: str,
        query: list[tuple[str, str]],
        dialects: Mapping[str, Dialect],
        tunneled: str,
    ) -> None:
        """Joins the client to the agent. ``tunneled``: the SPDY protocol that WebSocket messages may carry."""
        # What is wrong with the request itself comes first: a client whose WebSocket was refused asks again with SPDY,
        # and shows its user only the second answer.
        self.agents.of_pod(pod)
        world = self.world
        if request.scope["type"] != "websocket":
            return await self._spdy(request, pod, path, query)
        offered = request.scope.get("subprotocols") or []
        tunnel = f"{SPDY}+{tunneled}" if tunneled else ""
        chosen = next((p for p in offered or [""] if p in dialects or (p and p == tunnel)), None)
        if chosen is None:
            raise BadRequest(f"unable to upgrade: none of the subprotocols {offered} is supported")
        if tunnel and chosen == tunnel:
            headers = {VERSION: tunneled}
            async with (
                self._connected(pod) as agent,
                agent.upgrade("POST", path, protocol=SPDY, query=query, headers=headers) as other,
            ):
                return await relay.messages_to_bytes(world, request, other, chosen)
        dialect = dialects[chosen]
        async with AsyncExitStack() as stack:
            try:
                agent = await stack.enter_async_context(self._connected(pod))
                socket = await stack.enter_async_context(agent.websocket(path, query=query, protocols=[dialect.agent]))
            except TransportError as error:
                return await _failed(request, chosen, f"error dialing backend: {dial_error(error, agent.authority)}")
            except StatusError as error:
                return await _failed(request, chosen, f"unable to upgrade connection: {error.message}")
            await relay.messages_to_messages(world, request, socket, dialect)

    async def _spdy(self, request: Request, pod: dict[str, Any], path: str, query: list[tuple[str, str]]) -> None:
        if relay.upgrade_of(request) != SPDY.lower():
            raise BadRequest("Upgrade request required")
        versions = [v.decode("latin-1") for k, v in request.scope["headers"] if k == b"x-stream-protocol-version"]
        headers = {VERSION: ",".join(versions)} if versions else {}
        async with AsyncExitStack() as stack:
            agent = await stack.enter_async_context(self._connected(pod))
            try:
                upgrade = agent.upgrade("POST", path, protocol=SPDY, query=query, headers=headers)
                other = await stack.enter_async_context(upgrade)
            except StatusError as error:
                # The agent's own words, as it said them: clients put "unable to upgrade connection" before a text.
                return await request.reply(error.http_code, error.message.encode(), b"text/plain; charset=utf-8")
            await relay.bytes_to_bytes(self.world, request, other, SPDY)

    async def refuse(self, request: Request, error: StatusError) -> None:
        """Answers a WebSocket handshake with an HTTP error, or ends a connection that is open already."""
        if request.started:
            await request.send({"type": "websocket.close", "code": 1011, "reason": error.message[:120]})
            return
        if "websocket.http.response" not in (request.scope.get("extensions") or {}):
            await request.send({"type": "websocket.close", "code": 1008, "reason": error.message[:120]})
            return
        body = orjson.dumps(error.status())
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await request.send({"type": "websocket.http.response.start", "status": error.http_code, "headers": headers})
        await request.send({"type": "websocket.http.response.body", "body": body})

    # The way to the agent

    async def _pod(self, context: Context) -> dict[str, Any]:
        return await self.resources["", "pods"].get_tree(context.info.namespace, context.info.name)

    def _container(self, pod: dict[str, Any], name: str, choose: bool) -> str:
        """The container meant; ``choose``: the first one if several and none is named. Raises BadRequest."""
        spec, pod_name = pod["spec"], pod["metadata"]["name"]
        main = [c["name"] for c in spec.get("containers") or ()]
        init = [c["name"] for c in spec.get("initContainers") or ()]
        extra = [c["name"] for c in spec.get("ephemeralContainers") or ()]
        if name:
            if name not in (*main, *init, *extra):
                raise BadRequest(f"container {name} is not valid for pod {pod_name}")
            return name
        annotated = (pod["metadata"].get("annotations") or {}).get(wellknown.DEFAULT_CONTAINER)
        if annotated in main:
            return str(annotated)
        if len(main) == 1 or (choose and main):
            return str(main[0])
        text = f"a container name must be specified for pod {pod_name}, choose one of: [{' '.join(main)}]"
        if init:
            text += f" or one of the init containers: [{' '.join(init)}]"
        raise BadRequest(text)

    @asynccontextmanager
    async def _connected(self, pod: dict[str, Any], path: str = "") -> AsyncIterator[HTTPSTransport]:
        """The transport to the agent of the pod's node. Raises a StatusError without a reason, as upstream, if it cannot be
        reached; ``path``: of a GET, which the text names."""
        agent = self.agents.of_pod(pod)
        try:
            yield agent
        except TransportError as error:
            why = dial_error(error, agent.authority)
            text = f'Get "https://{agent.authority}{path}": {why}' if path else f"error dialing backend: {why}"
            raise StatusError(text, code=500) from error


async def _failed(request: Request, protocol: str, why: str) -> None:
    """The agent refused: v5 clients are told on the stream's own error channel, older ones by a refused handshake."""
    error = InternalError(f"Internal error occurred: {why}")
    if protocol != V5:
        raise error
    await request.send({"type": "websocket.accept", "subprotocol": protocol})
    request.started = True
    await request.send({"type": "websocket.send", "bytes": ERROR_CHANNEL + orjson.dumps(error.status())})
    await request.send({"type": "websocket.close", "code": 1000})


def _plain(name: str, value: str, flags: tuple[str, ...]) -> str:
    """A parameter as the agent reads it: what counts as true is for the API server to say."""
    return ("true" if truth(value) else "false") if name in flags else value


def _check_log(pod: str, query: Mapping[str, str]) -> None:
    """Raises BadRequest for log options that cannot be read, Invalid for those that make no sense."""
    numbers: dict[str, int] = {}
    for name in ("sinceSeconds", "tailLines", "limitBytes"):
        if name in query:
            try:
                numbers[name] = int(query[name])
            except ValueError:
                raise BadRequest(f'strconv.ParseInt: parsing "{query[name]}": invalid syntax') from None
    if time := query.get("sinceTime"):
        try:
            parse_time(time)
        except ValueError:
            layout = "2006-01-02T15:04:05Z07:00"
            raise BadRequest(f'parsing time "{time}" as "{layout}": cannot parse "{time}" as "2006"') from None
    causes = []
    if numbers.get("tailLines", 0) < 0:
        causes.append(invalid("tailLines", numbers["tailLines"], "must be greater than or equal to 0"))
    if numbers.get("limitBytes", 1) < 1:
        causes.append(invalid("limitBytes", numbers["limitBytes"], "must be greater than 0"))
    if "sinceSeconds" in numbers and time:
        causes.append(forbidden("[]", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    elif numbers.get("sinceSeconds", 1) < 1:
        causes.append(invalid("sinceSeconds", numbers["sinceSeconds"], "must be greater than 0"))
    if causes:
        raise resource_invalid("PodLogOptions", "", pod, causes)


async def _relay(answer: Any, request: Request) -> None:
    # A log that breaks off (the node is gone) just ends: its head was sent long ago.
    with suppress(TransportError):
        async for chunk in answer.chunks():
            await request.write(chunk)
