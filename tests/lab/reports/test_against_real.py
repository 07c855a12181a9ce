"""Reports that set simulated beside real runs, show the points of decisions, and say what a mode does not apply."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from lab.experiments import file, folder, origin, sweep
from lab.experiments.sweep import Result
from lab.reports import partings, report
from tests.lab.reports.conftest import tree

Results = tuple[Path, list[Result]]


@pytest.fixture(scope="module")
def other(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same runs as if they were of mode hollow, with rollouts twice as long."""
    out = tmp_path_factory.mktemp("hollow")
    listed: dict[str, Any] = tree()
    listed["cluster"] = listed["cluster"] | {"mode": "hollow"}
    (out / "runs").mkdir()
    for result in results[1]:
        shutil.copy(results[0] / "runs" / f"{result.name}.jsonl.gz", out / "runs")
        twice = result._replace(measures=dict(result.measures) | {"rollout": 2 * result.measures["rollout"]})
        (cell,) = [c for c in file.cells(listed) if c.levels == result.levels]
        (out / "runs" / f"{result.name}.json").write_bytes(sweep._written(twice, cell.tree, origin.made_by()))
    folder.write(out, listed, file.cells(listed), results[1])
    return out


@pytest.mark.parametrize("turned", [False, True])
def test_a_report_against_another_mode(results: Results, other: Path, tmp_path: Path, turned: bool) -> None:
    ours = tmp_path / "ours"
    shutil.copytree(other if turned else results[0], ours)
    text = report.write(ours, against=results[0] if turned else other).read_text()
    part = text[text.index("Simulated against real") :]
    assert "<td>100.0%</td>" in part and "<td>0.50</td>" in part and "on the line both are equal" in part
    rows = (ours / "plots" / "against.csv").read_text().splitlines()
    assert rows[0].startswith("measure,cell,simulated,") and len(rows) == 1 + 2 * 2
    assert (ours / "plots" / "against.svg").exists()
    assert ("cluster.heartbeats: elided is not applied" in text) is turned  # said of the folder itself


def test_two_folders_of_one_mode_are_no_such_comparison(results: Results, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of the same mode"):
        report.write(results[0], against=results[0])


def test_points_of_the_decision_in_which_cells_part(results: Results) -> None:
    apart = partings.with_points(*results)
    (text,) = apart.values()
    assert list(apart) == ["surge=1 and surge=2 (seed 1)"]
    assert "Decision" in text and "nodes could take" in text and "<th>total</th>" in text and "NodeResourcesFit" in text
    (spent,) = partings.with_points(*results, budget=-1.0).values()
    assert "were spent" in spent
