"""The library of measures on recordings that are written by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from lab.experiments.expressions import ExpressionError
from lab.experiments.measures import FUNCTIONS, measure, names_of, table
from lab.experiments.recording import Recording

TREE = dict[str, Any]


def line(t: float, tree: TREE, type: str = "MODIFIED") -> TREE:
    meta = tree["metadata"]
    where = f"nodes/{meta['name']}" if "namespace" not in meta else f"{tree['kind']}/{meta['namespace']}/{meta['name']}"
    return {"t": t, "type": type, "key": f"/registry/{where}", "revision": 1, "object": tree}


def pod(
    name: str, node: str = "", cpu: str = "1", namespace: str = "default", reason: str = "", ready: bool = False
) -> TREE:
    conditions = [{"type": "DisruptionTarget", "status": "True", "reason": reason}] if reason else []
    conditions.append({"type": "Ready", "status": str(ready)})
    return {
        "kind": "pods",
        "metadata": {"name": name, "namespace": namespace, "uid": name},
        "spec": {"nodeName": node, "containers": [{"image": "i", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": "Running", "conditions": conditions},
    }


def node(name: str, cpu: str) -> TREE:
    return {"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu}}}


def web(generation: int, image: str, updated: int, observed: int) -> TREE:
    status = {"observedGeneration": observed, "replicas": 2, "updatedReplicas": updated, "availableReplicas": 2}
    meta = {"name": "web", "namespace": "default", "generation": generation}
    return {
        "kind": "deployments",
        "metadata": meta,
        "spec": {"replicas": 2, "template": {"image": image}},
        "status": status,
    }


def values(lines: list[TREE], **expressions: str) -> dict[str, float]:
    return measure(Recording({}, [{"t": 0, "mark": "begin"}, *lines, {"t": 10, "end": True}]), expressions)


def test_a_rollout_lasts_from_its_template_until_it_is_complete():
    history = [(0, 1, "v1", 2, 1), (2, 2, "v2", 2, 1), (3, 2, "v2", 1, 2), (6, 2, "v2", 2, 2), (8, 3, "v3", 1, 3)]
    lines = [line(t, web(*more)) for t, *more in history]
    result = values(
        lines,
        n="count(rollouts(deployment/web))",
        last="sum(rollouts(deployment/web))",
        begun="rollouts_begun(deployment/web)",
    )
    assert result == {"n": 1, "last": 4, "begun": 2}


def test_nodes_are_used_evenly_or_not():
    lines = [line(0, node("a", "4")), line(0, node("b", "4")), line(0, pod("x", "a", "3")), line(5, pod("y", "b", "2"))]
    result = values(
        lines,
        used="mean(utilisation('cpu'))",
        uneven="last(imbalance('cpu'))",
        lost="last(stranded('cpu', 2))",
        part="last(fragmentation('cpu', 2))",
        a="max(by_node('cpu'))",
        b="min(by_node('cpu', 5..finish))",
    )
    assert result == pytest.approx({"used": 0.5, "uneven": 0.125, "lost": 1, "part": 1 / 3, "a": 0.75, "b": 0.5})


def test_fairness_of_shares():
    lines = [
        line(0, pod("x", "a", "2", "one")),
        line(5, pod("y", "a", "1", "two")),
        line(8, pod("x", "a", "2", "one"), "DELETED"),
    ]
    result = values(
        lines,
        one="max(shares('cpu'))",
        two="min(shares('cpu'))",
        fair="jain(shares('cpu'))",
        worst="jain([1, 0, 0, 0])",
    )
    assert result == pytest.approx({"one": 16, "two": 5, "fair": 21**2 / (2 * (256 + 25)), "worst": 0.25})


def test_pods_are_told_apart_by_what_took_them():
    lines = [
        line(1, pod("x", "a", ready=True)),
        line(2, pod("x", "a", reason="PreemptionByScheduler")),
        line(4, pod("x", "a"), "DELETED"),
        line(3, pod("y", "a", reason="EvictionByEvictionAPI")),
        line(5, pod("z")),
    ]
    result = values(
        lines,
        preempted="preempted()",
        evictions="evictions()",
        both="evicted()",
        none='disrupted("", "DeletionByTaintManager")',
        end="max(ends())",
        span="makespan()",
        some="makespan(pod/x)",
    )
    assert math.isnan(result.pop("span"))
    assert result == {"preempted": 1, "evictions": 1, "both": 2, "none": 0, "end": 2, "some": 0}


def test_load_and_requests_between_marks():
    def sample(t: float, name: str, **counts: float) -> TREE:
        return {"t": t, "sample": name, "values": counts}

    lines = [
        sample(1, "load/s", sent=4, ok=3, failed=1, retries=2, **{"le_0.1": 3}),
        sample(2, "load/s", sent=4, ok=4, **{"le_1": 4}),
        sample(0, "requests/nodes", writes=1),
        sample(5, "requests/nodes", writes=7),
    ]
    result = values(
        lines,
        share='failures("s")',
        early='failures("s", begin..1)',
        again='retries("s")',
        slow='latency("s", 0.99)',
        fast='latency("s", 0.99, 0..1)',
        peak='max(rate("s"))',
        all='requests("nodes")',
        more='requests("nodes", "writes", 0..5)',
    )
    assert result == {"share": 1 / 8, "early": 1 / 4, "again": 2, "slow": 1, "fast": 0.1, "peak": 4, "all": 7, "more": 6}
    with pytest.raises(ExpressionError, match="counted: nodes"):
        values(lines, wrong='requests("kubelet")')


def test_one_measure_may_be_several_quantiles():
    assert names_of("wait", "quantiles(waits(), [0.5, 0.95, 0.999])") == ["wait.p50", "wait.p95", "wait.p999"]
    assert names_of("wait", "max(waits())") == ["wait"]
    lines = [line(0, pod("x")), line(1, pod("x", "a")), line(0, pod("y")), line(3, pod("y", "a"))]
    result = values(lines, wait="quantiles(waits(), [0, 0.5])", twice="wait.p50 * 2", wide="deviation(waits())")
    assert result == {"wait.p0": 1, "wait.p50": 2, "twice": 4, "wide": 1}


def test_a_measure_of_ones_own(tmp_path: Path):
    (tmp_path / "metrics.py").write_text(
        "import near\ndef pods(recording): return near.ONE * len(list(recording.of('pods')))\n"
        "def over(recording): return [(0, 1), (4, 3)]\ndef wrong(recording): return recording.no_such\n"
    )
    (tmp_path / "near.py").write_text("ONE = 1\n")
    file, lines = f"{tmp_path}/metrics.py", [line(0, pod("x")), line(1, pod("x", "a"))]
    assert values(lines, mine=f"{file}:pods", twice="mine * 2") == {"mine": 2, "twice": 4}
    assert measure(Recording({}, lines), {"top": "max(mine)"}, {"mine": f"{file}:over"}) == {"top": 1}
    for name, why in (("none", "has no function 'none'"), ("wrong", "AttributeError")):
        with pytest.raises(ExpressionError, match=why):
            values(lines, mine=f"{file}:{name}")


def test_every_function_is_explained():
    rows = table()
    assert [call.partition("(")[0] for _, call, _, _ in rows] == list(FUNCTIONS)
    assert all(text and (unit or subject == "Of these") for subject, _, unit, text in rows)
