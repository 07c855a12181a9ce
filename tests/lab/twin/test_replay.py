"""A recording replayed: the same work under the same components, under others, and from the middle."""

from __future__ import annotations

from typing import Any

import pytest

from lab.experiments.measures import Measures
from lab.experiments.recording import Recorder, Recording
from lab.recording.comparing import compare
from lab.simulation import Simulation
from lab.twin.cluster import Settings
from lab.twin.replay import Replay, feeds
from navarch.api import kinds
from navarch.api.types import core_v1
from nodeagent.hollow.objects import NodeSpec
from scheduler.framework.config import SchedulerConfig
from tests.lab.twin.test_twin import WEB

JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: job-%d}
spec:
  template:
    metadata: {annotations: {hollow.navarch.dev/run: 20s}}
    spec: {restartPolicy: Never, containers: [{name: c, image: "job:v1", resources: {requests: {cpu: 500m}}}]}
"""
PACK = """
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
  pluginConfig:
  - name: NodeResourcesFit
    args: {scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 1}]}}
  plugins:
    score:
      enabled: [{name: NodeResourcesFit, weight: 100}]
"""


@pytest.fixture(scope="module")
def recording() -> Recording:
    """Three nodes; web at once, a job each 10 s, web scaled up and a node lost on the way."""
    recorder = Recorder({"source": "a test", "start": "2026-01-01T00:00:00Z"})

    async def play(cluster: Simulation) -> None:
        recorder.mark(cluster.world.monotonic(), "begin")
        await cluster.apply(WEB)
        for n in range(6):
            await cluster.apply(JOB % n)
            await cluster.sleep(10)
        await cluster.client.tree(_kind("deployments")).patch("web", "default", {"spec": {"replicas": 9}})
        await cluster.sleep(20)
        await cluster.client[core_v1.Pod].delete("alone", "default")
        await cluster.sleep(5)
        cluster.power_off("node-3")
        await cluster.sleep(400)
        recorder.finish(cluster.world.monotonic())

    simulation = Simulation(1, nodes=[NodeSpec(f"node-{n}", address=f"10.0.0.{n}") for n in (1, 2, 3)])
    simulation.on_record = lambda r: recorder.change(r.time, r.type, r.key, r.revision, r.value)
    simulation.run(play)
    return recorder.recording()


def _kind(resource: str) -> Any:
    return next(k for k in kinds.KINDS if k.resource == resource)


def final(recording: Recording, resource: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for change in recording.of(resource):
        out[change.key] = change.object
        if change.type == "DELETED":
            del out[change.key]
    return out


def test_the_same_components_end_alike(recording: Recording) -> None:
    replay = Replay(recording)
    again = replay.run()
    assert replay.refused == []
    for resource in ("deployments", "jobs", "services", "poddisruptionbudgets"):
        assert final(again, resource).keys() == final(recording, resource).keys()
    assert again.end == pytest.approx(recording.end, abs=1)
    web = [final(r, "deployments")["/registry/deployments/default/web"] for r in (recording, again)]
    assert web[0]["spec"] == web[1]["spec"] and [w["status"]["readyReplicas"] for w in web] == [9, 9]
    assert all(j["status"].get("succeeded") == 1 for j in final(again, "jobs").values())
    assert "/registry/pods/default/alone" not in final(again, "pods")
    nodes = [{k: _ready(n) for k, n in final(r, "nodes").items()} for r in (recording, again)]
    assert nodes[0] == nodes[1] and list(nodes[0].values()).count("True") == 2
    lost = [
        next(c.time for c in r.of("nodes") if c.time > 60 and _ready(c.object) != "True") for r in (recording, again)
    ]
    assert lost[0] == pytest.approx(lost[1], abs=3)


def _ready(node: dict[str, Any]) -> str:
    return next(str(c["status"]) for c in node["status"]["conditions"] if c["type"] == "Ready")


def test_another_scheduler(recording: Recording) -> None:
    config = SchedulerConfig.load(PACK)
    packed = Replay(recording, settings=Settings(scheduler=config)).run()
    used = [Measures(r).nodes_used() for r in (recording, packed)]
    assert used[1].at(30.0) < used[0].at(30.0)
    told = "\n".join(compare(recording, packed, ("default", "packed")))
    assert "nodes with pods, mean" in told and "less" in told
    # Pods alone keep their names; those that controllers make have the names of chance.
    alone = Replay(recording, pods=True, settings=Settings(scheduler=config)).run()
    assert "are on other nodes" in "\n".join(compare(recording, alone))
    same = compare(recording, recording)
    assert same[-1] == "no measure differs"


def test_pods_alone_arrive_as_they_did(recording: Recording) -> None:
    replay = Replay(recording, pods=True)
    again = replay.run()
    assert replay.refused == []
    first, second = ({c.key for c in r.of("pods") if c.time > 1 and c.type == "ADDED"} for r in (recording, again))
    assert second == first and not final(again, "deployments")
    times = [{c.key: c.time for c in r.of("pods") if c.type == "ADDED"} for r in (recording, again)]
    assert all(times[1][key] == pytest.approx(times[0][key], abs=0.1) for key in first)
    ended = [
        {k for k, p in _at(r, 80.0).items() if p["status"].get("phase") == "Succeeded"} for r in (recording, again)
    ]
    assert ended[0] == ended[1] and len(ended[0]) == 6  # each job ran as long as it had


def test_from_the_middle(recording: Recording) -> None:
    at = 45.0
    again = Replay(recording, at).run()
    before = {k: p["spec"].get("nodeName") for k, p in _at(recording, at).items()}
    start = {k: p["spec"].get("nodeName") for k, p in _at(again, at + 0.5).items()}
    assert start == before  # the history until then is as it was, node by node
    assert not [f for f in feeds(recording, at, False, 40.0) if f.time <= at]
    with pytest.raises(ValueError, match="it cannot be replayed from 99999 s"):
        Replay(recording, 99999)
    with pytest.raises(ValueError, match="has no nodes"):
        Replay(recording, 0.0)


def _at(recording: Recording, time: float) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for change in recording.of("pods"):
        if change.time <= time:
            out[change.key] = change.object
            if change.type == "DELETED":
                del out[change.key]
    return out


def test_equal_replays(recording: Recording) -> None:
    first, second = Replay(recording, 40.0, seed=3), Replay(recording, 40.0, seed=3)
    first.run()
    second.run()
    assert first.recorder.digest == second.recorder.digest
