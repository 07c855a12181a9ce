"""Stateful sets: names that last, one after the other, new ones from the end."""

from __future__ import annotations

from typing import Any

from navarch.api.pods import is_ready
from navarch.api.types import apps_v1, core_v1, meta_v1
from tests.controllers.cluster import Cluster, run_cluster

StatefulSet = apps_v1.StatefulSet


def make(replicas: int, **spec: Any) -> StatefulSet:
    pod = core_v1.PodSpec(containers=[core_v1.Container(name="c", image="v1")])
    template = core_v1.PodTemplateSpec(metadata=meta_v1.ObjectMeta(labels={"app": "s"}), spec=pod)
    resources = core_v1.VolumeResourceRequirements(requests={"storage": "1Gi"})
    claim = core_v1.PersistentVolumeClaim(
        metadata=meta_v1.ObjectMeta(name="data"),
        spec=core_v1.PersistentVolumeClaimSpec(access_modes=["ReadWriteOnce"], resources=resources),
    )
    return StatefulSet(
        metadata=meta_v1.ObjectMeta(name="s", namespace="default"),
        spec=apps_v1.StatefulSetSpec(
            selector=meta_v1.LabelSelector(match_labels={"app": "s"}), template=template, replicas=replicas,
            service_name="s", volume_claim_templates=[claim], **spec,
        ),
        status=apps_v1.StatefulSetStatus(replicas=0),
    )  # fmt: skip


async def rolled_out(cluster: Cluster, image: str, count: int) -> list[core_v1.Pod]:
    async def found() -> list[core_v1.Pod] | None:
        status = (await cluster.client[StatefulSet].get("s", "default")).status
        pods = await cluster.pods(app="s")
        fine = status.replicas == (status.ready_replicas or 0) == count == len(pods) and all(map(is_ready, pods))
        return pods if fine and all(p.spec.containers[0].image == image for p in pods) else None

    return await cluster.until(found)


def image(name: str) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": name}]}}}}


def test_in_order_up_and_down_and_renewed() -> None:
    async def test(cluster: Cluster) -> None:
        sets = cluster.client[StatefulSet]
        await sets.create(make(3))
        pods = sorted(await rolled_out(cluster, "v1", 3), key=lambda p: p.metadata.name or "")
        assert [p.metadata.name for p in pods] == ["s-0", "s-1", "s-2"]
        born = [p.metadata.creation_timestamp or "" for p in pods]
        assert born == sorted(born) and len(set(born)) == 3  # each waited for the one before
        assert pods[1].spec.hostname == "s-1" and pods[1].spec.subdomain == "s"
        claims = (await cluster.client[core_v1.PersistentVolumeClaim].list("default")).items
        assert sorted(c.metadata.name or "" for c in claims) == ["data-s-0", "data-s-1", "data-s-2"]
        # A partition: only pods from there on get the new template.
        await sets.patch("s", "default", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}}})
        await sets.patch("s", "default", image("v2"))

        async def canary() -> bool:
            status = (await sets.get("s", "default")).status
            return status.updated_replicas == 1 and status.ready_replicas == 3

        await cluster.until(canary)
        images = {p.metadata.name: p.spec.containers[0].image for p in await cluster.pods(app="s")}
        assert images == {"s-0": "v1", "s-1": "v1", "s-2": "v2"}
        await cluster.client[core_v1.Pod].delete("s-0", "default")
        await cluster.until(canary)
        images = {p.metadata.name: p.spec.containers[0].image for p in await cluster.pods(app="s")}
        assert images["s-0"] == "v1"  # below the partition it comes back as it was
        await sets.patch("s", "default", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})
        await rolled_out(cluster, "v2", 3)

        async def settled() -> bool:
            status = (await sets.get("s", "default")).status
            return status.current_revision == status.update_revision and status.current_replicas == 3

        await cluster.until(settled)
        await sets.patch("s", "default", {"spec": {"replicas": 1}})
        (left,) = await rolled_out(cluster, "v2", 1)
        assert left.metadata.name == "s-0"
        assert len((await cluster.client[core_v1.PersistentVolumeClaim].list("default")).items) == 3

    run_cluster(test)


async def test_all_at_once(cluster: Cluster) -> None:
    await cluster.client[StatefulSet].create(make(4, pod_management_policy="Parallel"))
    pods = await rolled_out(cluster, "v1", 4)
    assert len({p.metadata.creation_timestamp for p in pods}) == 1


async def claim_names(cluster: Cluster) -> list[str]:
    return sorted(c.metadata.name or "" for c in (await cluster.client[core_v1.PersistentVolumeClaim].list("default")).items)


def test_claims_go_where_the_set_says_so() -> None:
    async def test(cluster: Cluster) -> None:
        sets = cluster.client[StatefulSet]
        await sets.create(make(3))
        await rolled_out(cluster, "v1", 3)
        # What exists follows a change of the policy, in both directions.
        for kept in ("Delete", "Retain", "Delete"):
            await sets.patch("s", "default", {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": kept}}})

            async def owned(kept: str = kept) -> bool:
                claims = (await cluster.client[core_v1.PersistentVolumeClaim].list("default")).items
                kinds = [[r.kind for r in c.metadata.owner_references or ()] for c in claims]
                return kinds == [["StatefulSet"] if kept == "Delete" else []] * 3

            await cluster.until(owned)
        await sets.patch("s", "default", {"spec": {"replicas": 2}})
        await rolled_out(cluster, "v1", 2)
        assert await claim_names(cluster) == ["data-s-0", "data-s-1", "data-s-2"]
        await sets.patch("s", "default", {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}})
        await sets.patch("s", "default", {"spec": {"replicas": 1}})

        async def one_less() -> bool:
            return await claim_names(cluster) == ["data-s-0", "data-s-2"]  # 2 went while its claims were to stay

        await cluster.until(one_less)
        await sets.delete("s", "default")

        async def none() -> bool:
            return not await claim_names(cluster)

        await cluster.until(none)

    run_cluster(test)


async def test_max_unavailable_is_not_kept(cluster: Cluster) -> None:
    """An alpha field at this API level: dropped, as Kubernetes does while its feature gate is off."""

    rolling = apps_v1.RollingUpdateStatefulSetStrategy(max_unavailable=2)
    made = await cluster.client[StatefulSet].create(
        make(1, update_strategy=apps_v1.StatefulSetUpdateStrategy(type="RollingUpdate", rolling_update=rolling))
    )
    assert made.spec.update_strategy is not None and made.spec.update_strategy.rolling_update is not None
    assert made.spec.update_strategy.rolling_update.max_unavailable is None
