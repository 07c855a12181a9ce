"""How a component shows that its event loop turns: it answers a byte for each byte that it is asked, on a unix socket.

Whoever starts the component (the lab's supervisor) leaves the listening socket to it as a descriptor. So a loop that is blocked
looks like what it is, and the price is one wake-up of some 50 us for each question.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator

VARIABLE = "NAVARCH_LIVENESS_FD"
MAX_QUESTIONS = 64  # bytes read at a time


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Answers on the running loop while the context lasts; does nothing if nobody asks."""
    number = os.environ.get(VARIABLE)
    if number is None:
        yield
        return
    loop = asyncio.get_running_loop()
    listener = socket.socket(fileno=os.dup(int(number)))
    listener.setblocking(False)
    connections: set[socket.socket] = set()

    def drop(connection: socket.socket) -> None:
        loop.remove_reader(connection.fileno())
        connections.discard(connection)
        connection.close()

    def answer(connection: socket.socket) -> None:
        try:
            questions = connection.recv(MAX_QUESTIONS)
            if not questions:
                drop(connection)
            else:
                connection.send(b"." * len(questions))
        except BlockingIOError:
            pass  # whoever does not read our answers gets no more
        except OSError:
            drop(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            connection.setblocking(False)
            connections.add(connection)
            loop.add_reader(connection.fileno(), answer, connection)

    loop.add_reader(listener.fileno(), accept)
    try:
        yield
    finally:
        loop.remove_reader(listener.fileno())
        listener.close()
        for connection in sorted(connections, key=lambda c: c.fileno()):
            drop(connection)
