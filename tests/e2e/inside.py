"""Sockets of this process in other network namespaces, servers on them, and what can be reached from where."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from navarch.linux.syscalls import CLONE_NEWNET, setns
from tests.e2e.harness import Lab

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def sockets(pid: int, kind: str, count: int = 1) -> list[socket.socket]:
    """Sockets in the network namespace of a process (0: in our own). A thread makes them, since only it moves there."""
    made: list[socket.socket] = []

    def work() -> None:
        if pid:
            fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
            setns(fd, CLONE_NEWNET)
            os.close(fd)
        for _ in range(count):
            made.append(socket.socket(socket.AF_INET, KINDS[kind]))
            made[-1].setblocking(False)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(made) == count, "the process is gone"
    return made


def pid_of(lab: Lab, pod: dict) -> int:
    """A process of the pod's container."""
    uid = pod["metadata"]["uid"]
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if uid in (entry / "cgroup").read_text() and "conmon" not in (entry / "comm").read_text():
                return int(entry.name)
    raise AssertionError(f"no process of {pod['metadata']['name']}")


class Servers:
    """Answers with a name on any number of sockets in any namespaces. After its name, TCP echoes what it is sent; UDP that
    is sent ``push`` answers ten times a second for some seconds."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.pushes: list[tuple[socket.socket, tuple[str, int], float]] = []
        self.ended = False
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def add(self, pid: int, name: str, kind: str, port: int, address: str = "0.0.0.0") -> None:
        (made,) = sockets(pid, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        if kind == "tcp":
            made.listen(64)
        self.selector.register(made, selectors.EVENT_READ, (kind, name.encode()))

    def __enter__(self) -> Servers:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = True
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self.selector.close()

    def _serve(self) -> None:
        while not self.ended:
            for key, _ in self.selector.select(0.05):
                with contextlib.suppress(OSError):
                    self._answer(key.fileobj, *key.data)  # type: ignore[arg-type]
            for made, where, until in self.pushes:
                if time.monotonic() < until:
                    with contextlib.suppress(OSError):
                        made.sendto(b"pushed", where)

    def _answer(self, made: socket.socket, kind: str, name: bytes) -> None:
        if kind == "tcp":
            connection, _ = made.accept()
            connection.setblocking(False)
            connection.send(name + b" " + connection.getpeername()[0].encode() + b"\n")
            self.selector.register(connection, selectors.EVENT_READ, ("echo", name))
        elif kind == "udp":
            data, where = made.recvfrom(65536)
            made.sendto(name + b" " + where[0].encode() + b" %d" % len(data), where)
            if data == b"push":
                self.pushes.append((made, where, time.monotonic() + 8))
        elif data := made.recv(65536):
            made.send(data)
        else:
            self.selector.unregister(made)
            made.close()


def reach(pid: int, goals: Iterable[tuple[str, str, int]], patience: float = 0.6, data: bytes = b"?") -> list[str]:
    """What answers at (kind, address, port) each, as seen from the namespace of a process; "" for silence or a refusal.
    All are asked at once; with silent ones it takes ``patience`` seconds."""
    goals = list(goals)
    answers, selector = [""] * len(goals), selectors.DefaultSelector()
    made = {kind: iter(sockets(pid, kind, sum(g[0] == kind for g in goals))) for kind in KINDS}
    for number, (kind, address, port) in enumerate(goals):
        one = next(made[kind])
        with contextlib.suppress(OSError):
            one.connect((address, port))
        if kind == "udp":
            with contextlib.suppress(OSError):
                one.send(data)
        selector.register(one, selectors.EVENT_READ, number)
    end = time.monotonic() + patience
    while selector.get_map() and time.monotonic() < end:
        for key, _ in selector.select(max(0.0, end - time.monotonic())):
            one: socket.socket = key.fileobj  # type: ignore[assignment]
            with contextlib.suppress(OSError):
                answers[key.data] = one.recv(4096).decode(errors="replace").strip()
            selector.unregister(one)
            one.close()
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    selector.close()
    return answers
