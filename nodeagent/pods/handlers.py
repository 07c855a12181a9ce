"""One exec, TCP or gRPC request to a container: what probes and lifecycle hooks are made of. (HTTP: httpget.py.)

The agent runs in the node's network namespace, so it reaches a pod's address as any neighbour would.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from typing import Any

from navarch.api.types import core_v1
from nodeagent.pods.observed import AnyContainer
from nodeagent.runtime.runtime import Runtime, RuntimeError_

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
        raise Outcome(f"dial tcp {host}:{port}: connect: {reason(error)}") from None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""


async def grpc_health(action: core_v1.GRPCAction, ip: str, timeout: float) -> str:
    """grpc.health.v1.Health/Check. Raises Outcome."""
    import grpc

    service = (action.service or "").encode()
    # HealthCheckRequest{service = 1}; the answer's field 1 is the status, of which 1 is SERVING.
    request = b"\x0a" + _varint(len(service)) + service if service else b""
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


def _varint(number: int) -> bytes:
    """A length as protobuf has it."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def reason(error: OSError) -> str:
    # Not its own text: asyncio puts Python's words there.
    return os.strerror(error.errno).lower() if error.errno else str(error).lower()
