"""A recording that can be read while it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.experiments.recording import Recorder, Recording


class Tape(Recorder):
    """Keeps its lines."""

    def __init__(self, header: Mapping[str, Any]) -> None:
        self.header: dict[str, Any] = {**header, "marks": []}
        self.lines: list[Mapping[str, Any]] = []
        super().__init__(header)

    def line(self, line: Mapping[str, Any]) -> None:
        super().line(line)
        if "recording" not in line:  # the header
            self.lines.append(line)

    def mark(self, time: float, name: str) -> None:
        if name not in self.header["marks"]:
            self.header["marks"].append(name)
        super().mark(time, name)

    def until(self, now: float) -> Recording:
        """All that was recorded so far, as if it ended now."""
        return Recording(self.header, [*self.lines, {"t": now, "end": True}])

    def write(self, path: Path, now: float) -> None:
        """Saves what was recorded so far."""
        copy = Recorder(self.header)
        for line in self.lines:
            if "end" not in line:
                copy.line(line)
        copy.finish(now)
        copy.save(path)
