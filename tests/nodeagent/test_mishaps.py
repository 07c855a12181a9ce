"""Exceptions that nobody has foreseen: one pod pays for them, visibly and seldom, and all others go on."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from navarch.virtual import SimulatedWorld
from navarch.world import RealWorld
from nodeagent.agent import Agent
from nodeagent.node import admission
from nodeagent.node.counters import CONTAINERS, PODS, UNEXPECTED
from nodeagent.pods import machine, worker
from nodeagent.runtime.hollow import HollowRuntime
from nodeagent.runtime.runtime import ContainerConfig, SandboxConfig
from tests.nodeagent.cluster import Api, agent, config

Body = Callable[[Api, "Odd", Agent], Awaitable[None]]


class Odd(HollowRuntime):
    """``fails``: method -> for the pods of this name it raises what no runtime should."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self.fails = ""
        self.calls = 0

    def _odd(self, method: str, pod: str) -> None:
        if self.fails == method and pod == "odd":
            self.calls += 1
            raise ZeroDivisionError("by our own mistake")

    async def run_sandbox(self, config: SandboxConfig) -> str:
        self._odd("run_sandbox", config.name)
        return await super().run_sandbox(config)

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        self._odd("create_container", config.labels["io.kubernetes.pod.name"])
        return await super().create_container(sandbox_id, config)

    async def start_container(self, container_id: str) -> None:
        found = await self.container(container_id)
        self._odd("start_container", found.labels["io.kubernetes.pod.name"] if found else "")
        await super().start_container(container_id)

    async def stop_container(self, container_id: str, grace: float) -> None:
        found = await self.container(container_id)
        self._odd("stop_container", found.labels["io.kubernetes.pod.name"] if found else "")
        await super().stop_container(container_id, grace)

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> tuple[int, bytes]:
        self._odd("exec_sync", "odd")
        return await super().exec_sync(container_id, command, timeout)


def run(folder: Path, body: Body) -> None:
    world = SimulatedWorld()

    async def main() -> None:
        api, runtime = Api(world), Odd(world)
        async with agent(world, api, runtime, config(folder)) as node:
            await body(api, runtime, node)

    world.run(main)


SPEC: dict[str, Any] = {"containers": [{"name": "a"}], "terminationGracePeriodSeconds": 5}


@pytest.mark.parametrize("method", ["run_sandbox", "create_container", "start_container"])
def test_a_pod_that_cannot_start(tmp_path: Path, method: str) -> None:
    async def body(api: Api, runtime: Odd, node: Agent) -> None:
        runtime.fails = method
        odd = api.pod("odd", SPEC)
        await api.until(lambda: runtime.calls)
        other = api.pod("other", SPEC)
        await api.until(lambda: api.ready(other))
        await node.world.sleep(1000)
        assert 5 <= runtime.calls <= 9  # after 10, 20, ... 300 s
        counters, sandbox = node.services.counters, method == "run_sandbox"
        assert counters.value(UNEXPECTED) == runtime.calls
        assert counters.value(PODS if sandbox else CONTAINERS) == runtime.calls
        told = api.events("FailedCreatePodSandBox" if sandbox else "Failed")
        assert told and told[0].endswith("ZeroDivisionError: by our own mistake")
        if not sandbox:
            assert api.reason(odd) == "CreateContainerError"
        runtime.fails = ""
        await api.until(lambda: api.ready(odd))
        runtime.calls = 0
        api.delete(odd, 1)
        await api.until(lambda: odd not in api.objects)
        assert api.ready(other)

    run(tmp_path, body)


def test_a_container_that_cannot_be_stopped(tmp_path: Path) -> None:
    async def body(api: Api, runtime: Odd, node: Agent) -> None:
        odd, other = api.pod("odd", SPEC), api.pod("other", SPEC)
        await api.until(lambda: api.ready(odd) and api.ready(other))
        runtime.fails = "stop_container"
        api.delete(odd, 1)
        await node.world.sleep(100)
        assert 4 <= runtime.calls <= 8 and "ZeroDivisionError" in api.events("FailedKillPod")[0] and api.ready(other)
        assert node.services.counters.value(UNEXPECTED, doing="stop container") == runtime.calls
        runtime.fails = ""
        await api.until(lambda: odd not in api.objects)

    run(tmp_path, body)


def test_a_probe_that_cannot_ask(tmp_path: Path) -> None:
    async def body(api: Api, runtime: Odd, node: Agent) -> None:
        probe = {"exec": {"command": ["x"]}, "periodSeconds": 10, "failureThreshold": 1}
        spec = {"containers": [{"name": "a", "livenessProbe": probe}], "terminationGracePeriodSeconds": 5}
        runtime.fails = "exec_sync"
        odd = api.pod("odd", spec)
        await api.until(lambda: api.events("Unhealthy"))
        assert "errored and resulted in unknown state: ZeroDivisionError" in api.events("Unhealthy")[0]
        await node.world.sleep(60)
        assert api.status(odd)["containerStatuses"][0]["restartCount"] == 0  # an unknown answer is none
        assert runtime.calls <= 3 * 8
        assert node.services.counters.value(UNEXPECTED, doing="probe container") == runtime.calls

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(machine.PodMachine, "decide"), (worker.PodWorker, "_look"), (worker, "roles"), (admission, "reject")],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_worker_that_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    calls, broken = 0, True
    old = getattr(owner, name)

    def odd(self: Any, *arguments: Any) -> Any:
        nonlocal calls
        pod = self.pod if name == "_look" else arguments[0] if name == "decide" else self
        spec = getattr(pod, "spec", pod)
        if broken and spec.containers[0].name == "odd":
            calls += 1
            raise KeyError("x")
        return old(self, *arguments)

    monkeypatch.setattr(owner, name, odd)

    async def body(api: Api, runtime: Odd, node: Agent) -> None:
        nonlocal broken
        path = api.pod("odd", {"containers": [{"name": "odd"}], "terminationGracePeriodSeconds": 1})
        await api.until(lambda: calls)
        other = api.pod("other", SPEC)
        await api.until(lambda: api.ready(other))
        await node.world.sleep(1000)
        assert 5 <= calls <= 9 and node.services.counters.value(UNEXPECTED) == calls
        assert api.events("FailedSync")[0].startswith("Error syncing pod: KeyError: 'x'")
        broken = False
        await api.until(lambda: api.ready(path))
        api.delete(path, 1)
        await api.until(lambda: path not in api.objects)

    run(tmp_path, body)


def test_parts_of_the_agent_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(api: Api, runtime: Odd, node: Agent) -> None:
        calls = 0

        def broken(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            raise LookupError("odd")

        monkeypatch.setattr("nodeagent.node.registration.os_image", broken)
        monkeypatch.setattr(node, "workers", broken)
        await node.world.sleep(300)
        assert 4 <= calls <= 40
        counters = node.services.counters
        assert counters.value(UNEXPECTED, doing="write node status") and counters.value(UNEXPECTED, doing="rotate logs")
        monkeypatch.undo()
        path = api.pod("p", SPEC)
        await api.until(lambda: api.ready(path))

    run(tmp_path, body)


BLOCKING = ("open", "os.scandir", "os.listdir", "os.remove", "os.rmdir", "os.mkdir", "os.rename", "os.symlink", "os.chmod")
_watched: list[tuple[int, list[str]]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    for thread, seen in _watched:
        place = str(arguments[0]) if arguments else ""
        if event in BLOCKING and threading.get_ident() == thread and not place.startswith(("/proc/", "/sys/", "/etc/")):
            frame = sys._getframe(1)
            where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            if "/nodeagent/" in where or "shutil" in where:
                seen.append(f"{event} {place} at {where}")


def spec_with_volumes(folder: Path) -> dict[str, Any]:
    """A pod's spec with a sub path of an emptyDir, a ConfigMap, and ``folder`` as hostPath."""
    return {
        "containers": [
            {
                "name": "a",
                "volumeMounts": [
                    {"name": "e", "mountPath": "/e", "subPath": "x"},
                    {"name": "cm", "mountPath": "/cm"},
                ],
            }
        ],
        "volumes": [
            {"name": "e", "emptyDir": {}},
            {"name": "cm", "configMap": {"name": "cm"}},
            {"name": "h", "hostPath": {"path": str(folder), "type": "Directory"}},
        ],
        "terminationGracePeriodSeconds": 1,
    }


def test_no_file_is_touched_on_the_event_loop(tmp_path: Path) -> None:
    """Everything that a pod's life touches on disk is touched in threads: a disk may be slow and a tree large."""
    world = RealWorld()
    seen: list[str] = []

    async def main() -> None:
        api, runtime = Api(world), HollowRuntime(world)
        async with agent(world, api, runtime, config(tmp_path)) as node:
            api.config_map("cm", {"k": "v"})
            sys.addaudithook(_audit)
            _watched.append((threading.get_ident(), seen))
            path = api.pod("p", spec_with_volumes(tmp_path))
            await api.until(lambda: api.ready(path))
            volume = tmp_path / "root/pods" / api.objects[path]["metadata"]["uid"] / "volumes/kubernetes.io~empty-dir/e"
            assert os.path.isdir(volume / "x")
            api.config_map("cm", {"k": "w"})
            api.delete(path, 1)
            await api.until(lambda: path not in api.objects)
            while node.workers():
                await world.sleep(0.01)
            assert not volume.exists()

    try:
        world.run(main)
    finally:
        _watched.clear()
    assert seen == []
