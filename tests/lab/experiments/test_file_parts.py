"""Parts of the file: nodes by name and of a cluster, objects of the cluster, generators, levels that change parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.experiments import file, nodefiles
from lab.experiments.drivers.modes import run_of
from lab.experiments.inputs import nodes_of
from lab.experiments.measures import measure
from lab.experiments.schema import WrongFile
from lab.experiments.state import State

TREE = dict[str, Any]
HEAD = {"apiVersion": file.VERSION, "kind": file.KIND, "metadata": {"name": "t"}}
NODE = {
    "metadata": {"name": "big-7", "labels": {"kubernetes.io/hostname": "big-7", "price": "3"}},
    "spec": {
        "taints": [
            {"key": "gpu", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"},
        ]
    },
    "status": {"allocatable": {"cpu": "63500m", "memory": "250Gi", "pods": "200", "nvidia.com/gpu": "8"}},
}


def test_nodes_like_those_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        nodefiles, "of_cluster", lambda path: [nodefiles.entry(NODE)] if path == tmp_path / "kube" else []
    )
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({**HEAD, "cluster": {"nodes": [{"cluster": "kube"}, {"count": 2}]}}))
    big, first, second = nodes_of(file.parse(file.load(path)))
    assert (big.name, big.cpu, big.pods, dict(big.resources)) == ("big-7", "63500m", 200, {"nvidia.com/gpu": "8"})
    assert dict(big.labels) == {"price": "3"} and [t.key for t in big.taints] == ["gpu"]
    assert (first.name, second.name) == ("node-2", "node-3") and len({big.address, first.address, second.address}) == 3


def test_a_cluster_that_does_not_answer(tmp_path: Path):
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({**HEAD, "cluster": {"nodes": [{"cluster": "none"}]}}))
    with pytest.raises(WrongFile, match=r"cluster.nodes\[0\].cluster: .*none"):
        file.load(path)


def test_objects_are_there_before_and_generated_ones_at_the_start():
    quota = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "before"}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p-${n}"},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "${draw.cpu}"}}}]},
    }
    generate = {"count": 5, "template": pod, "draw": {"cpu": "choice(0.1, 0.2)"}}
    tree = {
        **HEAD,
        "cluster": {"nodes": [{"count": 1}], "objects": [quota]},
        "workload": [{"generate": generate}],
        "for": "5s",
    }
    recording = run_of(file.parse(tree), 1).recorder.recording()
    made = {
        c.object["metadata"]["name"]: c.time
        for c in recording.of("configmaps")
        if c.object["metadata"]["name"] == "before"
    }
    assert made["before"] <= (recording.mark("begin") or 0)
    result = measure(recording, {"n": "bound()", "cpu": "last(requested(cpu))"})
    assert result["n"] == 5 and 0.5 < result["cpu"] < 1


def test_levels_change_parts_of_the_file():
    levels = {"plain": {}, "packed": {"scheduler": {"tie-break": "name"}, "size": 3}}
    tree = {**HEAD, "cluster": {"nodes": [{"count": 1}]}, "factors": {"policy": levels}}
    parsed = [file.parse(c.tree).cluster.scheduler.tie_break for c in file.cells(tree)]
    assert parsed == ["random", "name"]


PROPOSED = [
    ("wait", "quantiles(bound - created, pods(job), [0.5])", "write quantiles(waits()"),
    ("used", "time-mean(requested(cpu) / allocatable(cpu), by: node)", "write mean(...)"),
    ("failed", "count(load.failed)", "write failed(SERVICE)"),
    ("q", "quantiles(waits(), [50, 95])", "numbers from 0 to 1"),
    ("gpu", "requested(gpu)", "there is no 'gpu'"),
]


@pytest.mark.parametrize(("name", "text", "instead"), PROPOSED)
def test_forms_that_people_write_get_ours(name: str, text: str, instead: str):
    with pytest.raises(WrongFile) as raised:
        file.parse({**HEAD, "cluster": {"nodes": [{"count": 1}]}, "measure": {name: text}})
    assert [(p.path, instead in p.text) for p in raised.value.problems] == [(f"measure.{name}", True)]


STEPS = [
    ({"do": {"power-off": "node-1"}}, "do.power-off", "it is a fault: write fault instead of do"),
    ({"fault": {"heal": "node-1"}}, "fault.heal", "it is a deed: write do instead of fault"),
    ({"fault": {"crash": "etcd"}}, "fault.crash", "none of scheduler, controllers"),
    ({"fault": {"slow": "scheduler"}}, "fault.by", "belongs to slow, which needs it"),
    ({"fault": {"fail-store": "reads"}}, "fault.fail-store", "none of all, writes"),
    ({"fault": {"delay-store": "slow"}}, "fault.delay-store", "no time"),
    ({"fault": {"kill": "web"}}, "fault.kill", "no reference such as deployment/web"),
    ({"do": {"scale": "deployment/web"}}, "do.scale", "a mapping is expected, such as {deployment/web: 5}"),
    ({"do": {"scale": {"deployment/web": "many"}}}, "do.scale.deployment/web", "not a whole number"),
    ({"do": {"drain": "deployment/web"}}, "do.drain", "is no node: a name, busiest-node"),
    ({"do": {"load": {"web": "5/s"}}}, "do.load.web", "there is no load on 'web'"),
    ({"do": {"undo": "web"}}, "do.undo", "no reference"),
    ({"do": {"roll-back": "deployment/web"}}, "do.roll-back", "there is no such deed"),
    ({"after": "first"}, "after", "there is no step 'first' before this one"),
    ({"until": "available(deploy/web)"}, "until", "no 'deploy'"),
    ({"when": "cel(deployment/web, 'object.spec.')"}, "when", "object.spec."),
]


@pytest.mark.parametrize(("step", "path", "text"), STEPS)
def test_wrong_steps(step: TREE, path: str, text: str):
    with pytest.raises(WrongFile) as raised:
        file.parse({**HEAD, "cluster": {"nodes": [{"count": 1}]}, "steps": [step]})
    assert [p for p in raised.value.problems if p.path == f"steps[0].{path}" and text in p.text], raised.value


def test_conditions_may_have_hyphens_as_kubectl_has():
    step = {"until": "rolled-out(deployment/web) and nodes-ready() == 3"}
    file.parse({**HEAD, "cluster": {"nodes": [{"count": 1}]}, "steps": [step]})
    assert State().rolled_out("deployment/web") is False


@pytest.mark.parametrize(("part", "path"), [({"stages": [{}]}, "stages"), ({"cluster": {"objects": [{}]}}, "cluster.objects")])
def test_mode_cycle_takes_nothing_that_it_would_pass_over(part: TREE, path: str):
    cluster = {"mode": "cycle", "nodes": [{"count": 1}], **part.get("cluster", {})}
    with pytest.raises(WrongFile) as raised:
        file.parse({**HEAD, **part, "cluster": cluster})
    assert [p for p in raised.value.problems if p.path == path and "no meaning in mode cycle" in p.text]


def test_a_text_with_a_colon_needs_quotes(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("measure:\n  used: mean(x), by: node\n")
    with pytest.raises(WrongFile, match="needs quotes"):
        file.load(tmp_path / "a.yaml")


GROUPS = [
    {"name": "small", "min": 2, "max": 1, "boot": "soon"},
    {"name": "node", "max": 3, "cpu": "many"},
    {"name": "small", "max": 2},
]


def test_mistakes_in_an_autoscaler_have_paths():
    autoscaler = {"groups": GROUPS, "expander": "prices", "scale-down-unneeded-time": "normal(1s, 1s)", "scan-interval": 0}
    with pytest.raises(WrongFile) as error:
        file.parse({**HEAD, "cluster": {"nodes": [{"count": 1}], "autoscaler": autoscaler, "mode": "hollow"}})
    texts = [str(p).removeprefix("cluster.autoscaler") for p in error.value.problems]
    assert {t.partition(":")[0] for t in texts} == {
        ".expander", ".scan-interval", ".scale-down-unneeded-time", ".groups[0].max", ".groups[0].boot", ".groups[1].name",
        ".groups[1].cpu", ".groups[2].name", "",
    }  # fmt: skip
    assert ": is not possible in mode hollow: it adds and removes nodes of a simulation" in texts


def test_the_least_nodes_of_groups_are_there_at_once():
    groups = [{"name": "small", "min": 2, "max": 3, "zone": "z", "labels": {"a": 1}}]
    first, *small = nodes_of(file.parse({**HEAD, "cluster": {"nodes": [{"count": 1}], "autoscaler": {"groups": groups}}}))
    assert [n.name for n in small] == ["small-1", "small-2"] and len({n.address for n in (first, *small)}) == 3
    assert [(n.zone, dict(n.labels)) for n in small] == [("z", {"a": "1", "lab.navarch.dev/node-group": "small"})] * 2
