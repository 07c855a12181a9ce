"""A whole API server in process for the tests of admission: answers with their code, message and warnings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from apiserver.assembly import assemble
from apiserver.config import Config
from apiserver.request import LOOPBACK, SYSTEM_MASTERS, User
from apiserver.server import APIServer
from apiserver.storage.memory import MemoryStore
from navarch.world import RealWorld

Tree = dict[str, Any]
CONTAINER: Tree = {"name": "a", "image": "i"}
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


class Answer:
    def __init__(self, code: int, headers: list[tuple[bytes, bytes]], data: bytes) -> None:
        self.code = code
        self.tree: Tree = json.loads(data or b"{}")
        self.warnings = [
            json.loads(value.decode().partition(" - ")[2]) for name, value in headers if name.lower() == b"warning"
        ]

    @property
    def message(self) -> str:
        return str(self.tree.get("message") or "")


class Server:
    """Asks a server, as an administrator unless ``user`` says otherwise."""

    def __init__(self, server: APIServer) -> None:
        self.server = server

    async def __call__(
        self, method: str, path: str, body: Tree | None = None, *, user: str | User = "", query: str = "", type_: str = MERGE
    ) -> Answer:  # fmt: skip
        data = json.dumps(body).encode() if body is not None else b""
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        if isinstance(user, str):
            user = User(user, (SYSTEM_MASTERS,)) if user else LOOPBACK
        kind = type_ if method == "PATCH" else "application/json"
        scope = {
            "type": "http", "method": method, "path": path, "query_string": query.encode(),
            "headers": [(b"content-type", kind.encode())], "navarch.user": user,
        }  # fmt: skip
        await self.server.app(scope, receive, send)
        return Answer(sent[0]["status"], sent[0]["headers"], b"".join(m.get("body", b"") for m in sent[1:]))

    async def ok(self, method: str, path: str, body: Tree | None = None, **more: Any) -> Tree:
        answer = await self(method, path, body, **more)
        assert answer.code < 300, answer.tree
        return answer.tree

    async def until(self, condition: Callable[[], Awaitable[Any]]) -> Any:
        """Waits until the condition gives something."""
        while not (found := await condition()):
            await asyncio.sleep(0.005)
        return found


def running(test: Callable[[Server], Awaitable[None]], **config: Any) -> None:
    """Runs a test against a fresh server of everything."""
    world = RealWorld()

    async def main() -> None:
        ready = asyncio.Event()
        server = assemble(world, MemoryStore(), Config(advertise_address="10.0.0.1", **config))
        async with world.task_group() as group:
            task = group.start(server.run(lambda _: ready.set(), listen=False))
            await ready.wait()
            async with asyncio.timeout(60):
                await test(Server(server))
            server.stop()
            await task

    world.run(main)


async def namespace(server: Server, name: str, labels: dict[str, str]) -> None:
    """A namespace with its default account, which pods need."""
    await server.ok("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    await server.ok("POST", f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
    await server.server.cache.current()
