"""A whole API server in process, asked over ASGI as any user."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from apiserver.assembly import assemble
from apiserver.config import Config
from apiserver.request import LOOPBACK, User
from apiserver.server import APIServer
from apiserver.storage.memory import MemoryStore
from apiserver.storage.store import Store
from navarch.world import RealWorld, World

Tree = dict[str, Any]
TYPES = {"PATCH": b"application/merge-patch+json"}


class Asker:
    def __init__(self, server: APIServer) -> None:
        self.server = server
        self.warnings: list[str] = []  # the last reply's Warning headers

    async def __call__(
        self, method: str, path: str, body: Tree | None = None, *, user: User | None = LOOPBACK, query: str = "",
        headers: tuple[tuple[bytes, bytes], ...] = (), code: int = 0,
        type: str = "",
    ) -> Tree:  # fmt: skip
        """The reply's tree; ``code`` is the HTTP status that it must have (0: any success)."""
        data = json.dumps(body).encode() if body is not None else b""
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": method, "path": path, "query_string": query.encode(),
            "headers": [(b"content-type", type.encode() or TYPES.get(method, b"application/json")), *headers],
        }  # fmt: skip
        if user is not None:
            scope["navarch.user"] = user
        await self.server.app(scope, receive, send)
        self.warnings = [v.decode() for k, v in sent[0]["headers"] if k.lower() == b"warning"]
        tree: Tree = json.loads(b"".join(m.get("body", b"") for m in sent[1:]) or b"{}")
        status = sent[0]["status"]
        assert status == code or (not code and status < 300), (status, tree)
        return tree


@asynccontextmanager
async def served(world: World | None = None, store: Store | None = None, **config: Any) -> AsyncIterator[Asker]:
    world, ready = world or RealWorld(), asyncio.Event()
    server = assemble(world, store or MemoryStore(), Config(advertise_address="10.0.0.1", **config))
    async with world.task_group() as group:
        group.start(server.run(lambda _: ready.set(), listen=False))
        await ready.wait()
        try:
            yield Asker(server)
        finally:
            server.stop()
