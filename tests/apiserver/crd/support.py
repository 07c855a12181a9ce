"""A whole API server in process, and the definition that most tests use."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import yaml

from apiserver.assembly import assemble
from apiserver.config import Config
from apiserver.request import LOOPBACK
from apiserver.server import APIServer
from apiserver.storage.memory import MemoryStore
from apiserver.storage.store import Store
from navarch.client.transport import InProcessTransport
from navarch.world import RealWorld

Tree = dict[str, Any]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PATH = "/apis/stable.example.com/v1/namespaces/default/crontabs"
MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"
STRATEGIC, APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"

CRONTAB = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: crontabs.stable.example.com
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        description: A job by the clock.
        properties:
          spec:
            type: object
            required: [cronSpec]
            properties:
              cronSpec: {type: string, pattern: '^[0-9* ]+$', description: When it runs.}
              image: {type: string}
              replicas: {type: integer, minimum: 1, maximum: 10, default: 1}
              color: {type: string, enum: [red, green]}
              port: {x-kubernetes-int-or-string: true}
              tags: {type: array, items: {type: string}, x-kubernetes-list-type: set}
              parts:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties: {name: {type: string}, size: {type: integer, default: 7}}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true}
              labels: {type: object, additionalProperties: {type: string}}
              template: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}
          status:
            type: object
            properties: {replicas: {type: integer}, selector: {type: string}, phase: {type: string}}
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas, description: How many.}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    selectableFields: [{jsonPath: .spec.color}, {jsonPath: .spec.replicas}]
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}
"""


def crontabs() -> Tree:
    """The definition, a new tree each time."""
    tree: Tree = yaml.safe_load(CRONTAB)
    return tree


def spec_schema(definition: Tree) -> Tree:
    """The schema of spec in the first version."""
    schema: Tree = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema["properties"]["spec"]  # type: ignore[no-any-return]


def crontab(name: str = "a", **spec: Any) -> Tree:
    base = {"cronSpec": "* * 5"} | spec
    return {"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": base}


def simple(schema: Tree, **version: Any) -> Tree:
    """A definition whose spec has this schema."""
    out = copy.deepcopy(crontabs())
    whole = {"type": "object", "properties": {"spec": schema, "status": {"type": "object", "properties": {}}}}
    out["spec"]["versions"] = [
        {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": whole}} | version
    ]
    return out


class Answer(NamedTuple):
    code: int
    tree: Any
    headers: Any

    @property
    def message(self) -> str:
        return str(self.tree.get("message", ""))


class Caller:
    """Requests to a server in this process."""

    def __init__(self, server: APIServer) -> None:
        self.server = server
        self.transport = InProcessTransport(server.app, LOOPBACK)

    async def __call__(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json", **query: Any
    ) -> Answer:
        accept = query.pop("accept", "application/json")
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        pairs = [(k.rstrip("_"), str(v)) for k, v in query.items()]
        answer = await self.transport.request(
            method,
            path,
            query=pairs,
            body=data,
            content_type=content_type,
            accept=accept,
            headers={"user-agent": "t/1"},
        )
        kind = answer.headers.get("content-type", "")
        return Answer(
            answer.status, json.loads(answer.body) if "json" in kind else answer.body.decode(), answer.headers
        )

    async def ok(self, method: str, path: str, body: Any = None, *args: Any, **query: Any) -> Tree:
        answer = await self(method, path, body, *args, **query)
        assert answer.code < 300, answer.tree
        tree: Tree = answer.tree
        return tree

    async def define(self, definition: Tree) -> Tree:
        """Makes a definition and waits until it is established."""
        await self.ok("POST", CRDS, definition)
        return await self.established(definition["metadata"]["name"])

    async def established(self, name: str, wanted: str = "True", kind: str = "Established") -> Tree:
        while True:
            found = await self.ok("GET", f"{CRDS}/{name}")
            for one in found["status"].get("conditions") or ():
                if (one["type"], one["status"]) == (kind, wanted):
                    return found
            await asyncio.sleep(0.005)

    async def gone(self, path: str) -> None:
        while (await self("GET", path)).code != 404:
            await asyncio.sleep(0.005)

    async def refused(self, definition: Tree) -> list[str]:
        """The causes for which a definition is refused, as ``path: text``."""
        answer = await self("POST", CRDS, definition)
        assert answer.code == 422, answer.tree
        return [f"{c['field']}: {c['message']}" for c in answer.tree["details"]["causes"]]


def serving(
    test: Callable[[Caller], Awaitable[None]], store: Store | None = None, config: Config | None = None
) -> None:
    """Runs a test against a fresh server of everything."""
    world = RealWorld()

    async def main() -> None:
        ready = asyncio.Event()
        server = assemble(world, store or MemoryStore(), config or Config(advertise_address="10.0.0.1"))
        async with world.task_group() as group:
            running = group.start(server.run(lambda _: ready.set(), listen=False))
            await ready.wait()
            async with asyncio.timeout(30):
                await test(Caller(server))
            server.stop()
            await running

    world.run(main)
