"""Upstream's rules on owners that are named wrongly: what cannot be said to be gone is never deleted for it."""

from __future__ import annotations

import pytest

from navarch.api.types import core_v1, meta_v1, rbac_v1
from tests.controllers.cluster import Cluster
from tests.controllers.test_faults import config_map, ref_to
from tests.controllers.test_integration import gone

ConfigMap = core_v1.ConfigMap
ClusterRole = rbac_v1.ClusterRole
SETTLE = 120.0


def role(name: str, *owners: meta_v1.OwnerReference) -> ClusterRole:
    return ClusterRole(metadata=meta_v1.ObjectMeta(name=name, owner_references=list(owners) or None))


def to_role(found: ClusterRole) -> meta_v1.OwnerReference:
    meta = found.metadata
    return meta_v1.OwnerReference(
        api_version="rbac.authorization.k8s.io/v1", kind="ClusterRole", name=meta.name or "", uid=meta.uid or ""
    )


@pytest.mark.parametrize("first", ["owner", "dependent"])
async def test_a_cluster_scoped_object_is_never_deleted_for_a_namespaced_owner(cluster: Cluster, first: str) -> None:
    """kubernetes#65200. Whether the graph learns of the owner or of the dependent first."""

    maps, roles = cluster.client[ConfigMap], cluster.client[ClusterRole]
    owner = await maps.create(config_map("owner"))
    if first == "owner":
        await cluster.world.sleep(1)
    await roles.create(role("dependent", ref_to(owner)))
    await cluster.world.sleep(SETTLE)
    await maps.delete("owner", "default")
    await cluster.world.sleep(SETTLE)
    found = await roles.get("dependent")
    assert found.metadata.owner_references  # nor is it changed
    text = f'ownerRef [v1/ConfigMap, namespace: , name: owner, uid: {owner.metadata.uid}] does not exist in namespace ""'
    assert await cluster.events("OwnerRefInvalidNamespace") == [text]


async def test_one_invalid_owner_keeps_the_object_whatever_the_others_are(cluster: Cluster) -> None:
    maps, roles = cluster.client[ConfigMap], cluster.client[ClusterRole]
    owner, absent = await maps.create(config_map("owner")), await roles.create(role("absent"))
    await roles.create(role("dependent", to_role(absent), ref_to(owner)))
    await roles.create(role("other", to_role(absent)))
    await cluster.world.sleep(1)
    await roles.delete("absent")
    await maps.delete("owner", "default")
    await cluster.until(lambda: gone(cluster, ClusterRole, "other", None))
    await cluster.world.sleep(SETTLE)
    assert len((await roles.get("dependent")).metadata.owner_references or ()) == 2


async def test_cluster_scoped_owners_own_everywhere(cluster: Cluster) -> None:
    maps, roles = cluster.client[ConfigMap], cluster.client[ClusterRole]
    owner = await roles.create(role("owner"))
    await maps.create(config_map("a", to_role(owner)))
    await maps.create(config_map("b", to_role(owner), namespace="kube-system"))
    await roles.create(role("c", to_role(owner)))
    await cluster.world.sleep(SETTLE)
    assert not await cluster.events("OwnerRefInvalidNamespace")
    await maps.get("a", "default")
    await roles.delete("owner")
    await cluster.until(lambda: gone(cluster, ConfigMap, "a"))
    await cluster.until(lambda: gone(cluster, ConfigMap, "b", "kube-system"))
    await cluster.until(lambda: gone(cluster, ClusterRole, "c", None))


async def test_an_owner_of_another_namespace_is_reported_and_its_dependent_goes(cluster: Cluster) -> None:
    maps = cluster.client[ConfigMap]
    owner = await maps.create(config_map("owner"))
    await maps.create(config_map("near", ref_to(owner)))
    await cluster.world.sleep(1)
    await maps.create(config_map("far", ref_to(owner), namespace="kube-system"))
    await cluster.until(lambda: gone(cluster, ConfigMap, "far", "kube-system"))
    await cluster.world.sleep(SETTLE)
    assert (await cluster.events("OwnerRefInvalidNamespace"))[0].endswith(
        'does not exist in namespace "kube-system"'
    )
    await maps.get("near", "default")  # that one uid was named wrongly by another costs it nothing


async def test_a_uid_that_was_deleted_is_absent_only_by_its_own_name(cluster: Cluster) -> None:
    """Two references of one uid: only the one whose coordinates are right names the object."""

    maps = cluster.client[ConfigMap]
    owner = await maps.create(config_map("owner"))
    wrong = ref_to(owner)
    wrong.name = "somebody-else"
    await maps.create(config_map("both", wrong, ref_to(owner)))
    await maps.create(config_map("wrong", wrong))
    await cluster.until(lambda: gone(cluster, ConfigMap, "wrong"))
    await cluster.world.sleep(SETTLE)
    found = await maps.get("both", "default")
    assert [r.name for r in found.metadata.owner_references or ()] in (["owner"], ["somebody-else", "owner"])
    await maps.delete("owner", "default")
    await cluster.until(lambda: gone(cluster, ConfigMap, "both"))


async def test_foreground_and_background_owners_mixed(cluster: Cluster) -> None:
    """An owner that waits for its dependents is let go of where another owner stays; else the dependent goes first."""

    maps = cluster.client[ConfigMap]
    waits, stays = await maps.create(config_map("waits")), await maps.create(config_map("stays"))
    await maps.create(config_map("shared", ref_to(waits, block=True), ref_to(stays)))
    only = config_map("only", ref_to(waits, block=True))
    only.metadata.finalizers = ["example.com/slow"]
    await maps.create(only)
    await cluster.world.sleep(1)
    await maps.delete("waits", "default", propagation_policy="Foreground")
    await cluster.world.sleep(SETTLE)
    shared = await maps.get("shared", "default")
    assert [r.name for r in shared.metadata.owner_references or ()] == ["stays"]
    assert (await maps.get("waits", "default")).metadata.finalizers == ["foregroundDeletion"]
    await maps.patch("only", "default", {"metadata": {"finalizers": None}})
    await cluster.until(lambda: gone(cluster, ConfigMap, "waits"))
    await maps.get("shared", "default")


async def test_owners_of_a_kind_that_is_not_served_are_waited_for(cluster: Cluster) -> None:
    maps = cluster.client[ConfigMap]
    strange = meta_v1.OwnerReference(api_version="example.com/v1", kind="Widget", name="w", uid="w-1")
    await maps.create(config_map("dependent", strange))
    await cluster.world.sleep(600)
    await maps.get("dependent", "default")
