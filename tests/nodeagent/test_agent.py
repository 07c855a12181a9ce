"""The whole agent on the simulated runtime: what the API server sees of a pod's life."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from navarch.virtual import SimulatedWorld
from nodeagent.agent import Agent
from nodeagent.runtime.hollow import HollowRuntime
from nodeagent.runtime.runtime import RUNNING
from nodeagent.runtime.stages import Stages
from tests.nodeagent.cluster import NODE, Api, agent, config

Body = Callable[[Api, HollowRuntime, Agent], Awaitable[None]]


def run(
    folder: Path, body: Body, api_class: type[Api] = Api, runtime_class: type[HollowRuntime] = HollowRuntime, **settings: Any
) -> None:
    world = SimulatedWorld()

    async def main() -> None:
        api, runtime = api_class(world), runtime_class(world)
        async with agent(world, api, runtime, config(folder, **settings)) as node:
            await body(api, runtime, node)

    world.run(main)


def alive(runtime: HollowRuntime) -> list[str]:
    return [c.name for c in runtime.node.containers.values() if c.state == RUNNING]


def test_node_is_registered(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        found = api.objects[NODE]
        assert found["metadata"]["labels"]["kubernetes.io/hostname"] == "n1"
        assert found["status"]["capacity"]["cpu"] == "4" and found["status"]["allocatable"]["pods"] == "110"
        ready = {c["type"]: c for c in found["status"]["conditions"]}["Ready"]
        assert (ready["status"], ready["reason"]) == ("True", "KubeletReady")
        lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"
        await api.until(lambda: lease in api.objects)
        first = api.objects[lease]["spec"]["renewTime"]
        await node.world.sleep(11)
        assert api.objects[lease]["spec"]["renewTime"] > first
        before = api.objects[NODE]["metadata"]["resourceVersion"]
        await node.world.sleep(60)
        assert api.objects[NODE]["metadata"]["resourceVersion"] == before  # nothing changed: nothing written
        await node.world.sleep(300)
        assert api.objects[NODE]["metadata"]["resourceVersion"] != before

    run(tmp_path, body)


def test_resize_waits_for_room(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        def spec(cpu: str) -> dict[str, Any]:
            return {"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}], "terminationGracePeriodSeconds": 1}

        def resize(path: str, cpu: str) -> None:
            old = api.objects[path]
            container = old["spec"]["containers"][0] | {"resources": {"requests": {"cpu": cpu}}}
            generation = old["metadata"].get("generation", 1) + 1
            metadata = old["metadata"] | {"generation": generation}
            api.put(path, old | {"metadata": metadata, "spec": old["spec"] | {"containers": [container]}})

        def pending() -> str:
            return next((c["reason"] for c in api.status(path)["conditions"] if c["type"] == "PodResizePending"), "")

        def has() -> str:
            return str(api.status(path)["containerStatuses"][0]["resources"]["requests"]["cpu"])

        path, other = api.pod("p", spec("1")), api.pod("q", spec("2"))
        await api.until(lambda: api.ready(path) and api.ready(other))
        assert has() == "1" and api.status(path)["containerStatuses"][0]["allocatedResources"] == {"cpu": "1"}
        resize(path, "5")
        await api.until(lambda: pending() == "Infeasible")  # the node has four
        resize(path, "3")
        await api.until(lambda: pending() == "Deferred")
        assert has() == "1"
        api.delete(other, 1)
        await api.until(lambda: has() == "3")
        await api.until(lambda: not pending())
        assert api.status(path)["observedGeneration"] == 3 and api.status(path)["containerStatuses"][0]["restartCount"] == 0

    run(tmp_path, body)


def test_a_pods_life(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        path = api.pod("p", {"containers": [{"name": "a"}], "terminationGracePeriodSeconds": 5})
        await api.until(lambda: api.ready(path))
        status = api.status(path)
        assert status["phase"] == "Running" and status["podIP"].startswith("10.1.2.") and status["qosClass"] == "BestEffort"
        assert status["podIPs"] == [{"ip": status["podIP"]}] and status["hostIP"] == "10.0.0.1"
        container = status["containerStatuses"][0]
        assert container["ready"] and container["started"] and container["image"] == "web:1"
        for reason in ("Pulling", "Pulled", "Created", "Started"):
            await api.until(lambda reason=reason: api.events(reason))
        api.delete(path, 5)
        await api.until(lambda: path not in api.objects)
        await node.world.sleep(1)
        assert not runtime.node.containers and not runtime.node.sandboxes and not node.workers()
        assert not list((tmp_path / "root/pods").iterdir()) and not list((tmp_path / "root/log/pods").iterdir())
        assert api.events("Killing") == ["Stopping container a"]

    run(tmp_path, body)


def test_removed_by_force(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        path = api.pod("p", {"containers": [{"name": "a"}], "terminationGracePeriodSeconds": 1})
        await api.until(lambda: api.ready(path))
        api.remove(path)
        again = api.pod("p", {"containers": [{"name": "a"}]})
        await node.world.sleep(5)
        assert api.ready(again) and alive(runtime) == ["a"] and len(node.workers()) == 1

    run(tmp_path, body)


EVERYTHING: dict[str, Any] = {
    "containers": [
        {
            "name": "a",
            "env": [
                {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "x"}}},
                {"name": "Y", "value": "$(X)-$(KUBERNETES_SERVICE_HOST)"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ],
            "volumeMounts": [
                {"name": "all", "mountPath": "/all"},
                {"name": "e", "mountPath": "/e", "subPath": "inner"},
            ],
        }
    ],
    "volumes": [
        {
            "name": "all",
            "projected": {
                "sources": [
                    {"configMap": {"name": "cm"}},
                    {"secret": {"name": "s", "items": [{"key": "k", "path": "deep/k", "mode": 0o400}]}},
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
                    {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                ]
            },
        },
        {"name": "e", "emptyDir": {}},
    ],
}
KUBERNETES = {
    "metadata": {"name": "kubernetes", "namespace": "default"},
    "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]},
}


def test_environment_and_volumes(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        api.put("/api/v1/namespaces/default/services/kubernetes", KUBERNETES)
        path = api.pod("p", EVERYTHING, labels={"app": "x"})
        await api.until(lambda: api.events("FailedMount"))
        assert api.events("FailedMount")[0] == 'MountVolume.SetUp failed for volume "all" : configmap "cm" not found'
        api.config_map("cm", {"x": "1"})
        api.secret("s", {"k": "v"})
        await api.until(lambda: api.ready(path))
        uid = api.objects[path]["metadata"]["uid"]
        volume = tmp_path / "run/volumes" / uid / "all"
        assert (volume / "x").read_text() == "1" and (volume / "deep/k").read_text() == "v"
        assert (volume / "token").read_text() == "token-1" and (volume / "l").read_text() == 'app="x"'
        assert (tmp_path / f"root/pods/{uid}/volumes/kubernetes.io~empty-dir/e/inner").is_dir()
        hosts = (tmp_path / f"root/pods/{uid}/etc-hosts").read_text()
        assert f"{api.status(path)['podIP']}\tp\n" in hosts
        resolv = (tmp_path / f"root/pods/{uid}/etc-resolv.conf").read_text()
        assert "nameserver 10.96.0.10\noptions ndots:5" in resolv and "search ns.svc.cluster.local" in resolv
        api.config_map("cm", {"x": "2"})
        await node.world.sleep(1)
        assert (volume / "x").read_text() == "2"
        await node.world.sleep(600)
        assert (volume / "token").read_text() != "token-1"  # renewed before it ended
        api.delete(path, 1)
        await api.until(lambda: path not in api.objects)
        await node.world.sleep(1)
        assert not volume.exists()

    run(tmp_path, body)


def test_missing_key_and_back(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        env = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
        path = api.pod("p", {"containers": [{"name": "a", "env": env}]})
        await api.until(lambda: api.reason(path) == "CreateContainerConfigError")
        await api.until(lambda: api.events("Failed"))
        assert api.events("Failed") == ['Error: secret "s" not found']
        api.secret("s", {"other": "v"})
        await api.until(lambda: "Error: couldn't find key k in Secret ns/s" in api.events("Failed"))
        api.secret("s", {"k": "v"})
        await api.until(lambda: api.ready(path))

    run(tmp_path, body)


def test_image_pull_back_off(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        never = api.pod("n", {"containers": [{"name": "a", "imagePullPolicy": "Never", "image": "x:9"}]})
        await api.until(lambda: api.reason(never) == "ErrImageNeverPull")
        bad = api.pod("b", {"containers": [{"name": "a", "image": "Not A Name"}]})
        await api.until(lambda: api.reason(bad) == "InvalidImageName")

    run(tmp_path, body)


def test_deleted_while_its_image_is_pulled(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        path = api.pod("p", {"containers": [{"name": "a"}]})
        runtime.node.default = Stages(pull=1000)
        await api.until(lambda: api.events("Pulling"))
        api.delete(path, 30)
        began = node.world.monotonic()
        await api.until(lambda: path not in api.objects)
        assert node.world.monotonic() - began < 5

    run(tmp_path, body)


async def test_agent_restart_touches_no_container(world: SimulatedWorld, tmp_path: Path) -> None:
    api, runtime = Api(world), HollowRuntime(world)
    async with agent(world, api, runtime, config(tmp_path)):
        path = api.pod("p", {"containers": [{"name": "a", "readinessProbe": {"exec": {"command": ["true"]}}}]})
        lost = api.pod("q", {"containers": [{"name": "b"}]})
        await api.until(lambda: api.ready(path) and api.ready(lost))
        before = api.objects[path]
    assert sorted(alive(runtime)) == ["a", "b"]
    api.remove(lost)
    async with agent(world, api, runtime, config(tmp_path)):
        await world.sleep(60)
        assert api.objects[path]["status"] == before["status"]
        assert alive(runtime) == ["a"]
        api.delete(path, 1)
        await api.until(lambda: path not in api.objects)
    assert not alive(runtime)


def test_too_many_pods(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        big = {"containers": [{"name": "a", "resources": {"requests": {"cpu": "3"}}}]}
        first = api.pod("p", big)
        await api.until(lambda: api.ready(first))
        second = api.pod("q", big)
        await api.until(lambda: api.phase(second) == "Failed")
        assert api.status(second)["reason"] == "OutOfcpu" and "requested: 3000, used: 3000, capacity: 4000" in str(
            api.status(second)["message"]
        )

    run(tmp_path, body)


def test_what_the_node_cannot_isolate_is_not_run_without(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        profile = {"appArmorProfile": {"type": "RuntimeDefault"}}
        confined = api.pod("p", {"containers": [{"name": "a"}], "securityContext": profile})
        await api.until(lambda: api.phase(confined) == "Failed")
        assert api.status(confined)["reason"] == "AppArmor"
        mapped = api.pod("q", {"containers": [{"name": "b"}], "hostUsers": False})
        await api.until(lambda: any("hostUsers" in text for text in api.events("FailedCreatePodSandBox")))
        assert api.phase(mapped) == "Pending" and not alive(runtime)

    run(tmp_path, body)


def test_crash_and_previous(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        declared = {"hollow.navarch.dev/run": "2s", "hollow.navarch.dev/exit-code": "3"}
        path = api.pod("p", {"containers": [{"name": "a"}]}, annotations=declared)
        await api.until(lambda: api.reason(path) == "CrashLoopBackOff")
        container = api.status(path)["containerStatuses"][0]
        assert container["lastState"]["terminated"]["exitCode"] == 3 and container["restartCount"] == 1
        assert container["state"]["waiting"]["message"].startswith("back-off 10s restarting failed container=a pod=p_ns(")
        await api.until(lambda: api.events("BackOff"))

    run(tmp_path, body)


def test_a_runtime_that_the_node_does_not_have_is_waited_for(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        classes = "/apis/node.k8s.io/v1/runtimeclasses"
        head = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass"}
        api.put(f"{classes}/kata", head | {"metadata": {"name": "kata"}, "handler": "kata"})
        pod = api.pod("p", {"containers": [{"name": "a"}], "runtimeClassName": "kata"})
        unknown = api.pod("q", {"containers": [{"name": "a"}], "runtimeClassName": "gone"})
        text = 'failed to get sandbox runtime: no runtime for "kata" is configured'
        await api.until(lambda: any(text in found for found in api.events("FailedCreatePodSandBox")))
        await api.until(lambda: any("gone" in found for found in api.events("FailedCreatePodSandBox")))
        assert api.phase(pod) == api.phase(unknown) == "Pending" and not alive(runtime)
        assert {"name": ""} in api.objects[NODE]["status"]["runtimeHandlers"]
        runtime.handlers = ("", "kata")
        await api.until(lambda: api.ready(pod))

    run(tmp_path, body)
