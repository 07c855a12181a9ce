"""Volumes: late binding from the decision to the bound claim, with a volume controller that the test plays."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from lab.simulation import Simulation
from navarch.api.types import core_v1, meta_v1, storage_v1
from navarch.api.volumes import BIND_COMPLETED, SELECTED_NODE
from nodeagent.hollow.fleet import NodeSpec
from scheduler.framework.config import SchedulerConfig
from scheduler.framework.plugin import Event
from scheduler.framework.profiles import default_profile
from scheduler.ranking.ranking import Ranking
from scheduler.ranking.rankings import Rankings
from scheduler.state.nodes import NodeTable
from scheduler.state.pods import PodInfo
from scheduler.state.volumes import ATTACHMENT_CHANGED, CAPACITY_CHANGED
from tests.scheduler.clusters import CLASSES, HOSTNAME, only_in
from tests.scheduler.test_cycle import node, pod, table

logging.getLogger("scheduler").setLevel(logging.ERROR)

NO_SPACE = "node(s) did not have enough free storage"
NO_VOLUME = "node(s) didn't find available persistent volumes to bind"


def claim(name: str, size: str = "1Gi", of: str = "local", **spec) -> core_v1.PersistentVolumeClaim:
    return core_v1.PersistentVolumeClaim(
        metadata=meta_v1.ObjectMeta(name=name, namespace="d", uid=f"uid-{name}"),
        spec=core_v1.PersistentVolumeClaimSpec(
            access_modes=["ReadWriteOnce"],
            storage_class_name=of,
            resources=core_v1.VolumeResourceRequirements(requests={"storage": size}),
            **spec,
        ),
    )


def volume(name: str, size: str = "1Gi", on: str = "") -> core_v1.PersistentVolume:
    return core_v1.PersistentVolume(
        metadata=meta_v1.ObjectMeta(name=name),
        spec=core_v1.PersistentVolumeSpec(
            capacity={"storage": size},
            access_modes=["ReadWriteOnce"],
            storage_class_name="local",
            node_affinity=only_in(HOSTNAME, [on]) if on else None,
        ),
        status=core_v1.PersistentVolumeStatus(phase="Available"),
    )


DRIVER = storage_v1.CSIDriver(
    metadata=meta_v1.ObjectMeta(name="csi"), spec=storage_v1.CSIDriverSpec(storage_capacity=True)
)


def space(size: str, *nodes: str, most: str | None = None) -> storage_v1.CSIStorageCapacity:
    hosts = meta_v1.LabelSelectorRequirement(key=HOSTNAME, operator="In", values=list(nodes))
    return storage_v1.CSIStorageCapacity(
        metadata=meta_v1.ObjectMeta(name="-".join(nodes), namespace="d"), storage_class_name="late", capacity=size,
        node_topology=meta_v1.LabelSelector(match_expressions=[hosts]), maximum_volume_size=most,
    )  # fmt: skip


def csi_volume(name: str) -> core_v1.PersistentVolume:
    made = volume(name)
    made.spec.csi = core_v1.CSIPersistentVolumeSource(driver="csi", volume_handle=f"handle-{name}")
    return made


def attachment(volume: str, node: str) -> storage_v1.VolumeAttachment:
    return storage_v1.VolumeAttachment(
        metadata=meta_v1.ObjectMeta(name=f"{volume}-{node}"),
        spec=storage_v1.VolumeAttachmentSpec(
            attacher="csi", node_name=node, source=storage_v1.VolumeAttachmentSource(persistent_volume_name=volume)
        ),
        status=storage_v1.VolumeAttachmentStatus(attached=True),
    )


def limited(node: str, most: int) -> storage_v1.CSINode:
    driver = storage_v1.CSINodeDriver(
        name="csi", node_id=node, allocatable=storage_v1.VolumeNodeResources(count=most)
    )
    return storage_v1.CSINode(metadata=meta_v1.ObjectMeta(name=node), spec=storage_v1.CSINodeSpec(drivers=[driver]))


def user(*claims: str, **more) -> PodInfo:
    source = core_v1.PersistentVolumeClaimVolumeSource
    named = [core_v1.Volume(name=c, persistent_volume_claim=source(claim_name=c)) for c in claims]
    return pod(volumes=named, **more)


def storage(*objects) -> NodeTable:
    t = table(*(node(n, labels={HOSTNAME: n}) for n in "abc"))
    for obj in (*CLASSES, *objects):
        t.volumes.put(obj)
    return t


def chosen(t: NodeTable, p: PodInfo) -> dict[str, dict[str, str]]:
    """node -> claim -> the volume that it would get there."""
    ranking = Ranking(p, t, default_profile())
    wanted = ranking.state.data["VolumeBinding"]
    out = {}
    for name, row in t.rows.items():
        if ranking.refused[row] == 0:
            numbers = {c: int(n[row]) for c, n in wanted.chosen.items()}
            out[name] = {c: wanted.volumes[n].metadata.name if n >= 0 else "" for c, n in numbers.items()}
    return out


def test_the_smallest_volume_that_fits_is_chosen_on_each_node_and_never_for_two_claims():
    t = storage(
        claim("small"), claim("large", "3Gi"),
        volume("a3", "3Gi", "a"), volume("a2", "2Gi", "a"), volume("b3", "3Gi", "b"), volume("c9", "9Gi", "c"),
    )  # fmt: skip
    assert chosen(t, user("large")) == {
        "a": {"d/large": "a3"},
        "b": {"d/large": "b3"},
        "c": {"d/large": "c9"},
    }
    assert chosen(t, user("large", "small")) == {"a": {"d/small": "a2", "d/large": "a3"}}  # elsewhere there is but one
    t.volumes.put(volume("any", "5Gi"))  # from everywhere
    assert chosen(t, user("large", "small"))["b"] == {"d/small": "b3", "d/large": "any"}
    t.volumes.assumed_claims["a2"] = "d/other"
    assert chosen(t, user("small"))["a"] == {"d/small": "a3"}


@pytest.mark.parametrize(
    ("objects", "claims", "message"),
    [
        ([], ["x"], 'persistentvolumeclaim "x" not found'),
        ([claim("x", of="now")], ["x"], "pod has unbound immediate PersistentVolumeClaims"),
        ([claim("x", of="nowhere")], ["x"], "pod has unbound immediate PersistentVolumeClaims"),
        ([claim("x", volume_name="v")], ["x"], "pod has unbound immediate PersistentVolumeClaims"),
        ([claim("x"), volume("v", "1Mi")], ["x"], f"3 {NO_VOLUME}"),
        ([claim("x", of="late"), DRIVER], ["x"], f"3 {NO_SPACE}"),
        ([claim("x", "3Gi", of="late"), DRIVER, space("2Gi", "a", "b", "c")], ["x"], f"3 {NO_SPACE}"),
    ],
)
def test_messages_are_upstreams(objects, claims, message):
    from scheduler.framework.cycle import Decision

    t = storage(*objects)
    p = user(*claims)
    ranking = Ranking(p, t, default_profile())
    assert Decision(p, ranking).message() == f"0/3 nodes are available: {message}."


def test_a_claim_whose_volume_is_still_to_be_made_goes_where_its_class_has_the_space():
    t = storage(claim("x", "3Gi", of="late"), DRIVER, space("2Gi", "a"), space("9Gi", "b", most="2Gi"), space("3Gi", "c"))
    p, profile = user("x"), default_profile()
    ranking = Ranking(p, t, profile)
    assert ranking.counts() == {NO_SPACE: 2} and ranking.refused[t.rows["c"]] == 0
    other = space("2Gi", "c")
    t.volumes.drop(space("3Gi", "c"))
    t.volumes.put(other)
    assert Ranking(p, t, profile).counts() == {NO_SPACE: 3}
    binding = next(q for q in profile.plugins if q.name == "VolumeBinding")
    assert CAPACITY_CHANGED in binding.events  # and this wakes it
    assert binding.helps(Event(CAPACITY_CHANGED, old=other, object=space("4Gi", "c")), p, t)


def test_volumes_that_are_attached_count_without_a_pod_too():
    """A volume that was detached too late, or attached by hand; one that pods use as well counts once."""
    t = storage(csi_volume("mine"), csi_volume("left"), limited("a", 1), limited("b", 2))
    t.volumes.put(claim("x", volume_name="mine"))
    t.volumes.claims["d/x"].metadata.annotations = {BIND_COMPLETED: "yes"}
    p, rankings, profile = user("x"), Rankings(), default_profile()

    def full() -> set[str]:
        ranking = rankings.get(p, t, profile)
        fresh = Ranking(p, t, profile)
        assert np.array_equal(ranking.refused != 0, fresh.refused != 0)
        return {name for name, row in t.rows.items() if ranking.refused[row]}

    assert full() == set()
    for where in "abc":
        t.volumes.put(attachment("left", where))
    assert full() == {"a"}
    t.volumes.put(attachment("mine", "a"))  # it is there already
    assert full() == set()
    t.volumes.drop(attachment("mine", "a"))
    assert full() == {"a"}
    limits = next(q for q in profile.plugins if q.name == "NodeVolumeLimits")
    gone = attachment("left", "a")
    t.volumes.drop(gone)
    assert full() == set()
    assert limits.helps(Event(ATTACHMENT_CHANGED, old=gone, object=gone), p, t)
    assert not limits.helps(Event(ATTACHMENT_CHANGED, object=gone), p, t)
    t.volumes.put(limited("a", 0))  # what is kept of the last ranking follows storage
    assert full() == {"a"}


# With an API server, and a controller of volumes that the test plays

OBJECTS = """
{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: late}, provisioner: csi.example.com,
 volumeBindingMode: WaitForFirstConsumer}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data},
 spec: {storageClassName: late, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers: [{name: c, image: i}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
"""
LOCAL = """
{apiVersion: v1, kind: PersistentVolume, metadata: {name: disk}, spec: {capacity: {storage: 2Gi},
  accessModes: [ReadWriteOnce], storageClassName: late, hostPath: {path: /x}, nodeAffinity: {required: {nodeSelectorTerms: [
    {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [n1]}]}]}}}}
"""
NODES = [NodeSpec(f"n{i}", address=f"10.0.0.{i + 1}") for i in range(3)]
CLAIMS, VOLUMES = core_v1.PersistentVolumeClaim, core_v1.PersistentVolume


def the_claim(cluster: Simulation) -> core_v1.PersistentVolumeClaim:
    return cluster.objects(CLAIMS, "default")[0]


def the_node(cluster: Simulation) -> str:
    return next((p.spec.node_name or "" for p in cluster.objects(core_v1.Pod, "default")), "")


async def finish(cluster: Simulation, name: str) -> None:
    """What the volume controller does once a volume is there."""
    body = {"spec": {"volumeName": name}, "metadata": {"annotations": {BIND_COMPLETED: "yes"}}}
    await cluster.client[CLAIMS].patch("data", "default", body)


def test_a_claim_is_provisioned_for_the_chosen_node_and_the_pod_waits_for_it():
    async def scenario(cluster: Simulation) -> None:
        await cluster.apply(OBJECTS)
        await cluster.run_until(lambda: SELECTED_NODE in (the_claim(cluster).metadata.annotations or {}), 30)
        selected = the_claim(cluster).metadata.annotations[SELECTED_NODE]
        await cluster.sleep(20)
        assert the_node(cluster) == ""  # it waits
        # The provisioner gives up: another attempt, after a while.
        await cluster.client[CLAIMS].patch("data", "default", {"metadata": {"annotations": {SELECTED_NODE: None}}})
        await cluster.run_until(lambda: SELECTED_NODE in (the_claim(cluster).metadata.annotations or {}), 30)
        selected = the_claim(cluster).metadata.annotations[SELECTED_NODE]
        await finish(cluster, "made")
        await cluster.run_until(lambda: the_node(cluster), 10)
        assert the_node(cluster) == selected
        failed = [e.message for e in cluster.objects(core_v1.Event) if e.reason == "FailedScheduling"]
        assert any('provisioning failed for PVC "data"' in m for m in failed)

    Simulation(1, nodes=NODES).run(scenario)


def test_a_volume_of_one_node_is_bound_there():
    async def scenario(cluster: Simulation) -> None:
        await cluster.apply(LOCAL)
        await cluster.client[VOLUMES].patch_status("disk", None, {"status": {"phase": "Available"}})
        await cluster.apply(OBJECTS.replace("csi.example.com", "kubernetes.io/no-provisioner"))
        await cluster.run_until(lambda: cluster.objects(VOLUMES)[0].spec.claim_ref, 30)
        ref = cluster.objects(VOLUMES)[0].spec.claim_ref
        assert (ref.namespace, ref.name, ref.uid) == ("default", "data", the_claim(cluster).metadata.uid)
        assert the_node(cluster) == ""
        await finish(cluster, "disk")
        await cluster.run_until(lambda: the_node(cluster), 10)
        assert the_node(cluster) == "n1" and SELECTED_NODE not in the_claim(cluster).metadata.annotations

    Simulation(2, nodes=NODES).run(scenario)


def test_binding_that_takes_too_long_gives_everything_back():
    config = "profiles: [{pluginConfig: [{name: VolumeBinding, args: {bindTimeoutSeconds: 30}}]}]"

    async def scenario(cluster: Simulation) -> None:
        await cluster.apply(OBJECTS)

        def failures() -> list[str]:
            return [e.message for e in cluster.objects(core_v1.Event) if "deadline" in (e.message or "")]

        await cluster.run_until(failures, 60)
        await finish(cluster, "made")
        await cluster.sleep(15)
        assert the_node(cluster) == ""  # bound to a volume that is not there
        await cluster.apply(LOCAL.replace("disk", "made"))  # and when it is there at last, the pod goes
        await cluster.run_until(lambda: the_node(cluster) == "n1", 60)

    Simulation(3, nodes=NODES, scheduler=SchedulerConfig.load(config)).run(scenario)


ATTACHED = """
{apiVersion: storage.k8s.io/v1, kind: CSINode, metadata: {name: n0}, spec: {drivers: [
  {name: csi.example.com, nodeID: n0, allocatable: {count: 1}}]}}
---
{apiVersion: v1, kind: PersistentVolume, metadata: {name: left}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce],
  csi: {driver: csi.example.com, volumeHandle: left}}}
---
{apiVersion: storage.k8s.io/v1, kind: VolumeAttachment, metadata: {name: left, finalizers: [csi.example.com/attacher]},
  spec: {attacher: csi.example.com, nodeName: n0, source: {persistentVolumeName: left}}}
"""
BOUND = """
{apiVersion: v1, kind: PersistentVolume, metadata: {name: made}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce],
  storageClassName: late, csi: {driver: csi.example.com, volumeHandle: made},
  claimRef: {namespace: default, name: data}}}
"""


def test_a_pod_waits_until_an_attached_volume_that_no_pod_uses_is_detached():
    async def scenario(cluster: Simulation) -> None:
        await cluster.apply(ATTACHED)
        await cluster.apply(BOUND)
        await cluster.apply(OBJECTS.split("kind: Pod")[0].rpartition("---")[0])
        await finish(cluster, "made")
        await cluster.apply("apiVersion: v1\nkind: Pod" + OBJECTS.split("kind: Pod")[1])

        def refused() -> bool:
            said = [e.message or "" for e in cluster.objects(core_v1.Event) if e.reason == "FailedScheduling"]
            return any("1 node(s) exceed max volume count" in m for m in said)

        await cluster.run_until(refused, 60)
        attachments = cluster.client[storage_v1.VolumeAttachment]
        assert (await attachments.get("left")).metadata.deletion_timestamp, "no pod needs it: it is to be detached"
        await attachments.patch("left", None, {"metadata": {"finalizers": None}})  # the driver has done it
        await cluster.run_until(lambda: the_node(cluster) == "n0", 60)

    Simulation(4, nodes=NODES[:1]).run(scenario)
