"""The agent's mount namespace on a host with both cgroup versions."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from navarch.linux import cgroups, syscalls
from nodeagent.linux import hostnamespace


def in_fork(function: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            status = 0 if function() else 1
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.skipif(cgroups.hybrid_mount() is None, reason="this host has one cgroup version: nothing to hide")
def test_second_agent_finds_the_first_ones_mounts(tmp_path: Path) -> None:
    pin, place = tmp_path / "run/mnt/ns", tmp_path / "place"
    place.mkdir()

    def first() -> bool:
        entered = hostnamespace.enter(pin) and cgroups.hybrid_mount() is None
        syscalls.mount("none", place, "tmpfs")
        (place / "mark").touch()
        return entered

    def second() -> bool:
        return hostnamespace.enter(pin) and (place / "mark").exists() and cgroups.hybrid_mount() is None

    def host() -> bool:
        # a host of its own, so that the pin does not stay on this one
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        fine = in_fork(first) and not (place / "mark").exists() and in_fork(second)
        hostnamespace.leave_nothing(pin)
        return fine and not pin.exists() and cgroups.hybrid_mount() is not None

    assert in_fork(host)
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
