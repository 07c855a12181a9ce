"""Objects that somebody wrote into the store by another way, in a form that nobody can read: who deletes or changes one is
told so, or succeeds; neighbours do not notice."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson
import pytest

from apiserver.storage.store import Compare, Put
from tests.fuzz.support import Fuzzed, check, fuzzed

FORMS: dict[str, Any] = {
    "spec": {"spec": 5},
    "containers": {"spec": {"containers": 5}},
    "status": {"status": "x"},
    "finalizers": {"metadata": {"finalizers": "x"}},
    "finalizer": {"metadata": {"finalizers": [5]}},
    "managed-fields": {"metadata": {"managedFields": [5]}},
    "labels": {"metadata": {"labels": 5}},
    "owners": {"metadata": {"ownerReferences": 5}},
    "generation": {"metadata": {"generation": "x"}},
    "created": {"metadata": {"creationTimestamp": 5}},
    "deleted": {"metadata": {"deletionTimestamp": "x"}},
    "no-metadata": {"metadata": None},
    "a-list": [1],
    "no-json": b"{nope",
}
POLICIES = ("", *(f"propagationPolicy={p}" for p in ("Foreground", "Orphan", "Background")), "gracePeriodSeconds=0")
MERGE = "application/merge-patch+json"


async def put(ask: Fuzzed, key: str, data: bytes) -> None:
    await ask.server.store.txn([Compare(key, 0)], [Put(key, data)])
    await ask.server.cache.current()


def stored(form: Any, kind: str, name: str) -> bytes:
    if isinstance(form, bytes):
        return form
    metadata = {"name": name, "namespace": "a", "uid": "u", "creationTimestamp": "2024-01-01T00:00:00Z"}
    tree = {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": {"containers": [{"name": "a", "image": "b"}]}}
    if isinstance(form, list):
        return orjson.dumps(form)
    merged = {**tree, **form}
    if form.get("metadata"):
        merged["metadata"] = metadata | form["metadata"]
    return orjson.dumps(merged)


@pytest.mark.parametrize(("kind", "resource"), [("Pod", "pods"), ("ConfigMap", "configmaps")])
def test_what_nobody_can_read(kind: str, resource: str, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with fuzzed() as ask:
            path = f"/api/v1/namespaces/a/{resource}"
            good = {"metadata": {"name": "good"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
            assert (await ask("POST", path, good)).code == 201
            for what, form in FORMS.items():
                for number, policy in enumerate(POLICIES):
                    name = f"{what}-{number}"
                    await put(ask, f"/registry/{resource}/a/{name}", stored(form, kind, name))
                    for method, query in (("DELETE", policy), ("PATCH", ""), ("PUT", "")):
                        body: Any = b"" if method == "DELETE" else {"metadata": {"name": name, "finalizers": None}}
                        answer = await ask(
                            method, f"{path}/{name}", body, query=query, content_type=MERGE if method == "PATCH" else JSON
                        )
                        if answer.code < 500:
                            check(answer, (method, name, policy))
                            continue
                        told = f'Internal error occurred: {resource} "{name}" cannot be read as it is stored'
                        assert answer.tree["message"] == told and answer.tree["reason"] == "InternalError", answer.text
            assert (await ask("DELETE", f"{path}/good", b"")).code == 200

    cache = logging.getLogger("apiserver.cache.cache")  # which says of each that it leaves it out
    cache.disabled = True
    try:
        asyncio.run(run())
    finally:
        cache.disabled = False
    assert not [r for r in caplog.records if r.exc_info]


JSON = "application/json"
