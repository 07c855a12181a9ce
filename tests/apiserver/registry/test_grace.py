"""Any grace period that the API takes: deletion begins, can be shortened, and the time can be written."""

from __future__ import annotations

import asyncio

import pytest

from navarch.api.times import parse_time
from tests.fuzz.support import Fuzzed, fuzzed

PODS = "/api/v1/namespaces/a/pods"
YEARS = 292 * 366 * 86400


async def deleted(ask: Fuzzed, seconds: int, by_spec: bool) -> None:
    spec = {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}
    if by_spec:
        spec["terminationGracePeriodSeconds"] = seconds
    made = await ask("POST", PODS, {"metadata": {"name": "p"}, "spec": spec})
    assert made.code == 201, made.text
    now = parse_time(made.tree["metadata"]["creationTimestamp"])
    answer = await ask("DELETE", f"{PODS}/p", {} if by_spec else {"gracePeriodSeconds": seconds})
    metadata = answer.tree["metadata"]
    assert answer.code == 200 and metadata["deletionGracePeriodSeconds"] == seconds
    assert abs(parse_time(metadata["deletionTimestamp"]) - now) < YEARS  # more wraps around, as in Go
    shorter = (await ask("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 7})).tree["metadata"]
    assert shorter["deletionGracePeriodSeconds"] == 7
    assert parse_time(shorter["deletionTimestamp"]) - now == pytest.approx(7, abs=2)
    assert (await ask("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0})).code == 200
    assert (await ask("GET", f"{PODS}/p")).code == 404


@pytest.mark.parametrize("by_spec", [True, False])
def test_absurd_grace(by_spec: bool) -> None:
    """Fuzz found it: such a pod answered each delete, and that of its namespace, with 500."""

    async def run() -> None:
        async with fuzzed() as ask:
            for seconds in (30, 2**31, 9223372037, 10**12, 10**18, 2**53 + 1, 2**63 - 1):
                await deleted(ask, seconds, by_spec)

    asyncio.run(run())
