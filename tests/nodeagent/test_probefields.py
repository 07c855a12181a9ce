"""Every field of a probe, one row a case: when a container becomes ready, is restarted, and what is text. Virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nodeagent.agent import Agent
from nodeagent.runtime.hollow import HollowRuntime
from tests.nodeagent.cluster import Api
from tests.nodeagent.test_agent import run


class Scripted(HollowRuntime):
    """A probe's command says how it ends: ``from N`` succeeds from the container's N-th second on, ``slow N`` takes so long."""

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> tuple[int, bytes]:
        word, number = command[0], float(command[1])
        if word == "slow":
            await self._world.sleep(min(number, timeout))
            if number > timeout:
                raise TimeoutError
            return 0, b""
        age = self._world.now() - self.node.containers[container_id].started
        return (0 if age >= number else 1), b"not yet"


def probe(word: str, number: float, **fields: Any) -> dict[str, Any]:
    return {"exec": {"command": [word, str(number)]}, "periodSeconds": 1, **fields}


@pytest.mark.parametrize(("probes", "ready"), [
    ({"readinessProbe": probe("from", 0)}, 0.2),
    ({"readinessProbe": probe("from", 0, initialDelaySeconds=20)}, 20),
    ({"readinessProbe": probe("from", 5, periodSeconds=4)}, 8.2),
    ({"readinessProbe": probe("from", 0, successThreshold=3, periodSeconds=2)}, 4.2),
    ({"startupProbe": probe("from", 5, failureThreshold=30), "readinessProbe": probe("from", 0)}, 5.4),
    ({"startupProbe": probe("from", 0, initialDelaySeconds=7)}, 7),
    ({"readinessProbe": probe("slow", 2, timeoutSeconds=3)}, 2.2),
])  # fmt: skip
def test_when_a_container_is_ready(tmp_path: Path, probes: dict[str, Any], ready: float) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        path = api.pod("p", {"containers": [{"name": "a", **probes}]})
        await api.until(lambda: api.ready(path))
        (container,) = runtime.node.containers.values()
        assert ready <= node.world.now() - container.started <= ready + 0.5

    run(tmp_path, body, runtime_class=Scripted)


@pytest.mark.parametrize(("probes", "ends", "text", "why"), [
    ({"livenessProbe": probe("from", 1e9, failureThreshold=2)}, 1.2 + 60, "Liveness probe failed: not yet",
     "Container a failed liveness probe, will be restarted"),
    ({"livenessProbe": probe("from", 1e9, failureThreshold=2, terminationGracePeriodSeconds=3)}, 1.2 + 3,
     "Liveness probe failed: not yet", "Container a failed liveness probe, will be restarted"),
    ({"startupProbe": probe("from", 1e9, failureThreshold=5, terminationGracePeriodSeconds=1)}, 4.2 + 1,
     "Startup probe failed: not yet", "Container a failed startup probe, will be restarted"),
    ({"livenessProbe": probe("slow", 9, timeoutSeconds=2, failureThreshold=1, terminationGracePeriodSeconds=1)}, 2.2 + 1,
     'Liveness probe failed: command timed out: "slow 9" timed out after 2s',
     "Container a failed liveness probe, will be restarted"),
])  # fmt: skip
def test_when_a_container_is_restarted(tmp_path: Path, probes: dict[str, Any], ends: float, text: str, why: str) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        spec = {"containers": [{"name": "a", **probes}], "terminationGracePeriodSeconds": 60}
        api.pod("p", spec, annotations={"hollow.navarch.dev/stop": "1h"})
        await api.until(lambda: any(c.finished for c in runtime.node.containers.values()))
        ended = next(c for c in runtime.node.containers.values() if c.finished)
        assert ends <= ended.finished - ended.started <= ends + 0.5
        await api.until(lambda: api.events("Killing"))
        assert text in api.events("Unhealthy") and api.events("Killing")[0] == why

    run(tmp_path, body, runtime_class=Scripted)


@pytest.mark.parametrize(("port", "text"), [
    ("web", None), ("none", "Readiness probe errored and resulted in unknown state: couldn't find port: none"),
    (70000, "Readiness probe errored and resulted in unknown state: invalid port number: 70000"),
])  # fmt: skip
def test_ports_by_name(tmp_path: Path, port: str | int, text: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    urls: list[str] = []

    async def get(url: str, *rest: Any, **more: Any) -> Any:
        from nodeagent.pods.httpget import Answer

        urls.append(url)
        return Answer(200, "")

    monkeypatch.setattr("nodeagent.pods.httpget._get", get)

    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        action = {"port": port, "host": "10.9.9.9", "scheme": "HTTPS", "path": "healthz"}
        ports = [{"name": "web", "containerPort": 8443}]
        path = api.pod("p", {"containers": [{"name": "a", "ports": ports, "readinessProbe": {"httpGet": action}}]})
        await api.until(lambda: api.events("Unhealthy") if text else api.ready(path))
        assert api.events("Unhealthy") == ([text] if text else [])
        assert urls[:1] == ([] if text else ["https://10.9.9.9:8443/healthz"])

    run(tmp_path, body)
