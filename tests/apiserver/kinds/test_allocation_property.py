"""Any mix of servers, creations, deletions, crashes and repairs: a value never has two owners, and none is lost."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from apiserver.registry.allocation import GRACE, AddressAllocator, InUse, RangeFull
from apiserver.storage.memory import MemoryStore
from navarch.world import RealWorld


class World(RealWorld):
    clock = 0.0

    def now(self) -> float:
        return self.clock


STEPS = st.lists(st.tuples(st.sampled_from(["create", "ask", "crash", "delete", "repair", "wait"]), st.integers(0, 13)))


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_no_double_no_leak(steps: list[tuple[str, int]]) -> None:
    async def main() -> None:
        world, store = World(), MemoryStore()
        servers = [AddressAllocator(world, store, "10.0.0.0/28") for _ in range(2)]
        services: dict[str, str] = {}  # value -> owner, as the Services have them
        for n, (step, number) in enumerate(steps):
            allocator, owner = servers[number % 2], f"ns/s{n}"
            match step:
                case "create" | "crash":
                    try:
                        value = await allocator.choose(owner)
                    except RangeFull:
                        assert len((await store.list(allocator.prefix)).items) == allocator.size
                        continue
                    assert value not in services
                    if step == "create":
                        services[value] = owner
                case "ask":
                    value = allocator.text(number)
                    try:
                        await allocator.reserve(value, owner)
                        assert value not in services
                        services[value] = owner
                    except InUse:
                        pass
                case "delete" if services:
                    value = sorted(services)[number % len(services)]
                    await allocator.release(value, services.pop(value))
                case "repair":
                    await allocator.repair(services)
                case "wait":
                    world.clock += GRACE / 2
        world.clock += GRACE
        await servers[0].repair(services)
        left: Any = await store.list(servers[0].prefix)
        assert {i.key.rsplit("/", 1)[1] for i in left.items} == set(services)

    RealWorld().run(main)
