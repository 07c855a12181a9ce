"""A command in a container over a WebSocket: Kubernetes' channel protocol on one side, this process's terminal on the other.

Every message starts with a channel byte: 0 standard input, 1 output, 2 errors, 3 how it ended (a Status), 4 the
terminal's size, 255 (v5 only) a channel that is closed, named by the next byte.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import signal
import sys
import termios
import threading
import tty as terminal
from collections.abc import Iterator
from typing import Any

from cli.errors import CommandError
from cli.session import Session
from navarch.api.errors import from_status
from navarch.client.transport import WebSocket

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
CHUNK = 32 * 1024


async def run(session: Session, path: str, query: list[tuple[str, str]], *, stdin: bool, tty: bool) -> int:
    """Runs it to its end; gives the command's exit code. Raises StatusError if it could not be started."""
    raw = tty and stdin and sys.stdin.isatty()
    if tty and not raw:
        print("Unable to use a TTY - input is not a terminal or the right kind of file", file=sys.stderr)
    # The terminal is changed only once the server has agreed; before, errors are printed on it.
    async with session.client.websocket(path, query=query, protocols=PROTOCOLS) as socket:
        with _raw_terminal() if raw else contextlib.nullcontext():
            status = await _talk(session, socket, stdin, raw)
    return exit_code(status)


async def _talk(session: Session, socket: WebSocket, stdin: bool, raw: bool) -> dict[str, Any] | None:
    """Copies both ways until the other side is done; gives the Status that it ended with."""
    async with session.world.task_group() as group:
        senders = []
        if stdin:
            senders.append(group.start(_send_input(socket)))
        if raw:
            senders.append(group.start(_send_sizes(socket)))
        status = await _receive(socket)
        for sender in senders:
            sender.cancel()
    return status


async def _receive(socket: WebSocket) -> dict[str, Any] | None:
    outputs = {STDOUT: sys.stdout.buffer, STDERR: sys.stderr.buffer}
    sys.stdout.flush()
    status: dict[str, Any] | None = None
    while (message := await socket.receive()) is not None:
        if not message:
            continue
        channel, data = message[0], message[1:]
        if channel in outputs and data:
            outputs[channel].write(data)
            outputs[channel].flush()
        elif channel == ERROR and data:
            status = json.loads(data)
    return status


async def _send_input(socket: WebSocket) -> None:
    """Standard input to the command, read by a thread: a file, a pipe and a terminal all read the same way there."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes] = asyncio.Queue(8)

    def read() -> None:
        data = b"more"
        while data:
            try:
                data = os.read(0, CHUNK)
            except OSError:
                data = b""
            put = queue.put(data)
            try:
                asyncio.run_coroutine_threadsafe(put, loop).result()
            except (RuntimeError, concurrent.futures.CancelledError):
                put.close()  # the loop has ended, and with it the command: nobody wants more
                return

    # A daemon: it sits in read() when the command has ended, and must not keep this process alive.
    threading.Thread(target=read, daemon=True).start()
    while data := await queue.get():
        await socket.send(bytes([STDIN]) + data)
    if socket.protocol == PROTOCOLS[0]:
        await socket.send(bytes([CLOSE, STDIN]))


async def _send_sizes(socket: WebSocket) -> None:
    """The terminal's size, now and whenever it changes."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    try:
        while True:
            changed.clear()
            size = os.get_terminal_size(0)
            await socket.send(bytes([RESIZE]) + json.dumps({"Width": size.columns, "Height": size.lines}).encode())
            await changed.wait()
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Keys go to the command as they are typed, Ctrl-C included; afterwards the terminal is as it was."""
    before = termios.tcgetattr(0)
    try:
        terminal.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def exit_code(status: dict[str, Any] | None) -> int:
    """The command's exit code. Raises what else the Status says."""
    if status is None:
        raise CommandError("the connection was lost before the command ended")
    if status.get("status") == "Success":
        return 0
    if status.get("reason") == "NonZeroExitCode":
        causes = (status.get("details") or {}).get("causes") or ()
        for cause in causes:
            if cause.get("reason") == "ExitCode" and str(cause.get("message", "")).isdigit():
                code = int(cause["message"])
                print(f"command terminated with exit code {code}", file=sys.stderr)
                return code
    raise from_status(status, 500)
