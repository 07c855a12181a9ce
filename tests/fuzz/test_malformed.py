"""Whatever a client sends, the answer is a Status of the client's fault that a person understands.

NAVARCH_FUZZ=100000 python -m pytest tests/fuzz/test_malformed.py     # by hand, as many as one likes
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
import yaml

from tests.apiserver.kinds.support import CATALOG
from tests.apiserver.kinds.test_kinds import MINIMAL
from tests.fuzz.malformed import Malformed, Sent
from tests.fuzz.support import ROUNDS, Answer, Fuzzed, check, fuzzed

REPAIR = 250  # requests after which what was deleted is made again
POD = {"spec": {"containers": [{"name": "c", "image": "i"}]}}


async def make(ask: Fuzzed) -> None:
    """One object of each kind, named as the requests have it."""
    for resource in ("resourcequotas", "limitranges"):
        await ask("DELETE", f"/api/v1/namespaces/default/{resource}")
    for key, strategy in CATALOG.items():
        tree: Any = yaml.safe_load(MINIMAL[key][0]) if key in MINIMAL else dict(POD)
        metadata = tree["metadata"] = dict(tree.get("metadata") or {})
        metadata.pop("namespace", None)
        if strategy.kind.resource not in ("customresourcedefinitions", "apiservices", "ipaddresses"):
            metadata["name"] = "there"
        for field in ("involvedObject", "regarding"):
            if field in tree:
                tree[field]["namespace"] = "default"
        check(await ask("POST", strategy.kind.path("default"), tree), ("POST", key))


async def send(ask: Fuzzed, sent: Sent) -> Answer:
    async with asyncio.timeout(20):
        return await ask(
            sent.method, sent.path, sent.body, query=sent.query, content_type=sent.content_type,
            headers=((b"accept", sent.accept),),
        )  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2])
async def test_malformed_requests(seed: int) -> None:
    malformed = Malformed(Random(seed))
    async with fuzzed() as ask:
        for i in range(ROUNDS or 1000):
            if i % REPAIR == 0:
                await make(ask)
            sent = malformed.request()
            check(await send(ask, sent), sent)
        assert await ask.undecodable() == []
