"""The lanes of deploy/test: every test is taken once, and what shares a lab stays together."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.lanes import TESTS, group, share

FILES = ("lab/test_ports.py", "e2e/test_down.py", "lab/test_ports.py", "test_docs.py", "e2e/test_images.py", "nodeagent/a/b.py")


def items() -> list[Any]:
    return [SimpleNamespace(path=TESTS / file, number=number) for number, file in enumerate(FILES)]


def test_two_lanes_run_every_test_once(tmp_path: Path) -> None:
    lanes = [share(items(), tmp_path) for _ in range(2)]
    taken: list[list[Any]] = [[], []]
    for turn in itertools.count():
        item = next(lanes[turn % 2], None)
        if item is None and len(taken[0]) + len(taken[1]) == len(FILES):
            break
        if item is not None:
            taken[turn % 2].append(item)
    assert sorted(item.number for lane in taken for item in lane) == list(range(len(FILES)))
    groups = [{group(item.path) for item in lane} for lane in taken]
    assert all(groups) and not groups[0] & groups[1]
    for lane in taken:
        names = [name for name, _ in itertools.groupby(group(item.path) for item in lane)]
        assert len(names) == len(set(names)), "one group after another"


def test_a_lane_that_comes_late_takes_what_is_left(tmp_path: Path) -> None:
    first = share(items(), tmp_path)
    assert [next(first).number for _ in range(2)] == [5, 1], "nodeagent comes first, then the longest"
    assert [item.number for item in share(items(), tmp_path)] == [0, 2, 3]
    assert [item.number for item in first] == [4]
