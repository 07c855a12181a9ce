"""KWOK's Stages as behaviour: what is taken has its effect, and the rest is refused with its path."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from lab.experiments.kwok import read, stages_of, status_period
from lab.experiments.measures import measure
from lab.experiments.schema import Problem, WrongFile
from nodeagent.runtime.spread import Spread
from tests.lab.experiments.test_deeds import played

TREE = dict[str, Any]
RUNNING = "{{ $now := Now }}\nphase: Running\npodIP: {{ PodIPWith .spec.nodeName }}\nstartTime: {{ $now | Quote }}\n"


def ended(phase: str, code: str = "0") -> str:
    return (
        "containerStatuses:\n{{ range .spec.containers }}\n- name: {{ .name | Quote }}\n"
        f"  state: {{terminated: {{\n    exitCode: {code}\n    }}}}\n{{{{ end }}}}\nphase: {phase}\n"
    )


def stage(name: str, template: str = "", kind: str = "Pod", **spec: Any) -> TREE:
    after = {"statusTemplate": template} if template else {"delete": True, "finalizers": {"empty": True}}
    ref = {"apiGroup": "v1", "kind": kind}
    head = {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": name}}
    return {**head, "spec": {"resourceRef": ref, "next": after, **spec}}


def where(key: str, operator: str, *values: str) -> TREE:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def wait(low: int, high: int | None = None, **more: Any) -> TREE:
    return {"durationMilliseconds": low, **({"jitterDurationMilliseconds": high} if high is not None else {}), **more}


def problems(*stages: Any) -> dict[str, str]:
    out: list[Problem] = []
    read(list(stages), "stages", out)
    return {p.path: p.text for p in out}


def test_stages_of_pods_are_times_of_their_lives():
    stages = [stage("ready", RUNNING, delay=wait(3000)), stage("delete", delay=wait(5000))]
    recording = played({"wait": "1s"}, {"do": {"scale": {"deployment/web": 1}}}, {"wait": "20s"}, stages=stages)
    result = measure(recording, {"start": "min(starts())", "end": "max(ends())"})
    assert 3 <= result["start"] < 4 and 5 <= result["end"] < 6


def test_a_pod_goes_the_way_that_its_owner_and_its_annotations_say():
    rules = read(
        [
            yaml.safe_dump_all(
                [
                    stage(
                        "a",
                        ended("Succeeded"),
                        selector=where(".metadata.ownerReferences.[].kind", "In", "Job"),
                        delay=wait(1000, 2000),
                    ),
                    stage(
                        "b",
                        ended("Failed", "7"),
                        selector={"matchLabels": {"app": "x"}},
                        delay=wait(1000, durationFrom={"expressionFrom": '.metadata.annotations["d"]'}),
                    ),
                ]
            )
        ],
        "stages",
        [],
    )
    job = {"metadata": {"name": "j", "ownerReferences": [{"kind": "Job"}]}}
    assert stages_of(rules, job, "1") == {"run": Spread("uniform", (1.0, 2.0)), "exit_code": 0}
    assert stages_of(rules, {"metadata": {"labels": {"app": "x"}, "annotations": {"d": "4s"}}}, "1") == {
        "run": 4.0,
        "exit_code": 7,
    }
    assert stages_of(rules, {"metadata": {"name": "other"}}, "1") == {}


def test_of_several_one_is_drawn_by_weight():
    rules = read([stage("a", ended("Succeeded"), weight=3), stage("b", ended("Failed", "1"), weight=1)], "stages", [])
    codes = [stages_of(rules, {"metadata": {"name": f"p{n}"}}, "1")["exit_code"] for n in range(400)]
    assert 60 < sum(codes) < 140
    assert codes != [stages_of(rules, {"metadata": {"name": f"p{n}"}}, "2")["exit_code"] for n in range(400)]


def test_stages_of_nodes():
    ready = "conditions:\n{{ range NodeConditions }}\n- type: {{ .type | Quote }}\n{{ end }}\n"
    unready = where('.status.conditions.[] | select( .type == "Ready" ) | .status', "NotIn", "True")
    first = stage(
        "node-initialize", ready + "capacity:\n  cpu: 1k\nallocatable:\n  cpu: 1k\n", "Node", selector=unready
    )
    beat = stage("heartbeat", ready, "Node", delay=wait(20000, 25000))
    assert problems(first, beat) == {} and status_period(read([first, beat], "stages", [])) == 22.5
    lost = stage("lost", 'conditions:\n- type: Ready\n  status: "False"\n', "Node")
    assert "power-off" in problems(lost)["stages[0].spec.next.statusTemplate"]


WRONG = [
    ({"kind": "Stages"}, "stages[0]", "is no Stage of"),
    (stage("a", RUNNING, kind="Service"), "stages[0].spec.resourceRef", "only Stages of Pods and Nodes"),
    (stage("a", "phase: Pending\n"), "stages[0].spec.next.statusTemplate", "one literal phase of Running"),
    (stage("a", "phase: {{ .status.phase }}\n"), "stages[0].spec.next.statusTemplate", "one literal phase"),
    (stage("a", RUNNING + "reason: Odd\n"), "stages[0].spec.next.statusTemplate", "sets reason, which is not taken"),
    (stage("a", ended("Failed", "{{ $code }}")), "stages[0].spec.next.statusTemplate", "one literal number"),
    (stage("a", RUNNING, next={"event": {}, "delete": True}), "stages[0].spec.next.event", "Events of its own"),
    (
        stage("a", RUNNING, next={"finalizers": {"add": []}, "delete": True}),
        "stages[0].spec.next.finalizers",
        "{empty: true}",
    ),
    (
        stage("a", RUNNING, selector=where(".status.reason", "In", "x")),
        "stages[0].spec.selector.matchExpressions[0].key",
        "a path in",
    ),
    (
        stage("a", RUNNING, selector=where(".spec.nodeName", "Like")),
        "stages[0].spec.selector.matchExpressions[0].operator",
        "none of",
    ),
    (stage("a", RUNNING, delay={"duration": 3}), "stages[0].spec.delay.duration", "did you mean"),
    (stage("a", RUNNING, delay=wait(-1)), "stages[0].spec.delay.durationMilliseconds", "no number of milliseconds"),
    (stage("a", RUNNING, weight="3"), "stages[0].spec.weight", "not a whole number"),
    (
        stage("a", RUNNING, delay=wait(1, durationFrom={"expressionFrom": ".spec.x"})),
        "stages[0].spec.delay.durationFrom.expressionFrom",
        "only .metadata.annotations",
    ),
    ("a: [", "stages[0]", "is no YAML"),
]


@pytest.mark.parametrize(("tree", "path", "text"), WRONG)
def test_the_rest_is_refused(tree: Any, path: str, text: str):
    assert text in problems(tree)[path]
    with pytest.raises(WrongFile):
        played(stages=[tree])
