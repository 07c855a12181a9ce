"""Each deed and each fault has its effect: small experiments of one workload on two or three simulated nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.experiments import file
from lab.experiments.drivers.modes import run_of
from lab.experiments.measures import measure
from lab.experiments.recording import Recording
from lab.experiments.schema import WrongFile

TREE = dict[str, Any]
UP = {"until": "available(deployment/web)", "within": "1m", "mark": "up", "on-timeout": "fail"}
POD = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "web", "image": "web:v1", "ports": [{"containerPort": 80}]}]},
}
WEB = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": POD},
}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
}


def tree_of(*steps: TREE, nodes: int = 2, load: TREE | None = None, **more: Any) -> TREE:
    workload: list[TREE] = [{"apply": [WEB, SERVICE]}] + (
        [{"load": {"service": "web", "rate": "20/s", **load}}] if load is not None else []
    )
    head = {"apiVersion": file.VERSION, "kind": file.KIND, "metadata": {"name": "t"}}
    return {**head, "cluster": {"nodes": [{"count": nodes}]}, "workload": workload, "steps": [UP, *steps], **more}


def played(*steps: TREE, **more: Any) -> Recording:
    return run_of(file.parse(tree_of(*steps, **more)), 1).recorder.recording()


def value(recording: Recording, text: str) -> float:
    return measure(recording, {"value": text})["value"]


def test_undo_brings_the_template_before_back():
    v2 = {"do": {"set-image": {"deployment/web": {"web": "web:v2"}}}}
    new = 'running_image(deployment/web, "web:v2") == 2 and rolled_out(deployment/web)'
    recording = played(
        v2,
        {"until": new, "mark": "new", "on-timeout": "fail"},
        {"do": {"undo": "deployment/web"}},
        {"until": 'running_image(deployment/web, "web:v1") == 2 and rolled_out(deployment/web)', "on-timeout": "fail"},
        {"do": {"undo": {"deployment/web": 2}}},
        {"until": new, "on-timeout": "fail"},
    )
    assert value(recording, "count(rollouts(deployment/web))") == 3
    with pytest.raises(BaseExceptionGroup, match="TaskGroup") as raised:
        played({"do": {"undo": {"deployment/web": 7}}})
    assert raised.group_contains(ValueError, match="has no revision 7; revisions: 1")


def test_a_container_of_a_workload_dies():
    recording = played({"fault": {"kill": "deployment/web"}}, {"wait": "5s"})
    assert value(recording, "restarts(deployment/web)") == 1


def test_a_node_stops_until_it_is_started():
    off = {"fault": {"power-off": "node-1"}, "mark": "off"}
    recording = played(
        off,
        {"until": "nodes_ready() == 1", "on-timeout": "fail"},
        {"do": {"power-on": "node-1"}},
        {"until": "nodes_ready() == 2", "on-timeout": "fail"},
    )
    assert 30 < value(recording, "seconds(nodes_ready() < 2, off..finish)") + 40 < 100


def test_a_node_is_cut_off_until_it_is_healed():
    recording = played(
        {"fault": {"partition": "node-1"}},
        {"until": "not node_ready('node-1')", "on-timeout": "fail"},
        {"do": {"heal": "node-1"}},
        {"until": "node_ready('node-1')", "on-timeout": "fail"},
    )
    assert value(recording, "evicted()") == 0


def test_nothing_is_scheduled_while_the_scheduler_is_down():
    scale = {"do": {"scale": {"deployment/web": 3}}, "mark": "more"}
    crashed = played(
        {"fault": {"crash": "scheduler"}}, scale, {"wait": "20s"}, {"do": {"start": "scheduler"}}, {"wait": "5s"}
    )
    assert 19 < value(crashed, "max(waits())") < 25 and value(crashed, "bound()") == 3
    cut = played({"fault": {"cut": "scheduler", "for": "20s"}}, scale, {"wait": "60s"})
    assert 19 < value(cut, "max(waits())") < 60


def test_a_slow_component_works_slowly():
    slow = played(
        {"fault": {"slow": "scheduler", "by": "3s"}},
        {"do": {"scale": {"deployment/web": 3}}},
        {"wait": "20s"},
        {"do": {"mend": "scheduler"}},
        {"do": {"scale": {"deployment/web": 4}}},
        {"wait": "20s"},
    )
    assert 3 < value(slow, "max(waits())") < 10 and value(slow, "count(waits())") == 4
    assert value(slow, "min(waits())") < 0.5


@pytest.mark.parametrize("what", ["all", "writes"])
def test_nothing_is_written_while_the_store_fails(what: str):
    recording = played(
        {"fault": {"fail-store": what, "for": "20s"}, "mark": "off"},
        {"at": "off+1s", "do": {"load": {}}},
        {"at": "off+19s", "mark": "late"},
        {"wait": "60s"},
    )
    assert value(recording, 'writes("", off..late)') == 0 < value(recording, 'writes("", late..finish)')


def test_a_slow_store_makes_all_slow():
    recording = played(
        {"fault": {"delay-store": "1s"}},
        {"do": {"scale": {"deployment/web": 3}}},
        {"wait": "20s"},
        {"do": {"restore-store": "all"}},
        {"do": {"scale": {"deployment/web": 4}}},
        {"wait": "20s"},
    )
    assert 1 < value(recording, "max(waits())") < 10 and value(recording, "min(waits())") < 1


def test_the_load_is_changed():
    recording = played({"wait": "10s", "mark": "more"}, {"do": {"load": {"web": "100/s"}}}, {"wait": "10s"}, load={})
    assert value(recording, 'sent("web", up..more)') < 300 < 700 < value(recording, 'sent("web", more..finish)')


def test_steps_beside_each_other():
    recording = played(
        {"name": "slow", "wait": "30s", "mark": "slow"},
        {"after": "begin", "at": "5s", "mark": "five"},
        {"after": "slow", "wait": "1s", "mark": "last"},
        {"after": "begin", "at": "slow+2s", "mark": "late"},
    )
    times = {m.name: m.time - (recording.mark("begin") or 0) for m in recording.marks}
    assert times["five"] == pytest.approx(5) and times["slow"] > 30
    assert times["last"] == pytest.approx(times["slow"] + 1) and times["late"] == pytest.approx(times["slow"] + 2)


def test_commands_run_only_if_allowed(tmp_path: Path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "{metadata: {name: a}, apiVersion: lab.navarch.dev/v1, kind: Experiment, cluster: {nodes: [{count: 1}]}, "
        "steps: [{at: 2s, do: {run: 'echo $NAVARCH_SEED > written'}}, {do: {run: [test, -f, written]}}]}"
    )
    with pytest.raises(WrongFile, match=r"steps\[0\].do.run: a file may run commands only if you say so"):
        file.parse(file.load(path))
    run_of(file.parse(file.load(path, commands=True)), 7)
    assert (tmp_path / "written").read_text() == "7\n"
    with pytest.raises(BaseExceptionGroup) as raised:
        played({"do": {"run": "echo no >&2; exit 3"}}, **{"allow-commands": str(tmp_path)})
    assert raised.group_contains(ValueError, match="ended with 3: no")
    path.write_text(path.read_text().replace("steps:", "factors: {a: {x: {patch: {allow-commands: /}}}}, steps:"))
    with pytest.raises(WrongFile, match=r"factors.a.x.patch.allow-commands: is for the command line"):
        file.load(path)
