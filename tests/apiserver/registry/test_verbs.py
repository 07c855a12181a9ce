"""Every verb on the schema-only kind."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

from tests.apiserver.registry.widget import ALL, PATH, Caller, widget

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


async def test_create(call: Caller) -> None:
    made = await call.make("a", color="red", replicas=2)
    metadata = made["metadata"]
    assert metadata["namespace"] == "ns" and metadata["generation"] == 1 and metadata["uid"]
    assert metadata["creationTimestamp"].endswith("Z") and int(metadata["resourceVersion"]) > 0
    again = await call("POST", PATH, widget("a"))
    assert (again.code, again.tree["reason"]) == (409, "AlreadyExists")
    assert again.tree["message"] == 'widgets.test.navarch.dev "a" already exists'
    assert again.tree["details"] == {"name": "a", "group": "test.navarch.dev", "kind": "widgets"}
    for body, code, words in (
        ({"apiVersion": "v2"}, 400, "does not match the expected API version"),
        ({"metadata": {"name": "B_b"}}, 422, 'metadata.name: Invalid value: "B_b"'),
        ({"metadata": {}}, 422, "metadata.name: Required value: name or generateName is required"),
        ({"metadata": {"name": "b", "namespace": "other"}}, 400, "does not match the namespace sent"),
        ({"metadata": {"name": "b", "labels": {"a b": "c"}}}, 422, 'metadata.labels: Invalid value: "a b"'),
        ({"metadata": {"name": "b", "resourceVersion": "4"}}, 400, "resourceVersion should not be set"),
        ({"metadata": {"name": "b", "finalizers": ["x"]}}, 422, "neither a standard finalizer name"),
        ({"spec": {"replicas": "many"}}, 400, "cannot be handled as a Widget"),
    ):
        answer = await call("POST", PATH, widget("b") | body)
        assert answer.code == code and words in answer.tree["message"], answer.tree
    status = await call("POST", PATH, widget("s") | {"status": {"phase": "x"}})
    assert "status" not in status.tree
    assert (await call("POST", PATH + "/a", widget("a"))).code == 405
    assert (await call("POST", ALL, widget("c"))).code == 405


async def test_generate_name_dry_run_and_nulls(call: Caller) -> None:
    body = widget() | {"metadata": {"generateName": "g-", "creationTimestamp": None, "labels": None}, "status": {}}
    names = {(await call("POST", PATH, body)).tree["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5 and all(n.startswith("g-") and len(n) == 7 for n in names)
    dry = await call("POST", PATH, widget("dry"), dryRun="All")
    assert dry.code == 201 and "resourceVersion" not in dry.tree["metadata"]
    assert (await call("GET", PATH + "/dry")).code == 404
    assert (await call("POST", PATH, widget("dry"), dryRun="Some")).code == 422
    yaml = b"kind: Widget\nmetadata:\n  name: yy\nspec: {color: 'on'}\n"
    read = await call("POST", PATH, yaml, "application/yaml")
    assert read.tree.get("spec") == {"color": "on"}, read.tree
    assert (await call("POST", PATH, b"{", "application/json")).code == 400
    assert (await call("POST", PATH, b"{}", "text/plain")).code == 415
    assert (await call("POST", PATH, b" " * (3 * 1024 * 1024 + 1))).code == 413


async def test_field_validation(call: Caller) -> None:
    body = b'{"kind":"Widget","metadata":{"name":"v"},"spec":{"color":"a","color":"b","foo":1}}'
    strict = await call("POST", PATH, body, fieldValidation="Strict")
    assert strict.code == 400
    assert strict.tree["message"] == (
        'Widget in version "v1" cannot be handled as a Widget: strict decoding error: '
        'duplicate field "spec.color", unknown field "spec.foo"'
    )
    warned = await call("POST", PATH, body)
    assert warned.code == 201 and warned.tree["spec"] == {"color": "b"}
    assert 'unknown field \\"spec.foo\\"' in warned.headers["warning"]
    patch = {"spec": {"bar": 1}}
    assert (await call("PATCH", PATH + "/v", patch, MERGE, fieldValidation="Strict")).code == 422
    ignored = await call("PATCH", PATH + "/v", patch, MERGE, fieldValidation="Ignore")
    assert ignored.code == 200 and "warning" not in ignored.headers


async def test_update(call: Caller) -> None:
    made = await call.make("a", color="red")
    version = made["metadata"]["resourceVersion"]
    same = await call("PUT", PATH + "/a", made)
    assert same.code == 200 and same.tree["metadata"]["resourceVersion"] == version
    changed = json.loads(json.dumps(made))
    changed["spec"]["color"] = "blue"
    changed["status"] = {"phase": "hacked"}
    changed["metadata"]["creationTimestamp"] = "2001-01-01T00:00:00Z"
    first = await call("PUT", PATH + "/a", changed)
    assert first.tree["metadata"]["generation"] == 2 and "status" not in first.tree
    assert first.tree["metadata"]["creationTimestamp"] == made["metadata"]["creationTimestamp"]
    stale = await call("PUT", PATH + "/a", changed | {"spec": {"color": "green"}})
    assert stale.code == 409 and "the object has been modified" in stale.tree["message"]
    free = await call("PUT", PATH + "/a", widget("a", color="green"))
    assert free.code == 200 and free.tree["metadata"]["uid"] == made["metadata"]["uid"]
    labels = await call("PATCH", PATH + "/a", {"metadata": {"labels": {"x": "y"}}}, MERGE)
    assert labels.tree["metadata"]["generation"] == free.tree["metadata"]["generation"]
    status = await call("PUT", PATH + "/a/status", widget("a", color="black") | {"status": {"phase": "Good"}})
    assert status.tree["spec"] == {"color": "green"} and status.tree["status"] == {"phase": "Good"}
    assert status.tree["metadata"]["labels"] == {"x": "y"}
    assert status.tree["metadata"]["generation"] == labels.tree["metadata"]["generation"]
    assert (await call("PUT", PATH + "/b", widget("b"))).code == 404
    assert (await call("PUT", PATH + "/a", widget("b"))).code == 400
    wrong = widget("a") | {"metadata": {"name": "a", "uid": "other"}}
    assert "Precondition failed: UID" in (await call("PUT", PATH + "/a", wrong)).tree["message"]


async def test_patches(call: Caller) -> None:
    await call.make("a", color="red", parts=[{"name": "x", "size": 1}])
    merged = await call("PATCH", PATH + "/a", {"spec": {"color": None, "replicas": 3}}, MERGE)
    assert merged.tree["spec"] == {"parts": [{"name": "x", "size": 1}], "replicas": 3}
    operations = [{"op": "add", "path": "/spec/parts/-", "value": {"name": "y"}}]
    assert len((await call("PATCH", PATH + "/a", operations, JSON_PATCH)).tree["spec"]["parts"]) == 2
    failing = [{"op": "test", "path": "/spec/replicas", "value": 4}]
    assert (await call("PATCH", PATH + "/a", failing, JSON_PATCH)).code == 422
    assert (await call("PATCH", PATH + "/a", {}, "application/strategic-merge-patch+json")).code == 415
    assert (await call("PATCH", PATH + "/a", b"[", MERGE)).code == 400
    assert (await call("PATCH", PATH + "/none", {}, MERGE)).code == 404
    renamed = await call("PATCH", PATH + "/a", {"metadata": {"name": "b"}}, MERGE)
    assert renamed.code == 400 and "does not match the name on the URL" in renamed.tree["message"]
    stale = await call("PATCH", PATH + "/a", {"metadata": {"resourceVersion": "1"}}, MERGE)
    assert stale.code == 409
    before = (await call("GET", PATH + "/a")).tree["metadata"]["resourceVersion"]
    nothing = await call("PATCH", PATH + "/a", {"spec": {"replicas": 3}}, MERGE)
    assert nothing.tree["metadata"]["resourceVersion"] == before


async def test_apply(call: Caller) -> None:
    config = widget("a", color="red", parts=[{"name": "x", "size": 1}])
    made = await call("PATCH", PATH + "/a", config, APPLY, fieldManager="one")
    assert made.code == 201 and made.tree["metadata"]["managedFields"][0]["operation"] == "Apply"
    again = await call("PATCH", PATH + "/a", config, APPLY, fieldManager="one")
    assert again.code == 200
    assert again.tree["metadata"]["resourceVersion"] == made.tree["metadata"]["resourceVersion"]
    other = widget("a", color="blue")
    conflict = await call("PATCH", PATH + "/a", other, APPLY, fieldManager="two")
    assert conflict.code == 409
    assert conflict.tree["details"]["causes"][0]["reason"] == "FieldManagerConflict"
    forced = await call("PATCH", PATH + "/a", other, APPLY, fieldManager="two", force="true")
    assert forced.tree["spec"]["color"] == "blue" and forced.tree["spec"]["parts"]
    assert (await call("PATCH", PATH + "/a", config, APPLY)).code == 422
    assert (await call("PATCH", PATH + "/a", {}, MERGE, force="true")).code == 422


async def test_managed_fields(call: Caller) -> None:
    await call.make("a", color="red")
    await call("PATCH", PATH + "/a", {"spec": {"replicas": 1}}, MERGE, fieldManager="scaler")
    await call("PATCH", PATH + "/a/status", {"status": {"phase": "Good"}}, MERGE, fieldManager="agent")
    entries = (await call("GET", PATH + "/a")).tree["metadata"]["managedFields"]
    owners = {(e["manager"], e.get("subresource", "")): e["fieldsV1"] for e in entries}
    assert owners["tester", ""]["f:spec"] == {".": {}, "f:color": {}}  # no Go struct: spec was made too
    assert owners["scaler", ""] == {"f:spec": {"f:replicas": {}}}
    assert "f:phase" in owners["agent", "status"]["f:status"]


async def test_delete(call: Caller) -> None:
    made = await call.make("a")
    uid = made["metadata"]["uid"]
    wrong = {"preconditions": {"uid": "no"}}
    assert (await call("DELETE", PATH + "/a", wrong)).code == 409
    assert (await call("DELETE", PATH + "/a", dryRun="All")).code == 200
    gone = await call("DELETE", PATH + "/a", {"preconditions": {"uid": uid}})
    assert gone.tree["status"] == "Success" and gone.tree["details"]["uid"] == uid
    assert (await call("DELETE", PATH + "/a")).code == 404
    for query, finalizer in ({"propagationPolicy": "Foreground"}, "foregroundDeletion"), (
        {"orphanDependents": "true"},
        "orphan",
    ):
        await call.make("f")
        marked = await call("DELETE", PATH + "/f", **query)
        metadata = marked.tree["metadata"]
        assert metadata["finalizers"] == [finalizer] and metadata["deletionTimestamp"]
        assert metadata["deletionGracePeriodSeconds"] == 0 and metadata["generation"] == 2
        added = await call("PATCH", PATH + "/f", {"metadata": {"finalizers": [finalizer, "a.b/c"]}}, MERGE)
        assert added.code == 422 and "no new finalizers can be added" in added.tree["message"]
        last = await call("PATCH", PATH + "/f", {"metadata": {"finalizers": None}}, MERGE)
        assert last.code == 200
        assert (await call("GET", PATH + "/f")).code == 404
    assert (await call("DELETE", PATH + "/f", propagationPolicy="Sideways")).code == 422
    both = {"propagationPolicy": "Orphan", "orphanDependents": True}
    assert (await call("DELETE", PATH + "/f", both)).code == 422


async def test_lists(call: Caller) -> None:
    for i in range(7):
        made = await call("POST", PATH, widget(f"w{i}", color="red" if i % 2 else "blue"))
    revision = made.tree["metadata"]["resourceVersion"]
    page = await call("GET", PATH, limit=3)
    assert [o["metadata"]["name"] for o in page.tree["items"]] == ["w0", "w1", "w2"]
    assert page.tree["metadata"]["remainingItemCount"] == 4
    token = page.tree["metadata"]["continue"]
    decoded = json.loads(base64.urlsafe_b64decode(token + "=="))
    assert decoded == {"v": "meta.k8s.io/v1", "rv": int(revision), "start": "ns/w2\0"}
    await call("DELETE", PATH + "/w5")
    rest = await call("GET", PATH, limit=10, continue_=token)
    assert [o["metadata"]["name"] for o in rest.tree["items"]] == ["w3", "w4", "w5", "w6"]
    assert rest.tree["metadata"]["resourceVersion"] == revision
    red = await call("GET", ALL, fieldSelector="spec.color=red", limit=1)
    assert "remainingItemCount" not in red.tree["metadata"] and red.tree["metadata"]["continue"]
    assert (await call("GET", PATH, fieldSelector="spec.size=1")).code == 400
    assert (await call("GET", PATH, labelSelector="a b")).code == 400
    assert len((await call("GET", PATH, fieldSelector="metadata.name=w1")).tree["items"]) == 1
    old = await call("GET", PATH, resourceVersion=revision, resourceVersionMatch="Exact")
    assert len(old.tree["items"]) == 7
    assert (await call("GET", PATH, resourceVersionMatch="Exact")).code == 422
    assert (await call("GET", PATH, continue_="nonsense")).code == 400
    await call.server.store.compact(await call.server.store.current_revision())
    call.server.cache._resources["/registry/widgets/"].history.floor = call.server.cache.revision
    expired = await call("GET", PATH, limit=3, continue_=token)
    assert (expired.code, expired.tree["reason"]) == (410, "Expired")
    fresh = await call("GET", PATH, continue_=expired.tree["metadata"]["continue"])
    assert [o["metadata"]["name"] for o in fresh.tree["items"]] == ["w3", "w4", "w6"]


async def test_future_revision(call: Caller) -> None:
    answer = await call("GET", PATH, resourceVersion="100000")
    assert answer.code == 504 and answer.tree["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert (await call("GET", PATH, resourceVersion="x")).code == 400


async def test_tables_and_metadata_only(call: Caller) -> None:
    await call.make("a", color="red")
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    table = (await call("GET", PATH, accept=accept)).tree
    assert table["kind"] == "Table" and table["rows"][0]["cells"] == ["a", "red"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    whole = await call("GET", PATH + "/a", accept=accept, includeObject="Object")
    assert whole.tree["rows"][0]["object"]["spec"] == {"color": "red"}
    meta = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    listed = (await call("GET", PATH, accept=meta)).tree
    assert listed["kind"] == "PartialObjectMetadataList" and "spec" not in listed["items"][0]
    assert (await call("GET", PATH, accept="application/vnd.kubernetes.protobuf")).code == 406
    both = "application/vnd.kubernetes.protobuf,application/json"
    assert (await call("GET", PATH, accept=both)).tree["kind"] == "WidgetList"
    assert "kind: Widget" in (await call("GET", PATH + "/a", accept="application/yaml")).tree


async def test_scale_and_collection(call: Caller) -> None:
    await call.make("a", replicas=2, selector={"matchLabels": {"x": "y"}})
    scale = (await call("GET", PATH + "/a/scale")).tree
    assert scale["kind"] == "Scale" and scale["spec"] == {"replicas": 2}
    assert scale["status"] == {"replicas": 0, "selector": "x=y"}
    scaled = await call("PATCH", PATH + "/a/scale", {"spec": {"replicas": 5}}, MERGE)
    assert scaled.tree["spec"] == {"replicas": 5}
    scale["spec"]["replicas"] = 7
    assert (await call("PUT", PATH + "/a/scale", scale)).code == 409
    scale["metadata"].pop("resourceVersion")
    assert (await call("PUT", PATH + "/a/scale", scale)).code == 200
    assert (await call("GET", PATH + "/a")).tree["spec"]["replicas"] == 7
    negative = await call("PATCH", PATH + "/a/scale", {"spec": {"replicas": -1}}, MERGE)
    assert negative.code == 422
    await call.make("b", color="red")
    assert (await call("DELETE", PATH, fieldSelector="spec.color=red")).code == 200
    assert [o["metadata"]["name"] for o in (await call("GET", PATH)).tree["items"]] == ["a"]
    assert (await call("GET", "/apis/test.navarch.dev/v1/countries/x/scale")).code == 404


async def test_apply_to_scale(call: Caller) -> None:
    """Owners of the object's replicas are owners of the Scale's, and the other way round."""

    def owners(tree: Any) -> dict[tuple[str, str], Any]:
        found = tree["metadata"]["managedFields"]
        return {(e["manager"], e.get("subresource", "")): e["fieldsV1"].get("f:spec", {}) for e in found}

    widget = {"apiVersion": "test.navarch.dev/v1", "kind": "Widget", "metadata": {"name": "a"}}
    config = {**widget, "spec": {"replicas": 2, "color": "red"}}
    assert (await call("PATCH", PATH + "/a", config, APPLY, fieldManager="git")).code == 201
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": 5}}
    assert (await call("PATCH", PATH + "/a/scale", scale, APPLY)).code == 422  # who?
    conflict = await call("PATCH", PATH + "/a/scale", scale, APPLY, fieldManager="hpa")
    assert conflict.code == 409 and conflict.tree["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "git"', "field": ".spec.replicas"}
    ]
    scaled = await call("PATCH", PATH + "/a/scale", scale, APPLY, fieldManager="hpa", force="true")
    assert scaled.code == 200 and scaled.tree["spec"] == {"replicas": 5}
    now = (await call("GET", PATH + "/a")).tree
    assert owners(now) == {("git", ""): {"f:color": {}}, ("hpa", "scale"): {"f:replicas": {}}}
    entry = next(e for e in now["metadata"]["managedFields"] if e["manager"] == "hpa")
    assert (entry["operation"], entry["apiVersion"]) == ("Apply", "test.navarch.dev/v1")
    again = await call("PATCH", PATH + "/a/scale", scale, APPLY, fieldManager="hpa")
    assert again.tree["metadata"]["resourceVersion"] == now["metadata"]["resourceVersion"]  # nothing to do
    refused = await call("PATCH", PATH + "/a", config, APPLY, fieldManager="git")
    assert 'conflict with "hpa" with subresource "scale": .spec.replicas' in refused.tree["message"]
    await call("PATCH", PATH + "/a/scale", {"spec": {"replicas": 9}}, MERGE, fieldManager="admin")
    found = owners((await call("GET", PATH + "/a")).tree)
    assert found == {("git", ""): {"f:color": {}}, ("admin", "scale"): {"f:replicas": {}}}
    wrong = {**scale, "kind": "Widget"}
    assert (await call("PATCH", PATH + "/a/scale", wrong, APPLY, fieldManager="hpa")).code == 400
    other = {**scale, "metadata": {"name": "b"}}
    assert (await call("PATCH", PATH + "/b/scale", other, APPLY, fieldManager="hpa")).code == 404


async def test_cluster_scoped(call: Caller) -> None:
    path = "/apis/test.navarch.dev/v1/countries"
    body: dict[str, Any] = {"metadata": {"name": "fr", "namespace": "dropped"}}
    made = await call("POST", path, body)
    assert made.code == 201 and "namespace" not in made.tree["metadata"]
    assert (await call("GET", path + "/fr")).tree["kind"] == "Country"
    assert (await call("GET", path + "/fr/status")).code == 404
    assert (await call("GET", "/apis/test.navarch.dev/v1/namespaces/ns/countries")).code == 404
    assert (await call("GET", "/apis/test.navarch.dev/v2/countries")).code == 404


async def test_racing_writers(call: Caller) -> None:
    """64 writers of one object: every one gets through, and nothing is lost."""

    await call.make("a")

    async def label(i: int) -> None:
        answer = await call("PATCH", PATH + "/a", {"metadata": {"labels": {f"l{i}": "x"}}}, MERGE)
        assert answer.code == 200, answer.tree
        seen = (await call("GET", PATH + "/a")).tree["metadata"]["labels"]
        assert f"l{i}" in seen  # reads follow one's own writes
        listed = (await call("GET", PATH)).tree["items"][0]["metadata"]["labels"]
        assert f"l{i}" in listed

    await asyncio.gather(*(label(i) for i in range(64)))
    assert len((await call("GET", PATH + "/a")).tree["metadata"]["labels"]) == 64
    body = widget() | {"metadata": {"generateName": "r-"}}
    made = await asyncio.gather(*(call("POST", PATH, body) for _ in range(64)))
    assert len({m.tree["metadata"]["name"] for m in made}) == 64
    same = await asyncio.gather(*(call("POST", PATH, widget("one")) for _ in range(64)))
    assert sorted(a.code for a in same) == [201] + [409] * 63
