"""What changes nothing writes nothing, for every kind, also seconds later: apply, PUT and the patches."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from navarch.api import kinds
from navarch.api.patch import copy_tree
from navarch.world import RealWorld
from tests.apiserver.kinds.samples import SAMPLES, path_of
from tests.apiserver.kinds.served import Asker, served
from tests.apiserver.kinds.support import CATALOG

APPLY, STRATEGIC = "application/apply-patch+yaml", "application/strategic-merge-patch+json"
Tree = dict[str, Any]


class LaterWorld(RealWorld):
    """The wall clock, set on by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.later = 0.0

    def now(self) -> float:
        return super().now() + self.later


def place(obj: dict[str, Any]) -> str:
    if obj["kind"] == "Sample":
        return path_of(obj, "samples", True)
    group, _, version = obj["apiVersion"].rpartition("/")
    kind = kinds.BY_GVK[group, version, obj["kind"]]
    return path_of(obj, kind.resource, kind.namespaced)


def test_every_kind_has_a_sample() -> None:
    sampled = {(s["apiVersion"], s["kind"]) for s in SAMPLES}
    missing = sorted({(s.kind.api_version, s.kind.kind) for s in CATALOG.values()} - sampled)
    assert not missing, f"write a manifest into tests/apiserver/kinds/samples.yaml for {missing}"


async def send_again(ask: Asker, way: str, number: int, obj: Tree, stored: Tree) -> Tree:
    """Sends the object once more, as its manifest or as the server has stored it; the answer."""
    one = f"{place(obj)}/{obj['metadata']['name']}"
    match way, number:
        case "apply", _:
            return await ask("PATCH", one, obj, query="fieldManager=me", type=APPLY)
        case "put", _:
            return await ask("PUT", one, stored)
        case "patches", 0:
            return await ask("PATCH", one, {})
        case "patches", 2 if obj["kind"] != "Sample":
            return await ask("PATCH", one, stored, type=STRATEGIC)
        case _:
            return await ask("PATCH", one, stored)


async def changes(ask: Asker, world: LaterWorld, way: str, obj: Tree) -> list[Any]:
    """Makes the object and sends it three times more: what changed, at most one."""
    path, name = place(obj), obj["metadata"]["name"]
    one = f"{path}/{name}"
    if way == "apply" or name == "default":
        first = await ask("PATCH", one, obj, query="fieldManager=me", type=APPLY)
    else:
        first = await ask("POST", path, obj)
    if obj["kind"] == "CustomResourceDefinition":
        await served_definition(ask)
        first = await ask("GET", one)
    for number in range(3):
        world.later += 1.5
        again = await send_again(ask, way, number, obj, first)
        if sorted_bytes(again) != sorted_bytes(first):
            return [(obj["kind"], number, first, again)]
    return []


@pytest.mark.parametrize("way", ["apply", "put", "patches"])
async def test_nothing_changes(way: str) -> None:
    world = LaterWorld()
    wrong: list[Any] = []
    async with served(world) as ask:
        for obj in SAMPLES:
            try:
                wrong += await changes(ask, world, way, obj)
            except AssertionError as error:
                wrong.append((obj["kind"], str(error)))
    assert not wrong, "\n".join(map(str, wrong))


def sorted_bytes(tree: Tree) -> bytes:
    return orjson.dumps(tree, option=orjson.OPT_SORT_KEYS)


async def served_definition(ask: Asker) -> None:
    """Waits until the sample definition is established."""
    while True:
        found = await ask("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/samples.example.com")
        conditions = {c["type"]: c["status"] for c in found.get("status", {}).get("conditions", ())}
        if conditions.get("Established") == "True":
            return
        await RealWorld().sleep(0.01)


async def test_apply_refuses_duplicates() -> None:
    """Two ports of one key: a POST may store them, with a warning; an apply cannot, also if it creates."""
    sample = copy_tree(next(s for s in SAMPLES if s["kind"] == "Deployment"))
    ports = [{"name": "one", "containerPort": 7001}, {"name": "two", "containerPort": 7001}]
    sample["spec"]["template"]["spec"]["containers"][0]["ports"] = ports
    path = place(sample)
    world = RealWorld()

    async with served(world) as ask:
        told = 'containers[name="c"].ports: duplicate entries for key [containerPort=7001,protocol="TCP"]'
        for first in (True, False):
            refused = await ask("PATCH", f"{path}/sample", sample, query="fieldManager=me", type=APPLY, code=400)
            assert told in refused["message"]
            if first:
                await ask("GET", f"{path}/sample", code=404)
                await ask("POST", path, sample)
