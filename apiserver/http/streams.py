"""Streams of pods, proxied to the agent of the pod's node: logs over HTTPS, exec over WebSocket.

The agent is found through the pod's Node: its InternalIP and the port in status.daemonEndpoints. The server shows it
its own client certificate; whether the user may do this was decided before we get here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import orjson

from apiserver.http.asgi import Request, flag
from apiserver.request import Context, RequestInfo
from navarch.api.errors import BadRequest, InternalError, MethodNotAllowed, NotFound, StatusError
from navarch.api.kinds import BY_GVK, Kind
from navarch.client.kubeconfig import Config
from navarch.client.transport import HTTPSTransport, Transport, TransportError, error_of

if TYPE_CHECKING:
    from apiserver.server import APIServer

POD = BY_GVK["", "v1", "Pod"]
EXEC_OPTIONS = Kind("", "v1", "PodExecOptions", "pods")
ATTACH_OPTIONS = Kind("", "v1", "PodAttachOptions", "pods")

Stream = Callable[[Request, Context], Awaitable[None]]

_LOG_PARAMETERS = ("follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream")
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
ERROR_CHANNEL = b"\x03"


class Streams:
    """Finds the handler of a streaming subresource and runs it."""

    served: Mapping[tuple[str, str, str], tuple[Kind, tuple[str, ...]]] = {
        ("", "pods", "log"): (POD, ("get",)),
        ("", "pods", "exec"): (EXEC_OPTIONS, ("create", "get")),
        ("", "pods", "attach"): (ATTACH_OPTIONS, ("create", "get")),
    }

    def __init__(self, server: APIServer) -> None:
        self.server = server
        self._transports: dict[str, Transport] = {}

    def get(self, info: RequestInfo) -> Stream | None:
        """The handler of a request, None if it is none of ours."""
        if (info.group, info.resource) != ("", "pods") or info.version != "v1":
            return None
        return {"log": self.log, "exec": self.exec, "attach": self.exec}.get(info.subresource)

    async def close(self) -> None:
        for transport in self._transports.values():
            await transport.close()
        self._transports.clear()

    # Logs

    async def log(self, request: Request, context: Context) -> None:
        """GET pods/NAME/log."""
        if context.info.verb != "get":
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        pod = await self._pod(context)
        container = self._container(pod, request.query.get("container", ""), choose=False)
        query = [(k, v) for k in _LOG_PARAMETERS if (v := request.query.get(k)) is not None]
        _check_log(dict(query))
        path = f"/containerLogs/{context.info.namespace}/{context.info.name}/{container}"
        content_type = b"text/plain; charset=utf-8"
        async with self._connected(pod) as agent:
            if not flag(request.query, "follow"):
                answer = await agent.request("GET", path, query=query, accept="*/*")
                if answer.status >= 400:
                    raise error_of(answer.status, answer.body)
                return await request.reply(200, answer.body, content_type)
            async with agent.stream("GET", path, query=query, accept="*/*") as answer_stream:
                if answer_stream.status >= 400:
                    raise error_of(answer_stream.status, await answer_stream.read())
                await request.start_stream(200, content_type)
                async with self.server.world.task_group() as group:
                    relay = group.start(_relay(answer_stream, request), "log-relay")
                    gone = group.start(request.disconnected(), "log-disconnect")
                    relay.add_done_callback(lambda _: gone.cancel())
                    gone.add_done_callback(lambda _: relay.cancel())
                await request.end_stream()

    # Exec

    async def exec(self, request: Request, context: Context) -> None:
        """WebSocket of pods/NAME/exec or attach: frames pass through unchanged, channel bytes and all."""
        info = context.info
        # What is wrong with the request itself comes first: a client whose WebSocket was refused asks again with SPDY,
        # and shows its user only the second answer.
        pod = await self._pod(context)
        pairs = parse_qsl((request.scope.get("query_string") or b"").decode("latin-1"), keep_blank_values=True)
        container = self._container(pod, request.query.get("container", ""), choose=True)
        query = [(k, v) for k, v in pairs if k != "container"]
        if info.subresource == "exec" and not any(k == "command" and v for k, v in query):
            raise BadRequest("you must specify at least one command for the container")
        self._address(pod)
        if request.scope["type"] != "websocket":
            raise BadRequest("you must specify an Upgrade to a WebSocket connection (SPDY is not supported)")
        offered = request.scope.get("subprotocols") or []
        chosen = next((p for p in PROTOCOLS if p in offered), None)
        if chosen is None:
            raise BadRequest(f"unable to upgrade: none of the subprotocols {offered} is supported")
        path = f"/{info.subresource}/{info.namespace}/{info.name}/{container}"
        async with AsyncExitStack() as stack:
            try:
                agent = await stack.enter_async_context(self._connected(pod))
                other = await stack.enter_async_context(agent.websocket(path, query=query, protocols=[chosen]))
            except TransportError as error:
                return await _failed(request, chosen, f"error dialing backend: {error}")
            except StatusError as error:
                return await _failed(request, chosen, f"unable to upgrade connection: {error.message}")
            await request.send({"type": "websocket.accept", "subprotocol": chosen})
            request.started = True
            async with self.server.world.task_group() as group:
                down = group.start(_to_client(other, request), "exec-down")
                up = group.start(_to_agent(request, other), "exec-up")
                down.add_done_callback(lambda _: up.cancel())
                up.add_done_callback(lambda _: down.cancel())
            await request.send({"type": "websocket.close", "code": 1000})

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
        return await self.server.resource("", "pods").get_tree(context.info.namespace, context.info.name)

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
        annotated = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
        if annotated in main:
            return str(annotated)
        if len(main) == 1 or (choose and main):
            return str(main[0])
        text = f"a container name must be specified for pod {pod_name}, choose one of: [{' '.join(main)}]"
        if init:
            text += f" or one of the init containers: [{' '.join(init)}]"
        raise BadRequest(text)

    @asynccontextmanager
    async def _connected(self, pod: dict[str, Any]) -> Any:
        """The transport to the agent of the pod's node. A lost connection becomes an InternalError."""
        address = self._address(pod)
        agent = self._transports.get(address)
        if agent is None:
            agent = self._transports[address] = self._transport(address)
        try:
            yield agent
        except TransportError as error:
            raise InternalError(f"Internal error occurred: error dialing backend: {error}") from error

    def _transport(self, address: str) -> Transport:
        config = self.server.config

        def content(path: str) -> bytes:
            return Path(path).read_bytes() if path else b""

        return HTTPSTransport(
            Config(
                server=f"https://{address}",
                ca=content(config.kubelet_certificate_authority),
                client_certificate=content(config.kubelet_client_certificate),
                client_key=content(config.kubelet_client_key),
                # Without an authority for agents their identity is unknown, as with kube-apiserver's default.
                insecure=not config.kubelet_certificate_authority,
            )
        )

    def _address(self, pod: dict[str, Any]) -> str:
        """HOST:PORT of the agent that runs the pod. Raises BadRequest for a pod without a node, InternalError."""
        node_name, name = pod["spec"].get("nodeName"), pod["metadata"]["name"]
        if not node_name:
            raise BadRequest(f"pod {name} does not have a host assigned")
        node = self.server.resource("", "nodes").cached("", node_name)
        if node is None:
            raise NotFound(f'nodes "{node_name}" not found')
        status = node.get("status") or {}
        host = next((a["address"] for a in status.get("addresses") or () if a.get("type") == "InternalIP"), "")
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
        if not host or not port:
            raise InternalError(f'Internal error occurred: no preferred addresses found for node "{node_name}"')
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _failed(request: Request, protocol: str, why: str) -> None:
    """The agent refused: v5 clients are told on the stream's own error channel, older ones by a refused handshake."""
    error = InternalError(f"Internal error occurred: {why}")
    if protocol == "v4.channel.k8s.io":
        raise error
    await request.send({"type": "websocket.accept", "subprotocol": protocol})
    request.started = True
    await request.send({"type": "websocket.send", "bytes": ERROR_CHANNEL + orjson.dumps(error.status())})
    await request.send({"type": "websocket.close", "code": 1000})


def _check_log(query: Mapping[str, str]) -> None:
    """Raises BadRequest for log options that make no sense."""
    for name, least in (("sinceSeconds", 1), ("tailLines", 0), ("limitBytes", 1)):
        if name in query:
            try:
                number = int(query[name])
            except ValueError:
                raise BadRequest(f'strconv.ParseInt: parsing "{query[name]}": invalid syntax') from None
            if number < least:
                raise BadRequest(f"{name} must be greater than or equal to {least}")
    if "sinceSeconds" in query and "sinceTime" in query:
        raise BadRequest("at most one of `sinceTime` or `sinceSeconds` may be specified")


async def _relay(answer: Any, request: Request) -> None:
    # A log that breaks off (the node is gone) just ends: its head was sent long ago.
    with suppress(TransportError):
        async for chunk in answer.chunks():
            await request.write(chunk)


async def _to_client(other: Any, request: Request) -> None:
    with suppress(TransportError):
        while (data := await other.receive()) is not None:
            await request.send({"type": "websocket.send", "bytes": data})


async def _to_agent(request: Request, other: Any) -> None:
    while (message := await request.receive())["type"] == "websocket.receive":
        data = message.get("bytes")
        try:
            await other.send(data if data is not None else (message.get("text") or "").encode())
        except TransportError:
            return
