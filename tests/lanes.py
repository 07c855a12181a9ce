"""Lanes: pytest processes that share out the tests among them while they run. Loaded by conftest.py.

Each lane collects the same tests and takes a group of them that no lane has taken yet, until none is left. So a lane that
begins later, or waits longer, does less, and they end together. A group is never divided: its tests share a lab.
``NAVARCH_LANES`` is a folder, empty at first, in which a file a group says that it is taken (deploy/test makes it).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Rooms whose tests share something for the session; in all others each file is a group. nodeagent's come first (they fork,
# see its conftest.py), then the longest, so that no lane ends long before another.
ROOMS = ("nodeagent", "e2e", "lab/experiments", "clients", "cli", "lab/reports")

TESTS = Path(__file__).parent
FOLDER = os.environ.pop("NAVARCH_LANES", "")  # popped: tests start pytest, too


def group(path: Path) -> str:
    """Name of the group to which a file of tests belongs: its room, or the file."""
    name = path.relative_to(TESTS).as_posix()
    return next((room for room in ROOMS if name.startswith(f"{room}/")), name)


def groups(items: list[pytest.Item]) -> dict[str, list[pytest.Item]]:
    """Tests by their groups, in the order in which lanes take them."""
    members: dict[str, list[pytest.Item]] = {room: [] for room in ROOMS}
    for item in items:
        members.setdefault(group(item.path), []).append(item)
    return {name: tests for name, tests in members.items() if tests}


def take(folder: Path, name: str) -> bool:
    """Takes a group for this lane. False if another lane has it."""
    try:
        (folder / name.replace("/", "-")).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def share(items: list[pytest.Item], folder: Path) -> Iterator[pytest.Item]:
    """This lane's tests; a group is taken when its first test is asked for."""
    for name, tests in groups(items).items():
        if take(folder, name):
            yield from tests


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """The loop of a lane; pytest's own where there are none."""
    if not FOLDER or session.config.option.collectonly:
        return None
    if session.testsfailed:
        raise session.Interrupted(f"{session.testsfailed} errors during collection")
    tests = share(session.items, Path(FOLDER))
    item = next(tests, None)
    while item is not None:
        following = next(tests, None)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        for reason, kind in ((session.shouldfail, session.Failed), (session.shouldstop, session.Interrupted)):
            if reason:
                raise kind(reason)
        item = following
    return True
