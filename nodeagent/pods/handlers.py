"""One exec, HTTP, TCP or gRPC request to a container: what probes and lifecycle hooks are made of.

The agent runs in the node's network namespace, so it reaches a pod's address as any neighbour would.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import Any

from navarch.api.types import core_v1
from nodeagent.pods.observed import AnyContainer
from nodeagent.runtime.runtime import Runtime, RuntimeError_

MAX_BODY = 10 * 1024
SHOWN = 4096


class Outcome(Exception):
    """A request that failed. ``broken`` tells a request that could not be made from an answer that says no."""

    def __init__(self, output: str, broken: bool = False) -> None:
        super().__init__(output)
        self.output, self.broken = output, broken


def port_of(port: int | str, container: AnyContainer) -> int:
    """A port by number or by name. Raises Outcome."""
    if isinstance(port, int):
        number = port
    elif port.isdigit():
        number = int(port)
    else:
        named = [p.container_port for p in container.ports or () if p.name == port]
        if not named:
            raise Outcome(f"couldn't find port: {port}", broken=True)
        number = named[0]
    if not 0 < number < 65536:
        raise Outcome(f"invalid port number: {number}", broken=True)
    return number


async def run_command(runtime: Runtime, container_id: str, command: Sequence[str], timeout: float) -> str:
    """Runs a command in a container; its output. Raises Outcome if it fails or takes too long."""
    try:
        code, output = await runtime.exec_sync(container_id, command, timeout)
    except TimeoutError:
        shown = " ".join(command)
        raise Outcome(f'command timed out: "{shown}" timed out after {timeout:g}s') from None
    except RuntimeError_ as error:
        raise Outcome(error.message, broken=True) from error
    text = output[:SHOWN].decode(errors="replace")
    if code != 0:
        raise Outcome(text)
    return text


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # a probe asks whether the server answers, not who it is
    return context


async def http_get(action: core_v1.HTTPGetAction, container: AnyContainer, ip: str, timeout: float, agent: str) -> str:
    """An HTTP GET; redirects to the same host count as success only when followed. Raises Outcome."""
    import aiohttp

    port = port_of(action.port, container)
    host = action.host or ip
    shown = f"[{host}]" if ":" in host else host
    scheme = (action.scheme or "HTTP").lower()
    path = action.path or "/"
    url = f"{scheme}://{shown}:{port}{path if path.startswith('/') else '/' + path}"
    headers: dict[str, str] = {"User-Agent": agent, "Accept": "*/*", "Connection": "close"}
    for header in action.http_headers or ():
        headers[header.name] = header.value
    connector = aiohttp.TCPConnector(ssl=_tls() if scheme == "https" else True, force_close=True)
    limit = aiohttp.ClientTimeout(total=timeout)
    from yarl import URL

    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=limit, auto_decompress=False) as session,
            session.get(URL(url, encoded=True), headers=headers, max_redirects=10) as response,
        ):
            body = await response.content.read(MAX_BODY)
            if 200 <= response.status < 400:
                return body.decode(errors="replace")
            raise Outcome(f"HTTP probe failed with statuscode: {response.status}")
    except TimeoutError:
        why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        raise Outcome(f'Get "{url}": {why}') from None
    except aiohttp.ClientConnectorError as error:
        raise Outcome(f'Get "{url}": dial tcp {shown}:{port}: connect: {_reason(error.os_error)}') from None
    except aiohttp.ServerDisconnectedError:
        raise Outcome(f'Get "{url}": EOF') from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Outcome(f'Get "{url}": {error}') from None


async def tcp_connect(action: core_v1.TCPSocketAction, container: AnyContainer, ip: str, timeout: float) -> str:
    """Opens and closes a connection. Raises Outcome."""
    port = port_of(action.port, container)
    host = action.host or ip
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        raise Outcome(f"dial tcp {host}:{port}: i/o timeout") from None
    except OSError as error:
        raise Outcome(f"dial tcp {host}:{port}: connect: {_reason(error)}") from None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""


async def grpc_health(action: core_v1.GRPCAction, ip: str, timeout: float) -> str:
    """grpc.health.v1.Health/Check. Raises Outcome."""
    import grpc

    service = (action.service or "").encode()
    # HealthCheckRequest{service = 1}; the answer's field 1 is the status, of which 1 is SERVING.
    request = b"\x0a" + bytes([len(service)]) + service if service else b""
    address = f"{ip}:{action.port}"
    channel: Any
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            answer = await call(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                raise Outcome(
                    "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                ) from None
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise Outcome(f'timeout: failed to connect service "{address}" within {timeout:g}s') from None
            raise Outcome(f'error: failed to connect service at "{address}": {error.details()}') from None
    if answer[:2] != b"\x08\x01":
        raise Outcome("service unhealthy (responded with non-SERVING status)")
    return ""


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
