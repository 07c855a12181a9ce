"""Claims and volumes on virtual time: binding, waiting, losing, reclaiming, provisioning, ephemeral volumes."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controllers.persistentvolume.localpath import LOCAL, LOOP, SHARED, Refused, is_made_here, new_volume, remove_folder
from navarch.api.errors import NotFound
from navarch.api.kinds import BY_GVK
from navarch.api.types import core_v1, meta_v1, storage_v1
from navarch.api.volumes import best_volume
from tests.controllers.cluster import Cluster, run_cluster

Claim = core_v1.PersistentVolumeClaim
Volume = core_v1.PersistentVolume
Tree = dict[str, Any]


def volume_tree(name: str, size: str = "1Gi", modes: tuple[str, ...] = ("ReadWriteOnce",), **spec: Any) -> Tree:
    return {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name, "labels": {"name": name}},
        "spec": {"capacity": {"storage": size}, "accessModes": list(modes), "hostPath": {"path": f"/v/{name}"}, **spec},
    }  # fmt: skip


def claim_tree(name: str, size: str = "1Gi", modes: tuple[str, ...] = ("ReadWriteOnce",), **spec: Any) -> Tree:
    return {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "storageClassName": "", "accessModes": list(modes), "resources": {"requests": {"storage": size}}, **spec,
        },
    }  # fmt: skip


def class_tree(name: str, provisioner: str, mode: str = "Immediate", **more: Any) -> Tree:
    return {
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": provisioner, "volumeBindingMode": mode, **more,
    }  # fmt: skip


async def make(cluster: Cluster, *trees: Tree) -> None:
    for tree in trees:
        group, _, version = tree["apiVersion"].rpartition("/")
        await cluster.client.tree(BY_GVK[group, version, tree["kind"]]).create(tree, tree["metadata"].get("namespace"))


async def claim(cluster: Cluster, name: str) -> Claim:
    return await cluster.client[Claim].get(name, "default")


async def volume(cluster: Cluster, name: str) -> Volume:
    return await cluster.client[Volume].get(name)


async def bound(cluster: Cluster, name: str, to: str) -> Claim:
    async def check() -> Claim | None:
        found, behind = await claim(cluster, name), await volume(cluster, to)
        ok = found.status.phase == "Bound" and found.spec.volume_name == to and behind.status.phase == "Bound"
        return found if ok else None

    return await cluster.until(check)


async def phase(cluster: Cluster, get: Callable[[], Awaitable[Any]], wanted: str) -> None:
    async def check() -> bool:
        return (await get()).status.phase == wanted

    await cluster.until(check)


async def event(cluster: Cluster, reason: str, text: str) -> None:
    async def check() -> bool:
        return any(text in message for message in await cluster.events(reason))

    await cluster.until(check)


async def test_the_smallest_volume_that_fits_is_bound(cluster: Cluster) -> None:
    await make(
        cluster, volume_tree("large", "9Gi"), volume_tree("fits", "2Gi"), volume_tree("small", "500Mi"),
        volume_tree("shared", "2Gi", ("ReadWriteMany",)), volume_tree("classy", "2Gi", storageClassName="x"),
        claim_tree("data", "1Gi"),
    )  # fmt: skip
    found = await bound(cluster, "data", "fits")
    assert found.status.capacity == {"storage": "2Gi"} and found.status.access_modes == ["ReadWriteOnce"]
    assert found.metadata.annotations == {
        "pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes",
    }  # fmt: skip
    for other in ("large", "small", "shared", "classy"):
        assert (await volume(cluster, other)).status.phase == "Available"


async def test_a_claim_waits_for_a_volume_and_takes_it_when_it_comes(cluster: Cluster) -> None:
    await make(cluster, claim_tree("data"))
    await event(cluster, "FailedBinding", "no persistent volumes available for this claim and no storage class is set")
    assert (await claim(cluster, "data")).status.phase == "Pending"
    await make(cluster, volume_tree("late"))
    await bound(cluster, "data", "late")


async def test_selectors_and_prebound_volumes(cluster: Cluster) -> None:
    reserved = {"claimRef": {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "mine"}}
    await make(
        cluster, volume_tree("a"), volume_tree("b", "5Gi"), volume_tree("c", "8Gi", **reserved),
        claim_tree("picky", selector={"matchLabels": {"name": "b"}}), claim_tree("mine"),
    )  # fmt: skip
    await bound(cluster, "picky", "b")
    await bound(cluster, "mine", "c")
    await make(cluster, claim_tree("named", volumeName="a"))
    await bound(cluster, "named", "a")
    await make(cluster, claim_tree("second", volumeName="a"))
    await event(cluster, "FailedBinding", 'volume "a" already bound to a different claim.')
    await make(cluster, volume_tree("tiny", "1Mi"), claim_tree("much", volumeName="tiny"))
    await event(cluster, "VolumeMismatch", 'Cannot bind to requested volume "tiny": requested PV is too small')


async def test_a_lost_volume_loses_the_claim_and_a_deleted_claim_releases_the_volume(cluster: Cluster) -> None:
    await make(cluster, volume_tree("a"), claim_tree("data"))
    await bound(cluster, "data", "a")
    await cluster.client[Claim].delete("data", "default")
    await phase(cluster, lambda: volume(cluster, "a"), "Released")
    await make(cluster, claim_tree("again"))  # Retain: nobody gets it
    await event(cluster, "FailedBinding", "no persistent volumes available")
    await make(cluster, volume_tree("b"))
    await bound(cluster, "again", "b")
    gone = {"metadata": {"finalizers": None}}
    await cluster.client[Volume].delete("b")
    await cluster.client[Volume].patch("b", None, gone)
    await phase(cluster, lambda: claim(cluster, "again"), "Lost")
    await event(cluster, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")


@pytest.mark.parametrize(
    ("policy", "reason", "text"),
    [
        ("Recycle", "VolumeFailedRecycle", "no recyclable volume plugin matched"),
        ("Delete", "VolumeFailedDelete", "no deletable volume plugin matched"),
    ],
)
async def test_who_cannot_be_reclaimed_is_failed(cluster: Cluster, policy: str, reason: str, text: str) -> None:
    await make(cluster, volume_tree("a", persistentVolumeReclaimPolicy=policy), claim_tree("data"))
    await bound(cluster, "data", "a")
    await cluster.client[Claim].delete("data", "default")
    await phase(cluster, lambda: volume(cluster, "a"), "Failed")
    await event(cluster, reason, text)


async def test_a_class_that_waits_binds_nothing_but_what_is_prebound(cluster: Cluster) -> None:
    wait = class_tree("wait", "kubernetes.io/no-provisioner", "WaitForFirstConsumer")
    await make(cluster, wait, volume_tree("a", storageClassName="wait"), claim_tree("data", storageClassName="wait"))
    await event(cluster, "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
    assert (await volume(cluster, "a")).status.phase == "Available"
    ref = {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "data"}
    await cluster.client[Volume].patch("a", None, {"spec": {"claimRef": ref}})  # as the scheduler does
    await bound(cluster, "data", "a")


async def test_a_class_without_a_provisioner_or_without_being_there_says_so(cluster: Cluster) -> None:
    await make(
        cluster, class_tree("manual", "kubernetes.io/no-provisioner"), class_tree("other", "example.com/disk"),
        claim_tree("a", storageClassName="manual"), claim_tree("b", storageClassName="gone"),
        claim_tree("c", storageClassName="other"),
    )  # fmt: skip
    await event(cluster, "ProvisioningFailed", "no volume plugin matched name: kubernetes.io/no-provisioner")
    await event(cluster, "ProvisioningFailed", 'storageclass.storage.k8s.io "gone" not found')
    await event(cluster, "ExternalProvisioning", "external provisioner 'example.com/disk'")
    notes = (await claim(cluster, "c")).metadata.annotations or {}
    assert notes["volume.kubernetes.io/storage-provisioner"] == "example.com/disk"


def test_ephemeral_volumes_get_claims_that_go_with_their_pod() -> None:
    async def scenario(cluster: Cluster) -> None:
        spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}
        scratch = {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": spec}}}
        pod = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"containers": [{"name": "a", "image": "i"}], "volumes": [scratch], "schedulerName": "nobody"},
        }  # fmt: skip
        await make(cluster, volume_tree("a"), pod)

        async def there() -> Claim | None:
            try:
                return await claim(cluster, "web-scratch")
            except NotFound:
                return None

        found = await cluster.until(there)
        (owner,) = found.metadata.owner_references or []
        assert owner.kind == "Pod" and owner.controller and found.metadata.labels == {"a": "b"}
        await bound(cluster, "web-scratch", "a")
        await cluster.client[core_v1.Pod].delete("web", "default", grace_period_seconds=0)

        async def gone() -> bool:
            return await there() is None

        await cluster.until(gone)

    run_cluster(scenario)


def typed(struct: Any, tree: Tree) -> Any:
    return msgspec.convert(tree, struct)


CLASS = storage_v1.StorageClass(metadata=meta_v1.ObjectMeta(name="local-path"), provisioner=LOCAL)


def made_claim(**spec: Any) -> Claim:
    tree = claim_tree("data", "3Gi", **{"storageClassName": "local-path", **spec})
    tree["metadata"]["uid"] = "1234"
    return typed(Claim, tree | {"status": {}})


def test_a_provisioned_volume_belongs_to_its_node_and_claim() -> None:
    made = new_volume(made_claim(), CLASS, Path("/r"), "n1")
    assert made.metadata.name == "pvc-1234" and made.spec.capacity == {"storage": "3Gi"}
    assert made.spec.local is not None and made.spec.local.path == "/r/n1/pvc-1234"
    assert made.spec.claim_ref is not None and made.spec.claim_ref.uid == "1234"
    assert made.spec.persistent_volume_reclaim_policy == "Delete"
    affinity = made.spec.node_affinity
    assert affinity is not None and affinity.required is not None
    assert affinity.required.node_selector_terms[0].match_expressions[0].values == ["n1"]
    shared = msgspec.structs.replace(CLASS, provisioner=SHARED)
    everywhere = new_volume(made_claim(accessModes=["ReadWriteMany"]), shared, Path("/r"), "")
    assert everywhere.spec.node_affinity is None and everywhere.spec.host_path is not None
    loop = new_volume(made_claim(), msgspec.structs.replace(CLASS, provisioner=LOOP), Path("/r"), "n1")
    assert loop.spec.local is not None and (loop.spec.local.path, loop.spec.local.fs_type) == ("/r/n1/pvc-1234.img", "ext4")
    tiny = made_claim(resources={"requests": {"storage": "1Mi"}})
    with pytest.raises(Refused, match="at least 8Mi"):
        new_volume(tiny, msgspec.structs.replace(CLASS, provisioner=LOOP), Path("/r"), "n1")


@pytest.mark.parametrize(
    ("spec", "host", "text"),
    [
        ({"volumeMode": "Block"}, "n1", "block volumes are not supported"),
        ({"accessModes": ["ReadWriteMany"]}, "n1", "lab-shared"),
        ({"selector": {"matchLabels": {"a": "b"}}}, "n1", "Selector is not supported"),
        ({}, "../../etc", "not the name of a folder"),
    ],
)
def test_what_the_provisioner_refuses(spec: Tree, host: str, text: str) -> None:
    with pytest.raises(Refused, match=text):
        new_volume(made_claim(**spec), CLASS, Path("/r"), host)


@pytest.mark.parametrize(
    ("path", "name", "made_here"),
    [
        ("/r/n1/pvc-1", "pvc-1", True),
        ("/r/n1/pvc-1.img", "pvc-1", True),
        ("/r/../pvc-1", "pvc-1", False),
        ("/r/../pki", "pki", False),
        ("/r/n1/pvc-1", "pvc-2", False),
        ("/r/n1/data", "data", False),
        ("/r/n1/x/pvc-1", "pvc-1", False),
        ("/etc/n1/pvc-1", "pvc-1", False),
    ],
)
def test_only_folders_of_its_own_are_removed(path: str, name: str, made_here: bool) -> None:
    assert is_made_here(Path("/r"), Path(path), name) is made_here


def test_removing_a_folder_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    inside = tmp_path / "pvc"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    folder = os.open(inside, os.O_DIRECTORY)
    for _ in range(2000):  # deeper than a path may be long, and than Python may recurse
        os.mkdir("deep", dir_fd=folder)
        below = os.open("deep", os.O_DIRECTORY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    remove_folder(str(inside))
    assert not inside.exists() and (outside / "file").exists()


def test_the_best_volume_is_prebound_then_smallest_then_first_by_name() -> None:
    available = {"status": {"phase": "Available"}}
    some = [typed(Volume, volume_tree(name, size) | available) for name, size in (("c", "2Gi"), ("b", "2Gi"), ("a", "4Gi"))]
    wanted = made_claim(storageClassName="", resources={"requests": {"storage": "1Gi"}})
    best = best_volume(wanted, some, None)
    assert best is not None and best.metadata.name == "b"
    assert best_volume(wanted, some, None, only_prebound=True) is None
