"""Priority and fairness at work: every request gets a ticket, at once or after it waited its turn, or is refused.

The objects of the cluster (FlowSchema, PriorityLevelConfiguration) are followed in the background; a request only looks
into a table of what is known of its like. Uncontended, it costs that look-up and a few additions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from apiserver.cache.cache import Cache
from apiserver.flowcontrol import sharing
from apiserver.flowcontrol.defaults import CATCH_ALL, EXEMPT, flow_schemas, priority_levels
from apiserver.flowcontrol.levels import Flow, Level, Schema, Ticket
from apiserver.flowcontrol.matching import distinguisher, matches, schema_order
from apiserver.request import RequestInfo, User
from navarch.api.errors import TooManyRequests
from navarch.world import World

log = logging.getLogger(__name__)

Tree = dict[str, Any]

SCHEMAS, LEVELS = "/registry/flowschemas/", "/registry/prioritylevelconfigurations/"
MAX_FLOWS = 8192  # kinds of requests that are remembered
RETRY_AFTER = 1  # seconds
WIDEST = 10  # seats of the largest list
OBJECTS_PER_SEAT = 100
QUEUE_FULL, NO_SEAT, TIME_OUT = "queue-full", "concurrency-limit", "time-out"
# Streams of pods and proxies: they last, and take no seats. Watches take some while they begin.
LONG_RUNNING = ("attach", "exec", "log", "portforward", "proxy")


def list_seats(count: int, limit: str) -> int:
    """The seats of a list of ``count`` objects, in pages of ``limit``."""
    if limit.isdigit() and 0 < int(limit) < count:
        count = int(limit)
    return min(WIDEST, max(1, -(-count // OBJECTS_PER_SEAT)))


class Flows:
    """``seats``: requests that run at a time, in all. ``patience``: seconds that one waits for its turn."""

    def __init__(self, world: World, cache: Cache, seats: int = 600, patience: float = 15.0) -> None:
        self.world, self.cache, self.total, self.patience = world, cache, seats, patience
        self.levels: dict[str, Level] = {}
        self.schemas: dict[str, Schema] = {}
        self.fraction = 0.0
        self.generation = 0  # what :meth:`flow_of` said holds as long as this stays
        self._ordered: list[tuple[Schema, Level]] = []
        self._flows: dict[tuple[Any, ...], Flow] = {}
        self.configure({}, {})

    # Requests

    def enter(self, flow: Flow, now: float, seats: int = 1) -> Ticket:
        """A place for a request. If its ticket has a ``turn``, it must wait for it (:meth:`wait`).

        Raises TooManyRequests if it may not even wait.
        """
        level, schema = flow.level, flow.schema
        ticket = Ticket(flow, seats, now)
        if self._begin(ticket, now):
            return ticket
        fair = level.fair
        assert fair is not None
        ticket.flow = flow.hash()
        if not fair.wait(ticket):
            raise self._refused(schema, QUEUE_FULL if fair.queues else NO_SEAT, 0.0)
        ticket.turn = asyncio.get_running_loop().create_future()
        level.demand.change(seats, now)
        schema.waiting += 1
        schema.waiting_seats += seats
        level.go_on(now)
        return ticket

    def at_once(self, flow: Flow, now: float, seats: int = 1) -> Ticket | None:
        """A place for a request that cannot wait; None, and nothing happened, if there is none at this moment."""
        ticket = Ticket(flow, seats, now)
        return ticket if self._begin(ticket, now) else None

    @staticmethod
    def _begin(ticket: Ticket, now: float) -> bool:
        flow, seats = ticket.flow_of, ticket.seats
        level, schema = flow.level, flow.schema
        fair = level.fair
        if fair is not None and not fair.start(ticket, now):
            return False
        ticket.running = True
        level.demand.change(seats, now)
        schema.dispatched += 1
        schema.running += 1
        schema.running_seats += seats
        return True

    async def wait(self, ticket: Ticket) -> None:
        """Waits for the ticket's turn. Raises TooManyRequests if that takes too long."""
        assert ticket.turn is not None
        schema = ticket.flow_of.schema
        late = False
        try:
            async with asyncio.timeout(self.patience):
                await ticket.turn
        except TimeoutError:
            late = not ticket.running
        except asyncio.CancelledError:
            self._waited(ticket)
            if ticket.running:
                self._began(ticket)
                self.leave(ticket, self.world.monotonic())
            else:
                self._given_up(ticket)
            raise
        self._waited(ticket)
        passed = self.world.monotonic() - ticket.arrived
        if late:
            self._given_up(ticket)
            schema.refused_waits.observe(passed)
            raise self._refused(schema, TIME_OUT, passed)
        schema.waits.observe(passed)
        self._began(ticket)

    def leave(self, ticket: Ticket, now: float) -> None:
        """The request is done, or, being a watch, has begun."""
        flow = ticket.flow_of
        level, schema, seats = flow.level, flow.schema, ticket.seats
        level.demand.change(-seats, now)
        schema.running -= 1
        schema.running_seats -= seats
        schema.runs.observe(now - ticket.began)
        fair = level.fair
        if fair is not None:
            fair.finish(ticket, now)
            if fair.waiting:
                level.go_on(now)

    def flow_of(self, user: User, info: RequestInfo) -> Flow:
        """Where a request belongs."""
        key = (
            user.name, user.groups, info.verb, info.group, info.resource, info.subresource, info.namespace,
            None if info.is_resource else info.path,
        )  # fmt: skip
        flow = self._flows.get(key)
        if flow is None:
            if len(self._flows) >= MAX_FLOWS:
                self._flows.clear()
            flow = self._flows[key] = self._classify(user, info)
        return flow

    def _classify(self, user: User, info: RequestInfo) -> Flow:
        for schema, level in self._ordered:
            if matches(schema.obj, user, info):
                return Flow(schema, level, distinguisher(schema.obj, user, info))
        return Flow(self.schemas[CATCH_ALL], self.levels[CATCH_ALL], user.name)

    def _waited(self, ticket: Ticket) -> None:
        schema = ticket.flow_of.schema
        schema.waiting -= 1
        schema.waiting_seats -= ticket.seats

    def _began(self, ticket: Ticket) -> None:
        schema = ticket.flow_of.schema
        schema.dispatched += 1
        schema.running += 1
        schema.running_seats += ticket.seats

    def _given_up(self, ticket: Ticket) -> None:
        level, now = ticket.flow_of.level, self.world.monotonic()
        level.demand.change(-ticket.seats, now)
        if level.fair is not None:
            level.fair.give_up(ticket)
            level.go_on(now)  # it may have been too wide to let others pass

    def _refused(self, schema: Schema, reason: str, passed: float) -> TooManyRequests:
        schema.rejected[reason] = schema.rejected.get(reason, 0) + 1
        return TooManyRequests("Too many requests, please try again later.", {"retryAfterSeconds": RETRY_AFTER})

    # Configuration

    def configure(self, levels: Mapping[str, Tree], schemas: Mapping[str, Tree]) -> None:
        """Takes these objects. What is mandatory and not among them is there nevertheless."""
        now = self.world.monotonic()
        defaults = {o["metadata"]["name"]: o for o in priority_levels() if o["metadata"]["name"] in (EXEMPT, CATCH_ALL)}
        new_levels = {}
        for name, obj in (defaults | dict(levels)).items():
            level = self.levels.get(name)
            if level is None:
                level = Level(obj, now)
            elif level.obj is not obj:
                level.update(obj)
            new_levels[name] = level
        self.levels = new_levels
        defaults = {o["metadata"]["name"]: o for o in flow_schemas() if o["metadata"]["name"] in (EXEMPT, CATCH_ALL)}
        new_schemas = {}
        for name, obj in (defaults | dict(schemas)).items():
            schema = self.schemas.get(name) or Schema(obj)
            schema.update(obj)
            new_schemas[name] = schema
        self.schemas = new_schemas
        in_order = sorted(new_schemas.values(), key=lambda s: schema_order(s.obj))
        self._ordered = [(s, new_levels[s.level]) for s in in_order if s.level in new_levels]
        self._flows.clear()
        self.generation += 1
        self.share_out()

    def share_out(self) -> None:
        """Divides the seats anew: by share, and by what each level needed since the last time."""
        now = self.world.monotonic()
        shares = sharing.limits({name: level.share for name, level in self.levels.items()}, self.total)
        claims = []
        for name, level in self.levels.items():
            level.limits = shares[name]
            level.mean, level.spread, level.highest = level.demand.end_period(now)
            level.smooth = sharing.smoothed(level.smooth, level.mean, level.spread)
            claims.append(sharing.claim(level.limits, level.highest, level.smooth))
        parts, self.fraction = sharing.allocate(claims, sum(s.nominal for s in shares.values()))
        for level, claim, part in zip(self.levels.values(), claims, parts, strict=True):
            level.target = claim.target
            level.set_seats(round(part), now)

    async def follow(self) -> None:
        """Keeps the configuration what the cluster's objects say, until cancelled."""
        while True:
            with self.cache.watch(LEVELS) as levels, self.cache.watch(SCHEMAS) as schemas:
                await self._follow(levels, schemas)
            await self.world.sleep(0.1)  # the cache was loaded again

    async def _follow(self, levels: Any, schemas: Any) -> None:
        objects: dict[str, dict[str, Tree]] = {LEVELS: {}, SCHEMAS: {}}

        async def one(watcher: Any, prefix: str) -> None:
            while events := await watcher.batch():
                for event in events:
                    if event.entry is None:
                        continue
                    if event.type == "DELETED":
                        objects[prefix].pop(event.entry.name, None)
                    else:
                        objects[prefix][event.entry.name] = event.entry.tree()
                self.configure(objects[LEVELS], objects[SCHEMAS])
            levels.close()
            schemas.close()

        async with self.world.task_group() as group:
            group.start(one(levels, LEVELS), "flow-levels")
            group.start(one(schemas, SCHEMAS), "flow-schemas")

    async def rebalance(self) -> None:
        """Borrowing and lending, until cancelled."""
        while True:
            await self.world.sleep(sharing.PERIOD)
            self.share_out()
