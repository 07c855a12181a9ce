"""A cache over a memory store that holds what a test puts there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import yaml

from apiserver.cache.cache import Cache
from apiserver.cache.encoded import encode
from apiserver.catalog import catalog
from apiserver.registry.reads import extract
from apiserver.request import Attributes, Context, RequestInfo, User
from apiserver.storage.memory import MemoryStore
from apiserver.storage.store import Put
from navarch.api.kinds import BY_GVK, group_version
from navarch.world import RealWorld

Tree = dict[str, Any]


class World(RealWorld):
    """Real, but its clock can be put forward."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


class Cluster:
    def __init__(self) -> None:
        self.world, self.store = World(), MemoryStore()
        strategies = catalog(self.world, self.store)
        resources = {s.prefix: extract(s) for s in reversed(strategies.values()) if s.codec.same}
        indexes = {s.prefix: s.indexed_field for s in strategies.values() if s.indexed_field}
        self.cache = Cache(self.world, self.store, resources=resources, indexes=indexes)

    async def put(self, text: str) -> list[Tree]:
        """Stores YAML documents as they are, and waits until the cache has them."""
        out = []
        for obj in yaml.safe_load_all(text):
            kind = BY_GVK[(*group_version(obj["apiVersion"]), obj["kind"])]
            metadata = obj["metadata"]
            metadata.setdefault("uid", f"uid-{metadata['name']}")
            parts = [metadata["namespace"]] if metadata.get("namespace") else []
            key = "/".join(["/registry", kind.resource, *parts, metadata["name"]])
            await self.store.txn([], [Put(key, encode(obj))])
            out.append(obj)
        await self.cache.current()
        return out

    async def drop(self, key: str) -> None:
        await self.store.txn([], deletes=[f"/registry/{key}"])
        await self.cache.current()

    def attributes(self, obj: Tree, user: User, operation: str = "CREATE", subresource: str = "", **more: Any) -> Attributes:
        kind = BY_GVK[(*group_version(obj["apiVersion"]), obj["kind"])]
        metadata = obj["metadata"]
        context = Context(self.world, user, RequestInfo("create", "/"))
        return Attributes(
            context, operation, kind, metadata.get("namespace", ""), metadata["name"], subresource, obj, **more
        )


@asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    async with made.world.task_group() as group:
        group.start(made.cache.run())
        await made.cache.wait_ready()
        yield made
        group.cancel()
