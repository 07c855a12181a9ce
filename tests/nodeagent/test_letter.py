"""Fields of containers to the letter: hooks, last words and OOM scores, one row a case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nodeagent.agent import Agent
from nodeagent.pods import podfiles
from nodeagent.pods.containerspec import oom_score
from nodeagent.pods.observed import Observed, roles
from nodeagent.pods.podstatus import build
from nodeagent.runtime.hollow import HollowRuntime
from nodeagent.runtime.runtime import EXITED, Container, RuntimeError_
from tests.nodeagent.cluster import Api, config
from tests.nodeagent.life import pod
from tests.nodeagent.test_agent import run

GI = 1 << 30


def asks(memory: str = "", **more: Any) -> dict[str, Any]:
    return {"name": "c", "image": "i", **({"resources": {"requests": {"memory": memory}}} if memory else {}), **more}


@pytest.mark.parametrize(("spec", "qos", "index", "score"), [
    ({"containers": [asks()]}, "BestEffort", 0, 1000),
    ({"containers": [asks("1Gi")]}, "Guaranteed", 0, -997),
    ({"containers": [asks("1Gi")], "priorityClassName": "system-node-critical"}, "Burstable", 0, -997),
    ({"containers": [asks("1Gi")], "priorityClassName": "system-cluster-critical", "priority": 2_000_000_000},
     "Burstable", 0, 750),
    ({"containers": [asks("1Gi")]}, "Burstable", 0, 750),
    ({"containers": [asks("1")]}, "Burstable", 0, 999),
    ({"containers": [asks("4Gi")]}, "Burstable", 0, 3),
    ({"initContainers": [asks(restartPolicy="Always")], "containers": [asks("1Gi"), asks("2Gi")]}, "Burstable", 0, 750),
    ({"initContainers": [asks("2Gi", restartPolicy="Always")], "containers": [asks("1Gi")]}, "Burstable", 0, 500),
    ({"containers": [asks("1Gi"), asks()], "resources": {"requests": {"memory": "2Gi"}}}, "Burstable", 0, 625),
])  # fmt: skip
def test_oom_scores(spec: dict[str, Any], qos: str, index: int, score: int) -> None:
    one = pod(spec)
    assert oom_score(one, list(roles(one.spec))[index].container, 4 * GI, qos) == score


def test_last_words_are_the_end_of_the_file(tmp_path: Path) -> None:
    settings = config(tmp_path)
    file = settings.pods_dir / "u" / podfiles.termination_file("c", 0)
    file.parent.mkdir(parents=True)
    file.write_text("x" * 5000 + "the end")
    text = podfiles.termination_message(settings, "u", "c", 0)
    assert len(text) == 4096 and text.endswith("the end")


@pytest.mark.parametrize(("containers", "size"), [(1, 4096), (3, 4096), (4, 3072), (12, 1024)])
def test_last_words_of_all_containers(containers: int, size: int) -> None:
    one = pod({"containers": [{"name": f"c{i}", "image": "i"} for i in range(containers)]})
    dead = Container("", "s", "", 0, "i", "i", EXITED, 1.0, 1.0, 2.0, exit_code=1)
    ended = [replace(dead, id=f"i{i}", name=f"c{i}") for i in range(containers)]
    seen = Observed(containers=ended, messages={c.id: "y" * 4096 for c in ended})
    status = build(one, seen, {}, 5.0, ended=True)
    ends = [s.state.terminated for s in status.container_statuses or () if s.state]
    assert [len(end.message or "") for end in ends if end] == [size] * containers


class Refusing(HollowRuntime):
    """Commands fail, and print a secret."""

    async def exec_sync(self, container_id: str, command: Any, timeout: float) -> tuple[int, bytes]:
        if command == ["broken"]:
            raise RuntimeError_("ExecFailed", "secret")
        return 1, b"secret"


@pytest.mark.parametrize(("hook", "handler", "reason", "text"), [
    ("postStart", {"exec": {"command": ["x"]}}, "FailedPostStartHook", "PostStartHook failed"),
    ("postStart", {"exec": {"command": ["broken"]}}, "FailedPostStartHook", "PostStartHook failed"),
    ("postStart", {"httpGet": {"port": "none", "path": "/"}}, "FailedPostStartHook", "PostStartHook failed"),
    ("preStop", {"exec": {"command": ["x"]}}, "FailedPreStopHook", "PreStopHook failed"),
    ("preStop", {"httpGet": {"port": "none", "path": "/"}}, "FailedPreStopHook", "PreStopHook failed"),
    ("preStop", {"sleep": {"seconds": 1}}, "FailedPreStopHook", ""),
])  # fmt: skip
def test_hooks_that_fail(tmp_path: Path, hook: str, handler: dict[str, Any], reason: str, text: str) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        container = {"name": "a", "lifecycle": {hook: handler}}
        path = api.pod("p", {"containers": [container], "terminationGracePeriodSeconds": 5})
        if hook == "preStop":
            await api.until(lambda: api.ready(path))
        else:
            await api.until(lambda: api.events(reason))
        api.delete(path, 5)
        await api.until(lambda: path not in api.objects)
        assert api.events(reason)[:1] == ([text] if text else [])
        assert not any("secret" in str(o) for p, o in api.objects.items() if "/events/" in p)

    run(tmp_path, body, runtime_class=Refusing)


@pytest.mark.parametrize(("policy", "reason"), [("Never", "ErrImageNeverPull"), ("IfNotPresent", ""), (None, "")])
def test_image_volumes_are_pulled(tmp_path: Path, policy: str | None, reason: str) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        image = {"reference": "data:1"} | ({"pullPolicy": policy} if policy else {})
        mounts = [{"name": "v", "mountPath": "/v"}]
        path = api.pod("p", {"containers": [{"name": "a", "volumeMounts": mounts}], "volumes": [{"name": "v", "image": image}]})
        await api.until(lambda: api.reason(path) == reason if reason else api.ready(path))
        pulled = 'Successfully pulled image "data:1"'
        assert any(text.startswith(pulled) for text in api.events("Pulled")) is (not reason)

    run(tmp_path, body)
