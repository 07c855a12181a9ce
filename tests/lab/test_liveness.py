"""A component that hangs, dies or refuses to start is noticed, named and started again."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

from lab import liveness
from lab.forking import short_path
from lab.liveness import Pulse, last_lines, reason
from tests.lab.forks import Forks, forks

__all__ = ["forks"]

BUSY = "import time\n        asyncio.get_running_loop().call_later(0.3, lambda: deep())"
BLOCKED = """
def deep():
    while True:
        pass
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.supervisor.PERIOD", 0.2)
    monkeypatch.setattr(liveness, "SILENT", 0.4)
    monkeypatch.setattr(liveness, "DEAD", 2.0)


def test_who_answers_runs_and_who_has_not_yet_starts(forks: Forks) -> None:
    slow = forks.spec("slow", "import time\ndef main(argv):\n    time.sleep(600)\n")
    with forks.supervised(forks.looping("quick"), slow):
        forks.wait("quick", lambda s: s["state"] == "running" and s["restarts"] == 0)
        assert forks.state("slow")["state"] in ("starting", "silent")


def test_a_component_that_is_stopped_shows_and_is_replaced(forks: Forks) -> None:
    with forks.supervised(forks.looping("web"), forks.looping("other")):
        pid = forks.wait("web", lambda s: s["state"] == "running")["pid"]
        os.kill(pid, signal.SIGSTOP)
        silent = forks.wait("web", lambda s: s["state"] == "silent")
        assert "stopped by a signal" in silent["reason"] and silent["since"] <= time.time()
        again = forks.wait("web", lambda s: s["state"] == "running" and s["pid"] != pid)
        assert again["restarts"] == 1
        assert "did not answer" in again["lastExit"]
        assert forks.state("other")["restarts"] == 0


def test_a_program_that_is_asked_over_tcp(forks: Forks) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pulse = Pulse(f"127.0.0.1:{listener.getsockname()[1]}", "/health")
        pulse.ask(os.getpid(), 0.0)
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100).startswith(b"GET /health HTTP/1.1\r\n") and not pulse.answered
            connection.sendall(b"HTTP/1.1 503 No\r\n\r\ndisk is full\n")
            pulse.wait(5)
            assert pulse.answered and pulse.complaint == "disk is full"
            pulse.ask(os.getpid(), 0.1)
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            pulse.wait(5)
            assert pulse.complaint == ""
            pulse.ask(os.getpid(), 0.1)
            pulse.ask(os.getpid(), 3.0)
            assert pulse.dead, "it hangs"
        pulse.close()
    gone = Pulse("127.0.0.1:1", "/")
    gone.ask(os.getpid(), 0.0)
    assert not gone.answered


def test_a_loop_that_is_blocked_leaves_its_stack(forks: Forks) -> None:
    spec = forks.looping("busy", BUSY)
    module = forks.directory / f"{spec.module}.py"
    module.write_text(BLOCKED + module.read_text())
    with forks.supervised(spec):
        state = forks.wait("busy", lambda s: s["restarts"] >= 1)
        assert "did not answer" in state["lastExit"]
        assert any("in deep" in line for line in state["lastLines"]), state["lastLines"]


def test_who_is_killed_is_said_to_be(forks: Forks) -> None:
    with forks.supervised(forks.looping("web")):
        pid = forks.wait("web", lambda s: s["state"] == "running")["pid"]
        os.kill(pid, signal.SIGKILL)
        assert "signal 9" in forks.wait("web", lambda s: s["state"] == "running" and s["pid"] != pid)["lastExit"]


def test_who_refuses_its_settings_is_quoted(forks: Forks) -> None:
    text = "def main(argv):\n    print('web: no such setting: colour')\n    return 2\n"
    with forks.supervised(forks.spec("web", text)):
        state = forks.wait("web", lambda s: s["restarts"] >= 2)
        assert state["lastExit"] == "exit code 2: web: no such setting: colour"


def test_an_exception_is_told_by_its_last_line(forks: Forks) -> None:
    with forks.supervised(forks.looping("web", "async with asyncio.TaskGroup() as g: g.create_task(asyncio.sleep('x'))")):
        state = forks.wait("web", lambda s: s["restarts"] >= 1)
        assert "exit code 70: TypeError" in state["lastExit"], state


@pytest.mark.parametrize("garbage", [b"", b"\0" * 100_000, b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000)])
def test_garbage_does_no_harm(forks: Forks, garbage: bytes) -> None:
    """On the socket where components are asked, and on the supervisor's own."""
    with forks.supervised(forks.looping("web")):
        forks.wait("web", lambda s: s["state"] == "running")
        for path in (forks.paths.run / "web.alive", forks.paths.socket):
            with socket.socket(socket.AF_UNIX) as connection, short_path(path) as name:
                connection.connect(name)
                connection.settimeout(5)
                try:
                    connection.sendall(garbage)
                    connection.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # it has hung up on us already
        asked = forks.state("web")
        assert asked["state"] == "running" and asked["restarts"] == 0


def test_a_next_supervisor_adopts_asks_and_replaces(forks: Forks) -> None:
    with forks.supervised(forks.looping("kept"), forks.looping("lost")) as first:
        kept = forks.wait("kept", lambda s: s["state"] == "running")["pid"]
        lost = forks.wait("lost", lambda s: s["state"] == "running")["pid"]
        first.save()
        notes = forks.paths.processes.read_text()
        first.do_stop = lambda names, grace=10.0: None  # type: ignore[method-assign]  # it is killed
    os.kill(lost, signal.SIGKILL)
    os.waitpid(lost, 0)
    forks.paths.processes.write_text(notes)
    with forks.supervised():
        assert forks.wait("kept", lambda s: s["state"] == "running")["pid"] == kept
        assert forks.wait("lost", lambda s: s["state"] == "running")["pid"] != lost


def test_time_without_a_processor_does_not_count(monkeypatch: pytest.MonkeyPatch, forks: Forks) -> None:
    waits = iter([0.0, 100.0, 100.0])
    monkeypatch.setattr(liveness, "processor_wait", lambda pid: next(waits))
    pulse = Pulse(str(forks.paths.run / "nobody"))
    pulse.ask(1, 0.0)
    pulse.ask(1, 3.0)
    assert not pulse.shows
    pulse.ask(1, 3.0)
    assert pulse.shows


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("a\nb\n", "b"),
        ("Traceback (most recent call last):\n  File \"x\"\n    f()\nValueError: no\n", "ValueError: no"),
        ("    | Traceback (most recent call last):\n    |   File\n    | KeyError: 'a'\n    +------\n", "KeyError: 'a'"),
        ("it broke\nCurrent thread 0x1 (most recent call first):\n  File x in deep\n", "it broke"),
        ("", ""),
    ],
)  # fmt: skip
def test_the_line_that_says_why(forks: Forks, log: str, expected: str) -> None:
    (forks.directory / "log").write_text(log)
    assert reason(last_lines(str(forks.directory / "log"))) == expected
