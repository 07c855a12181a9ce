"""Every experiment of deploy/experiments runs on virtual time, and what it expects comes true."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.experiments import file, sweep

FILES = sorted((Path(__file__).parents[3] / "deploy/experiments").glob("*.yaml"))


def test_every_experiment_has_a_section_in_the_gallery():
    page = (FILES[0].parents[2] / "docs/gallery.md").read_text()
    assert len(FILES) >= 14
    assert [p.name for p in FILES if f"deploy/experiments/{p.name}" not in page] == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_expectations(path: Path, tmp_path: Path):
    tree = file.load(path)
    listed = sweep.sweep(tree, tmp_path, seeds=(1, 2))
    assert [r.error for r in listed if r.error] == []
    judged = sweep.verdicts(tree, listed)
    assert judged and [v for v in judged if not v.good] == []
    assert [r.timeouts for r in listed if r.timeouts] == []
