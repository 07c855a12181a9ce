"""The VerticalPodAutoscaler in a whole simulated cluster: recommendations, changes in place, evictions, checkpoints."""

from __future__ import annotations

import functools
from typing import Any

import yaml

from controllers.verticalautoscaler.kinds import AUTOSCALERS
from controllers.verticalautoscaler.recommender import Recommender
from lab import verticalautoscaler
from lab.simulation import Simulation
from navarch.api import quantity
from navarch.api.types import core_v1
from navarch.client.events import EventRecorder
from tests.lab.test_autoscaling import WEB

USING = WEB.replace("hollow.navarch.dev/cpu: 180m", "hollow.navarch.dev/cpu: 180m, hollow.navarch.dev/memory: 400Mi")


def autoscaler(mode: str) -> dict[str, Any]:
    spec = {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "updatePolicy": {"updateMode": mode}}
    head = {"apiVersion": AUTOSCALERS.api_version, "kind": AUTOSCALERS.kind}
    return {**head, "metadata": {"name": "web", "namespace": "default"}, "spec": spec}


def recommender(cluster: Simulation, name: str = "vpa") -> Recommender:
    client = cluster.connect(name)
    return Recommender(client, cluster.world, EventRecorder(client, cluster.world, name))


async def begin(cluster: Simulation, mode: str = "Off", workload: str = USING) -> Recommender:
    """Two pods that use 180m and 400Mi each, and an autoscaler of this mode."""
    for definition in verticalautoscaler.definitions():
        await cluster.apply(yaml.safe_dump(definition))
    await cluster.run_until(lambda: served(cluster), timeout=60)
    await cluster.apply(workload)
    await cluster.run_until(lambda: cluster.ready_pods() == 2, timeout=60)
    await cluster.client.tree(AUTOSCALERS).create(autoscaler(mode))
    out = recommender(cluster)
    cluster.background(out.run())
    return out


async def served(cluster: Simulation) -> bool:
    groups = await cluster.client.get_json("/apis")
    return any(g["name"] == AUTOSCALERS.group for g in groups["groups"])


async def status(cluster: Simulation) -> dict[str, Any]:
    tree = await cluster.client.tree(AUTOSCALERS).get("web", "default")
    out: dict[str, Any] = tree.get("status") or {}
    return out


async def facts(cluster: Simulation) -> dict[str, str]:
    return {c["type"]: c["status"] for c in (await status(cluster)).get("conditions") or ()}


async def target(cluster: Simulation) -> dict[str, str]:
    advice = ((await status(cluster)).get("recommendation") or {}).get("containerRecommendations") or [{}]
    out: dict[str, str] = advice[0].get("target") or {}
    return out


def requests(cluster: Simulation) -> list[dict[str, Any]]:
    pods = [p for p in cluster.objects(core_v1.Pod) if p.metadata.deletion_timestamp is None]
    return [(r.requests if r else None) or {} for p in pods for r in (p.spec.containers[0].resources,)]


def run(scenario: Any) -> None:
    Simulation(seed=5, nodes=2).run(scenario)


def test_recommendations_follow_use_and_survive_a_restart() -> None:
    async def scenario(cluster: Simulation) -> None:
        first = await begin(cluster)
        await cluster.run_until(lambda: target(cluster), timeout=180)
        await cluster.sleep(900)
        advice = await target(cluster)
        assert 207 <= quantity.milli(advice["cpu"]) / 1 <= 230
        assert 460 <= quantity.value(advice["memory"]) / 2**20 <= 500
        assert await facts(cluster) == {"LowConfidence": "True", "RecommendationProvided": "True"}
        assert [r["cpu"] for r in requests(cluster)] == ["100m", "100m"], "Off changes nothing"
        assert first.subjects
        again = recommender(cluster, "vpa-again")
        cluster.background(again.pods.run())
        await again.pods.wait_synced()
        await again.round()
        (memory,) = again._memories.values()
        assert memory.states["web"].samples >= 20, "checkpoints were read"

    run(scenario)


def test_what_is_wrong_is_told_in_conditions() -> None:
    async def scenario(cluster: Simulation) -> None:
        await begin(cluster)
        for reference, why in BAD_TARGETS:
            await cluster.client.tree(AUTOSCALERS).patch("web", "default", {"spec": {"targetRef": reference}})
            await cluster.run_until(functools.partial(unsupported, cluster, why), timeout=180)

    run(scenario)


BAD_TARGETS = (
    ({"name": "lost"}, 'deployments.apps "lost" not found'),
    ({"kind": "DaemonSet"}, 'daemonsets.apps "lost" not found'),
    ({"apiVersion": "acme.com/v1", "kind": "Gadget"}, 'no matches for kind "Gadget" in group "acme.com"'),
    ({"apiVersion": "v1", "kind": "ConfigMap", "name": "kube-root-ca.crt"}, "Cannot read targetRef"),
)


async def unsupported(cluster: Simulation, why: str) -> bool:
    conditions = (await status(cluster)).get("conditions") or ()
    return any(c["type"] == "ConfigUnsupported" and why in c["message"] for c in conditions)


def test_pods_are_resized_in_place() -> None:
    async def scenario(cluster: Simulation) -> None:
        await begin(cluster, "InPlaceOrRecreate")
        uids = {p.metadata.uid for p in cluster.objects(core_v1.Pod)}
        await cluster.run_until(lambda: all(quantity.milli(r["cpu"]) >= 207 for r in requests(cluster)), timeout=400)
        assert all("memory" in r for r in requests(cluster))
        assert {p.metadata.uid for p in cluster.objects(core_v1.Pod)} == uids, "nobody was evicted"

    run(scenario)


def test_pods_are_evicted_one_by_one() -> None:
    async def scenario(cluster: Simulation) -> None:
        await begin(cluster, "Recreate")
        uids = {p.metadata.uid for p in cluster.objects(core_v1.Pod)}
        await cluster.run_until(lambda: len(uids - {p.metadata.uid for p in cluster.objects(core_v1.Pod)}) == 1, timeout=400)
        assert cluster.ready_pods() >= 1
        await cluster.run_until(lambda: not uids & {p.metadata.uid for p in cluster.objects(core_v1.Pod)}, timeout=400)

    run(scenario)


def test_new_pods_follow_the_recommendation() -> None:
    async def scenario(cluster: Simulation) -> None:
        vpa = await begin(cluster, "Initial")
        await cluster.run_until(lambda: target(cluster), timeout=180)
        await cluster.sleep(61)
        pod = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web"}]}}
        patch = vpa.patch_for(pod, "default")
        assert patch[0]["value"]["requests"] == await target(cluster)
        assert vpa.patch_for(pod, "other") == [] and vpa.patch_for({"metadata": {}, "spec": pod["spec"]}, "default") == []

    run(scenario)
