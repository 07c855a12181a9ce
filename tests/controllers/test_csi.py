"""Volumes of a CSI driver on virtual time: made, attached, moved, grown, changed, deleted.

The example's driver stands behind the sidecar's controllers, in one process and without a socket."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controllers.attachdetach import attachment_name, unique_name
from controllers.config import Config
from controllers.controller import Context
from controllers.csi import topology
from controllers.csi.attacher import Attacher
from controllers.csi.provisioner import Provisioner
from controllers.csi.resizer import Resizer
from navarch.api.errors import NotFound
from navarch.api.types import core_v1, storage_v1
from navarch.client.informer import SharedInformers
from navarch.rpc.sockets import RpcError
from tests.controllers.cluster import Cluster, run_cluster
from tests.controllers.test_persistentvolumes import claim, claim_tree, class_tree, make

NAME = "folders.example.com"
Attachment = storage_v1.VolumeAttachment
EXAMPLE = Path(__file__).parents[2] / "examples" / "06_a_csi_driver.py"


class Driver:
    """The example, called directly. ``lose``: methods whose next answer is lost after the work is done."""

    name, has_topology = NAME, False

    def __init__(self, data: Path) -> None:
        spec = importlib.util.spec_from_file_location("csi_example", EXAMPLE)
        assert spec is not None and spec.loader is not None
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.inner = self.module.Driver(data, "", {}, True)
        answer = self.inner.ControllerGetCapabilities(None)
        self.capabilities = frozenset(c.rpc.type for c in answer.capabilities)
        self.lose: list[str] = []
        self.calls: list[str] = []

    async def controller(self, method: str, request: Any, reply: Any) -> Any:
        self.calls.append(method)
        try:
            answer = getattr(self.inner, method)(request)
        except self.module.Failure as failure:
            raise RpcError(failure.code, str(failure)) from None
        if method in self.lose:
            self.lose.remove(method)
            raise RpcError("UNAVAILABLE", "Socket closed")
        return answer

    def facts(self) -> list[dict[str, Any]]:
        return [self.inner.facts(folder.name) for folder in self.inner.data.iterdir()]


@contextlib.asynccontextmanager
async def sidecar(cluster: Cluster, driver: Driver) -> AsyncIterator[None]:
    informers = SharedInformers(cluster.client, cluster.world)
    context = Context(cluster.client, cluster.world, Config(), informers)
    real: Any = driver
    controllers = [Provisioner(context, real, ""), Attacher(context, real), Resizer(context, real)]
    async with cluster.world.task_group() as group:
        group.start(informers.run())
        for recorder in context.recorders.values():
            group.start(recorder.run())
        for controller in controllers:
            group.start(controller.run())
        yield
        group.cancel()


def run(tmp_path: Path, test: Any, **class_more: Any) -> None:
    async def main(cluster: Cluster) -> None:
        driver = Driver(tmp_path)
        await make(
            cluster,
            class_tree("folders", NAME, allowVolumeExpansion=True, **class_more),
            claim_tree("c", storageClassName="folders"),
        )
        for node in ("n1", "n2", "n3"):
            entry = storage_v1.CSINodeDriver(name=NAME, node_id=f"id-{node}")
            csi_node = storage_v1.CSINode(spec=storage_v1.CSINodeSpec(drivers=[entry]))
            csi_node.metadata.name = node
            await cluster.client[storage_v1.CSINode].create(csi_node)
        async with sidecar(cluster, driver):
            await test(cluster, driver)

    run_cluster(main)


async def ready_claim(cluster: Cluster) -> core_v1.PersistentVolumeClaim:
    async def check() -> Any:
        now = await claim(cluster, "c")
        return now if now.status.phase == "Bound" else None

    out: core_v1.PersistentVolumeClaim = await cluster.until(check)
    return out


async def user(cluster: Cluster, name: str, node: str) -> None:
    """A pod on a node that mounts the claim."""
    spec = {
        "nodeName": node, "containers": [{"name": "a", "image": "i"}], "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
    }  # fmt: skip
    meta = {"name": name, "namespace": "default"}
    await make(cluster, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})


async def attached(cluster: Cluster, *nodes: str) -> None:
    async def check() -> bool:
        listed = (await cluster.client[Attachment].list()).items
        return sorted(a.spec.node_name for a in listed if a.status.attached) == sorted(nodes) and len(listed) == len(nodes)

    await cluster.until(check)


async def in_use(cluster: Cluster, node: str, *names: str) -> None:
    patch = {"status": {"volumesInUse": list(names) or None}}
    await cluster.client[core_v1.Node].patch_status(node, None, patch)


@pytest.mark.parametrize("lost", ["", "CreateVolume", "DeleteVolume"])
def test_a_volume_comes_and_goes_with_its_claim(tmp_path: Path, lost: str) -> None:
    async def body(cluster: Cluster, driver: Driver) -> None:
        bound = await ready_claim(cluster)
        volume = await cluster.client[core_v1.PersistentVolume].get(bound.spec.volume_name or "")
        assert volume.spec.csi is not None and volume.spec.csi.volume_attributes == {"made-by": NAME}
        assert volume.spec.capacity == {"storage": "1Gi"} and len(driver.facts()) == 1
        await cluster.client[core_v1.PersistentVolumeClaim].delete("c", "default")

        async def check() -> bool:
            return not (await cluster.client[core_v1.PersistentVolume].list()).items

        await cluster.until(check)
        assert driver.facts() == [] and driver.calls.count("CreateVolume") == 1 + (lost == "CreateVolume")

    async def start(cluster: Cluster, driver: Driver) -> None:
        driver.lose = [lost]
        await body(cluster, driver)

    run(tmp_path, start)


@pytest.mark.parametrize("lost", ["", "ControllerPublishVolume", "ControllerUnpublishVolume"])
def test_a_volume_moves_only_when_its_node_has_let_go(tmp_path: Path, lost: str) -> None:
    async def body(cluster: Cluster, driver: Driver) -> None:
        driver.lose = [lost]
        bound = await ready_claim(cluster)
        await user(cluster, "one", "n1")
        await attached(cluster, "n1")
        source = (await cluster.client[core_v1.PersistentVolume].get(bound.spec.volume_name or "")).spec.csi
        assert source is not None and driver.facts()[0]["nodes"] == ["id-n1"]
        attachment = await cluster.client[Attachment].get(attachment_name(source.volume_handle, NAME, "n1"))
        assert attachment.status.attachment_metadata == {"attached-to": "id-n1"}
        await in_use(cluster, "n1", unique_name(NAME, source.volume_handle))
        await user(cluster, "two", "n2")
        await cluster.world.sleep(1)
        assert any("Multi-Attach error" in text for text in await cluster.events("FailedAttachVolume"))
        await cluster.client[core_v1.Pod].delete("one", "default")
        await cluster.world.sleep(60)
        await attached(cluster, "n1")  # the node still has it
        await in_use(cluster, "n1")
        await attached(cluster, "n2")
        assert driver.facts()[0]["nodes"] == ["id-n2"]

    run(tmp_path, body)


@pytest.mark.parametrize("is_tainted", [False, True])
def test_a_dead_nodes_volume_is_taken_after_six_minutes_or_when_people_say_so(tmp_path: Path, is_tainted: bool) -> None:
    async def body(cluster: Cluster, driver: Driver) -> None:
        bound = await ready_claim(cluster)
        await user(cluster, "one", "n1")
        await attached(cluster, "n1")
        source = (await cluster.client[core_v1.PersistentVolume].get(bound.spec.volume_name or "")).spec.csi
        assert source is not None
        await in_use(cluster, "n1", unique_name(NAME, source.volume_handle))
        cluster.nodes.dead["n1"] = None
        await cluster.client[core_v1.Pod].delete("one", "default", grace_period_seconds=0)
        await cluster.world.sleep(300)
        await attached(cluster, "n1")
        if not is_tainted:
            await attached(cluster)
            return
        taint = core_v1.Taint(key="node.kubernetes.io/out-of-service", effect="NoExecute")
        node = await cluster.client[core_v1.Node].get("n1")
        node.spec.taints = [*(node.spec.taints or ()), taint]
        await cluster.client[core_v1.Node].update(node)
        await attached(cluster)

    run(tmp_path, body)


@pytest.mark.parametrize("lost", ["", "ControllerExpandVolume"])
def test_a_volume_grows_and_its_node_is_told(tmp_path: Path, lost: str) -> None:
    async def body(cluster: Cluster, driver: Driver) -> None:
        driver.lose = [lost]
        await ready_claim(cluster)
        patch = {"spec": {"resources": {"requests": {"storage": "3Gi"}}}}
        await cluster.client[core_v1.PersistentVolumeClaim].patch("c", "default", patch)

        async def check() -> bool:
            now = await claim(cluster, "c")
            return any(c.type == "FileSystemResizePending" for c in now.status.conditions or ())

        await cluster.until(check)
        now = await claim(cluster, "c")
        volume = await cluster.client[core_v1.PersistentVolume].get(now.spec.volume_name or "")
        assert volume.spec.capacity == {"storage": "3Gi"} and now.status.capacity == {"storage": "1Gi"}
        assert driver.facts()[0]["size"] == 3 << 30

    run(tmp_path, body)


def test_a_volume_gets_the_attributes_of_another_class(tmp_path: Path) -> None:
    async def body(cluster: Cluster, driver: Driver) -> None:
        await ready_claim(cluster)
        kind = {"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass"}
        await make(cluster, {**kind, "metadata": {"name": "fast"}, "driverName": NAME, "parameters": {"iops": "9"}})
        patch = {"spec": {"volumeAttributesClassName": "fast"}}
        await cluster.client[core_v1.PersistentVolumeClaim].patch("c", "default", patch)

        async def check() -> bool:
            return (await claim(cluster, "c")).status.current_volume_attributes_class_name == "fast"

        await cluster.until(check)
        assert driver.facts()[0]["modified"] == {"iops": "9"}

    run(tmp_path, body)


def test_a_claim_that_cannot_be_served_is_told_why(tmp_path: Path) -> None:
    async def body(cluster: Cluster, driver: Driver) -> None:
        await make(cluster, claim_tree("b", storageClassName="folders", volumeMode="Block"))

        async def check() -> bool:
            texts = await cluster.events("ProvisioningFailed")
            return any("block volumes are not supported" in t for t in texts) and any("no room for" in t for t in texts)

        await cluster.until(check)
        with pytest.raises(NotFound):
            await cluster.client[core_v1.PersistentVolume].get(f"pvc-{(await claim(cluster, 'b')).metadata.uid}")

    run(tmp_path, body, parameters={"limit": "5"})


def test_places_of_volumes() -> None:
    a, b = {"zone": "a"}, {"zone": "b"}
    node = core_v1.Node()
    node.metadata.labels = {"zone": "a", "x": "y"}
    entry = storage_v1.CSINodeDriver(name=NAME, node_id="n", topology_keys=["zone"])
    csi_node = storage_v1.CSINode(spec=storage_v1.CSINodeSpec(drivers=[entry]))
    assert topology.of_node(NAME, csi_node, node) == a and topology.of_node("other", csi_node, node) is None
    assert topology.of_node(NAME, csi_node, core_v1.Node()) is None
    assert topology.distinct([a, None, b, a, {}]) == [a, b]
    volume = core_v1.PersistentVolume()
    volume.spec.node_affinity = topology.affinity([a])
    assert topology.is_at(volume, a) and not topology.is_at(volume, b) and not topology.is_at(volume, None)
    term = core_v1.TopologySelectorTerm(
        match_label_expressions=[core_v1.TopologySelectorLabelRequirement(key="zone", values=["b"])]
    )
    assert topology.allowed(a, []) and not topology.allowed(a, [term]) and topology.allowed(b, [term])
