"""The dialects of WebSocket that clients speak: channels in binary or base64, old and new, and replies as messages.

Agents speak ``v4.channel.k8s.io`` and newer. What is older differs in two things: base64 messages are text, with the
channel as a digit in front, and before v4 the end is told in words, and only if something went wrong.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import MutableMapping
from typing import Any, NamedTuple

import orjson

from apiserver.wire.asgi import Request

V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
ERROR = 3  # the channel of a command's end
Message = dict[str, Any]


class Dialect(NamedTuple):
    """``name``: the subprotocol as the client names it, "" for none. ``agent``: what the agent is spoken to in."""

    name: str
    agent: str = V4
    encoded: bool = False  # in base64
    wordy: bool = False  # the end of a command is told in words

    def to_client(self, data: bytes) -> Message | None:
        """A message of the agent's as the client gets it; None if it gets nothing."""
        if self.wordy and data[:1] == bytes([ERROR]) and len(data) > 1:
            words = ending(data[1:])
            if not words:
                return None
            data = data[:1] + words
        if not self.encoded:
            return {"type": "websocket.send", "bytes": data}
        if not data:
            return {"type": "websocket.send", "text": ""}
        return {"type": "websocket.send", "text": chr(ord("0") + data[0]) + base64.b64encode(data[1:]).decode()}

    def to_agent(self, message: MutableMapping[str, Any]) -> bytes:
        """A message of the client's as the agent gets it. Raises ValueError."""
        data: bytes | None = message.get("bytes")
        if data is None:
            data = (message.get("text") or "").encode()
        if not self.encoded or not data:
            return data
        channel = data[0] - ord("0")
        if not 0 <= channel <= 255:
            raise ValueError("the channel is no digit")
        try:
            return bytes([channel]) + base64.b64decode(data[1:], validate=True)
        except binascii.Error as error:
            raise ValueError(str(error)) from None


def ending(status: bytes) -> bytes:
    """A command's end in words, as before v4: nothing for a success."""
    try:
        tree = orjson.loads(status)
    except ValueError:
        return status
    if not isinstance(tree, dict) or tree.get("status") == "Success":
        return b""
    return str(tree.get("message") or "").encode()


# By upstream's preference where a client names none: plain channels.
COMMANDS = {
    dialect.name: dialect
    for dialect in (
        Dialect(V5, V5), Dialect(V4), Dialect("v4.base64.channel.k8s.io", encoded=True),
        Dialect("channel.k8s.io", wordy=True), Dialect("base64.channel.k8s.io", encoded=True, wordy=True),
        Dialect("", wordy=True),
    )
}  # fmt: skip
PORTS = {d.name: d for d in (Dialect(V4), Dialect("v4.base64.channel.k8s.io", encoded=True), Dialect(""))}
LOGS = {"": False, "binary.k8s.io": False, "base64.binary.k8s.io": True}  # subprotocol -> in base64?


class MessageReply(Request):
    """A request that came as a WebSocket, for a handler that sends an HTTP reply piece by piece: pieces become messages.

    ``lines``: one text message a line (watches); else one message a piece, binary, or base64 if so ``encoded`` (logs).
    """

    __slots__ = ("_encoded", "_lines", "_outer", "_protocol")

    def __init__(self, outer: Request, protocol: str, *, lines: bool = False, encoded: bool = False) -> None:
        super().__init__(outer.offload, outer.scope, self._receive, self._send)
        self._outer, self._protocol, self._lines, self._encoded = outer, protocol, lines, encoded

    async def _receive(self) -> Message:
        """Discards what the client sends, until it leaves."""
        while (await self._outer.receive())["type"] != "websocket.disconnect":
            pass
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        send = self._outer.send
        if message["type"] == "http.response.start":
            self._outer.started, self._outer.status = True, 101
            await send({"type": "websocket.accept", "subprotocol": self._protocol or None})
            if not self._lines:  # upstream's first message of a log is empty: the connection stands
                await self._piece(b"")
            return
        body: bytes = message.get("body", b"")
        if self._lines:
            for line in body.splitlines():
                await send({"type": "websocket.send", "text": line.decode()})
        elif body:
            await self._piece(body)
        if not message.get("more_body"):
            await send({"type": "websocket.close", "code": 1000})

    async def _piece(self, data: bytes) -> None:
        if self._encoded:
            await self._outer.send({"type": "websocket.send", "text": base64.b64encode(data).decode()})
        else:
            await self._outer.send({"type": "websocket.send", "bytes": data})
