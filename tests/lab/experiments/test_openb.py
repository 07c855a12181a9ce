"""The policies of deploy/experiments/openb on a small made-up trace: what a policy is depends on no data outside."""

from __future__ import annotations

import csv
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lab import Cycle, Simulation, only
from navarch.api import kinds
from navarch.api.types import core_v1
from scheduler.framework.config import SchedulerConfig
from scheduler.framework.plugin import Profile
from scheduler.framework.ties import tie_break

POD = kinds.kind_of(core_v1.Pod)
HERE = Path(__file__).parents[3] / "deploy/experiments/openb"
NODES, PODS = str(HERE / "made-up-nodes.csv"), str(HERE / "made-up-pods.csv")


@pytest.fixture(scope="module")
def openb() -> ModuleType:
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("openb_run", HERE / "run.py")
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    sys.path[:] = before
    return made


def test_curves_of_all_policies(openb: ModuleType, tmp_path: Path):
    means: dict[str, float] = {}
    curves: dict[str, list[Any]] = {}
    for policy, kind in openb.POLICIES.items():
        assert len(inspect.getsource(kind).splitlines()) <= 60
        found = [openb.one(policy, seed, NODES, PODS, "")[2] for seed in (1, 2)]
        assert found[0] != found[1]
        assert all(v <= 100 and v <= at + 1 for curve in found for at, v in curve.items())
        means[policy], curves[policy] = sum(c[max(c)] for c in found) / 2, found
    assert curves["FGD"][0] == openb.one("FGD", 1, NODES, PODS, "")[2]
    assert means["FGD"] > means["Random"] and means["BestFit"] > means["Random"]
    openb.write(tmp_path, curves, False)
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert {r["policy"] for r in rows} == set(openb.POLICIES) and (tmp_path / "curves.svg").exists()


@pytest.mark.parametrize("policy", ["FGD", "GpuClustering", "Random"])
def test_the_cycle_alone_and_the_whole_system_agree_pod_by_pod(openb: ModuleType, policy: str):
    listed = openb.arrivals(openb.pods_of(PODS), 0, 5)[:90]

    def profile() -> Profile:
        made = openb.POLICIES[policy]()
        if policy == "FGD":
            made.target([(cpu, gpu) for cpu, _, gpu in openb.pods_of(PODS)])
        return only(made)

    trees = []
    for n, (cpu, memory, gpu) in enumerate(listed):
        requests = {"cpu": f"{cpu}m", "memory": f"{memory}Mi", **({openb.MILLI: str(gpu)} if gpu else {})}
        limits = {openb.MILLI: str(gpu)} if gpu else {}  # a whole system wants them equal
        container = {"name": "c", "image": "c:1", "resources": {"requests": requests, "limits": limits}}
        meta = {"name": f"p{n:03}", "namespace": "default"}
        trees.append({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}})
    specs = openb.nodes_of(NODES)
    cycle = Cycle(specs, profile(), ties="name")
    expected = {t["metadata"]["name"]: cycle.place(t).node for t in trees}

    async def scenario(cluster: Simulation) -> dict[str, str]:
        for tree in trees:
            await cluster.client.tree(POD).create(tree, "default")
        await cluster.sleep(60)
        return {p.metadata.name or "": p.spec.node_name or "" for p in cluster.objects(core_v1.Pod)}

    whole = profile()
    whole.tie_break = tie_break("name")
    config = SchedulerConfig(profiles=[whole])
    found = Simulation(1, nodes=specs, scheduler=config, heartbeats=False, events=False, history=False).run(scenario)
    assert found == expected and len(set(expected.values())) > 5
