"""Whatever way an object takes to the store: rights, types and identity hold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import yaml

from apiserver.request import User
from tests.apiserver.kinds.samples import SAMPLES
from tests.apiserver.kinds.support import CATALOG
from tests.apiserver.kinds.test_kinds import MINIMAL
from tests.apiserver.kinds.test_no_change import place
from tests.fuzz.support import Answer, Fuzzed, fuzzed
from tests.within import Within

Tree = dict[str, Any]
Ask = Callable[[Fuzzed], Awaitable[None]]
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
STRATEGIC, JSON = "application/strategic-merge-patch+json", "application/json-patch+json"
EVE = User("eve", ("system:authenticated",))
POD: Tree = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]},
}  # fmt: skip
CRD: Tree = {
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "versions": [{
            "name": "v1", "served": True, "storage": True, "subresources": {"status": {}, "scale": {
                "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {
                    "replicas": {"type": "integer"}, "on": {"type": "boolean"},
                    "flags": {"type": "array", "items": {"type": "boolean"}},
                    "picks": {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True,
                              "enum": [{"a": 1}]}},
                    "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                    "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                            "items": {"type": "object", "required": ["k"], "properties": {
                                "k": {"type": "string"}, "v": {"x-kubernetes-preserve-unknown-fields": True}}}},
                    "part": {"type": "object", "x-kubernetes-embedded-resource": True,
                             "x-kubernetes-preserve-unknown-fields": True}}},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}},
        }],
    },
}  # fmt: skip
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"
WIDGET: Tree = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {}}


def run(body: Ask) -> None:
    async def main() -> None:
        async with fuzzed() as ask:
            await body(ask)

    asyncio.run(main())


@pytest.fixture
def ask() -> Within:
    return Within(run)


async def define(ask: Fuzzed) -> None:
    answer = await ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", CRD)
    assert answer.code == 201, answer
    async with asyncio.timeout(10):
        while (await ask("GET", WIDGETS)).code != 200:
            await asyncio.sleep(0)


async def grant(ask: Fuzzed, *rules: tuple[str, str, str]) -> None:
    """Gives Eve (group, resource, verbs)."""
    tree = [{"apiGroups": [g], "resources": [r], "verbs": v.split()} for g, r, v in rules]
    at = "/apis/rbac.authorization.k8s.io/v1"
    await ask("DELETE", f"{at}/clusterroles/eve")
    assert (await ask("POST", f"{at}/clusterroles", {"metadata": {"name": "eve"}, "rules": tree})).code == 201
    binding = {
        "metadata": {"name": "eve"}, "subjects": [{"kind": "User", "name": "eve"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "eve"},
    }  # fmt: skip
    assert (await ask("POST", f"{at}/clusterrolebindings", binding)).code in (201, 409)
    await ask.server.cache.current()


# Rights


SELF = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
LEASE: Tree = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}}
CREATIONS: list[tuple[str, str, str, str, str, Tree]] = [
    # group, resource, the verb that Eve has, method, path, body
    ("", "pods", "patch", APPLY, "/api/v1/namespaces/default/pods/p", POD),
    ("", "configmaps", "patch", APPLY, "/api/v1/namespaces/default/configmaps/c",
     {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}),
    ("", "namespaces", "patch", APPLY, "/api/v1/namespaces/n",
     {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}),
    ("example.com", "widgets", "patch", APPLY, WIDGETS + "/w", WIDGET),
    ("coordination.k8s.io", "leases", "update", "PUT", "/apis/coordination.k8s.io/v1/namespaces/default/leases/l", LEASE),
    ("", "services", "update", "PUT", "/api/v1/namespaces/default/services/s",
     {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}),
    ("", "endpoints", "update", "PUT", "/api/v1/namespaces/default/endpoints/e", {"metadata": {"name": "e"}}),
    ("rbac.authorization.k8s.io", "roles", "update escalate", "PUT",
     "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles/r", {"metadata": {"name": "r"}}),
]  # fmt: skip


async def _make(ask: Fuzzed, method: str, path: str, body: Tree) -> Answer:
    if method == "PUT":
        return await ask("PUT", path, body, user=EVE)
    return await ask("PATCH", path, body, query="fieldManager=eve", content_type=method, user=EVE)


@pytest.mark.parametrize(
    "group, resource, verb, method, path, body", CREATIONS, ids=[f"{c[3]} {c[1]}" for c in CREATIONS]
)
async def test_who_creates_may_create(
    ask: Fuzzed, group: str, resource: str, verb: str, method: str, path: str, body: Tree
) -> None:
    await define(ask)
    await grant(ask, (group, resource, verb))
    namespace = "" if resource == "namespaces" else "default"
    wanted = {"group": group, "resource": resource, "verb": "create", "namespace": namespace}
    can = await ask("POST", SELF, {"spec": {"resourceAttributes": wanted}}, user=EVE)
    assert can.tree["status"]["allowed"] is False
    answer = await _make(ask, method, path, body)
    name = path.rsplit("/", 1)[1]
    shown = f"{resource}.{group}" if group else resource
    assert (answer.code, answer.tree["reason"]) == (403, "Forbidden")
    assert answer.tree["message"].startswith(
        f'{shown} "{name}" is forbidden: User "eve" cannot create resource "{resource}" in API group "{group}"'
    )
    assert (await ask("GET", path)).code == 404
    await grant(ask, (group, resource, f"{verb} create"))
    can = await ask("POST", SELF, {"spec": {"resourceAttributes": wanted}}, user=EVE)
    assert can.tree["status"]["allowed"] is True
    assert (await _make(ask, method, path, body)).code == 201
    await grant(ask, (group, resource, verb))
    version = (await ask("GET", path)).tree["metadata"]["resourceVersion"] if method == "PUT" else None
    again = body | {"metadata": body["metadata"] | ({"resourceVersion": version} if version else {})}
    assert (await _make(ask, method, path, again)).code == 200  # it is there: no right to create is asked for


async def test_dry_run_asks_too_and_a_patch_of_nothing_creates_nothing(ask: Fuzzed) -> None:
    await grant(ask, ("", "pods", "patch update"))
    path = "/api/v1/namespaces/default/pods/p"
    dry = await ask("PATCH", path, POD, query="fieldManager=e&dryRun=All", content_type=APPLY, user=EVE)
    assert dry.code == 403
    for kind in (MERGE, STRATEGIC):
        assert (
            await ask("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, content_type=kind, user=EVE)
        ).code == 404
    assert (await ask("PUT", path, POD, user=EVE)).code == 404  # pods are not created by PUT


BY_PUT = {"services", "endpoints", "events", "leases", "limitranges", "runtimeclasses", "roles", "rolebindings",
          "clusterroles", "clusterrolebindings"}  # fmt: skip
"""What upstream's strategies allow (AllowCreateOnUpdate)."""


async def test_which_kinds_put_creates(ask: Fuzzed) -> None:
    for key, strategy in CATALOG.items():
        kind = strategy.kind
        text = MINIMAL[key][0] if key in MINIMAL else "{spec: {containers: [{name: c, image: i}]}}"
        tree = yaml.safe_load(text)
        name = tree.setdefault("metadata", {}).setdefault("name", "p")
        tree["metadata"].pop("namespace", None)
        space = tree.get("involvedObject", tree.get("regarding", {})).get("namespace") or "default"
        answer = await ask("PUT", kind.path(space, name), tree)
        assert answer.code == (201 if kind.resource in BY_PUT else 404), (key, answer.text)
        await ask("DELETE", kind.path(space, name))


VERSIONED = {"leases", "poddisruptionbudgets", "runtimeclasses", "csidrivers", "csinodes", "csistoragecapacities",
             "volumeattachments", "mutatingwebhookconfigurations", "validatingwebhookconfigurations",
             "validatingadmissionpolicies", "validatingadmissionpolicybindings", "customresourcedefinitions",
             "apiservices"}  # fmt: skip
"""What upstream's strategies do not allow to be replaced whatever it is now (AllowUnconditionalUpdate)."""


def test_which_kinds_put_replaces_without_a_version() -> None:
    async def put(ask: Fuzzed, path: str, tree: Tree, allowed: bool) -> None:
        for version in (None, "", "0", "00"):
            answer = await ask("PUT", path, tree | {"metadata": tree["metadata"] | {"resourceVersion": version}})
            if allowed:
                assert answer.code == 200, (path, answer.text)
                continue
            assert answer.code == 422 and answer.tree["reason"] == "Invalid", (path, answer.text)
            why = "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
            assert answer.tree["message"].endswith(why)
        assert (await ask("PUT", path, (await ask("GET", path)).tree)).code == 200

    async def scenario(ask: Fuzzed) -> None:
        seen = set()
        for sample in (s for s in SAMPLES if s["kind"] != "Sample"):
            path = place(sample)
            one, resource = f"{path}/{sample['metadata']['name']}", path.rsplit("/", 1)[1]
            await ask("POST", path, sample)
            now = await ask("GET", one)
            assert now.code == 200, (path, now.text)
            seen.add(resource)
            await put(ask, one, now.tree, resource not in VERSIONED)
        assert seen >= {strategy.kind.resource for strategy in CATALOG.values()} >= VERSIONED
        await define(ask)
        made = await ask("POST", WIDGETS, WIDGET)
        await put(ask, f"{WIDGETS}/w", made.tree, False)

    run(scenario)


NAMELESS: list[Tree | None] = [{}, {"name": ""}, {"name": None}, {"generateName": ""}, {"name": "", "generateName": None}, None]


def test_no_kind_is_created_without_a_name() -> None:
    async def scenario(ask: Fuzzed) -> None:
        for sample in (s for s in SAMPLES if s["kind"] != "Sample"):
            others = {key: value for key, value in sample["metadata"].items() if key != "name"}
            for name in NAMELESS:
                tree = {key: value for key, value in sample.items() if key != "metadata"}
                answer = await ask("POST", place(sample), tree if name is None else tree | {"metadata": others | name})
                told = "metadata.name: Required value: name or generateName is required"
                assert answer.code == 422 and told in answer.tree["message"], (sample["kind"], name, answer.text)

    run(scenario)


# Webhooks: (name of the case, operations, HTTP code, in the message)

OPERATIONS: list[tuple[str, list[Tree], int, str]] = [
    ("type", [{"op": "add", "path": "/spec/hostNetwork", "value": "yes"}], 500, "cannot unmarshal string into Go struct"),
    ("deep type", [{"op": "add", "path": "/spec/containers/0/ports",
                    "value": [{"containerPort": "80"}]}], 500, "containerPort"),
    ("list", [{"op": "replace", "path": "/spec/containers", "value": {}}], 500, "cannot unmarshal object"),
    ("labels", [{"op": "add", "path": "/metadata/labels", "value": {"a": 1}}], 500, "cannot unmarshal number"),
    ("number", [{"op": "add", "path": "/spec/priority", "value": 2**40}], 500, "priority"),
    ("quantity", [{"op": "add", "path": "/spec/containers/0/resources",
                   "value": {"limits": {"cpu": "many"}}}], 500, "quantities must match"),
    ("time", [{"op": "add", "path": "/metadata/creationTimestamp", "value": "yesterday"}], 500, "parsing time"),
    ("no kind", [{"op": "remove", "path": "/kind"}], 500, "Object 'Kind' is missing"),
    ("kind", [{"op": "replace", "path": "/kind", "value": "ConfigMap"}], 500, "unknown conversion"),
    ("version", [{"op": "replace", "path": "/apiVersion", "value": "v2"}], 500, "unknown conversion"),
    ("name", [{"op": "replace", "path": "/metadata/name", "value": "q"}], 500, 'changed metadata.name from "p" to "q"'),
    ("no name", [{"op": "remove", "path": "/metadata/name"}], 500, "changed metadata.name"),
    ("namespace", [{"op": "replace", "path": "/metadata/namespace", "value": "a"}], 400, "does not match the namespace"),
    ("no metadata", [{"op": "remove", "path": "/metadata"}], 400, "namespace"),
    ("metadata", [{"op": "replace", "path": "/metadata", "value": 5}], 500, "cannot unmarshal number"),
    ("everything", [{"op": "replace", "path": "", "value": []}], 500, "no object"),
    ("invalid", [{"op": "add", "path": "/spec/restartPolicy", "value": "Often"}], 422, "spec.restartPolicy"),
]  # fmt: skip


@pytest.mark.parametrize("way", ["POST", APPLY])
async def test_a_webhook_cannot_break_what_it_is_shown(ask: Fuzzed, way: str) -> None:
    operations: list[Tree] = []
    await ask.mutate_with(lambda request: operations if request["kind"]["kind"] == "Pod" else [])
    path = "/api/v1/namespaces/default/pods"
    for case, wanted, code, text in OPERATIONS:
        operations[:] = wanted
        if way == "POST":
            answer = await ask("POST", path, POD)
        else:
            answer = await ask("PATCH", f"{path}/p", POD, query="fieldManager=m", content_type=APPLY)
        assert (answer.code, text in answer.tree["message"]) == (code, True), (case, answer.text)
        assert answer.tree["reason"] == {500: "InternalError", 400: "BadRequest", 422: "Invalid"}[code]
        assert (await ask("GET", "/api/v1/pods")).tree["items"] == [], case


@pytest.mark.parametrize("way", ["PUT", MERGE, "/status"])
async def test_nor_what_is_stored(ask: Fuzzed, way: str) -> None:
    operations: list[Tree] = []
    path = "/api/v1/namespaces/default/pods/p"
    made = (await ask("POST", "/api/v1/namespaces/default/pods", POD)).tree
    await ask.mutate_with(lambda request: operations if request["kind"]["kind"] == "Pod" else [])
    for case, wanted, code, _ in OPERATIONS:
        operations[:] = wanted
        if way == "PUT":
            answer = await ask("PUT", path, made)
        else:
            part = way if way.startswith("/s") else ""
            change: Tree = {"status": {"phase": "Running"}} if part else {"metadata": {"labels": {"a": "b"}}}
            answer = await ask("PATCH", path + part, change, content_type=MERGE)
        if code == 422 and way == "/status":
            assert answer.code == 200 and answer.tree["spec"] == made["spec"]  # a status cannot change the spec
            continue
        assert answer.code == code, (case, answer.text)
        assert (await ask("GET", path)).tree == made, case


OWN: list[tuple[str, Any]] = [
    ("uid", "other"), ("creationTimestamp", "2001-01-01T00:00:00Z"), ("deletionTimestamp", "2001-01-01T00:00:00Z"),
    ("deletionGracePeriodSeconds", 1), ("generation", 77), ("resourceVersion", "1"), ("selfLink", "/x"),
]  # fmt: skip


async def test_a_webhook_has_no_say_in_the_life_of_an_object(ask: Fuzzed) -> None:
    operations: list[Tree] = []
    await ask.mutate_with(lambda request: operations if request["kind"]["kind"] == "ConfigMap" else [])
    path = "/api/v1/namespaces/default/configmaps"
    for field, value in OWN:
        operations = [{"op": "add", "path": f"/metadata/{field}", "value": value},
                      {"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}}]  # fmt: skip
        made = await ask("POST", path, {"metadata": {"name": "c"}})
        assert made.code == 201 and made.tree["metadata"].get(field) != value, field
        assert made.tree["metadata"]["labels"] == {"seen": "yes"}
        changed = await ask("PATCH", f"{path}/c", {"data": {"a": "b"}}, content_type=MERGE)
        assert changed.code == 200 and changed.tree["metadata"].get(field) != value, changed.text
        assert changed.tree["metadata"]["uid"] == made.tree["metadata"]["uid"]
        await ask("DELETE", f"{path}/c")
        assert (await ask("GET", f"{path}/c")).code == 404, field


async def test_a_webhook_writes_no_status_and_no_spec_where_the_request_cannot(ask: Fuzzed) -> None:
    both = [{"op": "add", "path": "/status", "value": {"phase": "Succeeded"}},
            {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]  # fmt: skip
    await ask.mutate_with(lambda request: both if request["kind"]["kind"] == "Pod" else [])
    made = await ask("POST", "/api/v1/namespaces/default/pods", POD)
    assert made.code == 201 and made.tree["status"]["phase"] == "Pending"
    path = "/api/v1/namespaces/default/pods/p"
    changed = await ask("PATCH", path, {"metadata": {"annotations": {"a": "b"}}}, content_type=MERGE)
    assert changed.code == 200 and changed.tree["status"]["phase"] == "Pending"


async def test_a_name_that_is_generated_may_come_from_a_webhook(ask: Fuzzed) -> None:
    name = [{"op": "add", "path": "/metadata/name", "value": "mine"}]
    await ask.mutate_with(lambda request: name if request["kind"]["kind"] == "ConfigMap" else [])
    made = await ask("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"generateName": "x-"}})
    assert (made.code, made.tree["metadata"]["name"]) == (201, "mine")
    again = await ask("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"generateName": "x-"}})
    assert again.code == 409


async def test_generation_is_counted_though_a_webhook_rewrites_the_object(ask: Fuzzed) -> None:
    base = {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": POD["spec"]},
    }
    path = "/apis/apps/v1/namespaces/default/deployments"
    await ask("POST", path, {"metadata": {"name": "d"}, "spec": base})
    label = [{"op": "add", "path": "/metadata/labels", "value": {"x": "y"}}]
    await ask.mutate_with(lambda request: label if request["kind"]["kind"] == "Deployment" else [])
    changed = await ask("PATCH", f"{path}/d", {"spec": {"replicas": 3}}, content_type=MERGE)
    assert changed.tree["metadata"]["generation"] == 2


SUBRESOURCES: list[tuple[str, Tree, list[Tree]]] = [
    ("/api/v1/namespaces/default/pods/p/binding", {"target": {"name": "n"}},
     [{"op": "replace", "path": "/target", "value": 5}]),
    ("/api/v1/namespaces/default/pods/p/eviction", {"metadata": {"name": "p"}},
     [{"op": "add", "path": "/deleteOptions", "value": {"gracePeriodSeconds": "soon"}}]),
    ("/api/v1/namespaces/default/pods/p/eviction", {"metadata": {"name": "p"}},
     [{"op": "replace", "path": "/metadata", "value": []}]),
    ("/api/v1/namespaces/default/serviceaccounts/default/token", {"spec": {}},
     [{"op": "add", "path": "/spec/expirationSeconds", "value": "long"}]),
]  # fmt: skip


@pytest.mark.parametrize("path, body, operations", SUBRESOURCES)
async def test_what_is_sent_to_subresources_stays_whole(ask: Fuzzed, path: str, body: Tree, operations: list[Tree]) -> None:
    await ask("POST", "/api/v1/namespaces/default/pods", POD)
    await ask.mutate_with(lambda request: operations if request.get("subResource") else [])
    answer = await ask("POST", path, body)
    assert answer.code == 500 and answer.tree["message"].startswith("Internal error occurred: json: cannot"), (
        answer.text
    )
    assert (await ask("GET", "/api/v1/namespaces/default/pods/p")).tree["spec"].get("nodeName") is None


@pytest.mark.parametrize("operation", [
    {"op": "replace", "path": "/spec/replicas", "value": "three"},
    {"op": "replace", "path": "/spec", "value": []},
    {"op": "replace", "path": "/spec/replicas", "value": True},
    {"op": "replace", "path": "/kind", "value": "Deployment"},
])  # fmt: skip
async def test_scale(ask: Fuzzed, operation: Tree) -> None:
    await define(ask)
    await ask("POST", WIDGETS, WIDGET | {"spec": {"replicas": 1}})
    await ask.mutate_with(lambda request: [operation] if request.get("subResource") == "scale" else [])
    answer = await ask("PATCH", f"{WIDGETS}/w/scale", {"spec": {"replicas": 2}}, content_type=MERGE)
    assert (answer.code, answer.tree["reason"]) == (500, "InternalError"), answer.text
    assert (await ask("GET", f"{WIDGETS}/w")).tree["spec"] == {"replicas": 1}


# Bodies


@pytest.mark.parametrize(
    "field, value", [("deletionTimestamp", "2001-01-01T00:00:00Z"), ("deletionGracePeriodSeconds", 5)]
)
@pytest.mark.parametrize("way", ["PUT", MERGE])
async def test_nobody_dies_by_an_update(ask: Fuzzed, field: str, value: Any, way: str) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    made = (await ask("POST", path, {"metadata": {"name": "c", field: value}})).tree
    assert field not in made["metadata"]
    if way == "PUT":
        made["metadata"][field] = value
        answer = await ask("PUT", f"{path}/c", made)
    else:
        answer = await ask("PATCH", f"{path}/c", {"metadata": {field: value}}, content_type=MERGE)
    assert answer.code == 422 and answer.tree["details"]["causes"][0]["field"] == f"metadata.{field}"
    assert "field is immutable" in answer.tree["message"]
    assert field not in (await ask("GET", f"{path}/c")).tree["metadata"]


async def test_what_go_has_no_absent_for_is_zero(ask: Fuzzed) -> None:
    for path, tree, field in (
        (
            "/apis/apps/v1/namespaces/default/controllerrevisions",
            {"metadata": {"name": "a"}, "data": {}},
            "revision",
        ),
        ("/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": "a"}}, "value"),
    ):
        made = await ask("POST", path, tree)
        assert (made.code, made.tree[field]) == (201, 0)
        again = await ask("PUT", f"{path}/a", tree)
        assert again.tree["metadata"]["resourceVersion"] == made.tree["metadata"]["resourceVersion"]
    node = {"metadata": {"name": "n"}, "status": {"nodeInfo": {"kernelVersion": "6"}}}
    assert (await ask("POST", "/api/v1/nodes", node)).tree["status"]["nodeInfo"]["architecture"] == ""
    assert await ask.undecodable() == []


# JSON is JSON: what Python takes for equal is not

DIFFERENT: list[tuple[Any, Any]] = [
    (True, 1), (1, True), (False, 0), (0, False), ([True], [1]), ({"a": True}, {"a": 1}), ([[0]], [[False]]), ("1", 1),
    (None, 0),
]  # fmt: skip


@pytest.mark.parametrize("way", ["PUT", MERGE, JSON, APPLY])
def test_true_is_not_one(way: str) -> None:
    async def scenario(ask: Fuzzed) -> None:
        await define(ask)
        for before, after in DIFFERENT:
            await differ(ask, before, after)

    async def differ(ask: Fuzzed, before: Any, after: Any) -> None:
        path = f"{WIDGETS}/w"
        await ask("DELETE", path)
        old = WIDGET | {"spec": {"any": {"x": before}}}
        made = await ask("PATCH", path, old, query="fieldManager=m", content_type=APPLY)
        assert made.code == 201
        new = WIDGET | {"spec": {"any": {"x": after}}}
        if way == "PUT":
            answer = await ask("PUT", path, made.tree | {"spec": new["spec"]})
        elif way == MERGE:
            answer = await ask("PATCH", path, {"spec": new["spec"]}, content_type=MERGE)
        elif way == JSON:
            at = "/spec/any/x"
            both = [{"op": "test", "path": at, "value": before}, {"op": "replace", "path": at, "value": after}]
            answer = await ask("PATCH", path, both, content_type=JSON)
        else:
            answer = await ask("PATCH", path, new, query="fieldManager=m", content_type=APPLY)
        assert answer.code == 200, answer.text
        found = (await ask("GET", path)).tree
        assert repr(found["spec"]["any"].get("x")) == repr(after)
        assert found["metadata"]["generation"] == 2
        if way in ("PUT", MERGE, JSON):
            owners = {}
            for entry in found["metadata"]["managedFields"]:
                fields = entry["fieldsV1"].get("f:spec", {}).get("f:any", {})
                # Of a map only what is in it: the map itself stays with who made it.
                if "f:x" in fields and (not isinstance(after, dict) or "f:a" in fields["f:x"]):
                    owners[entry["manager"]] = fields["f:x"]
            assert len(owners) == 1 and "m" not in owners, (before, after, owners)  # who changed it owns it

    run(scenario)


TYPED: list[tuple[str, Any, Any]] = [
    ("on", True, 1), ("on", False, 0), ("replicas", 1, True), ("flags", [True], [1]), ("picks", [{"a": 1}], [{"a": True}]),
]  # fmt: skip


def test_types_and_enums_of_custom_resources() -> None:
    async def scenario(ask: Fuzzed) -> None:
        await define(ask)
        for field, good, bad in TYPED:
            await typed(ask, field, good, bad)

    async def typed(ask: Fuzzed, field: str, good: Any, bad: Any) -> None:
        await ask("DELETE", f"{WIDGETS}/w")
        assert (await ask("POST", WIDGETS, WIDGET | {"spec": {field: bad}})).code == 422
        made = await ask("POST", WIDGETS, WIDGET | {"spec": {field: good}})
        assert made.code == 201
        answer = await ask("PUT", f"{WIDGETS}/w", made.tree | {"spec": {field: bad}})
        assert answer.code == 422 and answer.tree["details"]["causes"][0]["field"].startswith(f"spec.{field}")
        assert repr((await ask("GET", f"{WIDGETS}/w")).tree["spec"][field]) == repr(good)

    run(scenario)


async def test_a_change_inside_a_map_list_is_seen(ask: Fuzzed) -> None:
    await define(ask)
    await ask("POST", WIDGETS, WIDGET | {"spec": {"map": [{"k": "a", "v": True}]}})
    new = WIDGET | {"spec": {"map": [{"k": "a", "v": 1}]}}
    answer = await ask("PATCH", f"{WIDGETS}/w", new, query="fieldManager=m", content_type=APPLY)
    assert answer.code == 409 and "conflict" in answer.tree["message"]
    forced = await ask("PATCH", f"{WIDGETS}/w", new, query="fieldManager=m&force=true", content_type=APPLY)
    assert repr(forced.tree["spec"]["map"]) == repr(new["spec"]["map"])
