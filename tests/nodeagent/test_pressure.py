"""Eviction by the whole agent on the simulated runtime: what the API server sees of a node that runs short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nodeagent.agent import Agent
from nodeagent.runtime.hollow import HollowRuntime
from tests.nodeagent.cluster import NODE, Api
from tests.nodeagent.test_agent import run

USES = "hollow.navarch.dev/"


def spec(memory: str = "", **more: Any) -> dict[str, Any]:
    resources = {"requests": {"memory": memory}} if memory else {}
    return {"containers": [{"name": "a", "resources": resources}], **more}


def condition(api: Api, name: str) -> tuple[str, str]:
    found = {c["type"]: c for c in api.objects[NODE]["status"]["conditions"]}[name]
    return found["status"], found["reason"]


def test_memory_pressure(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        fine = api.pod("fine", spec("3Gi"), annotations={USES + "memory": "2Gi"})
        spared = api.pod("spared", spec(priority=2_000_000_000), annotations={USES + "memory": "1Gi"})
        await api.until(lambda: api.ready(fine) and api.ready(spared))
        assert condition(api, "MemoryPressure") == ("False", "KubeletHasSufficientMemory")
        greedy = api.pod("greedy", spec("64Mi"), annotations={USES + "memory": "990Mi"})
        await api.until(lambda: api.phase(greedy) == "Failed")
        status = api.status(greedy)
        text = (
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 34Mi. "
            "Container a was using 990Mi, request is 64Mi, has larger consumption of memory. "
        )
        assert (status["reason"], status["message"]) == ("Evicted", text)
        target = next(c for c in status["conditions"] if c["type"] == "DisruptionTarget")
        assert (target["status"], target["reason"], target["message"]) == ("True", "TerminationByKubelet", text)
        assert api.events("Evicted") == [text]
        assert api.events("EvictionThresholdMet") == ["Attempting to reclaim memory"]
        await api.until(lambda: condition(api, "MemoryPressure") == ("True", "KubeletHasInsufficientMemory"))
        late = api.pod("late", spec())
        await api.until(lambda: api.phase(late) == "Failed")
        assert api.status(late)["message"] == "Pod was rejected: The node had condition: [MemoryPressure]. "
        asked = api.pod("asked", spec("1Mi"))
        await api.until(lambda: api.ready(asked))
        await api.until(lambda: condition(api, "MemoryPressure")[0] == "False")
        assert api.ready(fine) and api.ready(spared)

    run(tmp_path, body)


def test_a_soft_threshold_gives_time(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        slow = {USES + "memory": "3Gi", USES + "stop": "1h"}
        path = api.pod("p", spec(terminationGracePeriodSeconds=20), annotations=slow)
        await api.until(lambda: api.ready(path))
        began = node.world.now()
        await api.until(lambda: condition(api, "MemoryPressure")[0] == "True")
        assert api.phase(path) == "Running"
        await api.until(lambda: api.phase(path) == "Failed")
        assert 60 + 15 <= node.world.now() - began <= 60 + 15 + 20, "a minute's patience, and fifteen seconds to end"

    soft = {"eviction_soft": "memory.available<2Gi", "eviction_soft_grace": "memory.available=1m"}
    run(tmp_path, body, **soft, eviction_max_grace=15.0)


def test_disk_pressure(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        done = api.pod("done", spec(restartPolicy="Never"), annotations={USES + "disk": "3Gi", USES + "run": "1s"})
        await api.until(lambda: api.phase(done) == "Succeeded")
        big = api.pod("big", spec(), annotations={USES + "disk": "9500Mi"})
        await api.until(lambda: api.phase(big) == "Failed")
        text = api.status(big)["message"]  # the folder of the logs may take some KiB
        assert text.startswith("The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 7")
        assert text.endswith(", request is 0, has larger consumption of ephemeral-storage. ")
        await api.until(lambda: condition(api, "DiskPressure") == ("True", "KubeletHasDiskPressure"))
        owners = [runtime.node.sandboxes[c.sandbox_id].config.name for c in runtime.node.containers.values()]
        assert owners == ["big"], "the dead container of the pod that was over went first"
        late = api.pod("late", spec("1Gi"))
        await api.until(lambda: api.phase(late) == "Failed")
        assert api.status(late)["message"] == "Pod was rejected: The node had condition: [DiskPressure]. "

    run(tmp_path, body, ephemeral_storage="10Gi", eviction_hard="nodefs.available<1Gi")


def test_storage_limits_need_no_pressure(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        limited = {"resources": {"limits": {"ephemeral-storage": "1Gi"}}}
        over = api.pod("over", {"containers": [{"name": "a", **limited}]}, annotations={USES + "disk": "2Gi"})
        full = api.pod("full", {
            "containers": [{"name": "a", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
        })  # fmt: skip
        await api.until(lambda: api.phase(over) == "Failed")
        assert api.status(over)["message"] == "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. "
        await api.until(lambda: api.ready(full))
        uid = api.objects[full]["metadata"]["uid"]
        folder = tmp_path / "root/pods" / uid / "volumes/kubernetes.io~empty-dir/v"
        (folder / "data").write_bytes(b"x" * (2 << 20))
        await api.until(lambda: api.phase(full) == "Failed")
        status = api.status(full)
        assert status["reason"] == "Evicted"
        assert status["message"] == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '
        assert not any(c["type"] == "DisruptionTarget" for c in status["conditions"])

    run(tmp_path, body)
