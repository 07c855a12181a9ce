"""Daemon sets: one pod a node, replaced a few at a time."""

from __future__ import annotations

from typing import Any

from controllers.daemonset.controller import DaemonSetController
from navarch.api.types import apps_v1, core_v1, meta_v1
from tests.controllers.cluster import Cluster, run_cluster

DaemonSet = apps_v1.DaemonSet
Pod = core_v1.Pod


def make(**strategy: Any) -> DaemonSet:
    pod = core_v1.PodSpec(containers=[core_v1.Container(name="c", image="v1")])
    template = core_v1.PodTemplateSpec(metadata=meta_v1.ObjectMeta(labels={"app": "d"}), spec=pod)
    update = apps_v1.DaemonSetUpdateStrategy(
        type="RollingUpdate", rolling_update=apps_v1.RollingUpdateDaemonSet(**strategy)
    )
    spec = apps_v1.DaemonSetSpec(
        selector=meta_v1.LabelSelector(match_labels={"app": "d"}), template=template, update_strategy=update
    )
    status = apps_v1.DaemonSetStatus(
        current_number_scheduled=0, desired_number_scheduled=0, number_misscheduled=0, number_ready=0
    )
    return DaemonSet(metadata=meta_v1.ObjectMeta(name="d", namespace="default"), spec=spec, status=status)


async def rolled_out(cluster: Cluster, image: str, nodes: int) -> list[Pod]:
    async def found() -> list[Pod] | None:
        ds = await cluster.client[DaemonSet].get("d", "default")
        pods = await cluster.pods(app="d")
        fine = ds.status.number_available == ds.status.updated_number_scheduled == nodes == len(pods)
        return pods if fine and all(p.spec.containers[0].image == image for p in pods) else None

    return await cluster.until(found)


def image(name: str) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": name}]}}}}


def test_one_pod_on_each_node() -> None:
    async def test(cluster: Cluster) -> None:
        sets = cluster.client[DaemonSet]
        await sets.create(make(max_unavailable=1, max_surge=0))
        pods = await rolled_out(cluster, "v1", 3)
        assert sorted(p.spec.node_name or "" for p in pods) == ["n1", "n2", "n3"]
        assert all((p.metadata.labels or {})["pod-template-generation"] == "1" for p in pods)
        await sets.patch("d", "default", image("v2"))
        fewest = 3

        async def watch() -> bool:
            nonlocal fewest
            ds = await sets.get("d", "default")
            fewest = min(fewest, ds.status.number_available or 0)
            return (ds.status.updated_number_scheduled or 0) == 3 == (ds.status.number_available or 0)

        await cluster.until(watch)
        pods = await rolled_out(cluster, "v2", 3)
        assert fewest >= 2 and all((p.metadata.labels or {})["pod-template-generation"] == "2" for p in pods)
        revisions = (await cluster.client[apps_v1.ControllerRevision].list("default")).items
        assert sorted(r.revision for r in revisions) == [1, 2]
        # Back to the first template: its revision comes back, with a new number.
        await sets.patch("d", "default", image("v1"))
        await rolled_out(cluster, "v1", 3)
        revisions = (await cluster.client[apps_v1.ControllerRevision].list("default")).items
        assert sorted(r.revision for r in revisions) == [2, 3]
        # A node that takes no daemons any more.
        taint = {"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}}
        await cluster.client[core_v1.Node].patch("n1", None, taint)
        await rolled_out(cluster, "v1", 2)

    run_cluster(test)


def test_new_ones_beside_the_old() -> None:
    async def test(cluster: Cluster) -> None:
        sets = cluster.client[DaemonSet]
        await sets.create(make(max_unavailable=0, max_surge=1))
        await rolled_out(cluster, "v1", 3)
        await sets.patch("d", "default", image("v2"))
        fewest, most = 3, 3

        async def watch() -> bool:
            nonlocal fewest, most
            ds, pods = await sets.get("d", "default"), await cluster.pods(app="d")
            fewest, most = min(fewest, ds.status.number_available or 0), max(most, len(pods))
            return all(p.spec.containers[0].image == "v2" for p in pods)

        await cluster.until(watch)
        assert fewest == 3 and most == 4

    run_cluster(test)


def test_a_daemon_that_fails_is_made_again() -> None:
    async def test(cluster: Cluster) -> None:
        await cluster.client[DaemonSet].create(make(max_unavailable=1, max_surge=0))
        (pod, *_) = await rolled_out(cluster, "v1", 3)
        await cluster.client[Pod].patch_status(pod.metadata.name or "", "default", {"status": {"phase": "Failed"}})

        async def replaced() -> bool:
            return pod.metadata.name not in [p.metadata.name for p in await cluster.pods(app="d")]

        await cluster.until(replaced)
        await rolled_out(cluster, "v1", 3)
        controller = next(c for c in cluster.manager.controllers if isinstance(c, DaemonSetController))
        assert list(controller.failures) == ["default/d"]
        await cluster.client[DaemonSet].delete("d", "default", propagation_policy="Background")

        async def forgotten() -> bool:
            return not controller.failures

        await cluster.until(forgotten)

    run_cluster(test)
