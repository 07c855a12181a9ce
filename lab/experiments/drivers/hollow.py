"""The driver of mode ``hollow``: a real control plane on the wall clock, and hollow nodes that this process plays.

So the nodes are the file's, with its behaviours, and can do what they can in a simulation; load is the same model.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from lab.experiments.drivers.hand import Hand
from lab.experiments.drivers.modelled import ModelledLoads
from lab.experiments.drivers.wallclock import WallClock
from lab.experiments.inputs import fleet_of, nodes_of
from lab.experiments.model import Load
from lab.experiments.run import Run
from navarch.client.client import Client
from navarch.world import TaskGroup, World
from nodeagent.hollow.fleet import HollowFleet


class Hollow(WallClock):
    """``fleet`` runs in ``group``; it talks to the API server by a client of its own."""

    def __init__(self, run: Run, hand: Hand, world: World, client: Client, group: TaskGroup, access: dict[str, Any]) -> None:
        nodes = nodes_of(run.experiment)
        super().__init__(run, hand, world, client, group, access, nodes)
        config = fleet_of(run.experiment, run.seed)
        self.fleet = HollowFleet(Client(client.transport, world, "kubelet"), world, nodes, config)
        self.loads = ModelledLoads(self, self.fleet, run)

    async def prepare(self) -> None:
        """Begins the nodes' lives."""
        self.group.start(self.fleet.run(), "hollow nodes")
        self.loads.begin()

    def load(self, load: Load, number: int) -> Coroutine[Any, Any, None]:
        return self.loads.load(load, number)

    async def change_load(self, service: str, rate: str) -> None:
        self.loads.change(service, rate)

    # Faults

    async def power_off(self, node: str) -> None:
        self.fleet.power_off(node)

    async def power_on(self, node: str) -> None:
        self.fleet.power_on(node)

    async def partition(self, node: str) -> None:
        self.fleet.partition(node)

    async def heal(self, node: str) -> None:
        self.fleet.heal(node)

    async def kill(self, container: str) -> None:
        """``namespace/pod/container``."""
        namespace, pod, name = container.split("/")
        self.fleet.kill_container(namespace, pod, name)
