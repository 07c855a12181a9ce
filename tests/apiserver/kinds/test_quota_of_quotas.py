"""Quotas that count quotas: the one that goes is written by its own deletion, and by that of others."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.fuzz.support import Fuzzed, fuzzed

QUOTAS = "/api/v1/namespaces/a/resourcequotas"


def body(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"hard": {"resourcequotas": "20", "count/resourcequotas": "20"}}}


async def counted(ask: Fuzzed, name: str) -> None:
    """The quota controller does not run here: its part is done by hand."""
    status = {"hard": body(name)["spec"]["hard"], "used": {"resourcequotas": "1", "count/resourcequotas": "1"}}
    answer = await ask("PATCH", f"{QUOTAS}/{name}/status", {"status": status}, content_type="application/merge-patch+json")
    assert answer.code == 200, answer.text


async def busy(ask: Fuzzed, name: str) -> None:
    """Writers who queue up for the quota, so that its deletion has to hold the queue."""
    for i in range(30):
        patch = {"metadata": {"labels": {"n": str(i)}}}
        await ask("PATCH", f"{QUOTAS}/{name}", patch, content_type="application/merge-patch+json")
        await asyncio.sleep(0)


def test_quotas_that_go_at_once() -> None:
    """Fuzz found it: the deletion waited for itself, and everybody who created something in the namespace for it."""

    async def run() -> None:
        async with fuzzed() as ask:
            names = [f"q{i}" for i in range(6)]
            for name in names:
                answer = await ask("POST", QUOTAS, body(name))
                assert answer.code == 201, answer.text
                await counted(ask, name)
            writers = [busy(ask, name) for name in names for _ in range(3)]
            deletes = [ask("DELETE", f"{QUOTAS}/{name}", b"") for name in names]
            async with asyncio.timeout(20):
                await asyncio.gather(*writers, *deletes)
            async with asyncio.timeout(20):
                while names:
                    answer = await ask("DELETE", f"{QUOTAS}/{names[0]}", b"")
                    assert answer.code in (200, 404), answer.text
                    names.pop(0)
            made = await ask("POST", "/api/v1/namespaces/a/configmaps", {"metadata": {"name": "c"}})
            assert made.code == 201, made.text

    asyncio.run(run())
