"""docs/paper.md: a reader who follows it block by block gets what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs/paper.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


@pytest.mark.slow
def test_the_guide_leads_to_a_figure(tmp_path: Path) -> None:
    """Blocks are a file to write, commands and programs to run; those without a language are what the one before prints."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "navarch").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from cli.main import main; main()" "$@"\n')
    (bin_folder / "navarch").chmod(0o755)
    root = str(PAGE.parents[1])
    path = f"{bin_folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONPATH": root, "NAVARCH_HOME": str(tmp_path / "home")}
    printed, everything = "", ""
    kinds = []
    for kind, text in BLOCK.findall(PAGE.read_text()):
        kinds.append(kind)
        if kind == "yaml":
            (tmp_path / "probe.yaml").write_text(text)
        elif kind:
            program = ["sh", "-e", "-c", text] if kind == "sh" else [sys.executable, "-c", text]
            done = subprocess.run(program, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=500)
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
            printed = done.stdout
            everything += printed
        else:
            assert [line for line in text.splitlines() if line not in printed] == [], printed
    assert kinds.count("sh") >= 6 and kinds.count("python") == 2
    plots = tmp_path / "results/probe/plots"
    assert "rollout (s)" in (plots / "level-rollout.svg").read_text() and (plots / "pareto.pdf").exists()
    assert "s longer (95 % interval" in everything and (tmp_path / "run.html").exists() and (tmp_path / "compare.html").exists()
