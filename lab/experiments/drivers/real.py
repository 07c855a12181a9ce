"""The driver of mode ``real``: a lab with real nodes and real containers, real HTTP, and faults by the lab's own means."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec

from lab.experiments.drivers import httpload
from lab.experiments.drivers.hand import Hand
from lab.experiments.drivers.httpload import Order
from lab.experiments.drivers.modelled import no_load
from lab.experiments.drivers.wallclock import WallClock
from lab.experiments.inputs import nodes_of, seconds_of
from lab.experiments.model import Load
from lab.experiments.run import Run
from navarch.api import kinds, wellknown
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.world import TaskGroup, World
from nodeagent.hollow.objects import NodeSpec

_NODE = kinds.kind_of(core_v1.Node)
OF_AGENT = ("cpu", "memory", "pods", "ephemeral-storage")  # a node agent finds out or is told; others are patched
SERVICE = 30.0  # seconds that a service may take to have its address


def lab_node(spec: NodeSpec) -> dict[str, Any]:
    """A node of the file as a node of a lab (fields of lab/paths.py's NodeRecord)."""
    zone = {wellknown.ZONE: spec.zone} if spec.zone else {}
    return {
        "name": spec.name, "cpu": spec.cpu, "memory": spec.memory, "pods": spec.pods,
        "storage": spec.resources.get("ephemeral-storage", ""), "labels": {**zone, **spec.labels},
        "taints": [f"{t.key}={t.value or ''}:{t.effect}" for t in spec.taints],
    }  # fmt: skip


class Real(WallClock):
    """Its nodes are the lab's."""

    def __init__(self, run: Run, hand: Hand, world: World, client: Client, group: TaskGroup, access: dict[str, Any]) -> None:
        super().__init__(run, hand, world, client, group, access, nodes_of(run.experiment))
        self.inits: Mapping[str, int] = access["inits"]
        self._senders: dict[str, asyncio.StreamWriter] = {}  # by service

    async def prepare(self) -> None:
        """Gives the nodes the resources that no agent finds: they are announced, and nothing stands behind them."""
        for spec in self.nodes:
            amounts = {k: v for k, v in spec.resources.items() if k not in OF_AGENT}
            if amounts:
                body = {"status": {"capacity": amounts, "allocatable": amounts}}
                await self.client.tree(_NODE).patch_status(spec.name, None, body, "strategic")

    # Load

    def load(self, load: Load, number: int) -> Coroutine[Any, Any, None]:
        return self._load(load, number)

    async def _load(self, load: Load, number: int) -> None:
        what = f"the address of service/{load.service}"
        address, port = await self.run_until(lambda: self._address(load.service), SERVICE, what)
        order = Order(
            address, port, str(load.rate), seconds_of(load.timeout), f"{self.run.seed} load {number}", dict(self.inits),
            path=load.path, seconds=seconds_of(load.for_) if load.for_ else 0.0,
            clients=load.clients if load.connections == "kept" else 0, retries=load.retries, backoff=seconds_of(load.backoff),
            node="" if load.from_ == "outside" else load.from_.removeprefix("node/"),
        )  # fmt: skip
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", httpload.__name__, stdin=PIPE, stdout=PIPE)
        assert process.stdin is not None and process.stdout is not None
        self._senders[load.service] = process.stdin
        began = self.world.monotonic() - self.now
        try:
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            while line := await process.stdout.readline():
                sample = json.loads(line)
                self.run.recorder.sample(sample["t"] - began, f"load/{load.service}", sample["values"])
        finally:
            self._senders.pop(load.service, None)
            process.stdin.close()
            await process.wait()

    async def change_load(self, service: str, rate: str) -> None:
        if service not in self._senders:
            raise ValueError(no_load(service, list(self._senders)))
        self._senders[service].write(json.dumps({"rate": rate}).encode() + b"\n")

    def _address(self, service: str) -> tuple[str, int] | None:
        """The cluster IP and the first port of a service."""
        spec = (self.run.state.object(f"service/{service}") or {}).get("spec", {})
        address, ports = spec.get("clusterIP"), spec.get("ports")
        return (address, int(ports[0]["port"])) if address and address != "None" and ports else None

    async def _send_from(self) -> None:
        """Tells those who make requests which nodes there are."""
        self.inits = await self.have_done("inits")
        for sender in self._senders.values():
            sender.write(json.dumps({"inits": self.inits}).encode() + b"\n")

    # Faults

    async def power_off(self, node: str) -> None:
        await self.have_done("power_off", node=node)
        await self._send_from()

    async def power_on(self, node: str) -> None:
        await self.have_done("power_on", node=node)
        await self._send_from()

    async def partition(self, node: str) -> None:
        await self.have_done("partition", node=node)
        await self._send_from()

    async def heal(self, node: str) -> None:
        await self.have_done("partition", node=node, heal=True)
        await self._send_from()

    async def kill(self, container: str) -> None:
        """``namespace/pod/container``. Raises ValueError if it does not run."""
        namespace, pod, name = container.split("/")
        tree = self.run.state.get(f"/registry/pods/{namespace}/{pod}") or {}
        statuses = tree.get("status", {}).get("containerStatuses") or ()
        identity = next((s.get("containerID", "") for s in statuses if s["name"] == name), "")
        if not identity:
            raise ValueError(f"kill: {container} does not run")
        await self.have_done("kill", node=tree["spec"]["nodeName"], container=identity.rpartition("/")[2])
