"""Server-side apply."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.errors import BadRequest, Conflict
from navarch.api.patch import copy_tree, fieldsets, lastapplied, managed
from navarch.api.patch.apply import apply, owned_by
from navarch.api.schema import from_openapi, schema_of
from navarch.api.types import core_v1

POD = schema_of(core_v1.Pod)


def config(labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    if labels:
        out["metadata"]["labels"] = labels
    if spec:
        out["spec"] = spec
    return out


def do(live: Any, wanted: Any, manager: str = "a", force: bool = False, now: str = "t1") -> dict[str, Any]:
    return apply(live, wanted, POD, manager=manager, api_version="v1", now=now, force=force)


def test_create_and_apply_again() -> None:
    one = do(None, config({"x": "1"}, containers=[{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]))
    assert [(e["manager"], e["operation"]) for e in one["metadata"]["managedFields"]] == [("a", "Apply")]
    stored = copy_tree(one)
    stored["spec"]["containers"][0]["ports"][0]["protocol"] = "TCP"
    stored["spec"]["dnsPolicy"] = "ClusterFirst"
    again = do(
        stored, config({"x": "1"}, containers=[{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]), now="t2"
    )
    assert again == stored


def test_fields_no_longer_applied_go() -> None:
    one = do(None, config({"x": "1", "y": "1"}, containers=[{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]))
    one["spec"]["containers"][1]["imagePullPolicy"] = "Always"  # a default: goes with its container
    two = do(one, config({"x": "1"}, containers=[{"name": "c", "image": "i"}]), now="t2")
    assert two["metadata"]["labels"] == {"x": "1"} and two["spec"]["containers"] == [{"name": "c", "image": "i"}]
    three = do(two, config(containers=[{"name": "c", "image": "i"}]), now="t3")
    assert "labels" not in three["metadata"]


def test_shared_fields_stay() -> None:
    one = do(None, config({"x": "1", "y": "1"}))
    two = do(one, config({"x": "1"}), "b", now="t2")
    three = do(two, config({"y": "1"}), "a", now="t3")
    assert three["metadata"]["labels"] == {"x": "1", "y": "1"}
    four = do(three, config(), "b", now="t4")
    assert four["metadata"]["labels"] == {"y": "1"}
    assert owned_by(four, "b") == {}


def test_conflicts() -> None:
    one = do(None, config(None, containers=[{"name": "c", "image": "i"}], priority=1))
    with pytest.raises(Conflict) as raised:
        do(one, config(None, containers=[{"name": "c", "image": "j"}]), "b")
    path = '.spec.containers[name="c"].image'
    assert raised.value.message == f'Apply failed with 1 conflict: conflict with "a": {path}'
    assert raised.value.details["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "a"', "field": path}
    ]
    forced = do(one, config(None, containers=[{"name": "c", "image": "j"}]), "b", force=True, now="t2")
    assert forced["spec"]["containers"] == [{"name": "c", "image": "j"}]
    assert path not in [fieldsets.show(p) for p in fieldsets.members(owned_by(forced, "a"))]
    changed = copy_tree(forced)
    changed["spec"]["containers"][0]["image"] = "k"
    changed["spec"]["priority"] = 2
    changed["metadata"]["managedFields"] = managed.update(
        forced, changed, POD, manager="edit", api_version="v1", now="t3"
    )
    with pytest.raises(Conflict) as raised:
        do(changed, config(None, containers=[{"name": "c", "image": "z"}], priority=3), "b")
    assert raised.value.message == (
        f'Apply failed with 2 conflicts: conflicts with "edit" using v1:\n- .spec.priority\n- {path}'
    )
    agreed = do(changed, config(None, containers=[{"name": "c", "image": "k"}]), "b", now="t4")
    assert agreed["spec"] == changed["spec"]


def test_lists() -> None:
    one = do(None, config(None, containers=[{"name": "a"}, {"name": "b"}], tolerations=[{"key": "x"}]))
    two = do(one, config(None, containers=[{"name": "c"}, {"name": "b"}], tolerations=[{"key": "x"}]), "b", now="t2")
    assert [c["name"] for c in two["spec"]["containers"]] == ["a", "c", "b"]
    with pytest.raises(Conflict):
        do(two, config(None, tolerations=[{"key": "y"}]), "b")
    with pytest.raises(BadRequest):
        do(two, config(None, containers=[{"image": "x"}]), "b")
    with pytest.raises(BadRequest, match="must be nil"):
        do(two, {"metadata": {"managedFields": [{"manager": "x"}]}})


@pytest.mark.parametrize(
    ("live", "applied", "merged"),
    [
        ("bc", "a", "bca"),  # what is new comes after what only the object has
        ("abc", "cb", "acb"),  # common elements take the order that is applied
        ("abcd", "dxa", "bcdxa"),
        ("abcd", "axd", "abcxd"),
        ("ab", "cb", "acb"),
        ("", "ba", "ba"),
    ],
)
def test_order_of_merged_lists(live: str, applied: str, merged: str) -> None:
    """As upstream's own library orders them (compared by hand on thousands of random histories)."""
    one = do(None, config(None, containers=[{"name": c} for c in live])) if live else None
    two = do(one, config(None, containers=[{"name": c} for c in applied]), "b", now="t2")
    assert "".join(c["name"] for c in two["spec"]["containers"]) == merged


def test_an_element_goes_with_its_identity() -> None:
    """Whoever else set a field of it: without its key it could not stay."""
    one = do(None, config(None, containers=[{"name": "c", "env": [{"name": "A", "value": "1"}]}]))
    edited = copy_tree(one)
    edited["spec"]["containers"][0]["env"][0]["value"] = "2"
    edited["metadata"]["managedFields"] = managed.update(one, edited, POD, manager="edit", api_version="v1", now="t2")
    two = do(edited, config(None, containers=[{"name": "c"}]), now="t3")
    assert two["spec"]["containers"] == [{"name": "c"}]


def test_what_is_always_there_is_emptied_not_removed() -> None:
    limits = {"limits": {"cpu": "1"}}
    one = do(None, config(None, containers=[{"name": "c", "resources": limits}]))
    two = do(one, config(None, containers=[{"name": "c"}]), now="t2")
    assert two["spec"]["containers"] == [{"name": "c", "resources": {}}]


@pytest.mark.parametrize(
    "free", [{"type": "object", "additionalProperties": True}, {"x-kubernetes-preserve-unknown-fields": True}]
)
def test_free_form_objects_merge(free: dict[str, Any]) -> None:
    node = from_openapi({"type": "object", "properties": {"spec": free}})
    one = apply(None, {"spec": {"a": {"b": 1}}}, node, manager="a", api_version="x/v1", now="t")
    two = apply(one, {"spec": {"a": {"c": 2}}}, node, manager="b", api_version="x/v1", now="t")
    assert two["spec"] == {"a": {"b": 1, "c": 2}}


def test_custom_resources() -> None:
    node = from_openapi(
        {
            "type": "object",
            "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
        }
    )
    one = apply(None, {"spec": {"a": {"b": 1}, "l": [1]}}, node, manager="a", api_version="x/v1", now="t")
    two = apply(one, {"spec": {"a": {"c": 2}}}, node, manager="b", api_version="x/v1", now="t")
    assert two["spec"] == {"a": {"b": 1, "c": 2}, "l": [1]}
    three = apply(two, {"spec": {"l": [1]}}, node, manager="a", api_version="x/v1", now="t")
    assert three["spec"] == {"a": {"c": 2}, "l": [1]}


values = st.sampled_from(["1", "2"])
configs = st.builds(
    lambda labels, containers, priority: config(labels, containers=containers, **({"priority": priority} if priority else {})),
    st.dictionaries(st.sampled_from("xyz"), values, max_size=3),
    st.lists(
        st.fixed_dictionaries({"name": st.sampled_from("abc")}, optional={"image": values, "tty": st.booleans()}),
        min_size=1, max_size=3, unique_by=lambda c: c["name"],
    ),
    st.integers(0, 2),
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from("ab"), configs), min_size=1, max_size=5))
def test_what_was_applied_last_holds(steps: list[tuple[str, dict[str, Any]]]) -> None:
    """After any history of forced applies, the last configuration is in the object, and fields have owners."""
    live: Any = None
    for i, (manager, wanted) in enumerate(steps):
        live = do(live, wanted, manager, force=True, now=f"t{i}")
        laid_over = do(live, wanted, manager, now="later")
        assert laid_over == live
        assert fieldsets.ordered(owned_by(live, manager)) == fieldsets.ordered(fieldsets.ownable_set(wanted, POD))
    everything = fieldsets.union(owned_by(live, "a"), owned_by(live, "b"))
    have = {k: v for k, v in live.items() if k != "metadata"} | {
        "metadata": {k: v for k, v in live["metadata"].items() if k == "labels"}
    }
    assert not fieldsets.difference(fieldsets.ownable_set(have, POD), everything)


def client_applied(labels: dict[str, str], **spec: Any) -> dict[str, Any]:
    """As kubectl's client-side apply leaves an object."""
    wanted = config(labels, **spec)
    out = copy_tree(wanted)
    out["metadata"]["annotations"] = {lastapplied.ANNOTATION: json.dumps(wanted)}
    out["metadata"]["managedFields"] = managed.update(
        None, out, POD, manager="kubectl-client-side-apply", api_version="v1", now="t0"
    )
    return out


def test_kubectl_takes_over_what_its_client_side_applied() -> None:
    live = client_applied({"x": "1", "y": "1"}, priority=1)
    wanted = config({"x": "2", "y": "1"}, priority=1)
    with pytest.raises(Conflict):
        do(live, wanted, "somebody")
    taken = do(live, wanted, "kubectl", now="t1")
    assert taken["metadata"]["labels"] == {"x": "2", "y": "1"}
    noted = taken["metadata"]["annotations"][lastapplied.ANNOTATION]
    assert json.loads(noted) == wanted and noted.endswith("}\n")
    # What somebody changed since is a conflict still, and only that.
    edited = copy_tree(live)
    edited["metadata"]["labels"]["y"] = "9"
    edited["metadata"]["managedFields"] = managed.update(live, edited, POD, manager="edit", api_version="v1", now="t1")
    with pytest.raises(Conflict) as raised:
        do(edited, config({"x": "2", "y": "3"}, priority=1), "kubectl", now="t2")
    assert [c["field"] for c in raised.value.details["causes"]] == [".metadata.labels.y"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"apiVersion": "v2"}', '{"apiVersion": "v1", "spec": 1}', "null"])
def test_an_annotation_without_sense_frees_nothing(text: str) -> None:
    live = client_applied({"x": "1"})
    live["metadata"]["annotations"][lastapplied.ANNOTATION] = text
    with pytest.raises(Conflict):
        do(live, config({"x": "2"}), "kubectl")


# What the comparison with upstream's own library (tests/oracle) found.

FOO = from_openapi(
    {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "ports": {
                        "type": "object",
                        "additionalProperties": {
                            "type": "object",
                            "properties": {"port": {"type": "integer"}, "protocol": {"type": "string"}},
                        },
                    },
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "sets": {
                        "type": "object",
                        "additionalProperties": {
                            "type": "array",
                            "x-kubernetes-list-type": "set",
                            "items": {"type": "string"},
                        },
                    },
                    "items": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {
                            "type": "object",
                            "properties": {"name": {"type": "string"}, "v": {"type": "integer"}},
                        },
                    },
                },
            }
        },
    }
)


def foo(live: Any, manager: str = "a", force: bool = False, **spec: Any) -> dict[str, Any]:
    tree = {"apiVersion": "x.io/v1", "kind": "Foo", "metadata": {"name": "n"}, "spec": spec}
    return apply(live, tree, FOO, manager=manager, api_version="x.io/v1", now="t", force=force)


def spec_owned(tree: dict[str, Any], manager: str = "a", operation: str = "Apply") -> Any:
    return owned_by(tree, manager, operation).get("f:spec")


def test_entries_of_maps_are_owned() -> None:
    """An entry of additionalProperties, and of an object without a schema, is owned itself, and goes when it is left out."""
    for field in ("ports", "free"):
        one = foo(None, **{field: {"db": {"port": 1, "protocol": "TCP"}, "web": {"port": 2}}})
        db = {".": {}, "f:port": {}, "f:protocol": {}}
        assert spec_owned(one) == {f"f:{field}": {"f:db": db, "f:web": {".": {}, "f:port": {}}}}
        defaulted = copy_tree(one)
        defaulted["spec"][field]["web"]["protocol"] = "TCP"
        two = foo(defaulted, **{field: {"db": {"port": 1, "protocol": "TCP"}}})
        assert two["spec"] == {field: {"db": {"port": 1, "protocol": "TCP"}}}
        assert spec_owned(two) == {f"f:{field}": {"f:db": db}}


def test_entry_that_somebody_else_owns_stays() -> None:
    one = foo(None, ports={"web": {"port": 2}})
    two = foo(one, "b", ports={"web": {"protocol": "TCP"}})
    three = foo(two)
    assert three["spec"] == {"ports": {"web": {"protocol": "TCP"}}}


def test_empty_keyed_lists_have_no_owner() -> None:
    """Nor does an apply that says nothing make an entry."""
    one = foo(None, items=[], sets={"s": []}, free={"l": []})
    assert spec_owned(one) == {"f:sets": {"f:s": {}}, "f:free": {"f:l": {}}}
    nothing = apply(None, config(), POD, manager="a", api_version="v1", now="t")
    assert not nothing["metadata"]["managedFields"]


def test_emptied_container_does_not_empty_its_holder() -> None:
    one = foo(None, free={"a": {"b": {"c": 1}}})
    two = foo(one, "b", free={"a": {"b": {}}})
    assert foo(two)["spec"] == {"free": {"a": {}}}
    three = foo(foo(None, sets={"s": ["x"]}), "b", sets={"s": []})
    four = foo(three)
    assert spec_owned(four, "b") == {"f:sets": {"f:s": {}}}


def test_before_first_apply() -> None:
    """What is there when somebody first applies to an object without managedFields belongs to a manager of its own."""
    live = {"apiVersion": "x.io/v1", "kind": "Foo", "metadata": {"name": "n"}, "spec": {"items": [{"name": "x", "v": 1}]}}
    new = foo(live, items=[{"name": "y"}])
    assert spec_owned(new, "before-first-apply", "Update") == {
        ".": {},
        "f:items": {".": {}, 'k:{"name":"x"}': {".": {}, "f:name": {}, "f:v": {}}},
    }
    with pytest.raises(Conflict, match="before-first-apply"):
        foo(live, items=[{"name": "x", "v": 2}])


@pytest.mark.parametrize(
    ("ports", "wrong"),
    [
        ([{"containerPort": 1}, {"containerPort": 1}], 'duplicate entries for key [containerPort=1,protocol="TCP"]'),
        (
            [{"containerPort": 1, "name": "a"}, {"containerPort": 1, "name": "b", "protocol": "TCP"}],
            'duplicate entries for key [containerPort=1,protocol="TCP"]',
        ),
    ],
)
def test_duplicates_are_refused(ports: list[Any], wrong: str) -> None:
    """Also by the apply that creates; other writes may store them."""
    wanted = config(None, containers=[{"name": "c", "ports": ports}])
    told = f'failed to create typed patch object (/p; v1, Kind=Pod): .spec.containers[name="c"].ports: {wrong}'
    live = config(None, containers=[{"name": "c"}])
    for before in (None, live):
        with pytest.raises(BadRequest) as refused:
            do(before, wanted)
        assert refused.value.message == told
    # Below a list without keys, in a set, and several at once.
    with pytest.raises(BadRequest, match="errors:\n"):
        do(None, {**config(None, containers=[{"name": "c"}, {"name": "c"}, {"name": "c"}]), "metadata": {
            "name": "p", "finalizers": ["a/b", "a/b"]}})  # fmt: skip


def test_duplicates_that_an_update_stored() -> None:
    """They are one value, nobody knows which of them; who applies one of that key replaces them all."""
    ports = [{"containerPort": 1, "name": "a"}, {"containerPort": 2}, {"containerPort": 1, "name": "b"}]
    live = config(None, containers=[{"name": "c", "ports": ports}])
    entries = managed.update(None, live, POD, manager="u", api_version="v1", now="t")
    mine = entries[0]["fieldsV1"]["f:spec"]["f:containers"]['k:{"name":"c"}']["f:ports"]
    assert mine['k:{"containerPort":1,"protocol":"TCP"}'] == {}
    live["metadata"]["managedFields"] = entries
    other = do(live, config(None, containers=[{"name": "c", "ports": [{"containerPort": 3}]}]))
    assert [p["containerPort"] for p in other["spec"]["containers"][0]["ports"]] == [1, 2, 1, 3]
    new = do(live, config(None, containers=[{"name": "c", "ports": [{"containerPort": 1, "name": "n"}]}]), force=True)
    assert new["spec"]["containers"][0]["ports"] == [{"containerPort": 1, "name": "n"}, {"containerPort": 2}]


def test_value_of_another_type() -> None:
    """What comes in place of an object takes what was below it from its owners."""
    live = foo(None, free={"a": {"b": 1}})
    new = copy_tree(live)
    new["spec"]["free"]["a"] = ["x"]
    entries = managed.update(live, new, FOO, manager="u", api_version="x.io/v1", now="t")
    assert [e["manager"] for e in entries] == ["u"]
    assert entries[0]["fieldsV1"] == {"f:spec": {"f:free": {"f:a": {}}}}
