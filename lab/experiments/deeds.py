"""Actions of a step on a cluster: deeds of its operator, and faults."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import yaml

from lab.experiments.drivers.driver import UNDO, Driver
from lab.experiments.state import RESOURCES, State, is_live, split
from navarch.api import kinds
from navarch.api.errors import NotFound, StatusError
from navarch.api.times import format_time
from navarch.api.wellknown import RESTARTED_AT
from nodeagent.runtime.spread import spread

RETRY = 5.0  # seconds after which an eviction that a budget refused is tried again, as kubectl drain does
_KINDS = {kind.resource: kind for kind in kinds.BY_GVK.values() if kind.resource in RESOURCES.values()}


class Deeds:
    """On one cluster; each deed is a method of its name."""

    def __init__(self, cluster: Driver, state: State, chance: random.Random) -> None:
        self.cluster, self.state, self.chance = cluster, state, chance

    async def do(self, deeds: Mapping[str, Any]) -> None:
        for name, value in deeds.items():
            await getattr(self, name.replace("-", "_"))(value)

    async def apply(self, what: Any) -> None:
        """A text of manifests, one object, or a list of them."""
        text = what if isinstance(what, str) else yaml.safe_dump_all(what if isinstance(what, list) else [what])
        await self.cluster.apply(text)

    async def patch(self, patches: Mapping[str, Any]) -> None:
        for reference, body in patches.items():
            namespace, resource, name = split(reference)
            where = None if resource == "nodes" else namespace
            await self.cluster.client.tree(_KINDS[resource]).patch(name, where, body, "strategic")

    async def scale(self, replicas: Mapping[str, int]) -> None:
        await self.patch({reference: {"spec": {"replicas": int(n)}} for reference, n in replicas.items()})

    async def set_image(self, images: Mapping[str, str]) -> None:
        """Of the only container, or of all, where ``image`` is one text; else by container."""
        for reference, image in images.items():
            workload = self.state.object(reference)
            if workload is None:
                raise ValueError(f"set-image: there is no {reference}")
            names = [c["name"] for c in workload["spec"]["template"]["spec"]["containers"]]
            listed = [{"name": n, "image": image} for n in names]
            await self.patch({reference: {"spec": {"template": {"spec": {"containers": listed}}}}})

    async def restart(self, reference: str) -> None:
        stamp = format_time(self.cluster.world.now())
        note = {"metadata": {"annotations": {RESTARTED_AT: stamp}}}
        await self.patch({reference: {"spec": {"template": note}}})

    async def pause(self, reference: str) -> None:
        await self.patch({reference: {"spec": {"paused": True}}})

    async def resume(self, reference: str) -> None:
        await self.patch({reference: {"spec": {"paused": None}}})

    async def delete(self, reference: str) -> None:
        namespace, resource, name = split(reference)
        await self.cluster.client.tree(_KINDS[resource]).delete(name, None if resource == "nodes" else namespace)

    async def cordon(self, node: str) -> None:
        await self.patch({f"node/{self.node(node)}": {"spec": {"unschedulable": True}}})

    async def uncordon(self, node: str) -> None:
        await self.patch({f"node/{self.node(node)}": {"spec": {"unschedulable": None}}})

    async def drain(self, node: str) -> None:
        """Cordons it, then evicts what no DaemonSet owns, again and again where a budget refuses; it goes on meanwhile."""
        name = self.node(node)
        await self.cordon(name)
        pods = [p for p in self.state.pods(f"node/{name}") if is_live(p)]
        for pod in pods:
            owners = pod["metadata"].get("ownerReferences") or ()
            if not any(o["kind"] == "DaemonSet" for o in owners):
                self._start(self._evict(pod["metadata"]["namespace"], pod["metadata"]["name"]))

    async def evict(self, reference: str) -> None:
        namespace, _, name = split(reference)
        self._start(self._evict(namespace, name))

    async def _evict(self, namespace: str, name: str) -> None:
        body = b'{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"%s"}}' % name.encode()
        while True:
            try:
                await self.cluster.client.request("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", body=body)
                return
            except NotFound:
                return
            except StatusError as error:
                if error.code != 429:
                    raise
            await self.cluster.world.sleep(RETRY)

    # Faults

    def node(self, text: str) -> str:
        """A node's name; ``busiest-node`` and ``random-node`` are looked up now, and ``node-of:REFERENCE`` is where the first
        of its pods is."""
        names: list[str] = [n["metadata"]["name"] for n in self.state.all("nodes")]
        if text == "random-node":
            return self.chance.choice(names)
        if text == "busiest-node":
            counts = {n: 0 for n in names}
            for pod in self.state.pods():
                if is_live(pod) and pod["spec"].get("nodeName") in counts:
                    counts[pod["spec"]["nodeName"]] += 1
            return max(names, key=lambda n: counts[n])
        if text.startswith("node-of:"):
            pods = [p for p in self.state.pods(text.removeprefix("node-of:")) if p["spec"].get("nodeName") and is_live(p)]
            if not pods:
                raise ValueError(f"{text}: no such pod is on a node")
            return str(pods[0]["spec"]["nodeName"])
        if text not in names:
            raise ValueError(f"there is no node {text!r}")
        return text

    async def fault(self, fault: Mapping[str, Any]) -> None:
        """With ``for`` it ends after a while."""
        (name, value), = ((k, str(v)) for k, v in fault.items() if k != "for")
        target = self._target(name, value)
        await getattr(self.cluster, name.replace("-", "_"))(target)
        if "for" in fault and UNDO[name]:
            seconds = spread(str(fault["for"]))
            assert isinstance(seconds, float)
            self._start(self._after(seconds, getattr(self.cluster, UNDO[name]), target))

    def _target(self, fault: str, text: str) -> str:
        """The node, the component, or for ``kill`` namespace/pod/container, that a fault is about."""
        if fault in ("power-off", "partition"):
            return self.node(text)
        if fault != "kill":
            return text
        pod, _, container = text.removeprefix("pod/").partition("/")
        pod_object = self.state.object(f"pod/{pod}")
        if pod_object is None:
            raise ValueError(f"kill: there is no pod/{pod}")
        return f"default/{pod}/{container or pod_object['spec']['containers'][0]['name']}"

    async def _after(self, seconds: float, end: Callable[[str], Awaitable[None]], target: str) -> None:
        await self.cluster.world.sleep(seconds)
        await end(target)

    def _start(self, work: Any) -> None:
        self.cluster.background(work)

