"""The life of an object of every kind, by every verb, as Kubernetes' conformance suite walks through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from apiserver.registry.strategy import Strategy
from apiserver.request import LOOPBACK
from navarch.client.transport import InProcessTransport
from tests.apiserver.kinds.served import Asker, served
from tests.apiserver.kinds.support import CATALOG, Tree, tree
from tests.apiserver.kinds.test_kinds import MINIMAL
from tests.apiserver.registry.test_watch import events, take

POD = "{metadata: {name: x, namespace: default}, spec: {containers: [{name: c, image: i}]}}"
ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
MARK = {"labels": {"life": "short"}}
SELECTED = "labelSelector=life%3Dshort"
NO_COLLECTION = {("", "namespaces")}
# The server itself acts on these, and may write to them at any moment.
BUSY = ("customresourcedefinitions", "apiservices", "flowschemas", "validatingadmissionpolicies")
NAMES = {("networking.k8s.io", "ipaddresses"): "10.9.9.9"}


CONDITION = {
    "type": "Mine", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z", "reason": "Because", "message": "patched"
}  # fmt: skip


def body_of(key: tuple[str, str]) -> Tree:
    obj = tree(POD if key == ("", "pods") else MINIMAL[key][0])
    kind = CATALOG[key].kind
    obj |= {"apiVersion": kind.api_version, "kind": kind.kind}
    obj["metadata"] = {"name": NAMES.get(key, obj["metadata"]["name"]), **MARK}
    return obj


async def until_gone(seen: AsyncIterator[Any]) -> list[Any]:
    """The events until one says DELETED."""
    found = await take(seen, 1)
    while found[-1]["type"] != "DELETED":
        found += await take(seen, 1)
    return found


async def update(ask: Asker, path: str) -> Tree:
    """A whole object written back with another annotation."""
    while True:
        current = await ask("GET", path)
        current["metadata"]["annotations"]["by"] = "update"
        try:
            return await ask("PUT", path, current)
        except AssertionError:  # a controller was faster
            if path.split("/")[-2] not in BUSY:
                raise


async def update_status(ask: Asker, rules: Strategy, path: str) -> None:
    """Writes the message of CONDITION by an update of the status, without a version if the kind allows that."""
    while True:
        whole = await ask("GET", f"{path}/status")
        mine = next(c for c in whole["status"]["conditions"] if c["type"] == "Mine")
        assert CONDITION.items() <= mine.items()
        mine["message"] = "updated"
        if rules.unconditional_update:
            whole["metadata"]["resourceVersion"] = ""
        try:
            await ask("PUT", f"{path}/status", whole)
            return
        except AssertionError:  # a controller was faster
            if rules.unconditional_update or rules.kind.resource not in BUSY:
                raise


async def conditions(ask: Asker, rules: Strategy, path: str, before: Tree) -> int:
    """Writes a condition by patch and by update of the status, and in vain past it; how many writes changed something."""
    patched = await ask("PATCH", f"{path}/status", {"status": {"conditions": [CONDITION]}})
    assert patched["metadata"].get("generation") == before["metadata"].get("generation")
    await update_status(ask, rules, path)
    elsewhere = {"status": {"conditions": [CONDITION | {"message": "not this way"}]}}
    assert "not this way" not in str(await ask("PATCH", path, elsewhere))
    now = await ask("GET", path)
    assert [c["message"] for c in now["status"]["conditions"] if c["type"] == "Mine"] == ["updated"]
    assert now.get("spec") == before.get("spec")
    return 2


async def live(ask: Asker, rules: Strategy, obj: Tree) -> None:
    kind, name = rules.kind, obj["metadata"]["name"]
    collection = kind.path("default" if kind.namespaced else None)
    path = f"{collection}/{name}"
    before = await ask("GET", collection, query=SELECTED)
    assert before["items"] == [] and before["kind"] == kind.list_kind
    watched = [
        ("watch", "1"),
        ("labelSelector", "life=short"),
        ("resourceVersion", before["metadata"]["resourceVersion"]),
    ]
    transport = InProcessTransport(ask.server.app, LOOPBACK)
    async with transport.stream("GET", collection, query=watched) as stream:
        seen = events(stream)
        made = await ask("POST", collection, obj, code=201)
        assert (made["apiVersion"], made["kind"]) == (kind.api_version, kind.kind)
        assert await ask("GET", path) == made
        for where in {collection, kind.path()}:
            items = (await ask("GET", where, query=SELECTED))["items"]
            assert [(i["metadata"]["name"], i["metadata"]["uid"]) for i in items] == [(name, made["metadata"]["uid"])]
        patched = await ask("PATCH", path, {"metadata": {"annotations": {"by": "patch"}}})
        assert patched["metadata"]["annotations"]["by"] == "patch"
        assert patched["metadata"].get("generation") == made["metadata"].get("generation"), "no change of the spec"
        updated = await update(ask, path)
        assert updated["metadata"]["annotations"]["by"] == "update"
        stale = updated | {"metadata": updated["metadata"] | {"resourceVersion": made["metadata"]["resourceVersion"]}}
        assert (await ask("PUT", path, stale, code=409))["reason"] == "Conflict"
        statuses = 0
        if rules.has_status:
            assert (await ask("GET", f"{path}/status"))["metadata"]["uid"] == made["metadata"]["uid"]
            said = await ask("PATCH", f"{path}/status", {"metadata": {"annotations": {"status": "seen"}}})
            assert (said.get("spec"), said["kind"]) == (updated.get("spec"), kind.kind)
            statuses = said["metadata"]["resourceVersion"] != updated["metadata"]["resourceVersion"]
            if "conditions" in rules.schema.fields["status"].fields:
                statuses += await conditions(ask, rules, path, said)
        else:
            assert (await ask("GET", f"{path}/status", code=404))["reason"] == "NotFound"
        if (kind.group, kind.resource) in NO_COLLECTION:
            assert (await ask("DELETE", collection, query=SELECTED, code=405))["reason"] == "MethodNotAllowed"
            return
        dry = await ask("DELETE", collection, query=f"{SELECTED}&dryRun=All&gracePeriodSeconds=0")
        assert [i["metadata"]["name"] for i in dry["items"]] == [name]
        assert (await ask("GET", path))["metadata"]["uid"] == made["metadata"]["uid"]
        gone = await ask("DELETE", collection, query=f"{SELECTED}&gracePeriodSeconds=0&propagationPolicy=Background")
        assert [i["metadata"]["name"] for i in gone["items"]] == [name]
        left = (await ask("GET", collection, query=SELECTED))["items"]
        for item in left:  # something must end first: whoever ends it says so
            assert item["metadata"]["deletionTimestamp"] and item["metadata"]["finalizers"]
            await ask("PATCH", path, {"metadata": {"finalizers": None}})
        types = [(e["type"], int(e["object"]["metadata"]["resourceVersion"])) for e in await until_gone(seen)]
        assert types == sorted(types, key=lambda t: t[1]) and len(types) == len({v for _, v in types})
        expected = ["ADDED", *["MODIFIED"] * (2 + statuses + len(left)), "DELETED"]
        assert [t for t, _ in types] == expected or kind.resource in BUSY, types
    assert (await ask("GET", path, code=404))["message"] == (
        f'{kind.resource}{"." + kind.group if kind.group else ""} "{name}" not found'
    )
    assert (await ask("DELETE", path, code=404))["details"]["name"] == name


async def test_every_kind_lives_and_goes() -> None:
    async with served() as ask:
        await ask("POST", "/api/v1/namespaces/default/serviceaccounts", ACCOUNT)
        for key in (key for key in CATALOG if key in MINIMAL or key == ("", "pods")):
            try:
                async with asyncio.timeout(20):
                    await live(ask, CATALOG[key], body_of(key))
            except Exception as error:
                error.add_note(f"{key}")
                raise
