"""A line for each failure, with its whole message: what is seen of a run of which only the end is shown. Loaded by conftest.py.

``NAVARCH_FAILURES`` is a file to which the lines are appended, too; deploy/test shows those of all its lanes at its end.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

FILE = os.environ.pop("NAVARCH_FAILURES", "")  # popped: tests start pytest, too
HEAD, TAIL = 500, 700  # characters of a message; its middle is the least of it


def line(report: Any) -> str:
    """The test, the phase if it is not the call, and the message without its line ends."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = " ".join((crash.message if crash is not None else str(report.longrepr)).split())
    if len(text) > HEAD + TAIL:
        text = f"{text[:HEAD]} ... {text[-TAIL:]}"
    phase = "" if getattr(report, "when", "call") == "call" else f" ({report.when})"
    return f"{report.nodeid}{phase}: {text}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = [line(report) for kind in ("failed", "error") for report in terminalreporter.stats.get(kind, ())]
    if not lines:
        return
    terminalreporter.section("failures, a line each")
    for one in lines:
        terminalreporter.write_line(one)
    if FILE:
        with Path(FILE).open("a") as file:
            file.writelines(f"{one}\n" for one in lines)
