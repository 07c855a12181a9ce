"""Random objects, valid by schema, of every kind: the API takes or refuses them, and stores nothing that nobody can read.

NAVARCH_FUZZ=100000 python -m pytest tests/fuzz/test_objects.py     # by hand, as many as one likes
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from navarch.api.kinds import Kind
from navarch.api.pruning import prepare
from navarch.api.schema import schema_of
from tests.fuzz import values
from tests.fuzz.objects import KINDS, Objects
from tests.fuzz.support import ROUNDS, Fuzzed, check, fuzzed

Tree = dict[str, Any]
SEEDS = (1, 2)
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: f"{k.resource}.{k.version}.{k.group}")
def test_objects_are_valid_by_schema(kind: Kind) -> None:
    objects = Objects(Random(kind.resource))
    for _ in range(20):
        tree = objects.of(kind)
        assert not prepare(copy.deepcopy(tree), schema_of(kind.type)), tree


async def lives(ask: Fuzzed, objects: Objects, rounds: int, *, webhook: bool = False) -> Counter[int]:
    """Creates random objects, changes some of them in each way, deletes some; returns how often which code came."""
    random, codes = objects.random, Counter[int]()
    for _ in range(rounds):
        kind, tree = objects.one()
        namespace = tree["metadata"].get("namespace")
        path, name = kind.path(namespace), tree["metadata"]["name"]
        if random.random() < 0.15:
            answer = await ask("PATCH", f"{path}/{name}", tree, query="fieldManager=f", content_type=APPLY)
        else:
            answer = await ask("POST", path, tree, query="fieldValidation=Strict")
        check(answer, (path, tree), webhook=webhook)
        codes[answer.code] += 1
        if answer.code != 201:
            continue
        for _ in range(random.choice((0, 1, 2))):
            changed = copy.deepcopy(tree)
            objects.mutate(changed, schema_of(kind.type), random.randrange(3))
            changed["metadata"]["name"] = name
            for field in ("resourceVersion", "managedFields", "namespace", "uid"):
                changed["metadata"].pop(field, None)
            way, part = random.choice(("PUT", MERGE, APPLY)), random.choice(("", "", "/status"))
            if way == "PUT":
                answer = await ask("PUT", f"{path}/{name}{part}", changed)
            else:
                query = "fieldManager=g&force=true" if way == APPLY else ""
                answer = await ask("PATCH", f"{path}/{name}{part}", changed, query=query, content_type=way)
            check(answer, (way, path, changed), webhook=webhook)
            codes[answer.code] += 1
        check(await ask("GET", f"{path}/{name}", headers=((b"accept", TABLE),)), ("table", path, tree))
        if random.random() < 0.2:
            check(await ask("DELETE", f"{path}/{name}", b""), ("DELETE", path, tree), webhook=webhook)
    return codes


TABLE = b"application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.mark.parametrize("seed", SEEDS)
async def test_random_objects(seed: int) -> None:
    async with fuzzed() as ask:
        codes = await lives(ask, Objects(Random(seed), namespaces=("default", "a", "b")), ROUNDS or 600)
        assert await ask.undecodable() == []
    assert codes[201] > 0.25 * codes.total(), codes


def scramble(objects: Objects, request: Tree) -> list[Tree] | bytes:
    """What a webhook does that mutates at random: within the schema, against it, or no patch at all."""
    random, tree = objects.random, request["object"]
    pick = random.randrange(8)
    if pick < 3:
        return []
    if pick == 3:
        return random.choice((b"{", b"[5]", b'[{"op": "no"}]', b"null", b"{}", b'[{"op": "add", "path": "x"}]'))
    spots = list(places(tree))
    path = random.choice(spots)
    value = values.json(random)
    operation = random.choice(("add", "replace", "remove"))
    if pick == 4:
        path = random.choice(
            ("/metadata/name", "/metadata/namespace", "/kind", "/metadata", "/spec", "", "/metadata/labels")
        )
    return [{"op": operation, "path": path} | ({} if operation == "remove" else {"value": value})]


def places(value: Any, at: str = "") -> Iterator[str]:
    """JSON pointers to everything inside."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, f"{at}/{str(key).replace('~', '~0').replace('/', '~1')}")


@pytest.mark.parametrize("seed", SEEDS)
async def test_random_objects_and_a_webhook_that_mutates_at_random(seed: int) -> None:
    async with fuzzed() as ask:
        objects = Objects(Random(seed), namespaces=("default", "a", "b"))
        await ask.mutate_with(lambda request: scramble(objects, request))
        codes = await lives(ask, objects, ROUNDS or 600, webhook=True)
        assert await ask.undecodable() == []
    assert codes[201] > 0.1 * codes.total() and codes[500], codes
