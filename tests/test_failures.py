"""The line that tells of a failure where only the end of CI's output is shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.e2e.harness import Lab
from tests.failures import HEAD, TAIL, line

TESTS = """
import pytest

@pytest.fixture
def broken():
    raise OSError("no such lab")

def test_fails():
    raise AssertionError("kubectl get pods: exit 1; stderr 'a long line of words that a terminal of 80 columns cuts off'")

def test_has_no_lab(broken):
    pass

def test_passes():
    pass
"""


def test_a_run_ends_with_whole_messages(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.failures import pytest_terminal_summary\n")
    (tmp_path / "test_it.py").write_text(TESTS)
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); import pytest; pytest.main(['-q', '.'])"
    file = tmp_path / "failures"
    command = ["env", f"NAVARCH_FAILURES={file}", sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    lines = [
        "test_it.py::test_fails: AssertionError: kubectl get pods: exit 1; stderr 'a long line of words that a terminal "
        "of 80 columns cuts off'",
        "test_it.py::test_has_no_lab (setup): OSError: no such lab",
    ]
    assert file.read_text().splitlines() == lines, done.stdout + done.stderr
    assert all(one in done.stdout for one in lines)


def test_a_long_message_keeps_its_ends() -> None:
    crash: Any = SimpleNamespace(message="begins\n" + "x" * 5000 + "\nends")
    text = line(SimpleNamespace(nodeid="t", when="call", longrepr=SimpleNamespace(reprcrash=crash)))
    assert text.startswith("t: begins x") and text.endswith("x ends") and len(text) <= HEAD + TAIL + 10


def test_a_command_that_fails_is_told_in_one_line(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    with pytest.raises(AssertionError) as failure:
        lab.run("sh", "-c", "echo out; echo why >&2; exit 3")
    assert str(failure.value) == "sh -c echo out; echo why >&2; exit 3: exit 3; stderr 'why'; stdout 'out'"
    with pytest.raises(AssertionError, match="not done after 1 s; stdout 'begun'"):
        lab.run("sh", "-c", "echo begun; exec sleep 60", timeout=1)
