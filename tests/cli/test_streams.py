"""exec's side of the channel protocol, against a socket that plays the server."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cli import streams
from cli.errors import CommandError
from navarch.api.errors import InternalError
from navarch.world import RealWorld

EXITED = {
    "status": "Failure",
    "reason": "NonZeroExitCode",
    "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
}


class Socket:
    """Plays the server: answers what it was given once ``ready`` says so."""

    def __init__(self, answers: list[bytes], ready: Callable[[list[bytes]], bool], protocol: str) -> None:
        self.answers, self.ready, self.protocol = answers, ready, protocol
        self.sent: list[bytes] = []
        self.changed = asyncio.Event()

    async def send(self, data: bytes) -> None:
        self.sent.append(data)
        self.changed.set()

    async def receive(self) -> bytes | None:
        while not self.ready(self.sent):
            self.changed.clear()
            await self.changed.wait()
        return self.answers.pop(0) if self.answers else None

    async def close(self) -> None:
        pass


class Session:
    world = RealWorld()


@pytest.fixture
def stdin() -> Iterator[int]:
    """A pipe in the place of standard input; its writing end."""
    reader, writer = os.pipe()
    kept = os.dup(0)
    os.dup2(reader, 0)
    os.close(reader)
    yield writer
    os.dup2(kept, 0)
    os.close(kept)


def talk(
    answers: list[bytes], ready: Callable[[list[bytes]], bool], stdin: bool, protocol: str
) -> tuple[Any, list[bytes]]:
    session: Any = Session()

    async def main() -> tuple[Any, list[bytes]]:
        socket = Socket(answers, ready, protocol)
        return await streams._talk(session, socket, stdin, False), socket.sent

    return session.world.run(main)


def test_output_goes_where_it_belongs(capfd: pytest.CaptureFixture[str]) -> None:
    answers = [b"\x01", b"\x01out\n", b"\x02err\n", b"\x03" + json.dumps({"status": "Success"}).encode()]
    status, _ = talk(answers, lambda _: True, False, streams.PROTOCOLS[0])
    assert streams.exit_code(status) == 0
    assert capfd.readouterr() == ("out\n", "err\n")


@pytest.mark.parametrize("protocol", streams.PROTOCOLS)
def test_input_is_sent_and_its_end_told(stdin: int, protocol: str) -> None:
    os.write(stdin, b"hello")
    os.close(stdin)
    v5 = protocol.startswith("v5")
    end = [b"\xff\x00"] if v5 else []

    def ready(sent: list[bytes]) -> bool:
        return len(sent) == 1 + len(end)

    _, sent = talk([b"\x01"], ready, True, protocol)
    assert sent == [b"\x00hello", *end]


def test_a_command_that_ends_does_not_wait_for_input(stdin: int) -> None:
    status, _ = talk([b"\x03" + json.dumps(EXITED).encode()], lambda _: True, True, streams.PROTOCOLS[0])
    assert status == EXITED
    os.close(stdin)


def test_exit_codes(capfd: pytest.CaptureFixture[str]) -> None:
    assert streams.exit_code(EXITED) == 3
    assert capfd.readouterr().err == "command terminated with exit code 3\n"
    with pytest.raises(InternalError, match="no shell"):
        streams.exit_code({"status": "Failure", "reason": "InternalError", "message": "no shell"})
    with pytest.raises(CommandError):
        streams.exit_code(None)
