"""Field sets and managedFields."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.patch import fieldsets as fs
from navarch.api.patch import managed
from navarch.api.schema import schema_of
from navarch.api.types import apps_v1, core_v1

DEPLOYMENT, POD = schema_of(apps_v1.Deployment), schema_of(core_v1.Pod)

OBJECT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "a", "namespace": "n", "labels": {"x": "y"}, "finalizers": ["f"]},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"x": "y"}},
        "template": {
            "spec": {
                "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "args": ["a"]}],
                "securityContext": {},
            }
        },
    },
}


def test_set_of_an_object() -> None:
    container = {
        "f:name": {},
        "f:image": {},
        "f:args": {},
        "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
    }
    assert fs.ownable_set(OBJECT, DEPLOYMENT) == {
        "f:metadata": {"f:labels": {"f:x": {}}, "f:finalizers": {'v:"f"': {}}},
        "f:spec": {
            "f:replicas": {},
            "f:selector": {},
            "f:template": {
                "f:spec": {"f:containers": {'k:{"name":"c"}': {".": {}, **container}}, "f:securityContext": {}}
            },
        },
    }
    shown = [fs.show(p) for p in fs.members(fs.ownable_set(OBJECT, DEPLOYMENT))]
    assert '.spec.template.spec.containers[name="c"].ports[containerPort=80,protocol="TCP"].containerPort' in shown
    assert '.metadata.finalizers[="f"]' in shown


def write(old: Any, new: Any, manager: str, now: str = "t1", **more: Any) -> dict[str, Any]:
    """``new`` as it would be stored."""
    out: dict[str, Any] = orjson.loads(orjson.dumps(new))
    fields = managed.update(old, out, POD, manager=manager, api_version="v1", now=now, **more)
    out.setdefault("metadata", {})["managedFields"] = fields
    return out


def owners(tree: Any) -> dict[str, set[str]]:
    return {e["manager"]: {fs.show(p) for p in fs.members(e["fieldsV1"])} for e in tree["metadata"]["managedFields"]}


def test_writes_own_what_they_change() -> None:
    pod = {"metadata": {"name": "p", "labels": {"a": "1"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    one = write(None, pod, "alice")
    item = '.spec.containers[name="c"]'
    assert owners(one) == {"alice": {".metadata.labels", ".metadata.labels.a", item, item + ".name", item + ".image"}}
    changed = orjson.loads(orjson.dumps(one))
    changed["spec"]["containers"][0]["image"] = "j"
    changed["metadata"]["labels"]["b"] = "2"
    two = write(one, changed, "bob", "t2")
    assert owners(two)["bob"] == {item + ".image", ".metadata.labels.b"}
    assert owners(two)["alice"] == {".metadata.labels", ".metadata.labels.a", item, item + ".name"}
    removed = orjson.loads(orjson.dumps(two))
    del removed["metadata"]["labels"]
    three = write(two, removed, "carol", "t3")
    assert owners(three) == {"alice": {item, item + ".name"}, "bob": {item + ".image"}}
    status = orjson.loads(orjson.dumps(three)) | {
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    }
    four = write(three, status, "kubelet", "t4", subresource="status")
    entry = four["metadata"]["managedFields"][-1]
    assert entry == {
        "manager": "kubelet",
        "operation": "Update",
        "apiVersion": "v1",
        "time": "t4",
        "fieldsType": "FieldsV1",
        "subresource": "status",
        "fieldsV1": {
            "f:status": {
                "f:conditions": {".": {}, 'k:{"type":"Ready"}': {".": {}, "f:status": {}, "f:type": {}}},
                "f:phase": {},
            }
        },
    }
    assert write(four, four, "dave", "t5")["metadata"] == four["metadata"]


def test_reset_and_untracked() -> None:
    one = write(None, {"metadata": {"labels": {"a": "1"}}}, "alice")
    reset = write(one, {"metadata": {"labels": {"a": "1"}, "managedFields": [{}]}}, "bob")
    assert reset["metadata"]["managedFields"] == []
    assert write(reset, {"metadata": {"labels": {"a": "2"}}}, "bob")["metadata"]["managedFields"] == []


def test_many_updaters_are_merged() -> None:
    tree = write(None, {"metadata": {"labels": {"a": "0"}}}, "m0", "t00")
    for i in range(1, 14):
        tree = write(tree, {"metadata": {"labels": {**tree["metadata"]["labels"], f"l{i}": "x"}}}, f"m{i}", f"t{i:02}")
    entries = tree["metadata"]["managedFields"]
    assert len(entries) == 10 and entries[0]["manager"] == managed.ANCIENT and entries[-1]["manager"] == "m13"
    assert entries[0]["time"] == "t04"
    assert {".metadata.labels.l4", ".metadata.labels.a"} <= owners(tree)[managed.ANCIENT]


def test_manager_name() -> None:
    assert managed.manager_name("", "kubectl/v1.34 (linux)") == "kubectl"
    assert managed.manager_name("x", "kubectl/1") == "x" and managed.manager_name(None, None) == "unknown"


paths = st.lists(
    st.lists(st.sampled_from(["f:a", "f:b", 'k:{"n":1}']), min_size=1, max_size=3).map(tuple), max_size=8
).map(frozenset)


def build(members: frozenset[tuple[str, ...]]) -> fs.FieldSet:
    out: fs.FieldSet = {}
    for path in sorted(members):
        one: fs.FieldSet = {}
        for element in reversed(path):
            one = {element: one}
        out = fs.union(out, one)
    return out


def elements(fields: fs.FieldSet) -> set[tuple[str, ...]]:
    return set(fs.members(fields))


@given(paths, paths)
def test_algebra(left: frozenset[tuple[str, ...]], right: frozenset[tuple[str, ...]]) -> None:
    a, b = build(left), build(right)
    assert elements(a) == left
    assert elements(fs.union(a, b)) == left | right
    assert elements(fs.difference(a, b)) == left - right
    assert elements(fs.intersection(a, b)) == left & right
    below = {p for p in left if any(p[: len(q)] == q for q in right)}
    assert elements(fs.without(a, b)) == left - below
    assert fs.ordered(a) == a and a == build(left)
    assert fs.union(a, b) == fs.union(b, a)
