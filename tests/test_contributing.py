"""CONTRIBUTING.md keeps its word: a property test that fails prints the value, and the line that repeats it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FAILING = """
from hypothesis import given, strategies as st
{imports}

@given(st.integers())
def test_x(n):
    assert n < 1000
"""


@pytest.mark.parametrize("imports", ["", "import schemathesis.generation.hypothesis.builder"], ids=["alone", "schemathesis"])
def test_a_property_that_fails_prints_how_to_repeat_it(tmp_path: Path, imports: str) -> None:
    (tmp_path / "test_it.py").write_text(FAILING.format(imports=imports))
    plugin = ("-p", "tests.propertyreports", "-p", "no:schemathesis", "-p", "no:cacheprovider", "--rootdir", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin, "test_it.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "n=1000," in done.stdout
    assert "@reproduce_failure(" in done.stdout
