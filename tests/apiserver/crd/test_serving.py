"""A definition from its creation to its end, and the kind that it serves."""

from __future__ import annotations

import asyncio
from typing import Any

from apiserver.registry.options import ListOptions
from apiserver.storage.memory import MemoryStore
from tests.apiserver.crd.support import (
    APPLY,
    CRDS,
    JSON_PATCH,
    MERGE,
    PATH,
    STRATEGIC,
    Caller,
    crontab,
    crontabs,
    serving,
)

NAME = "crontabs.stable.example.com"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


async def test_life_of_a_definition(call: Caller) -> None:
    assert (await call("GET", PATH)).code == 404
    made = await call.ok("POST", CRDS, crontabs())
    assert made["status"]["storedVersions"] == ["v1"]
    assert made["spec"]["names"]["listKind"] == "CronTabList" and made["spec"]["conversion"] == {"strategy": "None"}
    found = await call.established(NAME)
    reasons = {c["type"]: c["reason"] for c in found["status"]["conditions"]}
    assert reasons == {"NamesAccepted": "NoConflicts", "Established": "InitialNamesAccepted"}
    assert found["status"]["acceptedNames"]["shortNames"] == ["ct"]
    assert found["metadata"]["generation"] == 1
    # At once after Established:
    one = await call.ok("POST", PATH, crontab())
    assert one["spec"] == {"cronSpec": "* * 5", "replicas": 1} and one["metadata"]["generation"] == 1
    listed = await call.ok("GET", PATH)
    assert listed["kind"] == "CronTabList" and len(listed["items"]) == 1
    await call.ok("PATCH", f"{PATH}/a", {"metadata": {"finalizers": ["example.com/x"]}}, MERGE)
    # Deletion waits for the objects.
    await call.ok("DELETE", f"{CRDS}/{NAME}")
    going = await call.established(NAME, kind="Terminating")
    assert going["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    refused = await call("POST", PATH, crontab("b"))
    assert (
        refused.code == 405
        and "create not allowed while custom resource definition is terminating" in refused.message
    )
    while "deletionTimestamp" not in (await call.ok("GET", f"{PATH}/a"))["metadata"]:
        await asyncio.sleep(0.005)
    await call.ok("PATCH", f"{PATH}/a", {"metadata": {"finalizers": None}}, MERGE)
    await call.gone(f"{CRDS}/{NAME}")
    await call.gone(PATH)
    assert "stable.example.com" not in [g["name"] for g in (await call.ok("GET", "/apis"))["groups"]]
    # And again, with nothing left of the past.
    await call.define(crontabs())
    assert (await call.ok("GET", PATH))["items"] == []


async def test_discovery_and_openapi(call: Caller) -> None:
    before = (await call.ok("GET", "/openapi/v3"))["paths"]
    await call.define(crontabs())
    resources = {r["name"]: r for r in (await call.ok("GET", "/apis/stable.example.com/v1"))["resources"]}
    assert sorted(resources) == ["crontabs", "crontabs/scale", "crontabs/status"]
    assert resources["crontabs"]["shortNames"] == ["ct"] and resources["crontabs"]["categories"] == ["all"]
    assert resources["crontabs/scale"]["kind"] == "Scale"
    groups = (await call.ok("GET", "/apis", accept=AGGREGATED))["items"]
    mine = next(g for g in groups if g["metadata"]["name"] == "stable.example.com")
    assert mine["versions"][0]["resources"][0]["responseKind"]["kind"] == "CronTab"
    after = (await call.ok("GET", "/openapi/v3"))["paths"]
    assert set(after) - set(before) == {"apis/stable.example.com/v1"}
    url = after["apis/stable.example.com/v1"]["serverRelativeURL"]
    path, _, query = url.partition("?hash=")
    document = await call.ok("GET", path, hash=query)
    schema = document["components"]["schemas"]["com.example.stable.v1.CronTab"]
    gvk = {"group": "stable.example.com", "version": "v1", "kind": "CronTab"}
    assert schema["x-kubernetes-group-version-kind"] == [gvk]
    assert schema["properties"]["spec"]["properties"]["cronSpec"]["description"] == "When it runs."
    patch = document["paths"][PATH.replace("default", "{namespace}") + "/{name}"]["patch"]
    assert STRATEGIC not in patch["requestBody"]["content"] and APPLY in patch["requestBody"]["content"]
    # Another schema, another document.
    change = [{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/description", "value": "New."}]
    await call.ok("PATCH", f"{CRDS}/{NAME}", change, JSON_PATCH)
    while True:
        now = (await call.ok("GET", "/openapi/v3"))["paths"]["apis/stable.example.com/v1"]["serverRelativeURL"]
        if now != url:
            break
        await asyncio.sleep(0.005)
    document = await call.ok("GET", path)
    assert document["components"]["schemas"]["com.example.stable.v1.CronTab"]["description"] == "New."


async def test_table_selectors_and_subresources(call: Caller) -> None:
    await call.define(crontabs())
    await call.ok("POST", PATH, crontab("a", color="red", replicas=3) | {"status": {"phase": "x"}})
    await call.ok("POST", PATH, crontab("b", color="green"))
    table = await call.ok("GET", PATH, accept=TABLE)
    assert [c["name"] for c in table["columnDefinitions"]] == ["Name", "Spec", "Replicas", "Age"]
    assert table["columnDefinitions"][2]["description"] == "How many."
    assert [r["cells"][:3] for r in table["rows"]] == [["a", "* * 5", 3], ["b", "* * 5", 1]]
    red = await call.ok("GET", PATH, fieldSelector="spec.color=red,spec.replicas=3")
    assert [i["metadata"]["name"] for i in red["items"]] == ["a"]
    assert (await call("GET", PATH, fieldSelector="spec.image=x")).code == 400
    # Status and spec keep apart.
    assert "status" not in red["items"][0]
    body = crontab("a", color="green") | {"status": {"replicas": 3, "selector": "a=b", "phase": "Good"}}
    body["metadata"]["resourceVersion"] = red["items"][0]["metadata"]["resourceVersion"]
    updated = await call.ok("PUT", f"{PATH}/a/status", body)
    assert updated["spec"]["color"] == "red" and updated["status"]["phase"] == "Good"
    assert updated["metadata"]["generation"] == 1
    scale = await call.ok("GET", f"{PATH}/a/scale")
    assert scale["kind"] == "Scale" and scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 3, "selector": "a=b"}
    await call.ok("PATCH", f"{PATH}/a/scale", {"spec": {"replicas": 5}}, MERGE)
    found = await call.ok("GET", f"{PATH}/a")
    assert found["spec"]["replicas"] == 5 and found["metadata"]["generation"] == 2
    bad = await call("PATCH", f"{PATH}/a/scale", {"spec": {"replicas": 50}}, MERGE)
    assert bad.code == 422 and "should be less than or equal to 10" in bad.message


def test_patches_and_apply() -> None:
    async def test(call: Caller) -> None:
        await call.define(crontabs())
        parts = [{"name": "x"}, {"name": "y", "size": 1}]
        await call.ok("POST", PATH, crontab("a", parts=parts, tags=["t"]))
        assert (await call("PATCH", f"{PATH}/a", {"spec": {}}, STRATEGIC)).code == 415
        merged = await call.ok("PATCH", f"{PATH}/a", {"spec": {"image": "i", "labels": {"a": "b"}}}, MERGE)
        assert merged["spec"]["image"] == "i" and merged["metadata"]["generation"] == 2
        change = [{"op": "replace", "path": "/spec/image", "value": "j"}]
        assert (await call.ok("PATCH", f"{PATH}/a", change, JSON_PATCH))["spec"]["image"] == "j"

        def config(**spec: Any) -> dict[str, Any]:
            return {"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"}, "spec": spec}

        one = config(parts=[{"name": "z", "size": 3}], tags=["u"])
        applied = await call.ok("PATCH", f"{PATH}/a", one, APPLY, fieldManager="me")
        assert {p["name"]: p["size"] for p in applied["spec"]["parts"]} == {"x": 7, "y": 1, "z": 3}
        assert sorted(applied["spec"]["tags"]) == ["t", "u"]
        clash = await call("PATCH", f"{PATH}/a", config(image="k"), APPLY, fieldManager="you")
        assert clash.code == 409 and 'conflict with "t"' in clash.message and ".spec.image" in clash.message
        left = await call.ok("PATCH", f"{PATH}/a", config(tags=["u"]), APPLY, fieldManager="me")
        assert [p["name"] for p in left["spec"]["parts"]] == ["x", "y"]
        fresh = config(cronSpec="* *") | {"metadata": {"name": "new"}}
        assert (await call("PATCH", f"{PATH}/new", fresh, APPLY, fieldManager="me")).code == 201

    serving(test)


async def test_several_versions(call: Caller) -> None:
    definition = crontabs()
    first = definition["spec"]["versions"][0]
    beta = {k: first[k] for k in ("schema", "served")} | {"name": "v1beta1", "storage": False, "deprecated": True}
    beta["schema"] = {
        "openAPIV3Schema": {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "properties": {"cronSpec": {"type": "string"}, "extra": {"type": "string", "default": "e"}},
                }
            },
        }
    }
    definition["spec"]["versions"].append(beta)
    await call.define(definition)
    group = await call.ok("GET", "/apis/stable.example.com")
    assert [v["version"] for v in group["versions"]] == ["v1", "v1beta1"]
    await call.ok("POST", PATH, crontab("a", color="red"))
    old = PATH.replace("/v1/", "/v1beta1/")
    answer = await call("GET", f"{old}/a")
    assert answer.tree["apiVersion"] == "stable.example.com/v1beta1"
    assert answer.tree["spec"] == {"cronSpec": "* * 5", "extra": "e"}
    assert answer.headers["warning"] == '299 - "stable.example.com/v1beta1 CronTab is deprecated"'
    await call.ok("POST", old, crontab("b") | {"apiVersion": "stable.example.com/v1beta1"})
    items = (await call.ok("GET", PATH))["items"]
    assert [i["apiVersion"] for i in items] == ["stable.example.com/v1"] * 2
    # Another storage version: both stay readable, and storedVersions remembers.
    definition = await call.ok("GET", f"{CRDS}/{NAME}")
    definition["spec"]["versions"][0]["storage"] = False
    definition["spec"]["versions"][1]["storage"] = True
    changed = await call.ok("PUT", f"{CRDS}/{NAME}", definition)
    assert changed["status"]["storedVersions"] == ["v1", "v1beta1"]
    await call.ok("POST", PATH, crontab("c", color="green"))
    items = (await call.ok("GET", PATH))["items"]
    assert [i["metadata"]["name"] for i in items] == ["a", "b", "c"]
    refused = await call("PATCH", f"{CRDS}/{NAME}/status", {"status": {"storedVersions": ["v1"]}}, MERGE)
    assert refused.code == 422 and "must have the storage version v1beta1" in refused.message


async def test_names_conflict_until_they_are_free(call: Caller) -> None:
    await call.define(crontabs())
    other = crontabs()
    other["metadata"]["name"] = "others.stable.example.com"
    other["spec"]["names"] = {"plural": "others", "kind": "Other", "shortNames": ["ct"]}
    await call.ok("POST", CRDS, other)
    found = await call.established("others.stable.example.com", "False", "NamesAccepted")
    clash = next(c for c in found["status"]["conditions"] if c["type"] == "NamesAccepted")
    assert (clash["reason"], clash["message"]) == ("ShortNamesConflict", '"ct" is already in use')
    assert (await call("GET", PATH.replace("crontabs", "others"))).code == 404
    await call.ok("DELETE", f"{CRDS}/{NAME}")
    await call.established("others.stable.example.com")
    await call.ok("GET", PATH.replace("crontabs", "others"))


async def test_schema_change_reaches_old_objects(call: Caller) -> None:
    await call.define(crontabs())
    await call.ok("POST", PATH, crontab("a", image="i", replicas=9))
    definition = await call.ok("GET", f"{CRDS}/{NAME}")
    spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"]["image"]
    spec["properties"]["fresh"] = {"type": "string", "default": "f"}
    spec["properties"]["replicas"]["maximum"] = 5
    await call.ok("PUT", f"{CRDS}/{NAME}", definition)
    while "fresh" not in (found := await call.ok("GET", f"{PATH}/a"))["spec"]:
        await asyncio.sleep(0.005)
    assert found["spec"] == {"cronSpec": "* * 5", "replicas": 9, "fresh": "f"}
    # Ratcheting: what is wrong already does not stand in the way of other changes.
    await call.ok("PATCH", f"{PATH}/a", {"spec": {"color": "red"}}, MERGE)
    worse = await call("PATCH", f"{PATH}/a", {"spec": {"replicas": 8}}, MERGE)
    assert worse.code == 422


def test_restart() -> None:
    store = MemoryStore()

    async def before(call: Caller) -> None:
        await call.define(crontabs())
        await call.ok("POST", PATH, crontab("a", color="red"))

    async def after(call: Caller) -> None:
        # No waiting: the kind is served as soon as the server is ready.
        found = await call.ok("GET", PATH, fieldSelector="spec.color=red")
        assert [i["metadata"]["name"] for i in found["items"]] == ["a"]
        await call.ok("PATCH", f"{PATH}/a", {"spec": {"color": "green"}}, MERGE)

    serving(before, store)
    serving(after, store)


async def test_watches_end_with_the_definition(call: Caller) -> None:
    await call.define(crontabs())
    await call.ok("POST", PATH, crontab("a"))
    seen: list[str] = []

    async def watch() -> None:
        resource = call.server.resources["stable.example.com", "crontabs"]
        with await resource.watch("default", "", ListOptions()) as watcher:
            while events := await watcher.batch():
                seen.extend(e.type for e in events)

    async with call.server.world.task_group() as group:
        group.start(watch())
        while not seen:
            await asyncio.sleep(0.005)
        await call.ok("DELETE", f"{CRDS}/{NAME}")
    assert seen == ["ADDED", "DELETED"]
    # A request that was under way while the kind went finds nothing, and no error of ours.
    old = call.server.resources["apiextensions.k8s.io", "customresourcedefinitions"]
    assert old.cached("", NAME) is None
    assert (await call("POST", PATH, crontab("b"))).code == 404


async def test_published_definitions(call: Caller) -> None:
    """Without a schema nothing but the kind is published; what keeps unknown fields names none in v2; apiVersion, kind and
    metadata are described as those of built-in kinds."""

    for plural, kind, schema in (
        ("opens", "Open", {"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
        ("nests", "Nest", {"type": "object", "properties": {
            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True,
                     "properties": {"a": {"type": "string"}}}}}),
        ("plains", "Plain", {"type": "object", "properties": {"a": {"type": "string"}}}),
    ):  # fmt: skip
        definition = crontabs()
        definition["metadata"]["name"] = f"{plural}.{definition['spec']['group']}"
        definition["spec"]["names"] = {"plural": plural, "kind": kind}
        [version] = [v for v in definition["spec"]["versions"] if v["storage"]]
        definition["spec"]["versions"] = [{"name": version["name"], "served": True, "storage": True,
                                           "schema": {"openAPIV3Schema": schema}}]  # fmt: skip
        await call.define(definition)
    document = await call.ok("GET", "/openapi/v2")
    found = {name.rsplit(".", 1)[-1]: one for name, one in document["definitions"].items()}
    gvk = "x-kubernetes-group-version-kind"
    assert found["Open"].keys() == {"type", gvk}
    assert found["Nest"]["properties"]["spec"] == {"x-kubernetes-preserve-unknown-fields": True}
    known = document["definitions"]["io.k8s.api.core.v1.ConfigMap"]["properties"]
    for field in ("apiVersion", "kind", "metadata"):
        assert found["Plain"]["properties"][field] == known[field]
