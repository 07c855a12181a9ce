"""A kind that exists as a schema only: no struct, no rules of its own. What works for it leans on nothing built in."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from apiserver.registry.strategy import Column, Strategy, Tree
from apiserver.request import User
from apiserver.server import APIServer
from apiserver.storage.memory import MemoryStore
from navarch.api.kinds import Kind
from navarch.api.schema import Node, from_openapi
from navarch.client.transport import InProcessTransport
from navarch.world import RealWorld

PATH = "/apis/test.navarch.dev/v1/namespaces/ns/widgets"
ALL = "/apis/test.navarch.dev/v1/widgets"
SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "replicas": {"type": "integer"},
                "color": {"type": "string"},
                "selector": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                "parts": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
                    },
                },
            },
        },
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "phase": {"type": "string"}}},
    },
}


class WidgetStrategy(Strategy):
    kind = Kind("test.navarch.dev", "v1", "Widget", "widgets", True, ("wd",))
    has_status = True
    scale_path = True
    strategic_patch = False
    selectable_fields = ("spec.color",)
    columns = (Column("Name", "string", "name"), Column("Color"))

    def __init__(self) -> None:
        self._schema = from_openapi(SCHEMA)

    @property
    def schema(self) -> Node:
        return self._schema

    def prepare_create(self, context: Any, obj: Tree) -> None:
        obj.pop("status", None)

    def fields(self, obj: Tree) -> dict[str, str]:
        return {"spec.color": (obj.get("spec") or {}).get("color") or ""}

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [obj["metadata"]["name"], (obj.get("spec") or {}).get("color", "")]


class CountryStrategy(Strategy):
    """Cluster-scoped, with nothing special at all."""

    kind = Kind("test.navarch.dev", "v1", "Country", "countries", False)
    strategic_patch = False

    def __init__(self) -> None:
        self._schema = from_openapi({"type": "object", "properties": {"spec": {"type": "object"}}})

    @property
    def schema(self) -> Node:
        return self._schema


class Answer(NamedTuple):
    code: int
    tree: Any
    headers: Any


class Caller:
    """Requests to a server in this process, as a user."""

    def __init__(self, server: APIServer, user: User) -> None:
        self.server = server
        self.transport = InProcessTransport(server.app, user)

    async def __call__(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json", **query: Any
    ) -> Answer:
        accept = query.pop("accept", "application/json")
        agent = query.pop("agent", "tester/1.0")
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        pairs = [(k.rstrip("_"), str(v)) for k, v in query.items()]
        answer = await self.transport.request(
            method, path, query=pairs, body=data, content_type=content_type, accept=accept, headers={"user-agent": agent}
        )
        kind = answer.headers.get("content-type", "")
        return Answer(answer.status, json.loads(answer.body) if "json" in kind else answer.body.decode(), answer.headers)

    async def make(self, name: str = "a", **spec: Any) -> Any:
        answer = await self("POST", PATH, widget(name, **spec))
        assert answer.code == 201, answer.tree
        return answer.tree


def widget(name: str = "a", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "test.navarch.dev/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}


def serving(test: Callable[[Caller], Awaitable[None]]) -> None:
    """Runs a test against a fresh server of the schema-only kinds."""
    world = RealWorld()

    async def main() -> None:
        strategies = {(s.kind.group, s.kind.resource): s for s in (WidgetStrategy(), CountryStrategy())}
        server = APIServer(world, MemoryStore(), strategies=strategies)
        async with world.task_group() as group:
            running = group.start(server.run(listen=False))
            await server.cache.wait_ready()
            await test(Caller(server, User("alice", ("system:authenticated",))))
            server.stop()
            await running

    world.run(main)
