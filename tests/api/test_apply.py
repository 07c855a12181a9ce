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
