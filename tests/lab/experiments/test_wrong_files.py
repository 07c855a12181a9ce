"""Whole files with one mistake each, as people make them: each is told with its path and what to write instead."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from lab.experiments import file
from lab.experiments.expect import judge
from lab.experiments.file import Expectation
from lab.experiments.schema import WrongFile
from lab.experiments.wholechecks import check_whole

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "c"}]}}
BASE: dict[str, Any] = {
    "apiVersion": file.VERSION, "kind": file.KIND, "metadata": {"name": "wrong"}, "cluster": {"nodes": [{"count": 2}]},
    "factors": {"policy": {"default": {}, "cheapest": {"x": 1}}, "probe": [1, 2]},
    "workload": [{"apply": POD}], "steps": [{"until": "ready() == 1", "mark": "up"}],
    "measure": {"up": "up - begin"}, "expect": ["up > 0"],
}  # fmt: skip
PAIR = {"compare": "up", "factor": "policy", "less": "cheapest", "than": "default"}


def test_the_file_without_a_mistake():
    assert len(check_whole(copy.deepcopy(BASE))) == 4


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("expect", 0), {"up": "cheapest <= 1.1 * default", "confidence": "95%"},
         "expect[0].up: write {compare: up, factor: policy, less: cheapest, than: default, times: 1.1, confidence: 95%}"),
        (("expect", 0), {"expr": "up > 0", "where": {"polcy": "a"}}, "expect[0].where.polcy: there is no factor 'polcy'; did"),
        (("expect", 0), {"expr": "up > 0", "where": {"probe": 3}}, "expect[0].where.probe: probe has no level 3"),
        (("expect", 0), PAIR | {"than": "dearest"}, "expect[0].than: policy has no level 'dearest'"),
        (("expect", 0), {"compare": "up"}, "expect[0].factor: is required beside compare"),
        (("expect", 0), PAIR | {"of": "mean"}, "expect[0].of: has no meaning without expr"),
        (("expect", 0), {"expr": "up > 0", "times": 2.0}, "expect[0].times: has no meaning without compare"),
        (("expect", 0), PAIR | {"confidence": "120%"}, "expect[0].confidence: '120%' is no confidence such as 95%"),
        (("factors",), "probe", "factors: is not a mapping of names to levels"),
        (("factors", "probe"), [1, "1"], "factors.probe: has the level 1 twice"),
        (("factors", "seed"), [1, 2], "factors.seed: seeds are not a factor: say seeds: N"),
        (("metadata", "name"), "../../elsewhere", "metadata.name: '../../elsewhere' is no name"),
        (("seeds",), 10**9, "seeds: must be 1 to 100000"),
        (("cluster", "nodes", 0, "cpu"), "four", "cluster.nodes[0].cpu: 'four' is no quantity"),
        (("cluster", "nodes", 0, "resources"), {"gpu": "-1"}, "cluster.nodes[0].resources.gpu: '-1' is no quantity"),
        (("cluster", "nodes", 0, "zones"), -1, "cluster.nodes[0].zones: must not be negative"),
        (("cluster", "nodes", 0, "prefix"), "Node_", "cluster.nodes[0].prefix: 'Node_' begins no node's name"),
        (("cluster", "nodes", 0, "taints"), [{"key": "a", "effect": "Never"}], "taints[0].effect: 'Never' is none of NoSch"),
        (("workload", 0, "apply"), "a: [\nb", "workload[0].apply: is no YAML"),
        (("workload", 0, "apply"), "metadata: {name: a}\n", "workload[0].apply: is no object: apiVersion and kind are"),
        (("workload", 0, "apply"), POD | {"metadata": {"name": "${draw.a}"}}, "is for templates of arrivals and generate"),
        (("steps", 0), {"mark": "up", "within": "5s"}, "steps[0].within: has no meaning without when or until"),
        (("steps",), [{"mark": "up"}, {"mark": "up"}], "steps[1].mark: 'up' is the mark of another step"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_path(path: tuple[Any, ...], value: Any, said: str):
    tree = copy.deepcopy(BASE)
    place: Any = tree
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    with pytest.raises(WrongFile) as raised:
        check_whole(tree)
    assert any(said in str(problem) for problem in raised.value.problems), [str(p) for p in raised.value.problems]


def test_a_ratio_with_confidence():
    rows = [({"p": p}, s, {"m": 10.0 + s + (0.5 * s if p == "b" else 0)}) for p in "ab" for s in range(1, 9)]

    def good(**more: Any) -> bool | None:
        return judge(Expectation(compare="m", factor="p", less="b", than="a", **more), rows).good

    assert good() is False and good(times=1.5, confidence="95%") is True
    mixed = [({"p": p}, s, {"m": 10.0 + (0.0 if p == "a" else (-1) ** s * s - 0.6)}) for p in "ab" for s in range(1, 9)]
    less = Expectation(compare="m", factor="p", less="b", than="a")
    assert judge(less, mixed).good is True  # in the mean
    sure = judge(Expectation(compare="m", factor="p", less="b", than="a", confidence="95%"), mixed)
    assert sure.good is False and "with 95% confidence" in sure.text
    alone = judge(Expectation(compare="m", factor="p", less="b", than="a", confidence="95%"), [r for r in rows if r[1] == 1])
    assert alone.good is False and "more seeds" in alone.why
    same = [({"p": p}, s, {"m": 0.0}) for p in "ab" for s in (1, 2)]
    assert judge(Expectation(compare="m", factor="p", less="b", than="a", times=1.1), same).good is True
