"""The API server's port: nobody else gets it, also not while the server is started again."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest

from lab.paths import LabError
from lab.ports import OpenSockets, listen, take_port
from tests.e2e.harness import wait_for
from tests.lab.forks import Forks, forks

__all__ = ["forks"]

SERVER = """
import asyncio, os, signal
from navarch.listening import inherited
from navarch.world import RealWorld

def main(argv):
    async def client(reader, writer):
        writer.write(str(os.getpid()).encode())
        writer.close()
    async def body():
        [listener] = inherited().values()
        assert not inherited(), "each is given once"
        await asyncio.start_server(client, sock=listener)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
    RealWorld().run(body)
    return 0
"""


def free() -> int:
    port, [listener] = take_port(["127.0.0.1"], 7500)
    listener.close()
    return port


def answer(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        return int(connection.recv(100) or b"0")


def test_a_taken_port_is_passed_over_even_if_nobody_accepts_there() -> None:
    port, [first] = take_port(["127.0.0.1"], 7500)
    with first:
        other, [second] = take_port(["127.0.0.1"], port)
        second.close()
        assert other > port
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            listen(f"127.0.0.1:{port}")


def test_many_that_choose_at_the_same_time_choose_differently() -> None:
    ports: list[int] = []
    kept: list[socket.socket] = []

    def choose() -> None:
        port, sockets = take_port(["127.0.0.1"], 7500)
        ports.append(port)
        kept.extend(sockets)

    threads = [threading.Thread(target=choose) for _ in range(30)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for each in kept:
        each.close()
    assert len(set(ports)) == 30


def test_a_port_is_free_on_all_addresses() -> None:
    port, [first] = take_port(["127.0.0.1"], 7500)
    with first:
        other, sockets = take_port(["127.0.0.2", "127.0.0.1"], port)
        assert other != port
        for each in sockets:
            each.close()


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(LabError, match=r"cannot listen on 192\.0\.2\.77"):
        take_port(["192.0.2.77"], 7500)


def test_sockets_are_kept_and_those_that_are_not_wanted_closed() -> None:
    port, handed = take_port(["127.0.0.1"], 7500)
    sockets = OpenSockets(handed)
    address = f"127.0.0.1:{port}"
    assert sockets.of("web", [address]) == handed == sockets.of("web", [address])
    assert sockets.of("web", []) == []
    listen(address).close()


def test_a_client_waits_while_the_server_is_started_again(forks: Forks) -> None:
    port = free()
    with forks.supervised(forks.spec("web", SERVER, listen=[f"127.0.0.1:{port}"])):
        first = answer(port)
        os.kill(first, signal.SIGKILL)
        second = answer(port)  # connects at once, whether there is a server yet or not
        assert second not in (0, first)
        with pytest.raises(OSError, match="in use"):
            listen(f"127.0.0.1:{port}")
    listen(f"127.0.0.1:{port}").close()


def test_a_server_that_never_starts_sends_its_clients_away(forks: Forks) -> None:
    port = free()
    with forks.supervised(forks.spec("web", "def main(argv):\n    return 2\n", listen=[f"127.0.0.1:{port}"])):

        def refused() -> bool:
            try:
                return answer(port) == 0
            except ConnectionResetError:
                return True

        wait_for(refused, "the end of a connection that nobody serves")


def test_an_address_that_others_have_is_named_and_tried_again(forks: Forks) -> None:
    port = free()
    other = listen(f"127.0.0.1:{port}")
    with forks.supervised(forks.spec("web", SERVER, listen=[f"127.0.0.1:{port}"])):
        state = forks.wait("web", lambda s: s["state"] == "ended")
        assert state["reason"] == f"cannot listen on 127.0.0.1:{port}: Address already in use"
        other.close()
        forks.wait("web", lambda s: s["state"] == "running")
        assert answer(port)


def test_other_settings_mean_another_process(forks: Forks) -> None:
    spec = forks.looping("web", "print(argv)")
    with forks.supervised(spec):
        first = forks.wait("web", lambda s: s["state"] == "running")
        forks.start(spec)
        assert forks.state("web")["pid"] == first["pid"], "the same specification changes nothing"
        spec.argv = ["--colour=blue"]
        forks.start(spec)
        assert forks.wait("web", lambda s: s["state"] == "running")["pid"] != first["pid"]
        assert forks.state("web")["restarts"] == 0, "that was no failure"
    assert "--colour=blue" in forks.log("web")
