"""The agent or the driver dies in the middle of each call: nothing is lost, nothing is left (see faults.py)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nodeagent.csi.faults import REPUBLISH, ROWS

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("c")
    program = [sys.executable, "-m", "tests.nodeagent.csi.faults", str(folder)]
    command = ["unshare", "--mount", "--propagation", "private", *program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    out: dict[str, str] = json.loads(done.stdout)
    return out


@pytest.mark.parametrize("words", [*ROWS, REPUBLISH])
def test_a_death_in_the_middle(words: str, failures: dict[str, str]) -> None:
    assert words not in failures, failures[words]
