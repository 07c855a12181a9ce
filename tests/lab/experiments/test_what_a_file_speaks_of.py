"""Files that speak of what is not there, or say what cannot be worked out: told by the check, and not by a run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from lab.experiments import file, wholechecks
from lab.experiments.asking import check_with_server
from lab.experiments.python import Experiment
from lab.experiments.schema import Problem, WrongFile

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "web:v1"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""
JOB = """
apiVersion: v1
kind: Pod
metadata: {name: "job-${n}", labels: {app: job}}
spec: {containers: [{name: c, image: c, resources: {requests: {cpu: "${draw.cpu}"}}}]}
"""
BASE: dict[str, Any] = {
    "apiVersion": file.VERSION, "kind": file.KIND, "metadata": {"name": "wrong"},
    "cluster": {"nodes": [{"count": 3}], "autoscaler": {"groups": [{"name": "small", "max": 4}]}},
    "workload": [
        {"apply": WEB}, {"load": {"service": "web", "rate": "5/s"}},
        {"arrivals": {"every": "5s", "for": "1m", "draw": {"cpu": "choice(1, 2)"}, "template": JOB}},
    ],
    "steps": [
        {"until": "available(deployment/web)", "mark": "up"}, {"do": {"set-image": {"deployment/web": {"web": "web:v2"}}}},
        {"do": {"drain": "node-1"}}, {"fault": {"kill": "deployment/web/web"}},
        {"until": 'running_image(deployment/web, "web:v2") > 0', "mark": "end"},
    ],
    "measure": {
        "up": "up - begin", "w": "quantiles(waits(), [0.5])", "f": "failed(web)/sent(web)", "s": "seconds(ready() == 2)",
    },
    "expect": ["up > 0", "w.p50 >= 0"],
}  # fmt: skip


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    tree = copy.deepcopy(BASE)
    place: Any = tree
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value(place[path[-1]]) if callable(value) else value
    return tree


def instead(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


UNTIL, MEASURE, EXPECT, APPLY = ("steps", 0, "until"), ("measure", "f"), ("expect", 0), ("workload", 0, "apply")
DO, FAULT, ARRIVALS = ("steps", 1, "do"), ("steps", 3, "fault"), ("workload", 2, "arrivals")
FINE: list[tuple[tuple[Any, ...], Any]] = [
    (("for",), "1s"), (("steps", 2, "do"), {"drain": "small-9"}), (FAULT, {"kill": "pod/web-5f7-x"}),
    (FAULT, {"power-off": "node/node-3"}),
    (FAULT, {"kill": "pod/job-7"}), (UNTIL, "ready(app=job) > 0 and not stuck(deployment/web)"),
    (UNTIL, 'cel(deployment/web, "object.status.readyReplicas > 1")'), (MEASURE, "max(-ready() + 2 * total(), up..end)"),
    (("behaviour",), {"app=job": {"start": "1s"}, "image:web:v2": {"start": "1s"}}),
    (("behaviour",), {"image:x": {"start": "choice(0.100s, 2.000s)"}}),
    (MEASURE, "seconds(1 <= ready())"), (EXPECT, "not up < 0 or w.p50 > f"),
]  # fmt: skip
TOLD = [
    (("steps", 2, "do"), {"drain": "nod-1"}, "steps[2].do.drain: there is no node 'nod-1' in this file; did you mean 'node-1'"),
    (("steps", 2, "do"), {"cordon": "node-4"}, "steps[2].do.cordon: there is no node 'node-4'"),
    (DO, {"set-image": {"deployment/wbe": "a"}}, "there is no deployment 'wbe' in this file; did you mean 'web'?"),
    (DO, {"set-image": {"deployment/web": {"wbe": "a"}}}, "has no container 'wbe'; did you mean 'web'?"),
    (DO, {"restart": "other:deployment/web"}, "did you mean 'default:deployment/web'?"),
    (DO, {"scale": {"deployment/web": "two"}}, "steps[1].do.scale.deployment/web: 'two' is not a whole number"),
    (FAULT, {"kill": "deployment/web/x"}, "steps[3].fault.kill: deployment/web has no container 'x'"),
    (FAULT, {"kill": "pod/wob-abc"}, "there is no pod 'wob-abc'"),
    (FAULT, {"power-off": "big-1"}, "steps[3].fault.power-off: there is no node 'big-1'"),
    (FAULT, {"partition": "node-of:app=wbe"}, "nothing in this file has the label app=wbe; did you mean 'app=web'?"),
    (UNTIL, "ready(deployment/web)", "is neither true nor false; compare it"),
    (UNTIL, "available(deployment/web) and 3", "'3' in 'available(deployment/web) and 3' is neither true nor false"),
    (UNTIL, "ready(deployment/web, 3) > 1", "too many positional arguments"),
    (UNTIL, "available()", "missing a required argument: 'reference'"),
    (UNTIL, "ready(5) > 1", "ready(5): 5 is not a text"),
    (UNTIL, 'cel(deployment/web, "object.spec.replicas +")', "steps[0].until: ERROR: <input>:1:23"),
    (UNTIL, 'cel(deployment/web, "size(object.spec)")', "is neither true nor false: it gives int"),
    (UNTIL, "available(deployment/wob)", "there is no deployment 'wob'"),
    (UNTIL, 'node_ready("node-9")', "there is no node 'node-9'"),
    (UNTIL, 'running_image(deployment/web, "web:v3") > 0', "no pod of this file has the image 'web:v3'"),
    (MEASURE, "ready()", "is no number; take min, max"),
    (MEASURE, "min(ready(), 5)", "after a value over time comes a span"),
    (MEASURE, "mean(requested(cpu), up..end, 3)", "comes a span such as start..end, and nothing else"),
    (MEASURE, "max(ready(deployment/bew))", "measure.f: there is no deployment 'bew'"),
    (MEASURE, "seconds(3)", "seconds(3): 3 is not a value over time"),
    (MEASURE, "latency(web, 99)", "99 is no quantile"),
    (MEASURE, "quantile(waits(), 95)", "95 is no quantile"),
    (MEASURE, 'writes("pod")', "there is no resource 'pod'; did you mean 'pods'?"),
    (MEASURE, 'group_size("large")', "has no group 'large'; it has: small"),
    (MEASURE, 'max(rate(web, "failde"))', "there is no rate of 'failde'; did you mean 'failed'?"),
    (MEASURE, "'a' + 1", "measure.f: 'a' + 1:"),
    (MEASURE, "(1)(2)", "measure.f: '(1)(2)': 1 is no function"),
    (EXPECT, "up", "expect[0]: 'up' is neither true nor false; compare it, such as up > 0"),
    (EXPECT, {"expr": "up and f"}, "expect[0].expr: 'up' in 'up and f' is neither true nor false"),
    (EXPECT, "up > 'a'", "expect[0]: up > 'a': "),
    (("workload", 1, "load", "service"), "wob", "workload[1].load.service: there is no service 'wob'"),
    (("workload", 1, "load", "from"), "node/x", "workload[1].load.from: there is no node 'x'"),
    (("workload", 1, "load", "clients"), 10**12, "workload[1].load.clients: must be 1 to 100000"),
    ((*ARRIVALS, "draw", "cpu"), "choise(1, 2)", "workload[2].arrivals.draw.cpu: there is no distribution 'choise'"),
    ((*ARRIVALS, "draw"), {}, "workload[2].arrivals.template: nothing is drawn for ${draw.cpu}"),
    ((*ARRIVALS, "every"), "never", "workload[2].arrivals.every: 'never' is no time"),
    ((*ARRIVALS, "every"), "0s", "workload[2].arrivals.every: must be above 0"),
    ((*ARRIVALS, "template"), "apiVersion: v1\nkind: Pod\n", "workload[2].arrivals.template: Pod: metadata.name is required"),
    (("cluster", "nodes", 0, "labels"), {"a b": "c"}, "cluster.nodes[0].labels.a b: name part must consist of"),
    (("cluster", "nodes", 0, "labels"), {"a": "c d"}, "cluster.nodes[0].labels.a: 'c d': a valid label must be"),
    (("cluster", "nodes", 0, "taints"), [{"key": "a/b/c"}], "cluster.nodes[0].taints[0].key: a qualified name"),
    (("cluster", "nodes", 0, "count"), 10**12, "cluster.nodes[0].count: must be 1 to 100000"),
    (("cluster", "autoscaler", "groups", 0, "labels"), {"a": "ü"}, "cluster.autoscaler.groups[0].labels.a: 'ü'"),
    (("cluster", "nodes", 0, "listed"), [{"name": "A b"}], "cluster.nodes[0].listed[0].name: a lowercase RFC 1123"),
    (("cluster", "scheduler"), {"config": "apiVersion: x\nkind: z\n"}, 'cluster.scheduler.config: no kind "z" is registered'),
    (("behaviour",), {"app=wbe": {"start": "1s"}}, "no pod of this file has the label app=wbe; did you mean 'app=web'?"),
    (("behaviour",), {"image:web:v9": {"start": "1s"}}, "behaviour.image:web:v9: no pod of this file has the image 'web:v9'"),
    (("cluster", "scheduler"), {"tie-break": "rnd"}, "cluster.scheduler.tie-break: 'rnd' is none of"),
]  # fmt: skip


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wholechecks, "check_with_server", lambda experiments, problems: None)


@pytest.mark.parametrize(("path", "value"), FINE)
def test_what_may_be_there_is_let_pass(path: tuple[Any, ...], value: Any, no_server: None):
    assert len(wholechecks.check_whole(changed(path, value))) == 1


@pytest.mark.parametrize(("path", "value", "said"), TOLD)
def test_what_is_not_there_is_told(path: tuple[Any, ...], value: Any, said: str, no_server: None):
    with pytest.raises(WrongFile) as raised:
        wholechecks.check_whole(changed(path, value))
    assert any(said in str(problem) for problem in raised.value.problems), [str(p) for p in raised.value.problems]


REFUSED = [
    (APPLY, instead("{app: web}", "{app: wob}"), "workload[0].apply[0]: ", "`selector` does not match template `labels`"),
    (APPLY, instead("matchLabels: {app: web}", 'matchLabels: {app: "a b"}'), "workload[0].apply[0]: ", 'Invalid value: "a b"'),
    (APPLY, instead("replicas", "replcas"), "workload[0].apply[0]: ", "\"spec.replcas\"; did you mean 'replicas'?"),
    (APPLY, instead("{name: web, image", "{naem: web, image"), "workload[0].apply[0]: ", "did you mean 'name'?"),
    (APPLY, instead("2", "two"), "workload[0].apply[0]: ", "cannot unmarshal string"),
    (APPLY, instead("Service", "Servce"), "workload[0].apply[1]: ", "no kind Servce in v1; did you mean 'Service'?"),
    (APPLY, instead("name: web}", "name: web, namespace: prod}"), "workload[0].apply[0]: ", 'namespaces "prod" not found'),
    ((*ARRIVALS, "template"), instead(", image: c", ""), "workload[2].arrivals.template: ", "image: Required value"),
    (DO, {"patch": {"deployment/web": {"spec": {"replica": 3}}}},
     "steps[1].do.patch.deployment/web: ", "did you mean 'replicas'"),
    (DO, {"patch": {"deployment/web": {"spec": {"selector": {"matchLabels": {"a": "b"}}}}}}, "steps[1].do.patch", "is invalid"),
    (DO, {"apply": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "X"}}}, "steps[1].do.apply: ", '"X" is invalid'),
]  # fmt: skip


def test_what_the_server_refuses_is_told():
    problems: list[Problem] = []
    trees = [BASE, *(changed(path, value) for path, value, _, _ in REFUSED)]
    check_with_server([e for tree in trees if (e := file.examined(copy.deepcopy(tree))[0])], problems)
    for _, _, path, said in REFUSED:
        assert any(str(p).startswith(path) and said in p.text for p in problems), (path, said, [str(p) for p in problems])
    told: list[Problem] = []
    check_with_server([file.parse(copy.deepcopy(BASE))], told)
    assert told == []


def test_python_tells_the_same():
    wrong = changed(APPLY, instead("replicas", "replcas"))
    wrong["expect"], wrong["steps"][2] = ["up"], {"do": {"drain": "nod-1"}}
    wrong["metadata"] = {"name": "no name"}
    with pytest.raises(WrongFile) as raised:
        Experiment(yaml.safe_load(yaml.safe_dump(wrong)))
    told = {p.path for p in raised.value.problems}
    assert told == {"metadata.name", "expect[0]", "steps[2].do.drain", "workload[0].apply[0]"}
