"""Results depend on the files that an experiment names: a changed plugin, module beside it, trace or measure is seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.experiments import file, folder, sweep

PLUGIN = """from prices import PRICE
from scheduler.framework.plugin import NodePlugin


class Cheap(NodePlugin):
    name = "Cheap"

    def score_node(self, pod, view):
        return PRICE
"""
TREE: dict[str, Any] = {
    "apiVersion": file.VERSION, "kind": file.KIND, "metadata": {"name": "own"},
    "cluster": {"heartbeats": "elided", "nodes": [{"count": 1}]},
    "factors": {"by": ["Cheap"]},
    "workload": [{"apply": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [
        {"name": "c", "image": "c"}]}}}],
    "steps": [{"until": "ready() == 1"}], "measure": {"pods": "metrics.py:pods"},
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "metrics.py").write_text("def pods(recording):\n    return 1.0\n")
    (tmp_path / "cheap.py").write_text(PLUGIN)
    (tmp_path / "prices.py").write_text("PRICE = 1\n")
    return tmp_path


def load(place: Path, **cluster: Any) -> dict[str, Any]:
    tree = json.loads(json.dumps(TREE))
    tree["cluster"] |= cluster
    return file.inlined(tree, place)


def test_a_changed_measure_is_taken_again_from_the_recording(place: Path):
    (first,) = sweep.sweep(load(place), place / "out")
    (place / "metrics.py").write_text("def pods(recording):\n    return 2.5\n")
    assert sweep.not_taken(place / "out", sweep.plan_of(load(place))) == []
    (second,) = sweep.sweep(load(place), place / "out")
    assert (first.measures, second.measures) == ({"pods": 1.0}, {"pods": 2.5}) and first.digest == second.digest
    assert sweep.results(place / "out") == [second]


def test_a_module_beside_a_plugin_is_part_of_the_run(place: Path):
    tree = load(place, scheduler={"plugins": ["cheap.py:${by}"]})
    assert {Path(p).name for p in folder.inputs(file.cells(tree)[0].tree)} == {"cheap.py", "metrics.py", "prices.py"}
    assert [r.error for r in sweep.sweep(tree, place / "out")] == [""]
    assert [Path(p).name for p in folder.read_lock(place / "out")["inputs"]] == ["cheap.py", "metrics.py", "prices.py"]
    plan = sweep.plan_of(tree)
    assert sweep.earlier_result(place / "out", *plan[0]) is not None
    (place / "prices.py").write_text("PRICE = 100\n")
    assert sweep.earlier_result(place / "out", *plan[0]) is None
    (said,) = sweep.not_taken(place / "out", plan)
    assert said.endswith("is made anew: prices.py changed")
    assert len(sweep.results(place / "out")) == 1  # a report is of what was run


def test_another_file_and_a_failed_run_are_told(place: Path):
    sweep.sweep(load(place), place / "out")
    (said,) = sweep.not_taken(place / "out", sweep.plan_of(load(place, nodes=[{"count": 2}])))
    assert said.endswith("the file says something else now")
    path = next((place / "out" / "runs").glob("*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"error": "broken", "by": "navarch 0.0.1"}))
    (said,) = sweep.not_taken(place / "out", sweep.plan_of(load(place)))
    assert said.endswith("they failed")
