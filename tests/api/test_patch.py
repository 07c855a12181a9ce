"""JSON patch, merge patch, strategic merge patch, and the differences that become patches."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.api.errors import BadRequest, Invalid, RequestEntityTooLarge
from navarch.api.patch import copy_tree, diff, same
from navarch.api.patch.json import apply_json
from navarch.api.patch.merge import apply_merge
from navarch.api.patch.strategic import apply_strategic, without_directives
from navarch.api.schema import schema_of
from navarch.api.serialization import decode_object
from navarch.api.types import apps_v1, core_v1

POD, DEPLOYMENT = schema_of(core_v1.Pod), schema_of(apps_v1.Deployment)


def test_json_patch() -> None:
    tree: dict[str, Any] = {"a": {"b": [1, 2, 3]}, "x~y/z": 1}
    operations: list[dict[str, Any]] = [
        {"op": "test", "path": "/a/b/0", "value": 1},
        {"op": "test", "path": "/none", "value": None},
        {"op": "add", "path": "/a/b/1", "value": 9},
        {"op": "add", "path": "/a/b/-", "value": {"k": None}},
        {"op": "remove", "path": "/a/b/0"},
        {"op": "replace", "path": "/x~0y~1z", "value": 2},
        {"op": "copy", "from": "/a/b", "path": "/c"},
        {"op": "move", "from": "/c/0", "path": "/d"},
        {"op": "remove", "path": "/a/b/-1"},
    ]
    before = copy_tree(tree)
    assert apply_json(tree, operations) == {"a": {"b": [9, 2, 3]}, "x~y/z": 2, "c": [2, 3, {"k": None}], "d": 9}
    assert tree == before


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/a", "value": 2},
        {"op": "test", "path": "/a", "value": True},
        {"op": "remove", "path": "/b"},
        {"op": "replace", "path": "/b", "value": 1},
        {"op": "add", "path": "/b/c", "value": 1},
        {"op": "add", "path": "/l/5", "value": 1},
        {"op": "add", "path": "/l/01", "value": 1},
        {"op": "add", "path": "a", "value": 1},
        {"op": "frob", "path": "/a"},
        {"op": "move", "from": "/l", "path": "/l/0"},
        {"op": "add", "path": "/a"},
    ],
)
def test_json_patch_fails(operation: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="the server rejected our request"):
        apply_json({"a": 1, "l": [1]}, [operation])


def test_json_patch_limits() -> None:
    with pytest.raises(RequestEntityTooLarge):
        apply_json({}, [{"op": "add", "path": "/a", "value": 1}] * 10_001)
    with pytest.raises(BadRequest):
        apply_json({}, {"a": 1})
    bomb = [{"op": "add", "path": "/a", "value": ["x" * 1000]}] + [{"op": "copy", "from": "/a", "path": "/a/-"}] * 30
    with pytest.raises(Invalid):
        apply_json({}, bomb)


def test_merge_patch() -> None:
    tree = {"a": {"b": 1, "c": 2}, "l": [1, 2], "s": "x"}
    assert apply_merge(tree, {"a": {"b": None, "d": {"e": None, "f": 1}}, "l": [3], "s": {"t": None}}) == {
        "a": {"c": 2, "d": {"f": 1}},
        "l": [3],
        "s": {},
    }
    with pytest.raises(BadRequest):
        apply_merge(tree, [])


def test_deep_nesting_is_refused() -> None:
    deep: Any = {}
    for _ in range(900):
        deep = {"a": deep}
    with pytest.raises(BadRequest, match="max depth"):
        apply_merge({}, deep)
    with pytest.raises(BadRequest, match="max depth"):
        decode_object('{"a":' * 300 + "1" + "}" * 300)
    assert decode_object('{"a":' * 200 + "1" + "}" * 200)


def pod(*containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"spec": {"containers": list(containers), **more}}


A, B, C = ({"name": n, "image": n} for n in "abc")


def strategic(spec: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    return apply_strategic({"spec": spec}, {"spec": patch}, POD)["spec"]


def test_strategic_lists_merge_by_key() -> None:
    spec = {"containers": [A, B], "tolerations": [{"key": "x"}]}
    patched = strategic(
        spec, {"containers": [{"name": "b", "image": "new"}, {"name": "c"}], "tolerations": [{"key": "y"}]}
    )
    assert patched == {"containers": [A, {"name": "b", "image": "new"}, {"name": "c"}], "tolerations": [{"key": "y"}]}
    assert strategic(spec, {"containers": [{"name": "a", "$patch": "delete"}]})["containers"] == [B]
    assert strategic(spec, {"containers": [{"$patch": "replace"}, C]})["containers"] == [C]
    assert strategic(spec, {"containers": [{"name": "a", "image": None, "env": [{"name": "e", "value": None}]}]})[
        "containers"
    ] == [
        {"name": "a", "env": [{"name": "e"}]},
        B,
    ]
    with pytest.raises(Invalid, match="does not contain declared merge key: name"):
        strategic(spec, {"containers": [{"image": "x"}]})


def test_strategic_order() -> None:
    spec = {"containers": [A, B, C]}
    order = {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}
    assert [c["name"] for c in strategic(spec, order)["containers"]] == ["b", "c", "a"]
    with pytest.raises(BadRequest, match="setElementOrder"):
        strategic(spec, order | {"containers": [{"name": "a"}, {"name": "c"}]})


def test_strategic_directives_in_objects() -> None:
    spec = {
        "containers": [A],
        "securityContext": {"runAsUser": 1, "runAsGroup": 2},
        "nodeSelector": {"a": "1", "b": "2"},
    }
    assert strategic(spec, {"securityContext": {"$patch": "replace", "runAsUser": 3}})["securityContext"] == {
        "runAsUser": 3
    }
    assert strategic(spec, {"securityContext": {"$patch": "delete"}})["securityContext"] == {}
    assert strategic(spec, {"nodeSelector": {"a": None}})["nodeSelector"] == {"b": "2"}
    assert strategic(spec, {"affinity": {"$patch": "delete", "x": 1}})["affinity"] == {}
    assert strategic(spec, {"affinity": {"nodeAffinity": None}})["affinity"] == {}
    with pytest.raises(BadRequest, match="unknown patch type"):
        strategic(spec, {"securityContext": {"$patch": "frob"}})
    deployment = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert apply_strategic(deployment, patch, DEPLOYMENT) == {"spec": {"strategy": {"type": "Recreate"}}}
    assert without_directives(patch) == {"spec": {"strategy": {"type": "Recreate"}}}


def test_strategic_scalars() -> None:
    meta = {"metadata": {"finalizers": ["a", "b"]}}
    added = apply_strategic(meta, {"metadata": {"finalizers": ["c", "a"]}}, POD)
    assert sorted(added["metadata"]["finalizers"]) == ["a", "b", "c"]
    gone = apply_strategic(meta, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}, POD)
    assert gone == {"metadata": {"finalizers": ["b"]}}


def test_three_way() -> None:
    """What others added stays, what the user no longer wants goes, what the user wants comes back."""
    original = pod(A, B, nodeSelector={"mine": "1", "gone": "1"})
    modified = pod({"name": "a", "image": "v2"}, nodeSelector={"mine": "1"})
    current = pod(
        A | {"terminationMessagePath": "/x"}, B, C, nodeSelector={"mine": "2", "gone": "1", "other": "1"}, nodeName="n"
    )
    patch = diff.create_three_way_strategic_patch(original, modified, current, POD)
    assert patch == {
        "spec": {
            "$setElementOrder/containers": [{"name": "a"}],
            "containers": [{"name": "a", "image": "v2"}, {"$patch": "delete", "name": "b"}],
            "nodeSelector": {"mine": "1", "gone": None},
        }
    }
    assert apply_strategic(current, patch, POD) == pod(
        {"name": "a", "image": "v2", "terminationMessagePath": "/x"},
        C,
        nodeSelector={"mine": "1", "other": "1"},
        nodeName="n",
    )
    plain = diff.create_three_way_merge_patch({"a": 1, "b": 1}, {"a": 2}, {"a": 1, "b": 1, "c": 1})
    assert plain == {"a": 2, "b": None}


scalars = st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "y"])
values = st.recursive(
    scalars,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from("abcd"), v, max_size=3),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)


@given(objects, objects)
def test_merge_patch_round_trip(old: dict[str, Any], new: dict[str, Any]) -> None:
    before = copy_tree(old)
    assert same(apply_merge(old, diff.create_merge_patch(old, new)), new)
    assert old == before
    assert diff.create_merge_patch(new, new) == {}


def named(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    element = st.fixed_dictionaries({"name": st.sampled_from("abcde")}, optional=fields)
    return st.lists(element, max_size=4, unique_by=lambda e: e["name"])


text = st.sampled_from(["x", "y", ""])
ports = st.lists(
    st.fixed_dictionaries({"containerPort": st.integers(1, 3)}, optional={"protocol": st.sampled_from(["TCP", "UDP"])}),
    max_size=3,
)
containers = named(
    image=text, env=named(value=text), args=st.lists(text, max_size=3), ports=ports, tty=st.booleans(),
    resources=st.fixed_dictionaries({}, optional={"limits": st.dictionaries(text, text, max_size=2)}),
)  # fmt: skip
specs = st.fixed_dictionaries(
    {"containers": containers},
    optional={
        "volumes": named(emptyDir=st.just({}), hostPath=st.fixed_dictionaries({"path": text})),
        "nodeSelector": st.dictionaries(text, text, max_size=3),
        "tolerations": st.lists(st.fixed_dictionaries({"key": text}), max_size=3),
        "hostNetwork": st.booleans(),
    },
)
pods = st.fixed_dictionaries(
    {"spec": specs},
    optional={"metadata": st.fixed_dictionaries({}, optional={"finalizers": st.lists(text, max_size=3, unique=True)})},
)


@settings(max_examples=200)
@given(pods, pods)
def test_strategic_round_trip(old: dict[str, Any], new: dict[str, Any]) -> None:
    patch = diff.create_strategic_patch(old, new, POD)
    before = copy_tree(old)
    assert same(apply_strategic(old, patch, POD), new), patch
    assert old == before
    assert diff.create_strategic_patch(new, new, POD) == {}


@pytest.mark.parametrize(
    ("original", "modified", "current", "expected"),
    [
        # A default that only fits what was there before goes, though nothing else changes.
        (
            {"type": "Recreate"},
            {"type": "Recreate"},
            {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}},
            {"$retainKeys": ["type"]},
        ),
        (
            {"type": "RollingUpdate"},
            {"type": "Recreate"},
            {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
            {"$retainKeys": ["type"], "type": "Recreate"},
        ),
        ({"type": "Recreate"}, {"type": "Recreate"}, {"type": "Recreate"}, None),
    ],
)
def test_keys_that_stay(original: Any, modified: Any, current: Any, expected: Any) -> None:
    trees = [{"spec": {"strategy": tree}} for tree in (original, modified, current)]
    patch = diff.create_three_way_strategic_patch(*trees, schema_of(apps_v1.Deployment))
    assert patch == ({"spec": {"strategy": expected}} if expected else {})
    if expected:
        assert apply_strategic(trees[2], patch, schema_of(apps_v1.Deployment)) == trees[1]


def test_keys_that_stay_in_elements() -> None:
    """Volumes too: one that became another kind of volume loses the old source, also a defaulted one."""
    volumes = [[{"name": "v", **source}] for source in ({"emptyDir": {}}, {"secret": {"secretName": "s"}})]
    trees = [{"spec": {"volumes": v}} for v in (volumes[1], volumes[1], [{**volumes[0][0], **volumes[1][0]}])]
    patch = diff.create_three_way_strategic_patch(*trees, schema_of(core_v1.Pod))
    assert patch["spec"]["volumes"] == [{"name": "v", "$retainKeys": ["name", "secret"]}]
    assert apply_strategic(trees[2], patch, schema_of(core_v1.Pod)) == trees[1]


def test_order_of_lists_with_strangers() -> None:
    """An element that only the current list has gets its place from the order of the others; no order for a new list."""
    mine, other = [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}], {"name": "x", "value": "3"}
    trees = [
        {"spec": {"containers": [{"name": "c", "env": env}]}} for env in (mine, mine, [other, *mine])
    ]  # fmt: skip
    patch = diff.create_three_way_strategic_patch(*trees, schema_of(core_v1.Pod))
    [container] = patch["spec"]["containers"]
    assert container == {"name": "c", "$setElementOrder/env": [{"name": "a"}, {"name": "b"}]}
    trees[2] = {"spec": {"containers": [{"name": "c", "env": []}]}}
    patch = diff.create_three_way_strategic_patch(*trees, schema_of(core_v1.Pod))
    assert patch["spec"]["containers"] == [{"name": "c", "env": mine}]


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 1) | st.sampled_from([0.0, 1.0, 2.5, 1 << 70]) | st.sampled_from("ab"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
)


def _walk(left: Any, right: Any) -> bool:
    """What :func:`same` means, in the plainest words."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_walk(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_walk, left, right))
    return left == right and isinstance(left, bool) == isinstance(right, bool)


@given(_VALUES, _VALUES, st.randoms())
def test_same_tells_true_from_one(left: Any, right: Any, random: Any) -> None:
    def turned(value: Any) -> Any:
        """Equal by Python's rule: keys in another order, and 1 for true and 1.0 here and there."""
        if isinstance(value, dict):
            return {k: turned(value[k]) for k in random.sample(list(value), len(value))}
        if isinstance(value, list):
            return [turned(v) for v in value]
        return random.choice([value, value, 1 if value is True else value, float(value) if type(value) is int else value])

    for one, other in ((left, right), (left, left), (left, turned(left))):
        assert same(one, other) == _walk(one, other)
