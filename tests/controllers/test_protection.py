"""Storage objects in use outlive their deletion, and go when the last user does."""

from __future__ import annotations

from navarch.api.errors import NotFound
from navarch.api.types import core_v1, meta_v1, storage_v1
from tests.controllers.cluster import Cluster, run_cluster

Claim, Volume, Pod = core_v1.PersistentVolumeClaim, core_v1.PersistentVolume, core_v1.Pod
SIZE = {"storage": "1Gi"}


def claim(name: str, **more: str) -> Claim:
    spec = core_v1.PersistentVolumeClaimSpec(
        access_modes=["ReadWriteOnce"], resources=core_v1.VolumeResourceRequirements(requests=SIZE), **more
    )
    return Claim(metadata=meta_v1.ObjectMeta(name=name, namespace="default"), spec=spec)


def pod(name: str, claim_name: str, node: str | None) -> Pod:
    source = core_v1.PersistentVolumeClaimVolumeSource(claim_name=claim_name)
    spec = core_v1.PodSpec(
        node_name=node,
        scheduling_gates=None if node else [core_v1.PodSchedulingGate(name="later")],
        containers=[core_v1.Container(name="a", image="i")],
        volumes=[core_v1.Volume(name="v", persistent_volume_claim=source)],
    )
    return Pod(metadata=meta_v1.ObjectMeta(name=name, namespace="default"), spec=spec)


def test_claims() -> None:
    async def test(cluster: Cluster) -> None:
        claims, pods = cluster.client[Claim], cluster.client[Pod]
        for name in ("used", "free", "waiting"):
            made = await claims.create(claim(name))
            assert made.metadata.finalizers == ["kubernetes.io/pvc-protection"]
        await pods.create(pod("runs", "used", "n1"))
        await pods.create(pod("pending", "waiting", None))
        for name in ("used", "free", "waiting"):
            await claims.delete(name, "default")

        async def gone(name: str) -> bool:
            try:
                await claims.get(name, "default")
            except NotFound:
                return True
            return False

        await cluster.until(lambda: gone("free"))
        await cluster.until(lambda: gone("waiting"))  # a pod without a node does not hold it
        assert not await gone("used")
        await pods.delete("runs", "default", grace_period_seconds=0)
        await cluster.until(lambda: gone("used"))

    run_cluster(test)


def test_volumes_and_attribute_classes() -> None:
    async def test(cluster: Cluster) -> None:
        volumes, classes = cluster.client[Volume], cluster.client[storage_v1.VolumeAttributesClass]
        spec = core_v1.PersistentVolumeSpec(
            capacity=SIZE, access_modes=["ReadWriteOnce"], host_path=core_v1.HostPathVolumeSource(path="/tmp/x")
        )
        await volumes.create(Volume(metadata=meta_v1.ObjectMeta(name="v"), spec=spec))
        await volumes.patch_status("v", None, {"status": {"phase": "Bound"}})
        await volumes.delete("v")
        gold = storage_v1.VolumeAttributesClass(
            metadata=meta_v1.ObjectMeta(name="gold"), driver_name="d.example.com", parameters={"a": "b"}
        )
        made = await classes.create(gold)
        assert made.metadata.finalizers == ["kubernetes.io/vac-protection"]
        await cluster.client[Claim].create(claim("c", volume_attributes_class_name="gold"))
        await classes.delete("gold")
        assert (await classes.get("gold")).metadata.deletion_timestamp
        assert (await volumes.get("v")).metadata.deletion_timestamp
        await volumes.patch_status("v", None, {"status": {"phase": "Released"}})
        await cluster.client[Claim].delete("c", "default")

        async def gone() -> bool:
            left = [*(await volumes.list()).items, *(await classes.list()).items]
            return not left

        await cluster.until(gone)

    run_cluster(test)


def test_objects_from_before_are_protected_too() -> None:
    async def test(cluster: Cluster) -> None:
        claims = cluster.client[Claim]
        await claims.create(claim("old"))
        await claims.patch("old", "default", {"metadata": {"finalizers": None}})

        async def protected() -> bool:
            return bool((await claims.get("old", "default")).metadata.finalizers)

        await cluster.until(protected)

    run_cluster(test)
