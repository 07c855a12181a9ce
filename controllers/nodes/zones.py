"""How fast nodes may lose their pods, zone by zone.

When most of a zone is silent, the fault is more likely in the network between us than in the nodes: evicting then
would only make it worse. So the rate falls when a zone is partly down, and when every zone is down nothing is evicted at
all. All state here is numbers and times handed in; nothing reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from controllers.config import Config
from navarch.api import wellknown
from navarch.api.types import core_v1

REGION_LABEL, ZONE_LABEL = wellknown.REGION, wellknown.ZONE


class State(Enum):
    NORMAL = "Normal"
    PARTIAL = "PartialDisruption"
    FULL = "FullDisruption"


def zone_of(node: core_v1.Node) -> str:
    labels = node.metadata.labels or {}
    return f"{labels.get(REGION_LABEL, '')}:{labels.get(ZONE_LABEL, '')}"


@dataclass
class Bucket:
    """Admits ``rate`` nodes a second, one at once. A rate of 0 admits none."""

    rate: float
    next: float = 0.0  # time at which the next node is admitted

    def take(self, now: float) -> float | None:
        """0 if admitted, else the seconds to wait; None: for ever, until the rate changes."""
        if self.rate <= 0:
            return None
        if now < self.next:
            return self.next - now
        self.next = now + 1 / self.rate
        return 0.0

    def set_rate(self, rate: float, now: float) -> None:
        if rate == self.rate:
            return
        if rate > 0:
            self.next = min(self.next, now + 1 / rate) if self.rate > 0 else now
        self.rate = rate


@dataclass
class Zone:
    bucket: Bucket
    ready: dict[str, bool] = field(default_factory=dict)  # by node
    unready: int = 0
    waiting: dict[str, None] = field(default_factory=dict)  # nodes in the order in which they asked


def state(ready: int, unready: int, threshold: float) -> State:
    if unready > 0 and ready == 0:
        return State.FULL
    if unready > 2 and unready / (ready + unready) >= threshold:
        return State.PARTIAL
    return State.NORMAL


class Zones:
    """The nodes of all zones and the limits that follow."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._zones: dict[str, Zone] = {}
        self._zone_of: dict[str, str] = {}  # by node
        self.all_down = False

    def observe(self, name: str, zone: str, ready: bool, now: float) -> bool:
        """Notes a node's readiness. True if all zones just went down or came back: every node must be looked at."""
        if self._zone_of.get(name, zone) != zone:
            self._take_out(name)
        self._zone_of[name] = zone
        record = self._zones.get(zone)
        if record is None:
            record = self._zones[zone] = Zone(Bucket(self.config.node_eviction_rate))
        before = record.ready.get(name)
        if before is ready:
            return False
        record.ready[name] = ready
        record.unready += (not ready) - (before is False)
        return self._update(now)

    def forget(self, name: str, now: float) -> bool:
        self._take_out(name)
        return self._update(now)

    def _take_out(self, name: str) -> None:
        zone = self._zones.get(self._zone_of.pop(name, ""))
        if zone is None:
            return
        zone.waiting.pop(name, None)
        if zone.ready.pop(name, True) is False:
            zone.unready -= 1

    def state(self, zone: str) -> State:
        record = self._zones[zone]
        return state(len(record.ready) - record.unready, record.unready, self.config.unhealthy_zone_threshold)

    def _update(self, now: float) -> bool:
        """Sets every zone's rate. True if ``all_down`` changed."""
        states = {name: self.state(name) for name, zone in self._zones.items() if zone.ready}
        was = self.all_down
        self.all_down = bool(states) and all(s is State.FULL for s in states.values())
        for name, zone_state in states.items():
            self._zones[name].bucket.set_rate(0.0 if self.all_down else self._rate(name, zone_state), now)
        return was != self.all_down

    def _rate(self, name: str, zone_state: State) -> float:
        config = self.config
        if zone_state is not State.PARTIAL:
            return config.node_eviction_rate
        large = len(self._zones[name].ready) > config.large_cluster_size_threshold
        return config.secondary_node_eviction_rate if large else 0.0

    def may_evict(self, name: str, now: float) -> float | None:
        """0 if the node's pods may be evicted now (asked once), else seconds to wait; None: until something changes."""
        zone = self._zones[self._zone_of[name]]
        zone.waiting.setdefault(name)
        place = list(zone.waiting).index(name)
        if place:  # those who asked before go first
            rate = zone.bucket.rate
            return place / rate if rate > 0 else None
        wait = zone.bucket.take(now)
        if wait == 0:
            del zone.waiting[name]
        return wait

    def withdraw(self, name: str) -> None:
        """The node has recovered, or is dealt with."""
        zone = self._zones.get(self._zone_of.get(name, ""))
        if zone is not None:
            zone.waiting.pop(name, None)

    def waiting(self, zone: str) -> list[str]:
        record = self._zones.get(zone)
        return list(record.waiting) if record is not None else []
