"""Cluster IPs and node ports: each value in use is one key in the store, made by a transaction that fails if it exists.

Why a key a value, and not Kubernetes' bitmap: no two writers ever meet unless they want the same value, any number of
API servers may allocate at once, and the store's own atomicity is what keeps a value from being given twice. A value is
reserved before its Service is written and given back after the Service left. A crash between the two can only leave
a reservation without a Service, never a Service without reservation; :meth:`Allocator.repair` (run at start, then
every three minutes) gives such values back once they are older than any request in flight can be.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apiserver.storage.store import Compare, Put, Store
from navarch.world import World

ROOT = "/registry/allocations/"
GRACE = 180.0  # seconds that a reservation may exist without its Service
ATTEMPTS = 32


class InUse(Exception):
    """The value asked for belongs to another object."""


class OutOfRange(Exception):
    """The value asked for is not in the range."""


class RangeFull(Exception):
    """There is no free value."""


class Allocator:
    """Values ``offset -> text`` of one range. ``prefer_from``: automatic choices leave lower offsets to those who ask."""

    def __init__(
        self, world: World, store: Store, name: str, size: int, text: Callable[[int], str], prefer_from: int = 0
    ) -> None:
        self.world, self.store, self.size, self.text, self.prefer_from = world, store, size, text, prefer_from
        self.prefix = f"{ROOT}{name}/"
        self.in_use: dict[str, None] = {}  # a hint that saves transactions; the store decides
        self.loaded = False

    async def load(self) -> None:
        """Learns which values are in use."""
        page = await self.store.list(self.prefix)
        self.in_use = {item.key[len(self.prefix) :]: None for item in page.items}
        self.loaded = True

    async def reserve(self, value: str, owner: str) -> None:
        """Takes one value for ``owner`` (namespace/name). Raises InUse."""
        key = self.prefix + value
        record = json.dumps({"owner": owner, "at": self.world.now()}).encode()
        result = await self.store.txn([Compare(key, 0)], [Put(key, record)])
        self.in_use[value] = None
        if not result.succeeded:
            raise InUse(value)

    async def choose(self, owner: str, dry_run: bool = False) -> str:
        """Takes any free value. Raises RangeFull."""
        if not self.loaded:
            await self.load()
        for _ in range(ATTEMPTS):
            value = self._candidate()
            if value is None:
                await self.load()  # another server may have given values back
                value = self._candidate()
                if value is None:
                    raise RangeFull
            if dry_run:
                return value
            try:
                await self.reserve(value, owner)
                return value
            except InUse:
                continue
        raise RangeFull

    def _candidate(self) -> str | None:
        """A free value, None if there is none."""
        return self._search(self.size, self.text, self.prefer_from)

    def _search(self, size: int, text: Callable[[int], str], prefer_from: int) -> str | None:
        """A free value: by chance in the upper band, then by search upwards from a chance position in each band."""
        for low, high in ((prefer_from, size), (0, prefer_from)):
            if high <= low:
                continue
            for _ in range(8):
                value = text(self.world.random.randrange(low, high))
                if value not in self.in_use:
                    return value
            start = self.world.random.randrange(low, high)
            for offset in (*range(start, high), *range(low, start)):
                value = text(offset)
                if value not in self.in_use:
                    return value
        return None

    async def release(self, value: str, owner: str) -> None:
        """Gives a value back if ``owner`` still has it."""
        item, _ = await self.store.get(self.prefix + value)
        if item is not None and json.loads(item.value).get("owner") == owner:
            await self.store.txn([Compare(item.key, item.revision)], deletes=[item.key])
        self.in_use.pop(value, None)

    async def repair(self, in_use: Mapping[str, str]) -> list[str]:
        """Makes reservations agree with the values (-> owner) that objects have; returns what was given back."""
        page = await self.store.list(self.prefix)
        reserved = {item.key[len(self.prefix) :]: item for item in page.items}
        released = []
        for value, item in reserved.items():
            record = json.loads(item.value)
            if value in in_use or self.world.now() - record.get("at", 0) < GRACE:
                continue
            result = await self.store.txn([Compare(item.key, item.revision)], deletes=[item.key])
            if result.succeeded:
                released.append(value)
        for value, owner in in_use.items():
            if value not in reserved:
                try:
                    await self.reserve(value, owner)
                except InUse:
                    pass
        await self.load()
        return released


class AddressAllocator(Allocator):
    """Service addresses of the cluster's own IPv4 network, then of those that ServiceCIDRs add (``more``); without network and
    broadcast addresses."""

    def __init__(self, world: World, store: Store, cidr: str) -> None:
        self.network = ipaddress.IPv4Network(cidr)
        self.more: Callable[[], Sequence[ipaddress.IPv4Network]] = tuple
        super().__init__(world, store, "clusterips", *_addresses_of(self.network))

    @property
    def networks(self) -> list[ipaddress.IPv4Network]:
        return [self.network, *(network for network in self.more() if network != self.network)]

    def _candidate(self) -> str | None:
        values = (self._search(*_addresses_of(network)) for network in self.networks)
        return next((value for value in values if value is not None), None)

    async def reserve(self, value: str, owner: str) -> None:
        try:
            address = ipaddress.IPv4Address(value)
        except ValueError:
            raise OutOfRange(value) from None
        inside = [n for n in self.networks if address in n and address not in (n.network_address, n.broadcast_address)]
        if not inside:
            raise OutOfRange(value)
        await super().reserve(str(address), owner)

    @property
    def first(self) -> str:
        """The address of default/kubernetes."""
        return self.text(0)


def _addresses_of(network: ipaddress.IPv4Network) -> tuple[int, Callable[[int], str], int]:
    """(how many addresses, the address of a number, the first number for automatic choices) of a network."""
    first, size = int(network.network_address) + 1, network.num_addresses - 2
    # The lowest addresses are left to those who ask for one: min(max(16, size/16), 256), KEP-3070.
    band = min(max(16, network.num_addresses // 16), 256) if network.num_addresses > 16 else 0
    return size, lambda n: str(ipaddress.IPv4Address(first + n)), band


class PortAllocator(Allocator):
    """Node ports."""

    def __init__(self, world: World, store: Store, low: int = 30000, high: int = 32767) -> None:
        self.low, self.high, size = low, high, high - low + 1
        band = 0 if size < 16 else min(max(16, size // 32), 128)  # KEP-3668
        super().__init__(world, store, "nodeports", size, lambda n: str(low + n), band)

    async def reserve(self, value: str, owner: str) -> None:
        if not self.low <= int(value) <= self.high:
            raise OutOfRange(value)
        await super().reserve(value, owner)


def owner_of(obj: dict[str, Any]) -> str:
    metadata = obj["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
