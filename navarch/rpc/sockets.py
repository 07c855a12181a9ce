"""gRPC on unix sockets, as plugins speak it: calls with a deadline, streams, and a server. A thin layer over grpcio.

Messages come from protos/; services and methods are named by their explicit paths, so no generated stubs are needed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import grpc
import grpc.aio

M = TypeVar("M")
MAX_MESSAGE = 16 << 20  # bytes
MAX_SOCKET_PATH = 107  # bytes, of the kernel
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),  # a plugin that came back on the same path is a new server
)


class RpcError(Exception):
    """A call failed. ``code`` is gRPC's word, such as UNAVAILABLE; the message is worded as Go's clients do."""

    def __init__(self, code: str, details: str) -> None:
        words = "".join(part.capitalize() for part in code.split("_"))
        super().__init__(f"rpc error: code = {words} desc = {details}")
        self.code, self.details = code, details


class Refusal(Exception):
    """Raised by a method of a server: the caller gets this code and text."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


class Method(NamedTuple):
    """One unary method of a service: the type of its requests, and what answers one."""

    request: Any
    answer: Callable[[Any], Awaitable[Any]]


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Makes RpcError of all ways in which a call can fail.

    The trap: when somebody else closes the channel (the plugin came back, or went), grpcio raises CancelledError in those who
    wait for an answer, and their tasks would end without a word.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise RpcError(error.code().name, error.details() or "") from error
    except grpc.aio.UsageError as error:
        raise RpcError("UNAVAILABLE", "the connection is closed") from error
    except asyncio.CancelledError as error:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        raise RpcError("UNAVAILABLE", "the connection was closed meanwhile") from error


def texts(secret: Mapping[str, str]) -> dict[str, str]:
    """The values of a Secret's data as gRPC's strings. Raises RpcError, as Go's clients do, for those that are no UTF-8."""
    try:
        return {key: base64.b64decode(value).decode() for key, value in secret.items()}
    except ValueError as error:
        raise RpcError("INTERNAL", "grpc: error while marshaling: string field contains invalid UTF-8") from error


class Caller:
    """A client of the plugin that listens on one socket. Connects when it is first needed."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=OPTIONS)

    async def connect(self, timeout: float) -> None:
        """Waits until the plugin listens. Raises RpcError after ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                with _failures():
                    await self._channel.channel_ready()
        except TimeoutError as error:
            raise RpcError("DEADLINE_EXCEEDED", f"nothing listens at {self.socket}") from error

    async def call(self, path: str, request: Any, reply: type[M], timeout: float, *, patient: bool = False) -> M:
        """One unary call; ``patient`` waits within the timeout (seconds) for a server to be there. Raises RpcError."""
        method = self._channel.unary_unary(
            path, request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString  # type: ignore[attr-defined]
        )
        with _failures():
            answer: M = await method(request, timeout=timeout, wait_for_ready=patient)
        return answer

    async def stream(self, path: str, request: Any, reply: type[M]) -> AsyncIterator[M]:
        """The messages of a server's stream, until it ends. Raises RpcError."""
        method = self._channel.unary_stream(
            path, request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString  # type: ignore[attr-defined]
        )
        with _failures():
            call = method(request)
            try:
                async for message in call:
                    yield message
            finally:
                call.cancel()

    async def close(self) -> None:
        await self._channel.close()


class Server:
    """Unary services on one socket."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._server = grpc.aio.server(options=OPTIONS)

    def add(self, service: str, methods: Mapping[str, Method]) -> None:
        """A service under its full name, such as v1beta1.Registration."""
        handlers = {name: _handler(method) for name, method in methods.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    async def start(self) -> None:
        """Listens; a socket that an earlier process left is replaced. Raises OSError."""
        if len(os.fsencode(self.socket)) > MAX_SOCKET_PATH:
            raise OSError(36, "the path of the socket is too long", str(self.socket))
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        try:
            self._server.add_insecure_port(f"unix:{self.socket}")
        except RuntimeError as error:
            raise OSError(22, str(error), str(self.socket)) from error
        await self._server.start()
        os.chmod(self.socket, 0o600)

    async def stop(self) -> None:
        await self._server.stop(0.2)
        self.socket.unlink(missing_ok=True)


def _handler(method: Method) -> Any:
    async def respond(request: Any, context: Any) -> Any:
        try:
            return await method.answer(request)
        except Refusal as refusal:
            await context.abort(grpc.StatusCode[refusal.code], refusal.details)

    return grpc.unary_unary_rpc_method_handler(
        respond, request_deserializer=method.request.FromString, response_serializer=lambda message: message.SerializeToString()
    )
