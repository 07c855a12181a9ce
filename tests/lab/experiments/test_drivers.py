"""The protocol between experiments and clusters, and the limits of each mode."""

from __future__ import annotations

from typing import Any

import pytest

from lab.experiments import executors, limits, sweep
from lab.experiments.drivers.driver import UNDO, has_fault
from lab.experiments.drivers.hollow import Hollow
from lab.experiments.drivers.real import Real, lab_node
from lab.experiments.drivers.virtual import Virtual
from lab.experiments.file import FAULTS, Experiment, WrongFile, parse
from lab.experiments.inputs import nodes_of

DRIVERS = {"simulated": Virtual, "hollow": Hollow, "real": Real}


@pytest.mark.parametrize("mode", DRIVERS)
def test_a_driver_can_do_and_end_the_faults_of_its_mode(mode: str) -> None:
    driver = DRIVERS[mode]
    assert set(UNDO) == set(FAULTS)
    assert {f for f in FAULTS if has_fault(driver, f)} == limits.FAULTS_OF[mode]
    for fault in limits.FAULTS_OF[mode]:
        assert not UNDO[fault] or hasattr(driver, UNDO[fault]), fault


def file(mode: str, **parts: Any) -> dict[str, Any]:
    cluster = {"mode": mode, "nodes": [{"count": 2}]} | parts.pop("cluster", {})
    return {
        "apiVersion": "lab.navarch.dev/v1", "kind": "Experiment", "metadata": {"name": "x"}, "cluster": cluster, **parts,
    }  # fmt: skip


def paths(tree: dict[str, Any]) -> list[str]:
    with pytest.raises(WrongFile) as caught:
        parse(tree)
    return [problem.path for problem in caught.value.problems]


POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "none:1"}]}}


def test_what_a_mode_cannot_do_is_refused_by_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    cut = [{"fault": {"cut": "scheduler"}}]
    assert paths(file("hollow", steps=cut)) == paths(file("real", steps=cut)) == ["steps[0].fault.cut"]
    parse(file("simulated", steps=cut))
    ends = [{"do": {"mend": "scheduler"}}, {"fault": {"delay-store": "1s"}}]
    assert paths(file("real", steps=ends)) == ["steps[0].do.mend", "steps[1].fault.delay-store"]
    assert paths(file("simulated", cluster={"set": {"agent.v": "4"}})) == ["cluster.set.agent.v"]
    assert paths(file("hollow", cluster={"set": {"agent.v": "4"}})) == ["cluster.set.agent.v"]
    assert paths(file("real", cluster={"set": {"scheduler.nosuch": "4"}})) == ["cluster.set.scheduler.nosuch"]
    assert paths(file("cycle", cluster={"set": {"scheduler.config": "x"}}, workload=[]))[-1] == "cluster.set.scheduler.config"
    groups = [{"prefix": "hollow-", "resources": {"cpu": "4", "hugepages-2Mi": "1Gi"}}, {"prefix": "b-", "count": 126}]
    assert paths(file("real", cluster={"nodes": groups})) == [
        "cluster.nodes[0].prefix", "cluster.nodes[0].resources.cpu", "cluster.nodes[0].resources.hugepages-2Mi",
        "cluster.nodes",
    ]  # fmt: skip
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path))
    monkeypatch.setenv("NAVARCH_EGRESS", "off")
    experiment = parse(file("real", workload=[{"apply": POD}]))
    assert [p.path for p in limits.missing_images(experiment)] == ["workload[0].apply"]
    monkeypatch.setenv("NAVARCH_EGRESS", "on")  # then nodes can pull it
    assert not list(limits.missing_images(experiment))
    assert limits.notes(experiment)[-1].startswith("workload[0].apply: there is no image")


def test_what_a_mode_does_not_apply_is_told() -> None:
    tree = file(
        "simulated", cluster={"heartbeats": "elided", "events": False}, behaviour={"default": {"start": "1s"}},
        workload=[{"load": {"service": "web", "rate": "1/s", "path": "/x", "capacity": "9/s"}}],
        measure={"a": "mean(gauge(\"b\"))"},
    )  # fmt: skip

    def notes(mode: str) -> list[str]:
        tree["cluster"]["mode"] = mode
        return [note.split()[0] for note in limits.notes(parse(tree))]

    assert notes("simulated") == ["workload[0].load.path"]
    common = ["cluster.heartbeats:", "cluster.events:", "cluster.scheduler.tie-break:", "gauge()"]
    assert notes("hollow") == ["workload[0].load.path", *common]
    assert notes("real") == ["workload[0].load.capacity", *common, "behaviour"]


def test_runs_on_the_wall_clock_go_seed_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes slower meanwhile would look like an effect of the factor whose level comes last."""
    ran: list[str] = []
    monkeypatch.setattr(executors, "run_all", lambda tasks, *_, **__: ran.extend(t.name for t in tasks))
    tree = file("hollow")
    tasks = [executors.Task(f"{level}{seed}", tree, {}, seed, False) for level in "ab" for seed in (1, 2)]
    sweep._run_all(tasks, lambda event: None, executors.PROCESSES, 2)
    assert ran == ["a1", "b1", "a2", "b2"]


def test_a_node_of_the_file_becomes_one_of_a_lab() -> None:
    group = {
        "prefix": "gpu-", "cpu": "2", "memory": "1Gi", "pods": 7, "zones": 2, "labels": {"a": "b"},
        "resources": {"nvidia.com/gpu": "2", "ephemeral-storage": "9Gi"}, "taints": [{"key": "k", "effect": "NoExecute"}],
    }  # fmt: skip
    experiment: Experiment = parse(file("real", cluster={"nodes": [group]}))
    (node,) = map(lab_node, nodes_of(experiment))
    assert node == {
        "name": "gpu-1", "cpu": "2", "memory": "1Gi", "pods": 7, "storage": "9Gi", "taints": ["k=:NoExecute"],
        "labels": {"topology.kubernetes.io/zone": "zone-1", "a": "b"},
    }  # fmt: skip
