"""Time to live through etcd's leases: keys that die at about the same time share one."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from apiserver.storage.etcd_connection import Connection
from navarch.world import World
from protos import etcd_pb2 as pb

SLACK = 0.05  # a key lives up to this share longer than asked
MAX_KEYS = 1000  # on one lease, so that its end is not one huge deletion


class _Lease:
    def __init__(self, id: asyncio.Future[int], until: float) -> None:
        self.id = id
        self.until = until  # monotonic: whoever comes later needs another lease
        self.keys = 0


class Leases:
    """Gives out lease ids; grants one only when there is none that fits."""

    def __init__(self, world: World, connection: Connection) -> None:
        self._world, self._connection = world, connection
        self._open: dict[float, _Lease] = {}  # time to live asked for -> the lease in use for it

    async def lease(self, ttl: float) -> int:
        """A lease that ends ``ttl`` seconds from now or up to 5 % (and the rounding to seconds) later."""
        now = self._world.monotonic()
        lease = self._open.get(ttl)
        if lease is None or lease.until <= now or lease.keys >= MAX_KEYS:
            # A task of its own: the one who asked first may be cancelled, the others wait for the same grant.
            lease = _Lease(asyncio.ensure_future(self._grant(ttl)), now + ttl * SLACK)
            self._open[ttl] = lease
        lease.keys += 1
        try:
            return await asyncio.shield(lease.id)
        except Exception:
            if self._open.get(ttl) is lease:
                self.forget(ttl)
            raise

    async def _grant(self, ttl: float) -> int:
        response: Any = await self._connection.grant(pb.LeaseGrantRequest(ttl=math.ceil(ttl * (1 + SLACK))))
        return int(response.id)

    def forget(self, ttl: float) -> None:
        """The lease for ``ttl`` is gone: do not use it again."""
        self._open.pop(ttl, None)
