"""The loop around policies: no table without policies, the guilty set aside and named, a table that was lost made anew."""

from __future__ import annotations

from contextlib import asynccontextmanager
from types import SimpleNamespace

from prometheus_client import generate_latest

from navarch.api.networkpolicies import SlimPod, SlimPodSpec, SlimPodStatus
from navarch.api.types import core_v1, meta_v1, networking_v1
from proxy.policies import Policies
from tests.proxy.test_proxy import Kernel, Listed


def policy(name, namespace="x"):
    return networking_v1.NetworkPolicy(
        metadata=meta_v1.ObjectMeta(name=name, namespace=namespace), spec=networking_v1.NetworkPolicySpec()
    )


class Informers:
    def __init__(self):
        self.listed, self.asked = {}, []

    def informer(self, struct, **_):
        self.asked.append(struct)
        return self.listed.setdefault(struct, Told())


class Told(Listed):
    def add_handler(self, handler):
        super().add_handler(handler)
        for obj in self.objects.values():
            handler("ADDED", None, obj)

    def remove(self, key):
        obj = self.objects.pop(key)
        for handler in self.handlers:
            handler("DELETED", obj, obj)


def cluster():
    informers, told = Informers(), []
    node = core_v1.Node(metadata=meta_v1.ObjectMeta(name="n1"), spec=core_v1.NodeSpec(pod_cidr="10.9.1.0/24"))
    informers.informer(core_v1.Node).put(node)
    informers.informer(core_v1.Namespace).put(core_v1.Namespace(metadata=meta_v1.ObjectMeta(name="x")))
    made = SlimPod(spec=SlimPodSpec(node_name="n1"), status=SlimPodStatus(pod_ip="10.9.1.2"))
    made.metadata.name, made.metadata.namespace = "a", "x"
    informers.informer(SlimPod).put(made)
    informers.asked.clear()
    return informers, told, SimpleNamespace(event=lambda obj, *rest: told.append((obj.metadata.name, *rest)))


class Loop:
    """The loop on a node, its kernel, and the NetworkPolicies that it follows."""

    def __init__(self, world):
        self.informers, self.told, events = cluster()
        self.kernel = Kernel()
        self.policies = Policies(world, self.informers, "n1", "10.9.128.11", self.kernel, events)
        self.listed = self.informers.listed[networking_v1.NetworkPolicy]


@asynccontextmanager
async def looping(world):
    loop = Loop(world)
    async with world.task_group() as group:
        group.start(loop.policies.run())
        await loop.policies.synced.wait()
        yield loop
        group.cancel()


async def test_the_loop(world):
    """No table without policies, also when the last one goes."""
    async with looping(world) as loop:
        kernel = loop.kernel
        assert SlimPod not in loop.informers.asked, "nobody follows pods without policies"
        assert "add set" not in kernel.has and "delete table" in kernel.has, "what an earlier process left is gone"
        loop.listed.put(policy("p"))
        await world.sleep(1)
        assert "guarded { 10.9.1.0/24 }" in kernel.has and "handled { 10.9.1.2 }" in kernel.has
        assert "in { 10.9.1.2 : goto in-of-" in kernel.has and "x/p" in kernel.has
        for name in "qr":
            loop.listed.put(policy(name))
        loop.listed.put(policy("bad", "y"))
        await world.sleep(1)
        for key in ("x/p", "x/q", "x/r", "y/bad"):
            loop.listed.remove(key)
        await world.sleep(1)
        assert kernel.has.endswith("delete table ip navarch-policy\n")
        kernel.has = ""
        loop.listed.put(policy("again"))
        await world.sleep(1)
        assert "x/again" in kernel.has and "in { 10.9.1.2 : goto in-of-" in kernel.has


async def test_a_policy_that_the_kernel_does_not_take(world):
    """The others stand, it is named, and tried again until it is taken."""
    async with looping(world) as loop:
        kernel = loop.kernel
        loop.listed.put(policy("p"))
        await world.sleep(1)
        kernel.bad = ["y/bad"]
        loop.listed.put(policy("bad", "y"))
        loop.listed.put(policy("q"))
        await world.sleep(1)
        assert "x/q" in kernel.has and "y/bad" not in kernel.has
        assert loop.told[0][:3] == ("bad", "Warning", "SyncNetworkPolicyFailed") and "node n1" in loop.told[0][3]
        assert b"set_aside 1.0" in metrics(loop.policies)
        before = kernel.runs
        await world.sleep(600)
        assert 8 <= kernel.runs - before <= 50
        kernel.bad = []
        await world.sleep(70)
        assert "y/bad" in kernel.has and b"set_aside 0.0" in metrics(loop.policies)


async def test_a_kernel_that_takes_nothing_for_a_while(world):
    """Everything is loaded anew."""
    async with looping(world) as loop:
        kernel = loop.kernel
        for name in "pq":
            loop.listed.put(policy(name))
        await world.sleep(1)
        kernel.broken = True
        loop.listed.put(policy("r"))
        await world.sleep(30)
        kernel.broken, kernel.has = False, ""
        await world.sleep(30)
        assert all(f"x/{name}" in kernel.has for name in "pqr") and "handled { 10.9.1.2 }" in kernel.has


async def test_a_pod_that_the_agent_tells_of(world):
    """The agent waits for its pod's rules, whether pod or address comes first; without policies it does not wait."""
    informers, _, events = cluster()
    kernel = Kernel()
    policies = Policies(world, informers, "n1", "10.9.128.11", kernel, events)
    pods = informers.listed[SlimPod]
    async with world.task_group() as group:
        group.start(policies.run())
        await policies.synced.wait()
        await policies.isolate("x/b", "10.9.1.7")
        assert not policies.claims and not policies.waiting
        informers.listed[networking_v1.NetworkPolicy].put(policy("p"))
        await world.sleep(1)
        ready = []

        async def agent(name, address):
            await policies.isolate(f"x/{name}", address)
            assert f"handled {{ {address} }}" in kernel.has
            ready.append(name)

        group.start(agent("b", "10.9.1.7"))
        await world.sleep(1)
        assert not ready, "nobody knows the pod yet"
        pods.put(slim("b", None))
        await world.sleep(1)
        assert ready == ["b"] and policies.claims == {"x/b": "10.9.1.7"}
        pods.put(slim("b", "10.9.1.7"))
        assert not policies.claims, "the API server knows it now"
        pods.put(slim("c", None))
        group.start(agent("c", "10.9.1.8"))
        await world.sleep(1)
        assert ready == ["b", "c"]
        # A new sandbox of the pod: the agent's word is newer than the status.
        group.start(agent("b", "10.9.1.9"))
        await world.sleep(1)
        assert ready == ["b", "c", "b"] and "delete element ip navarch-policy handled { 10.9.1.7 }" in kernel.has
        assert not policies.waiting
        pods.remove("x/c")
        assert "x/c" not in policies.claims
        group.cancel()


def slim(name, address):
    made = SlimPod(spec=SlimPodSpec(node_name="n1"), status=SlimPodStatus(pod_ip=address))
    made.metadata.name, made.metadata.namespace = name, "x"
    return made


def metrics(policies):
    return generate_latest(policies.registry)
