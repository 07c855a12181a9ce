"""Simulated nodes: they register, run pods, and fail as told. On virtual time, against the test double."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from navarch.client.client import Client
from navarch.client.transport import InProcessTransport
from navarch.virtual import SimulatedWorld
from nodeagent.hollow.fleet import HollowFleet
from nodeagent.hollow.objects import NodeSpec
from nodeagent.runtime.stages import PREFIX
from tests.client.double import Double

POD = "/api/v1/namespaces/default/pods/"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/"


def pod(name: str, node: str, **declared: str) -> tuple[str, dict[str, Any]]:
    annotations = {PREFIX + key.replace("_", "-"): value for key, value in declared.items()}
    meta = {"name": name, "namespace": "default", "annotations": annotations, "generation": 1}
    container = {"name": "web", "image": "web:1", "readinessProbe": {"initialDelaySeconds": 3}}
    return POD + name, {"metadata": meta, "spec": {"nodeName": node, "containers": [container]}}


def simulated(test: Callable[[SimulatedWorld, Double, HollowFleet], Any]) -> None:
    world = SimulatedWorld()

    async def main() -> None:
        server = Double()
        client = Client(InProcessTransport(server, None), world)
        fleet = HollowFleet(client, world, [NodeSpec("n1", address="10.0.0.1"), NodeSpec("n2", address="10.0.0.2")])
        async with world.task_group() as group:
            group.start(fleet.run())
            await world.sleep(0.5)
            for number, name in enumerate(("n1", "n2")):
                node = server.objects["/api/v1/nodes/" + name]
                server.put("/api/v1/nodes/" + name, {**node, "spec": {"podCIDR": f"10.244.{number}.0/24"}})
            await test(world, server, fleet)
            group.cancel()

    world.run(main)


def test_nodes_register_and_renew_their_leases() -> None:
    async def test(world: SimulatedWorld, server: Double, fleet: HollowFleet) -> None:
        status = server.objects["/api/v1/nodes/n1"]["status"]
        assert {c["type"]: c["status"] for c in status["conditions"]}["Ready"] == "True"
        first = server.objects[LEASE + "n1"]["spec"]["renewTime"]
        fleet.partition("n2")
        await world.sleep(25)
        assert server.objects[LEASE + "n1"]["spec"]["renewTime"] > first
        silent = server.objects[LEASE + "n2"]["spec"]["renewTime"]
        fleet.heal("n2")
        await world.sleep(0.1)
        assert server.objects[LEASE + "n2"]["spec"]["renewTime"] > silent
        # Somebody holds a living node for dead: it contradicts.
        node = server.objects["/api/v1/nodes/n1"]
        unknown = [{"type": "Ready", "status": "Unknown"}]
        server.put("/api/v1/nodes/n1", {**node, "status": {**node["status"], "conditions": unknown}})
        await world.sleep(0.1)
        conditions = server.objects["/api/v1/nodes/n1"]["status"]["conditions"]
        assert {c["type"]: c["status"] for c in conditions}["Ready"] == "True"

    simulated(test)


def test_a_pod_lives_crashes_and_goes() -> None:
    async def test(world: SimulatedWorld, server: Double, fleet: HollowFleet) -> None:
        server.put(*pod("p", "n1", pull="2s", start="1s"))
        await world.sleep(3.5)
        status = server.objects[POD + "p"]["status"]
        assert (status["phase"], status["podIP"], status["hostIP"]) == ("Running", "10.244.0.2", "10.0.0.1")
        assert not status["containerStatuses"][0]["ready"]
        await world.sleep(3)
        status = server.objects[POD + "p"]["status"]
        assert status["containerStatuses"][0]["ready"]
        assert {c["type"]: c["status"] for c in status["conditions"]}["Ready"] == "True"

        fleet.kill_container("default", "p", "web", 3)
        await world.sleep(5)
        (container,) = server.objects[POD + "p"]["status"]["containerStatuses"]
        assert container["restartCount"] == 1 and container["lastState"]["terminated"]["exitCode"] == 3
        fleet.kill_container("default", "p", "web", 3)
        await world.sleep(5)
        (container,) = server.objects[POD + "p"]["status"]["containerStatuses"]
        assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"

        tree = server.objects[POD + "p"]
        meta = {**tree["metadata"], "deletionTimestamp": "2026-01-01T00:01:00Z", "deletionGracePeriodSeconds": 30}
        server.put(POD + "p", {**tree, "metadata": meta})
        await world.sleep(1)
        assert POD + "p" not in server.objects
        server.put(*pod("q", "n1"))  # the node is clean again
        await world.sleep(10)
        assert server.objects[POD + "q"]["status"]["phase"] == "Running"

    simulated(test)


def test_a_partition_and_a_power_loss() -> None:
    async def test(world: SimulatedWorld, server: Double, fleet: HollowFleet) -> None:
        server.put(*pod("cut", "n1"))
        server.put(*pod("off", "n2"))
        await world.sleep(10)
        fleet.partition("n1")
        fleet.power_off("n2")
        fleet.kill_container("default", "cut", "web")  # restarts there, unseen
        tree = server.objects[POD + "cut"]
        await world.sleep(60)
        assert server.objects[POD + "cut"] == tree
        fleet.heal("n1")
        fleet.power_on("n2")
        await world.sleep(10)
        for name in ("cut", "off"):
            (container,) = server.objects[POD + name]["status"]["containerStatuses"]
            assert container["restartCount"] == 1 and container["ready"], name
        # What was deleted while the node did not hear is stopped when it hears again.
        fleet.partition("n1")
        server.remove(POD + "cut")
        await world.sleep(10)
        fleet.heal("n1")
        await world.sleep(5)
        assert fleet.running("n1") == []

    simulated(test)


def test_pods_that_fail_or_finish() -> None:
    async def test(world: SimulatedWorld, server: Double, fleet: HollowFleet) -> None:
        server.put(*pod("absent", "n1", fail="pull"))
        path, tree = pod("job", "n1", run="5s")
        tree["spec"]["restartPolicy"] = "Never"
        server.put(path, tree)
        await world.sleep(20)
        (container,) = server.objects[POD + "absent"]["status"]["containerStatuses"]
        assert container["state"]["waiting"]["reason"] in ("ImagePullBackOff", "ErrImagePull")
        assert server.objects[POD + "job"]["status"]["phase"] == "Succeeded"

    simulated(test)


def resize(server: Double, name: str, cpu: str, policy: str = "") -> None:
    tree = server.objects[POD + name]
    (container,) = tree["spec"]["containers"]
    policies = [{"resourceName": "cpu", "restartPolicy": policy}] if policy else []
    container = {**container, "resources": {"requests": {"cpu": cpu}}, "resizePolicy": policies}
    meta = {**tree["metadata"], "generation": tree["metadata"]["generation"] + 1}
    server.put(POD + name, {**tree, "metadata": meta, "spec": {**tree["spec"], "containers": [container]}})


def test_pods_are_resized_in_place() -> None:
    async def test(world: SimulatedWorld, server: Double, fleet: HollowFleet) -> None:
        for name in ("p", "q"):
            path, tree = pod(name, "n1")
            tree["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1500m"}}
            server.put(path, tree)
        await world.sleep(5)

        def shown() -> tuple[str, str, int]:
            status = server.objects[POD + "p"]["status"]
            conditions = [c for c in status["conditions"] if c["type"] == "PodResizePending"]
            (container,) = status["containerStatuses"]
            reason = conditions[0]["reason"] if conditions else ""
            return reason, container["resources"]["requests"]["cpu"], container["restartCount"]

        assert shown() == ("", "1500m", 0)
        for cpu, expected in (("2", ("", "2", 0)), ("3", ("Deferred", "2", 0)), ("5", ("Infeasible", "2", 0))):
            resize(server, "p", cpu)
            await world.sleep(1)
            assert shown() == expected
        resize(server, "p", "3")
        server.remove(POD + "q")
        await world.sleep(1)
        assert shown() == ("", "3", 0), "there is room now"
        resize(server, "p", "1", "RestartContainer")
        await world.sleep(5)
        assert shown() == ("", "1", 1)

    simulated(test)
