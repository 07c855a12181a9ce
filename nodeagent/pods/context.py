"""The parts that all of the agent shares: settings, the client, the runtime, caches. Handed to every worker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from navarch.api import quantity
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.events import EventRecorder
from navarch.client.informer import Informer
from navarch.world import World
from nodeagent.config import Config
from nodeagent.devices.manager import DeviceManager
from nodeagent.node.configobjects import ObjectCache
from nodeagent.node.counters import Counters
from nodeagent.node.statuswriter import StatusManager
from nodeagent.pods.fieldrefs import Facts
from nodeagent.pods.pulling import Images
from nodeagent.runtime.runtime import Runtime
from nodeagent.volumes.csi.mounter import CsiVolumes


@dataclass
class Services:
    config: Config
    client: Client
    world: World
    runtime: Runtime
    images: Images
    objects: ObjectCache
    status: StatusManager
    events: EventRecorder
    cluster_services: Informer[core_v1.Service]
    devices: DeviceManager
    csi: CsiVolumes
    memory_capacity: int = 1
    cpu_capacity: int = 0  # millicores; 0: unknown, and no limit is cut to it
    allocatable: Mapping[str, quantity.Quantity] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    removals: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))  # big trees, a few at a time
    stopping: threading.Event = field(default_factory=threading.Event)  # set when the agent ends
    oom_floor: int = -1000  # the kernel refuses lower scores to us
    active: Callable[[], list[core_v1.Pod]] = list  # the pods that take room on the node, as it has granted them
    room_changed: Callable[[], None] = lambda: None  # there may be room now for a pod that waits to grow

    def facts(self, pod_ip: str = "") -> Facts:
        """The facts that fields of a pod may refer to."""
        config = self.config
        return Facts(config.node_ip, pod_ip, config.node_name, self.allocatable)
