"""Simulated against real: the comparison itself, on runs whose differences are known, and calibrations from recordings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from lab.experiments import file, sweep
from lab.experiments.drivers.modes import run_of
from lab.experiments.fidelity import (
    Happening,
    Runs,
    compare,
    concordance,
    lines,
    of_folders,
    order,
    read,
    row,
    spearman,
)
from lab.reports.fidelity import section
from lab.twin.calibration import text
from lab.twin.observing import observe


def run(*happenings: tuple[float, str]) -> list[Happening]:
    return [Happening(*one) for one in happenings]


def test_a_value_is_judged_by_the_spread_of_real_runs() -> None:
    assert row("all", "x", [10.0], [9.0, 10.0, 11.0]).is_within is True
    assert row("all", "x", [16.0], [9.0, 10.0, 11.0]).is_within is False
    assert row("all", "x", [3.0, 3.0], [3.0, 3.0]).is_within is True
    assert row("all", "x", [3.1, 3.1], [3.0, 3.0]).is_within is False
    assert row("all", "x", [3.0], [6.0]).is_within is None
    assert row("all", "x", [3.0], [6.0]).ratio == 0.5
    # t(2) = 4.303, and 1 deviation over three runs
    low = row("all", "x", [10.0], [9.0, 10.0, 11.0]).low
    assert low == pytest.approx(10 - 4.303 * math.sqrt(4 / 3))


def test_order_is_the_share_of_pairs_that_agree() -> None:
    a = run((0.0, "a"), (1.0, "b"), (2.0, "c"))
    assert concordance(a, a) == 1.0
    assert concordance(a, run((0.0, "a"), (1.0, "c"), (2.0, "b"))) == pytest.approx(2 / 3)
    assert concordance(a, run((0.0, "a"), (1.9, "c"), (2.0, "b"))) == 1.0  # too near to have an order
    assert math.isnan(concordance(a, run((0.0, "x"))))
    twice = order("all", [run((0.0, "a"), (1.0, "a"))], [run((0.0, "a"))])
    assert not twice.same_counts and twice.counts == {"a": ([2], [1])}


def test_ranks() -> None:
    assert spearman([(1.0, 10.0), (2.0, 20.0), (3.0, 30.0)]) == pytest.approx(1.0)
    assert spearman([(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]) == pytest.approx(-1.0)
    assert math.isnan(spearman([(1.0, 3.0), (1.0, 2.0)]))


def test_only_cells_and_measures_of_both_are_compared() -> None:
    ours = {"a": Runs([{"x": 1.0, "y": math.nan}], [run((0.0, "a"))]), "b": Runs([{"x": 1.0}], [[]])}
    theirs = {"a": Runs([{"x": 2.0, "y": 1.0}], [run((0.0, "a"))])}
    fidelity = compare(ours, theirs)
    assert [(r.cell, r.measure, r.ratio) for r in fidelity.rows] == [("a", "x", 0.5)]
    assert "one real run only" in "\n".join(lines(fidelity))


WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "web:v1", readinessProbe: {periodSeconds: 1, tcpSocket: {port: 80}}}]}
"""


def tree(**behaviour: str) -> dict[str, Any]:
    return {
        "apiVersion": "lab.navarch.dev/v1", "kind": "Experiment", "metadata": {"name": "x"},
        "cluster": {"nodes": [{"count": 2}]}, "behaviour": {"default": behaviour}, "workload": [{"apply": WEB}], "seeds": 2,
        "steps": [
            {"until": "available(deployment/web)"}, {"mark": "start", "do": {"set-image": {"deployment/web": "web:v2"}}},
            {"until": "rolled_out(deployment/web)", "mark": "end"},
        ],
        "measure": {"rollout": "end - start"},
    }  # fmt: skip


def test_a_run_that_is_learned_from_is_repeated(tmp_path: Path) -> None:
    """A "real" cluster whose stages are known: what is calibrated from its recording gives runs like it."""
    known = tree(pull="0s", start="uniform(1s, 2s)", ready="normal(3s, 0.5s)", stop="2s")
    known["behaviour"]["image:web:v2"] = {"start": "uniform(6s, 7s)"}
    recordings = [run_of(file.parse(file.cells(known)[0].tree), seed).recorder.recording() for seed in (1, 2)]
    stages, images = observe(recordings)
    assert set(images) == {"web:v1", "web:v2"} and "stop" not in images["web:v2"]
    assert 1 <= min(images["web:v1"]["start"]) <= max(images["web:v1"]["start"]) <= 2.1
    assert 6 <= min(images["web:v2"]["start"]) <= max(images["web:v2"]["start"]) <= 7.1
    assert sum(stages["ready"]) / len(stages["ready"]) == pytest.approx(3, abs=0.4)
    assert set(map(round, stages["stop"])) == {2}
    calibration = tmp_path / "times.json"
    calibration.write_text(text(stages, {"source": "test"}, images))
    sweep.sweep(known, tmp_path / "a")
    learned = file.inlined(tree() | {"behaviour": {"calibrated": calibration.name, "default": {"pull": "0s"}}}, tmp_path)
    sweep.sweep(learned, tmp_path / "b")
    fidelity = compare(read(tmp_path / "b"), read(tmp_path / "a"))
    assert [r.is_within for r in fidelity.rows] == [True], lines(fidelity)
    assert fidelity.orders[0].same_counts and fidelity.orders[0].agreement > 0.9, lines(fidelity)
    assert of_folders(tmp_path / "a", tmp_path / "b") is None  # both are simulated
    page = section(fidelity, "b", "a")
    assert "rollout" in page and "<td" in page
    sweep.sweep(tree(ready="90s"), tmp_path / "c", seeds=[1])
    assert [r.is_within for r in compare(read(tmp_path / "c"), read(tmp_path / "a")).rows] == [False]
