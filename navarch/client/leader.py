"""Leader election on a Lease: of several replicas of a component only one works at a time.

Whoever holds the Lease renews it; the others watch it grow old on their own clocks (no two machines' clocks are
compared) and take over when it has not moved for its duration. Every write carries the resourceVersion, so of two
candidates one loses with a Conflict.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from navarch.api.errors import AlreadyExists, Conflict, NotFound, StatusError
from navarch.api.times import format_micro
from navarch.api.types import coordination_v1, meta_v1
from navarch.client.client import Client
from navarch.client.transport import TransportError
from navarch.world import World

log = logging.getLogger(__name__)


class LeadershipLost(Exception):
    """The Lease could not be renewed in time, or another holds it: stop working at once."""


class LeaderElector:
    """Competes for ``namespace/name`` as ``identity``. Times in seconds; upstream's defaults."""

    def __init__(
        self,
        client: Client,
        world: World,
        namespace: str,
        name: str,
        identity: str,
        *,
        lease_duration: float = 15.0,
        renew_deadline: float = 10.0,
        retry_period: float = 2.0,
        on_new_leader: Callable[[str], None] | None = None,
    ) -> None:
        if not lease_duration > renew_deadline > retry_period > 0:
            raise ValueError("lease_duration > renew_deadline > retry_period > 0 must hold")
        self._leases = client[coordination_v1.Lease]
        self._world = world
        self._namespace = namespace
        self._name = name
        self.identity = identity
        self._duration = lease_duration
        self._deadline = renew_deadline
        self._retry = retry_period
        self._on_new_leader = on_new_leader
        self._lease: coordination_v1.Lease | None = None
        self._lease_at = 0.0  # monotonic time at which the Lease last changed before our eyes
        self.leader = ""  # who holds the Lease, as far as we know
        self._renewed = (0.0, 0.0)  # when the last renewal that worked was begun, monotonic and Unix

    @property
    def leading(self) -> bool:
        return self.leader == self.identity

    @property
    def holds(self) -> bool:
        """Whether nobody else can lead by now: our last renewal was begun less than the renew deadline ago, by both of our
        clocks (the monotonic one stands still while a machine sleeps). To be asked just before a write that must not come
        from two leaders; what may still happen between the asking and the write, only the write itself can guard
        against, with a resourceVersion."""
        ages = self._world.monotonic() - self._renewed[0], self._world.now() - self._renewed[1]
        return self.leading and max(ages) < self._deadline

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Waits for leadership, then runs ``work`` while renewing. Returns when ``work`` does.

        Raises LeadershipLost, after ``work`` was cancelled. On cancellation the Lease is given back.
        """
        while not await self._try():
            await self._world.sleep(self._retry * (1 + 1.2 * self._world.random.random()))
        log.info("%s leads %s/%s", self.identity, self._namespace, self._name)
        lost = False
        try:
            async with self._world.task_group() as group:

                async def body() -> None:
                    await work()
                    renewal.cancel()

                async def renew() -> None:
                    nonlocal lost
                    await self._renew()
                    lost = True
                    worker.cancel()

                renewal = group.start(renew(), "renew lease")
                worker = group.start(body(), "lead")
        finally:
            if not lost:
                await self._release()
        if lost:
            raise LeadershipLost(f"{self.identity} lost {self._namespace}/{self._name}")

    async def _renew(self) -> None:
        """Renews until that has failed for the renew deadline."""
        renewed = self._world.monotonic()
        while True:
            await self._world.sleep(self._retry)
            remaining = renewed + self._deadline - self._world.monotonic()
            if remaining <= 0:
                return
            try:
                async with asyncio.timeout(remaining):
                    if await self._try():
                        renewed = self._world.monotonic()
                    elif not self.leading:
                        return
            except TimeoutError:
                return

    async def _try(self) -> bool:
        """One attempt to get or keep the Lease; whether it is ours now."""
        began = self._world.monotonic(), self._world.now()
        try:
            lease = await self._leases.get(self._name, self._namespace)
        except NotFound:
            lease = None
        except (StatusError, TransportError) as error:
            log.warning("lease %s/%s: %s", self._namespace, self._name, error)
            return False
        self._observe(lease)
        spec = lease.spec if lease else None
        holder = (spec and spec.holder_identity) or ""
        if holder and holder != self.identity and spec is not None:
            age = self._world.monotonic() - self._lease_at
            if age < (spec.lease_duration_seconds or self._duration):
                return False
        now = format_micro(self._world.now())
        lease_spec = coordination_v1.LeaseSpec(
            holder_identity=self.identity,
            lease_duration_seconds=max(1, round(self._duration)),
            acquire_time=spec.acquire_time if spec and holder == self.identity else now,
            renew_time=now,
            lease_transitions=((spec.lease_transitions or 0) + (holder != self.identity)) if spec else 0,
        )
        try:
            if lease is None:
                meta = meta_v1.ObjectMeta(name=self._name, namespace=self._namespace)
                lease = await self._leases.create(coordination_v1.Lease(metadata=meta, spec=lease_spec))
            else:
                lease = await self._leases.update(coordination_v1.Lease(metadata=lease.metadata, spec=lease_spec))
        except (AlreadyExists, Conflict):
            return False
        except (StatusError, TransportError) as error:
            log.warning("lease %s/%s: %s", self._namespace, self._name, error)
            return False
        self._observe(lease)
        self._renewed = began
        return True

    def _observe(self, lease: coordination_v1.Lease | None) -> None:
        version = lease.metadata.resource_version if lease else None
        if self._lease is None or version != self._lease.metadata.resource_version:
            self._lease, self._lease_at = lease, self._world.monotonic()
        holder = (lease.spec.holder_identity or "") if lease else ""
        if holder != self.leader:
            self.leader = holder
            if holder and self._on_new_leader:
                self._on_new_leader(holder)

    async def _release(self) -> None:
        """Gives the Lease back, so that the next leader need not wait; best effort."""
        if not self.leading or self._lease is None:
            return
        spec = coordination_v1.LeaseSpec(
            holder_identity="",
            lease_duration_seconds=1,
            lease_transitions=self._lease.spec.lease_transitions,
            renew_time=format_micro(self._world.now()),
            acquire_time=self._lease.spec.acquire_time,
        )
        self.leader = ""
        try:
            async with asyncio.timeout(self._retry):
                await self._leases.update(coordination_v1.Lease(metadata=self._lease.metadata, spec=spec))
        except (StatusError, TransportError, TimeoutError) as error:
            log.info("lease %s/%s not released: %s", self._namespace, self._name, error)
