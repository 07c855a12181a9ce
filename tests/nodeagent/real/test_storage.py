"""Local storage, measured and enforced for real: writable layers, volumes, and what /stats/summary tells of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from nodeagent.node.pressure import EvictionManager
from nodeagent.node.storage import LocalStorage
from tests.nodeagent.real.onenode import Cluster, done, run, running
from tests.nodeagent.runtime.kinds import Kind

pytestmark = pytest.mark.node


def writer(folder: str, limit: str = "100Mi", **more: Any) -> dict[str, Any]:
    script = f"dd if=/dev/zero of={folder}/x bs=1M count=3; sleep 1000"
    return {"command": ["sh", "-c", script], "resources": {"limits": {"ephemeral-storage": limit}}, **more}


async def evict(cluster: Cluster) -> None:
    """Looks at once, with nothing remembered, instead of every ten seconds."""
    agent = cluster.agent
    agent.storage = LocalStorage(agent.config, agent.world, agent.runtime, lambda: False)
    await EvictionManager(agent, agent.services.counters, lambda reason, message: None).once()


def test_limits_of_local_storage(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        mounts = [{"name": "v", "mountPath": "/v"}]
        idle = {"name": "b", "command": ["sleep", "1000"], "resources": {"limits": {"ephemeral-storage": "100Mi"}}}
        volumes = [{"name": "v", "emptyDir": {"sizeLimit": "2Mi"}}]
        await cluster.pod("layer", {"containers": [writer("/tmp", "2Mi", name="a"), idle]})
        await cluster.pod("volume", {"containers": [writer("/v", name="a", volumeMounts=mounts)], "volumes": volumes})
        await cluster.pod("fine", {"containers": [writer("/tmp", name="a")]})
        for name in ("layer", "volume", "fine"):
            await cluster.until(name, lambda pod: running(pod) or done(pod))
        words = {
            "layer": 'Container a exceeded its local ephemeral storage limit "2Mi". ',
            "volume": 'Usage of EmptyDir volume "v" exceeds the limit "2Mi". ',
        }
        async with asyncio.timeout(20):
            while not all([done(await cluster.pods.get(name, "default")) for name in words]):
                await evict(cluster)
        for name, text in words.items():
            pod = await cluster.pods.get(name, "default")
            assert (pod.status.reason, pod.status.message) == ("Evicted", text)
        async with cluster.session() as session, session.get("/stats/summary") as answer:
            summary = await answer.json()
        (fine,) = [pod for pod in summary["pods"] if pod["podRef"]["name"] == "fine"]
        assert fine["containers"][0]["rootfs"]["usedBytes"] >= 3 << 20
        assert fine["ephemeral-storage"]["usedBytes"] >= 3 << 20 and summary["node"]["fs"]["capacityBytes"] > 0

    run(kind, image_root, tmp_path, body)
