"""Every component in turn hangs, is killed, is fed garbage: `status` tells before it is replaced, and all is repaired."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.cluster import Cluster
from lab.forking import short_path
from tests.e2e.harness import Lab, traces, wait_for
from tests.sampling import sample

ROUNDS = int(os.environ.get("NAVARCH_HUNG_ROUNDS", "1"))  # many for an hour of it
TOGETHER = (("scheduler", "agent/node-1", "controllers", "proxy/node-1"), ("etcd",), ("apiserver",))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("hung"), "hung")
    try:
        lab.up("--nodes", "1")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NAVARCH_HOME", str(lab.home))  # for `listed`
            yield lab
    finally:
        index = lab.index
        lab.navarch("down", "--purge")
        assert traces(lab, index) == []


def listed(lab: Lab) -> list[dict[str, Any]]:
    """What `navarch status` shows of the components, without its start-up time."""
    return Cluster(lab.name).health.listed()


def component(lab: Lab, name: str) -> dict[str, Any]:
    return next(p for p in listed(lab) if p["name"] == name)


def well(lab: Lab) -> bool:
    assert all(p["state"] == "running" for p in listed(lab))
    try:
        status, node = lab.call("GET", "/api/v1/nodes/node-1")
    except OSError:
        return False
    assert status == 200, node
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])


@pytest.mark.parametrize("names", [TOGETHER[0], *sample(TOGETHER[1:], 1, "hung")], ids="+".join)
def test_what_hangs_is_told_and_replaced(lab: Lab, names: tuple[str, ...]) -> None:
    for _ in range(ROUNDS):
        before = {name: component(lab, name) for name in names}
        for each in before.values():
            os.kill(each["pid"], signal.SIGSTOP)
        for name in names:
            wait_for(lambda name=name: component(lab, name)["state"] == "silent", f"{name} is told to hang", 30)  # type: ignore[misc]
        assert all("stopped by a signal" in component(lab, name)["reason"] for name in names)
        assert lab.navarch("status").count(" silent ") == len(names)
        for name, old in before.items():
            wait_for(lambda name=name, old=old: component(lab, name)["pid"] not in (0, old["pid"]), f"{name} is replaced")  # type: ignore[misc]
            now = component(lab, name)
            assert now["restarts"] == old["restarts"] + 1 and "did not answer" in now["lastExit"], now
        wait_for(lambda: well(lab), "all is repaired", 90)


@pytest.mark.parametrize("name", sample([name for names in TOGETHER for name in names], 3, "killed"))
def test_what_is_killed_is_replaced(lab: Lab, name: str) -> None:
    before = component(lab, name)
    os.kill(before["pid"], signal.SIGKILL)
    wait_for(lambda: component(lab, name)["pid"] not in (0, before["pid"]), f"{name} is replaced")
    wait_for(lambda: well(lab), "all is repaired", 90)
    assert component(lab, name)["restarts"] > before["restarts"]


def test_garbage_on_every_socket_harms_nobody(lab: Lab) -> None:
    before = {p["name"]: p["pid"] for p in listed(lab)}
    sockets = sorted(path for path in Path(lab.directory, "run").iterdir() if path.is_socket())
    assert len(sockets) >= 7
    for path in sockets:
        for garbage in (b"", b"\0" * 70_000, b"GET / HTTP/9\r\n\r\n", b'{"do": "nothing"}\n', os.urandom(3000)):
            with socket.socket(socket.AF_UNIX) as connection, short_path(path) as short:
                connection.settimeout(5)
                try:
                    connection.connect(short)
                    connection.sendall(garbage)
                    connection.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # it has hung up on us
    wait_for(lambda: well(lab), "nobody is harmed")
    assert {p["name"]: p["pid"] for p in listed(lab)} == before


def test_a_supervisor_that_hangs_is_told_and_replaced(lab: Lab) -> None:
    before = component(lab, "supervisor")["pid"]
    others = {p["name"]: p["pid"] for p in listed(lab) if p["name"] != "supervisor"}
    os.kill(before, signal.SIGSTOP)
    assert component(lab, "supervisor")["state"] == "silent"
    lab.up()
    assert component(lab, "supervisor")["pid"] != before
    assert {p["name"]: p["pid"] for p in listed(lab) if p["name"] != "supervisor"} == others
    wait_for(lambda: well(lab), "all is repaired")


def test_up_fails_names_who_does_not_come_up_and_takes_the_setting_back(lab: Lab) -> None:
    setting = ("--set", "controllers.controllers=*,-nosuch")
    ran = lab.run(sys.executable, "-m", "cli", "up", "-q", *setting, check=False)
    assert ran.returncode == 1 and "controllers is not well: exit code 2" in ran.stderr
    assert "not in the list of known controllers" in ran.stderr
    assert "controllers.controllers" not in lab.status()["settings"]
    wait_for(lambda: well(lab), "the lab runs as before")
