"""Two runs that part, one pod's points, what a file will cost, and lists of results, as a person sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.verbs.experiment import group
from lab.experiments import file, parting, sweep
from lab.experiments.estimate import cost_of, idle_factors
from lab.experiments.recording import Recording

CONFIG = """apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
  pluginConfig:
  - name: NodeResourcesFit
    args: {scoringStrategy: {type: %s, resources: [{name: cpu, weight: 1}]}}
"""
POLICIES: dict[str, Any] = {
    "apiVersion": file.VERSION, "kind": file.KIND, "metadata": {"name": "policies"}, "question": "Pack or spread?",
    "cluster": {"heartbeats": "elided", "events": False, "nodes": [{"count": 4}],
                "scheduler": {"tie-break": "name", "config": CONFIG % "${policy.type}"}},
    "factors": {"policy": {"spread": {"type": "LeastAllocated"}, "pack": {"type": "MostAllocated"}}, "idle": ["a", "b"]},
    "workload": [{"apply": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [
        {"name": "c", "image": "c", "resources": {"requests": {"cpu": "1"}}}]}}} for name in ("first", "second")],
    "steps": [{"until": "ready() == 2", "mark": "up"}],
    "measure": {"nodes": "last(nodes_used())"}, "expect": ["nodes > 0"],
}  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("parting") / "policies"
    listed = sweep.sweep(json.loads(json.dumps(POLICIES)), out, only={"idle": "a"})
    assert [(r.error, r.measures["nodes"]) for r in listed] == [("", 2), ("", 1)]
    return out


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = 0
    try:
        group.run(list(words), "navarch experiment")
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, "".join(capsys.readouterr())


def test_the_first_decision_that_differs_with_its_points(done: Path, capsys: pytest.CaptureFixture[str]):
    code, text = call(capsys, "diff", str(done / "policy-spread_idle-a_seed-1"), str(done / "policy-pack_idle-a_seed-1"))
    assert code == 1 and "decision 2 is the first that differs" in text
    assert "default/second  on node-2" in text and "default/second  on node-1" in text
    spread, pack = text.split("points in ")[1:]
    for part, better, worse in ((spread, "node-2", "node-1"), (pack, "node-1", "node-2")):
        totals = {line.split()[0]: float(line.split()[1]) for line in part.splitlines() if line.startswith("  node-")}
        assert totals[better] > totals[worse] and "NodeResourcesFit x1" in part
    assert call(capsys, "diff", str(done / "no-such-run"), str(done))[0] == 2


def test_decisions_are_told_apart_by_node_first():
    def recording(*places: tuple[str, str]) -> Recording:
        return Recording({}, [
            {"t": 1.0 + n, "type": "ADDED", "key": f"/registry/pods/default/{name}", "revision": n, "object": {
                "metadata": {"name": name, "namespace": "default", "uid": name}, "spec": {"nodeName": node}}}
            for n, (name, node) in enumerate(places)
        ])  # fmt: skip

    base = recording(("a", "n1"), ("b", "n2"))
    assert parting.decision_that_differs(base, base) is None
    number, one, other = parting.decision_that_differs(base, recording(("x", "n1"), ("b", "n3"))) or (None, None, None)
    assert (number, one and one["node"], other and other["node"]) == (1, "n2", "n3")
    assert (parting.decision_that_differs(base, recording(("x", "n1"), ("b", "n2"))) or [None])[0] == 0
    assert (parting.decision_that_differs(base, recording(("a", "n1"))) or [0, 0, 0])[2] is None


def test_why_at_a_moment_of_a_run(done: Path, capsys: pytest.CaptureFixture[str]):
    code, text = call(capsys, "show", str(done), "policy-pack_idle-a_seed-1", "--why", "second")
    assert code == 0 and "default/second was put on node-1: 4 of 4 nodes could take it" in text and "NODERESOURCESFIT" in text
    assert call(capsys, "show", str(done), "policy-pack_idle-a_seed-1", "--why", "nobody")[0] == 2


def test_the_cycle_alone_is_explained_too(tmp_path: Path):
    (tmp_path / "pods.csv").write_text("name,arrival,cpu\na,0,1\nb,1,1\n")
    tree = json.loads(json.dumps(POLICIES)) | {
        "workload": [{"trace": {"file": str(tmp_path / "pods.csv")}}], "steps": [], "measure": {}, "expect": [],
    }  # fmt: skip
    tree["cluster"]["mode"] = "cycle"
    listed = sweep.sweep(tree, tmp_path / "out", only={"idle": "a"})
    assert [r.error for r in listed] == ["", ""]
    runs = [tmp_path / "out" / "runs" / f"{r.name}.jsonl.gz" for r in listed]
    apart = parting.first(*runs)
    assert apart is not None and apart.number == 1 and all(apart.whys)
    assert [why["node"] for why in apart.whys if why] == ["node-2", "node-1"]


def test_lists_of_results_and_of_runs(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = call(capsys, "list", str(done.parent))[1]
    assert f"{done}  2/4" in text and "1/1" in text and "Pack or spread?" in text
    runs = call(capsys, "show", str(done))[1].splitlines()
    assert runs == ["policy-spread_idle-a_seed-1  nodes=2", "policy-pack_idle-a_seed-1  nodes=1"]
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "experiment.lock").write_text('{"file": {}}')
    assert "cannot be read" in call(capsys, "list", str(tmp_path))[1]


def test_check_tells_the_cost_and_factors_that_do_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "policies.yaml"
    path.write_text(yaml.safe_dump(POLICIES))
    code, text = call(capsys, "check", str(path))
    assert code == 0 and "policies: 4 cells, 1 seeds, 4 runs of 4 nodes" in text
    assert "warning: factors.idle changes nothing: ${idle} stands nowhere" in text and "factors.policy" not in text
    assert "of virtual time in" in text and "; all 4: " in text and "kB" in text
    assert "one run" not in call(capsys, "check", str(path), "--no-try")[1]
    assert "5 runs" in call(capsys, "check", str(path), "--no-try", "--set", "factors={}", "--set",
                            "cluster.scheduler={}", "--vary", "for=[1, 2, 3, 4, 5]")[1]  # fmt: skip


def test_a_budget_ends_a_run():
    (cell, *_) = file.cells(json.loads(json.dumps(POLICIES)) | {"for": "1h"})
    cost = cost_of(cell, budget=0.0)
    assert cost is not None and not cost.ended and cost.virtual < 3600
    assert idle_factors(file.cells(json.loads(json.dumps(POLICIES)))) == ["idle"]
