"""A priority level and the flow schemas that lead to it, as the server runs them: seats, demand and counts."""

from __future__ import annotations

import asyncio
import functools
from hashlib import blake2b
from typing import Any

from apiserver.flowcontrol.fairqueue import FairQueues, Work
from apiserver.flowcontrol.sharing import Demand, Limits, Share
from navarch.exposition import Histogram

Tree = dict[str, Any]

WAIT_BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0)
RUN_BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0)


class Schema:
    """A flow schema and what has become of its requests. ``level`` is the name of its level."""

    def __init__(self, obj: Tree) -> None:
        self.obj = obj
        self.name: str = obj["metadata"]["name"]
        self.uid: str = obj["metadata"].get("uid", "")
        self.level: str = (obj["spec"].get("priorityLevelConfiguration") or {}).get("name") or ""
        self.dispatched = self.running = self.running_seats = self.waiting = self.waiting_seats = 0
        self.rejected: dict[str, int] = {}  # by reason
        self.waits, self.refused_waits = Histogram(WAIT_BUCKETS), Histogram(WAIT_BUCKETS)
        self.runs = Histogram(RUN_BUCKETS)

    def update(self, obj: Tree) -> None:
        """The object has changed; the counts go on."""
        self.obj, self.uid = obj, obj["metadata"].get("uid", "")
        self.level = (obj["spec"].get("priorityLevelConfiguration") or {}).get("name") or ""


class Level:
    """A priority level. ``fair`` decides who goes next; an exempt level has none: everybody goes."""

    def __init__(self, obj: Tree, now: float) -> None:
        self.name: str = obj["metadata"]["name"]
        self.demand = Demand(now)
        self.fair: FairQueues | None = None
        self.limits = Limits(0, 0, 0)
        self.seats = 0
        self.smooth = self.mean = self.spread = self.target = 0.0
        self.highest = 0
        self._queuing: tuple[int, int, int] = (0, 0, 0)
        self.update(obj)

    def update(self, obj: Tree) -> None:
        """The object is new or has changed. Who waits goes on waiting, in the new queues if their number changed."""
        self.obj, self.uid = obj, obj["metadata"].get("uid", "")
        spec = obj["spec"]
        if spec.get("type") == "Exempt":
            before, self.fair = self.fair, None
        else:
            response = (spec.get("limited") or {}).get("limitResponse") or {}
            queuing = (response.get("queuing") or {}) if response.get("type") == "Queue" else {}
            queuing_spec = (queuing.get("queues") or 0, queuing.get("handSize") or 1, queuing.get("queueLengthLimit") or 0)
            if self.fair is not None and queuing_spec == self._queuing:
                return
            self._queuing = queuing_spec
            before, self.fair = self.fair, FairQueues(self.seats, *queuing_spec)
        if before is None:
            return
        moved = [work for queue in before.queues for work in queue.waiting]
        if self.fair is not None:
            self.fair.running = before.running
            self.fair.take_over(moved)
        else:
            for work in moved:
                work.queue = None
                begin(work)

    @property
    def share(self) -> Share:
        spec = self.obj["spec"]
        if spec.get("type") == "Exempt":
            own = spec.get("exempt") or {}
            return Share(own.get("nominalConcurrencyShares") or 0, own.get("lendablePercent") or 0)
        own = spec.get("limited") or {}
        shares = own.get("nominalConcurrencyShares")
        borrowing = own.get("borrowingLimitPercent")
        return Share(30 if shares is None else shares, own.get("lendablePercent") or 0, borrowing)

    def set_seats(self, seats: int, now: float) -> None:
        self.seats = seats
        if self.fair is not None:
            self.fair.seats = seats
            self.go_on(now)

    def go_on(self, now: float) -> None:
        """Lets those begin for whom there is room."""
        if self.fair is not None and self.fair.waiting:
            while (work := self.fair.next(now)) is not None:
                begin(work)


class Flow:
    """Where requests of one kind from one user belong. ``headers`` tell it to the client."""

    __slots__ = ("_distinguisher", "headers", "level", "schema")

    def __init__(self, schema: Schema, level: Level, distinguisher: str) -> None:
        self.schema, self.level = schema, level
        self._distinguisher = distinguisher
        self.headers = [
            (b"x-kubernetes-pf-flowschema-uid", schema.uid.encode()),
            (b"x-kubernetes-pf-prioritylevel-uid", level.uid.encode()),
        ]

    def hash(self) -> int:
        return flow_hash(self.schema.name, self._distinguisher)


@functools.lru_cache(4096)
def flow_hash(schema: str, distinguisher: str) -> int:
    """64 bits that stand for a flow."""
    return int.from_bytes(blake2b(f"{schema}\0{distinguisher}".encode(), digest_size=8).digest(), "little")


class Ticket(Work):
    """A request's place. ``running``: it has its seats; else ``turn`` is done when it gets them."""

    __slots__ = ("arrived", "flow_of", "running", "turn")

    def __init__(self, flow: Flow, seats: int, now: float) -> None:
        self.flow_of, self.arrived = flow, now
        self.flow, self.seats, self.queue, self.began = 0, seats, None, now
        self.running = False
        self.turn: asyncio.Future[None] | None = None


def begin(work: Work) -> None:
    assert isinstance(work, Ticket)
    work.running = True
    if work.turn is not None and not work.turn.done():
        work.turn.set_result(None)


