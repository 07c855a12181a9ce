"""Patches that leave parts of an object alone, which nobody compares then: they do leave them, and nothing else differs."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.registry.patches import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, Patch
from navarch.api.errors import StatusError
from navarch.api.schema import schema_of
from navarch.api.types import core_v1
from tests.apiserver.kinds.served import Asker

ORDERS = ["$setElementOrder/spec", "$deleteFromPrimitiveList/spec"]
KEYS = ["metadata", "spec", "status", "other", "$patch", "$retainKeys", *ORDERS]
VALUES = st.sampled_from([None, {}, {"a": "b"}, {"a": None}, ["spec"], "delete", "replace", "x"])
OLD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"a": "c"}, "status": {"a": "d"}}


@given(st.sampled_from([MERGE_PATCH, STRATEGIC_PATCH]), st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
def test_what_a_patch_leaves_is_as_it_was(kind: str, tree: dict[str, Any]) -> None:
    patch = Patch(kind, orjson.dumps(tree), tree)
    try:
        new = patch.apply(OLD, schema_of(core_v1.Pod))
    except StatusError:
        return
    for key in {**OLD, **new}:
        if patch.leaves(key):
            assert new.get(key, "absent") == OLD.get(key, "absent")
    if patch.touches_only(("metadata", "status")):
        shared = {key: value for key, value in new.items() if key not in ("metadata", "status")}
        assert shared == {key: value for key, value in OLD.items() if key not in ("metadata", "status")}


def test_of_a_json_patch_nothing_is_sure() -> None:
    patch = Patch(JSON_PATCH, b"[]", [])
    assert not patch.leaves("spec") and not patch.touches_only(("metadata", "status"))


PODS = "/api/v1/namespaces/default/pods"
POD = {"spec": {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 5}}
BESIDE: list[dict[str, Any]] = [
    {}, {"apiVersion": "v1", "kind": "Pod"}, {"spec": {"terminationGracePeriodSeconds": 7}}, {"spec": None},
]  # fmt: skip


@pytest.mark.parametrize("kind", [MERGE_PATCH, STRATEGIC_PATCH])
async def test_a_patch_of_status_changes_status_and_annotations(ask: Asker, kind: str) -> None:
    """The same whether it names nothing else, or other things, too."""
    await ask("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    for number, more in enumerate(BESIDE):
        made = await ask("POST", PODS, {"metadata": {"name": f"p{number}", "labels": {"x": "y"}}} | POD)
        metadata = {"labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["x/y"]}
        body = {"metadata": metadata, "status": {"phase": "Running"}} | more
        new = await ask("PATCH", f"{PODS}/p{number}/status", body, type=kind)
        assert new["spec"] == made["spec"] and new["status"] == made["status"] | {"phase": "Running"}
        written = ("annotations", "managedFields", "resourceVersion")
        for key in {**made["metadata"], **new["metadata"]}:
            assert key in written or new["metadata"].get(key) == made["metadata"].get(key), key
        assert new["metadata"]["annotations"] == {"c": "d"}
        assert await ask("GET", f"{PODS}/p{number}") == new
        assert await ask("PATCH", f"{PODS}/p{number}/status", body, type=kind) == new, "nothing changed"


@pytest.mark.parametrize("kind", [MERGE_PATCH, STRATEGIC_PATCH])
async def test_a_patch_of_the_object_leaves_status(ask: Asker, kind: str) -> None:
    await ask("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    made = await ask("POST", PODS, {"metadata": {"name": "p"}} | POD)
    for number, more in enumerate([{}, {"status": {"phase": "Failed"}}, {"status": None}, {"apiVersion": "v1", "kind": "Pod"}]):
        new = await ask("PATCH", f"{PODS}/p", {"metadata": {"labels": {"n": str(number)}}} | more, type=kind)
        assert new["metadata"]["labels"] == {"n": str(number)}
        assert (new["spec"], new["status"]) == (made["spec"], made["status"])
    narrowed = await ask("PATCH", f"{PODS}/p", {"spec": {"activeDeadlineSeconds": 9}}, type=kind)
    assert narrowed["spec"] == made["spec"] | {"activeDeadlineSeconds": 9}
    owners = {"f:activeDeadlineSeconds" in str(entry["fieldsV1"]) for entry in narrowed["metadata"]["managedFields"]}
    assert True in owners
