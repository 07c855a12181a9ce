"""The API server's word on a file's manifests and deeds, before any run: it alone knows all that Kubernetes refuses.

One is started in this process, without nodes, controllers or scheduler; every distinct story of a file (its objects, workload
and steps) is told to it, and unknown fields are refused. Deeds on what only controllers make are left out, for it is not there.
"""

from __future__ import annotations

import asyncio
import json
import re
import typing
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import msgspec
import yaml

from apiserver.assembly import assemble
from apiserver.config import Config
from apiserver.request import User
from apiserver.storage.memory import MemoryStore
from lab.experiments.deeds import KINDS, Deeds
from lab.experiments.drivers.driver import Driver
from lab.experiments.executors import apart
from lab.experiments.expressions import meant
from lab.experiments.manifests import filled, of_text, written
from lab.experiments.model import Experiment
from lab.experiments.schema import Problem
from lab.experiments.state import State, split
from lab.simulation.applying import kind_of
from lab.simulation.cluster import MASTERS
from navarch.api import kinds
from navarch.api.errors import AlreadyExists, StatusError
from navarch.client.client import Client
from navarch.client.transport import InProcessTransport
from navarch.virtual import START, SimulatedWorld
from navarch.world import chance

_REFUSED = (400, 404, 405, 409, 413, 422)
"""Codes that say that a request is wrong. A 403 is of admission, which may wait for controllers that are not here."""
_PLAYED = ("scale", "set-image", "patch", "restart", "pause", "resume", "delete")


class Order(NamedTuple):
    """Something that a run has done: an object is applied, or a deed is done to what a reference names."""

    path: str
    deed: str
    what: Any
    reference: str = ""


def check_with_server(experiments: Sequence[Experiment], problems: list[Problem]) -> None:
    """Adds what an API server refuses of any of the cells, each with its path."""
    stories: dict[str, list[Order]] = {}
    for e in experiments:
        orders = list(_orders(e))
        stories.setdefault(json.dumps(orders, default=str), orders)
    if any(stories.values()):
        problems += dict.fromkeys(apart(lambda: _ask(list(stories.values()))))


def _orders(e: Experiment) -> Iterator[Order]:
    applied: dict[str, list[Order]] = {}
    for path, what, draw in written(e):
        try:
            listed = of_text(what if draw is None else filled(what, draw, chance("check"), 1))
        except (yaml.YAMLError, ValueError, KeyError):
            continue  # told already
        applied[path] = [Order(f"{path}[{n}]" if len(listed) > 1 else path, "apply", one) for n, one in enumerate(listed)]
    for path, orders in applied.items():
        if not path.startswith("steps["):
            yield from orders
    for n, step in enumerate(e.steps):
        for deed, value in step.do.items():
            path = f"steps[{n}].do.{deed}"
            yield from applied.get(path, ())
            if deed in _PLAYED and isinstance(value, dict):
                yield from (Order(f"{path}.{key}", deed, {key: more}, str(key)) for key, more in value.items())
            elif deed in _PLAYED:
                yield Order(path, deed, value, str(value))


async def _serve(world: SimulatedWorld, stories: Sequence[Sequence[Order]]) -> list[Problem]:
    store, out = MemoryStore(), list[Problem]()
    async with world.task_group() as group:
        server, up = assemble(world, store, Config(store="memory")), asyncio.Event()
        group.start(server.run(lambda _: up.set(), listen=False), "apiserver")
        await up.wait()
        client = Client(InProcessTransport(server.app, User("check", MASTERS)), world, "check")
        for orders in stories:
            dialogue = Dialogue(client)
            for order in orders:
                out += [Problem(order.path, text) for text in await dialogue.answer(order)]
            await dialogue.forget()
        group.cancel()
    await store.close()
    return out


def _ask(stories: Sequence[Sequence[Order]]) -> list[Problem]:
    world = SimulatedWorld(0, START)
    return world.run(lambda: _serve(world, stories))


class Dialogue(Deeds):
    """Deeds on a server that has nothing but itself."""

    def __init__(self, client: Client) -> None:
        world = client.world
        super().__init__(cast(Driver, SimpleNamespace(client=client, world=world)), State(), chance("check"))
        self.client = client
        self._objects: list[tuple[kinds.Kind, str, str | None]] = []

    async def answer(self, order: Order) -> list[str]:
        """The server's objections to an order."""
        try:
            if order.deed == "apply":
                await self.create(order.what)
            elif self._is_here(order.reference):
                await self.do({order.deed: order.what})
        except StatusError as error:
            return [f"{error}{_fields_meant(str(error), order)}"] if error.code in _REFUSED else []
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return [f"{error}" if isinstance(error, ValueError) else f"cannot be done: {type(error).__name__}: {error}"]
        return []

    def _is_here(self, reference: str) -> bool:
        try:
            return self.state.object(reference) is not None
        except ValueError:
            return False  # told already

    async def create(self, tree: Any) -> None:
        if not isinstance(tree, dict) or not tree.get("apiVersion") or not tree.get("kind"):
            return  # told already
        if not isinstance(meta := tree.get("metadata"), dict) or not (meta.get("name") or meta.get("generateName")):
            raise ValueError("metadata.name is required")
        try:
            kind = kind_of(tree)
        except ValueError as error:
            raise ValueError(f"{error}{meant(str(tree['kind']), {k[2] for k in kinds.BY_GVK})}") from None
        where = (meta.get("namespace") or "default") if kind.namespaced else None
        await self._account(where)
        resource = self.client.tree(kind)
        try:
            stored = await resource.create(tree, where, field_validation="Strict")
        except AlreadyExists:
            stored = await resource.patch(meta["name"], where, tree, "strategic", field_validation="Strict")
        self._keep(kind, where, stored)
        self._objects.append((kind, stored["metadata"]["name"], where))

    def _keep(self, kind: kinds.Kind, namespace: str | None, tree: dict[str, Any]) -> None:
        place = f"{namespace}/" if namespace else ""
        self.state.apply("MODIFIED", f"/registry/{kind.resource}/{place}{tree['metadata']['name']}", tree)

    async def _account(self, namespace: str | None) -> None:
        """Pods need the account that a controller makes."""
        if namespace:
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
            with suppress(StatusError):
                await self.client.tree(kind_of(account)).create(account, namespace)

    async def _patch(self, reference: str, body: Any, how: str) -> None:
        namespace, resource, name = split(reference)
        where = None if resource == "nodes" else namespace
        stored = await self.client.tree(KINDS[resource]).patch(name, where, body, how, field_validation="Strict")
        self._keep(KINDS[resource], where, stored)

    async def delete(self, reference: str) -> None:
        namespace, resource, name = split(reference)
        await super().delete(reference)
        self.state.apply("DELETED", f"/registry/{resource}/{namespace}/{name}", None)

    async def forget(self) -> None:
        """Takes everything away again, before the next story; namespaces stay, since they would go on terminating."""
        for kind, name, where in reversed(self._objects):
            if kind.resource != "namespaces":
                with suppress(StatusError):
                    await self.client.tree(kind).delete(name, where, grace_period_seconds=0)


_UNKNOWN = re.compile(r'unknown field "([^"]+)"')


def _fields_meant(text: str, order: Order) -> str:
    """For a field that there is not: the nearest one that there is."""
    kind = KINDS[split(order.reference)[1]] if order.reference else kind_of(order.what)
    match = _UNKNOWN.search(text)
    if match is None:
        return ""
    here: Any = kind.type
    *above, last = match[1].split(".")
    for name in above:
        here = next((f.type for f in _fields(here) if f.encode_name == re.sub(r"\[\d+\]", "", name)), None)
    return meant(last, [f.encode_name for f in _fields(here)])


def _fields(type_: Any) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Of the struct that a type is, or of which it is a list."""
    while type_ is not None and not (isinstance(type_, type) and issubclass(type_, msgspec.Struct)):
        type_ = next((a for a in typing.get_args(type_) if a is not type(None)), None)
    return msgspec.structs.fields(type_) if type_ is not None else ()
