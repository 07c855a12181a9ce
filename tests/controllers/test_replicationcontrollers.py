"""Replication controllers: replica sets with a simpler selector."""

from __future__ import annotations

from navarch.api.types import core_v1, meta_v1
from tests.controllers.cluster import Cluster, run_cluster

Pod = core_v1.Pod
RC = core_v1.ReplicationController


def test_scaled_adopting_releasing_and_deleted_with_its_pods() -> None:
    async def test(cluster: Cluster) -> None:
        pod = core_v1.PodSpec(containers=[core_v1.Container(name="c", image="v1")])
        template = core_v1.PodTemplateSpec(metadata=meta_v1.ObjectMeta(labels={"app": "old"}), spec=pod)
        orphan = Pod(metadata=meta_v1.ObjectMeta(name="orphan", namespace="default", labels={"app": "old"}), spec=pod)
        await cluster.client[Pod].create(orphan)
        controllers = cluster.client[RC]
        meta = meta_v1.ObjectMeta(name="rc", namespace="default")
        spec = core_v1.ReplicationControllerSpec(replicas=3, template=template)
        await controllers.create(RC(metadata=meta, spec=spec, status=core_v1.ReplicationControllerStatus(replicas=0)))

        async def ready(count: int) -> list[Pod] | None:
            status = (await controllers.get("rc", "default")).status
            pods = await cluster.pods(app="old")
            return pods if status.replicas == (status.ready_replicas or 0) == count == len(pods) else None

        pods = await cluster.until(lambda: ready(3))
        assert "orphan" in [p.metadata.name for p in pods]
        refs = [r for p in pods for r in p.metadata.owner_references or ()]
        assert {(r.api_version, r.kind, r.name, r.controller) for r in refs} == {("v1", "ReplicationController", "rc", True)}
        assert len(refs) == 3
        await cluster.client[Pod].patch("orphan", "default", {"metadata": {"labels": {"app": "mine"}}})
        pods = await cluster.until(lambda: ready(3))  # another takes its place
        released = await cluster.client[Pod].get("orphan", "default")
        assert not released.metadata.owner_references
        await controllers.patch("rc", "default", {"spec": {"replicas": 1}})
        await cluster.until(lambda: ready(1))
        # Without a policy a replication controller orphans its pods, as the first version of the API did.
        await controllers.delete("rc", "default", propagation_policy="Background")

        async def alone() -> bool:
            return [p.metadata.name for p in await cluster.pods()] == ["orphan"]

        await cluster.until(alone)

    run_cluster(test)
