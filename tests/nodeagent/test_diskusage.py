"""Measuring trees that strangers fill, and what that costs at most."""

from __future__ import annotations

import os
from pathlib import Path

from nodeagent.linux.diskusage import DiskUse, Meter, measure


def test_blocks_and_inodes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "e").write_bytes(b"y" * 10)
    (tmp_path / "link").symlink_to("/usr")
    use = measure(str(tmp_path))
    assert use.inodes == 5, "a hard link counts once, a symlink is not followed"
    assert 100_000 <= use.bytes < 200_000
    assert measure(str(tmp_path / "absent")) == DiskUse() and measure(str(tmp_path / "link")) == DiskUse()


def test_deep_trees(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(60):
        name = "d" * 200
        os.mkdir(name, dir_fd=here)
        deeper = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    assert measure(str(tmp_path)).inodes == 61, "12,000 bytes of path are more than the kernel takes at once"


def test_an_expensive_tree_is_walked_rarely() -> None:
    clock, walks = [0.0], []

    def walk(path: str, stop: object) -> DiskUse:
        walks.append((path, clock[0]))
        clock[0] += 5.0 if path == "dear" else 0.01
        return DiskUse(len(walks))

    meter = Meter(lambda: clock[0], walk)
    for now in range(0, 300, 10):
        clock[0] = max(clock[0], float(now))
        meter.of(["cheap", "dear"], 10.0)
    assert sum(path == "dear" for path, _ in walks) == 2 and sum(path == "cheap" for path, _ in walks) > 20
    meter.keep(["cheap"])
    meter.of(["dear"], 1000.0)
    assert walks[-1][0] == "dear", "what was forgotten is walked anew"
