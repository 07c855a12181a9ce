"""Opening a fresh store of each kind, for the tests that all of them must pass."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from apiserver.storage.etcd import EtcdStore
from apiserver.storage.memory import MemoryStore
from apiserver.storage.sqlite import SqliteStore
from apiserver.storage.store import Store
from navarch.world import RealWorld
from tests.apiserver.storage.etcd_server import Etcd

KINDS = ["memory", "sqlite", "etcd"]
STEPS = {"memory": 1, "sqlite": 1, "etcd": 128}
"""By how much the revision grows with a write that goes alone."""


@asynccontextmanager
async def open_store(kind: str, folder: str) -> AsyncIterator[Store]:
    """The store of that kind whose data lies in ``folder`` (as far as it lies anywhere)."""
    store: Store
    match kind:
        case "memory":
            store = MemoryStore()
        case "sqlite":
            store = SqliteStore(RealWorld(), Path(folder) / "store.db")
        case "etcd":
            with Etcd(Path(folder)) as etcd:
                store = EtcdStore(RealWorld(), [etcd.endpoint])
                try:
                    await store.start()
                    yield store
                finally:
                    await store.close()
            return
        case _:
            raise ValueError(kind)
    try:
        yield store
    finally:
        await store.close()


def run_with_store(kind: str, test: Callable[[Store], Awaitable[None]]) -> None:
    """Runs ``test`` with a fresh store on a new event loop."""

    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with open_store(kind, folder) as store:
                await test(store)

    RealWorld().run(main)
