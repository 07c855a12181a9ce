"""Facts about this process and where its files lie, as /proc tells them."""

from __future__ import annotations

from pathlib import Path


def oom_floor() -> int:
    """The lowest oom_score_adj that we may give a process."""
    try:
        capabilities = next(
            int(line.split()[1], 16)
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("CapEff")
        )
        if capabilities & (1 << 24):  # CAP_SYS_RESOURCE
            return -1000
        return int(Path("/proc/self/oom_score_adj").read_text())
    except (OSError, StopIteration, ValueError):
        return 0


def in_memory(folder: Path) -> bool:
    """Whether a folder lies on a tmpfs."""
    best, kind = "", ""
    path = str(folder.resolve())
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        place = left.split()[4]
        inside = path == place or path.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(best):
            best, kind = place, right.split()[0]
    return kind in ("tmpfs", "ramfs")
