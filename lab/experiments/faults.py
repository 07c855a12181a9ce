"""Faults of a step: nodes that stop or are cut off, components that crash or are slow, a failing store, dying containers."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from lab.experiments.drivers.driver import UNDO, Driver
from lab.experiments.state import State, is_live
from nodeagent.runtime.spread import seconds

OPTIONS = ("for", "by")
"""Beside the name of a fault: how long it lasts, and how much ``slow`` slows."""
ENDS = {method.replace("_", "-"): method for method in UNDO.values() if method}
"""Deeds that end a fault before its time, or one that has none: power-on, heal, start, mend ..."""


class Faults:
    """On one cluster; ``chance`` picks random nodes."""

    def __init__(self, cluster: Driver, state: State, chance: random.Random) -> None:
        self.cluster, self.state, self.chance = cluster, state, chance

    async def fault(self, fault: Mapping[str, Any]) -> None:
        """With ``for`` it ends after a while."""
        (name, value), = ((k, str(v)) for k, v in fault.items() if k not in OPTIONS)
        target = self._target(name, value)
        more = (seconds(str(fault["by"])),) if "by" in fault else ()
        await getattr(self.cluster, name.replace("-", "_"))(target, *more)
        if "for" in fault and UNDO[name]:
            self._start(self._after(seconds(str(fault["for"])), getattr(self.cluster, UNDO[name]), target))

    async def end(self, name: str, target: str) -> None:
        """Ends a fault: ``name`` is one of ENDS."""
        await getattr(self.cluster, ENDS[name])(self.node(target) if name in ("power-on", "heal") else target)

    def node(self, text: str) -> str:
        """A node's name; ``busiest-node`` and ``random-node`` are looked up now, and ``node-of:REFERENCE`` is where the first
        of its pods is."""
        names: list[str] = [n["metadata"]["name"] for n in self.state.all("nodes")]
        text = text.removeprefix("node/")
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

    def _target(self, fault: str, text: str) -> str:
        """The node, the component, or for ``kill`` namespace/pod/container, that a fault is about."""
        if fault in ("power-off", "partition"):
            return self.node(text)
        if fault != "kill":
            return text
        namespace, _, rest = text.rpartition(":")
        kind, _, rest = rest.partition("/")
        name, _, container = rest.partition("/")
        reference = f"{namespace or 'default'}:{kind}/{name}"
        pods = sorted(filter(is_live, self.state.pods(reference)), key=lambda p: str(p["metadata"]["name"]))
        if not pods:
            raise ValueError(f"kill: there is no pod of {kind}/{name}")
        pod = pods[0]
        return f"{namespace or 'default'}/{pod['metadata']['name']}/{container or pod['spec']['containers'][0]['name']}"

    async def _after(self, wait: float, end: Callable[[str], Awaitable[None]], target: str) -> None:
        await self.cluster.world.sleep(wait)
        await end(target)

    def _start(self, work: Any) -> None:
        self.cluster.background(work)
