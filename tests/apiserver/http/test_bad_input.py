"""Bad input that was a 500, or had a wrong code: one row each, with its neighbours."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.apiserver.registry.test_gate import CRD, WIDGETS, define
from tests.fuzz.support import Fuzzed, check, fuzzed

Tree = dict[str, Any]
MERGE, JSON, STRATEGIC = (f"application/{kind}-patch+json" for kind in ("merge", "json", "strategic-merge"))
APPLY, YAML = "application/apply-patch+yaml", "application/yaml"
PODS, MAPS = "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
SCALE = f"{DEPLOYMENTS}/d/scale"
BIG = "9" * 20

Row = tuple[str, str, Any, str, int, str]
ROWS: list[Row] = [
    # method or patch, path, body, query, code, text
    ("PUT", SCALE, {"spec": {"replicas": 1}}, "", 400, "undeterminable: name must be provided"),
    ("PUT", SCALE, {"metadata": {}, "spec": {"replicas": 1}}, "", 400, "name must be provided"),
    ("PUT", SCALE, {"metadata": 5, "spec": {"replicas": 1}}, "", 400, "cannot unmarshal number"),
    ("PUT", SCALE, {"metadata": {"name": "e"}, "spec": {}}, "", 400, "does not match the name on the URL"),
    ("PUT", SCALE, {"metadata": {"name": "d"}, "spec": {"replicas": "x"}}, "", 400, "spec.replicas"),
    ("PUT", SCALE, {"metadata": {"name": "d"}, "spec": {"replicas": True}}, "", 400, "spec.replicas"),
    ("PUT", SCALE, {"metadata": {"name": "d"}, "spec": {"replicas": -1}}, "", 422, "must be greater than or equal to 0"),
    ("PUT", SCALE, {"metadata": {"name": "d"}, "spec": {"replicas": 2**31}}, "", 400, "spec.replicas"),
    ("PUT", SCALE, {"metadata": {"name": "d", "resourceVersion": 5}}, "", 400, "resourceVersion"),
    (MERGE, SCALE, {"spec": []}, "", 400, "cannot unmarshal array"),
    (JSON, SCALE, [{"op": "remove", "path": "/metadata"}], "", 200, ""),
    (JSON, SCALE, [{"op": "replace", "path": "/spec", "value": 1}], "", 400, "cannot unmarshal number"),
    ("PUT", f"{MAPS}/c", {"data": {}}, "", 400, "undeterminable: name must be provided"),
    ("GET", PODS, b"", f"limit={BIG}", 400, f'strconv.ParseInt: parsing "{BIG}": value out of range'),
    ("GET", PODS, b"", f"limit=-{BIG}", 400, "value out of range"),
    ("GET", PODS, b"", "limit=1_0", 400, "invalid syntax"),
    ("GET", PODS, b"", "limit=%D9%A1", 400, "invalid syntax"),
    ("GET", PODS, b"", "limit=1.0", 400, "invalid syntax"),
    ("GET", PODS, b"", f"timeoutSeconds={BIG}", 400, "value out of range"),
    ("DELETE", f"{MAPS}/c", b"", f"gracePeriodSeconds={BIG}", 400, "value out of range"),
    ("DELETE", f"{MAPS}/c", {"gracePeriodSeconds": 2**63}, "", 400, "gracePeriodSeconds of type int64"),
    ("DELETE", f"{MAPS}/c", {"preconditions": {"uid": 5}}, "", 400, "uid"),
    ("DELETE", f"{MAPS}/c", {"dryRun": "All"}, "", 400, "dryRun"),
    ("GET", PODS, b"", f"resourceVersion={BIG}", 400, "resourceVersion"),
    ("GET", PODS, b"", "continue=AAAA", 400, "continue key is not valid"),
    ("GET", PODS, b"", "labelSelector=a+in+(", 400, "unable to parse requirement"),
    ("GET", PODS, b"", "fieldSelector=nosuch%3D1", 400, "field label not supported"),
    (MERGE, f"{MAPS}/c", b'{"data": {"a": "\\ud800"}}', "", 200, ""),  # Go reads half a character as U+FFFD
    (MERGE, f"{MAPS}/c", b'{"data": {"a": "\xff"}}', "", 200, ""),
    (MERGE, f"{MAPS}/c", b'{"data": {"a": 1e999}}', "", 400, "cannot unmarshal number 1e999 into Go value of type float64"),
    (MERGE, f"{MAPS}/c", b'{"data": NaN}', "", 400, "invalid character 'N'"),
    (MERGE, f"{MAPS}/c", b'{"data":' * 300 + b"{}" + b"}" * 300, "", 400, "exceeded max depth"),
    (STRATEGIC, f"{MAPS}/c", b'{"data":' * 300 + b"{}" + b"}" * 300, "", 400, "exceeded max depth"),
    (APPLY, f"{MAPS}/c", b"[" * 3000, "fieldManager=m", 400, ""),
    ("POST", MAPS, b"[" * 3000, "", 400, ""),
    ("POST", MAPS, b"", "", 400, "unexpected end of JSON input"),
    ("POST", MAPS, b"{", "", 400, "unexpected end of JSON input"),
    ("POST", MAPS, b'{"metadata": {"name": "x"}, "data": {"a": }}', "", 400, "invalid character '}'"),
    (YAML, MAPS, b"a: [", "", 400, "yaml"),
    ("POST", WIDGETS, {"metadata": {"name": "x"}, "spec": {"part": {
        "apiVersion": "v1", "kind": "X", "metadata": {"labels": {"a": 1}}}}}, "", 400, "spec.part.metadata.labels"),
    ("POST", WIDGETS, {"metadata": {"name": "x"}, "spec": {"part": {
        "apiVersion": "v1", "kind": "X", "metadata": {"labels": []}}}}, "", 400, "spec.part.metadata.labels"),
    ("POST", WIDGETS, {"metadata": {"name": "x"}, "spec": {"part": {
        "apiVersion": "v1", "kind": "X", "metadata": {"annotations": {"a": {}}}}}}, "", 400, "spec.part.metadata.annotations"),
    ("POST", WIDGETS, {"metadata": {"name": "x"}, "spec": {"part": {
        "apiVersion": "v1", "kind": "X", "metadata": {"name": 5}}}}, "", 400, "spec.part.metadata.name"),
    ("POST", WIDGETS, {"metadata": {"name": "x"}, "spec": {"part": {
        "apiVersion": "v1", "kind": "X", "metadata": {"finalizers": [1]}}}}, "", 400, "spec.part.metadata.finalizers"),
    ("POST", WIDGETS, {"metadata": {"name": "x"}, "spec": {"part": {"apiVersion": 1, "kind": 2}}}, "", 422, "spec.part"),
    ("POST", WIDGETS, {"metadata": {"name": "x"}, "spec": {"part": {
        "apiVersion": "v1", "kind": "X", "metadata": 5}}}, "", 400, "spec.part.metadata"),
    ("POST", WIDGETS, {"metadata": {"name": "x", "labels": {"a": 1}}}, "", 400, "labels"),
]  # fmt: skip


async def ask_row(ask: Fuzzed, row: Row) -> Any:
    method, path, body, query, _, _ = row
    if method == YAML:
        return await ask("POST", path, body, query=query, content_type=YAML)
    if "patch" in method:
        return await ask("PATCH", path, body, query=query, content_type=method)
    return await ask(method, path, body, query=query)


async def test_bad_input() -> None:
    async with fuzzed() as ask:
        await define(ask)
        assert CRD
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}
        await ask("POST", DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec})
        await ask("POST", MAPS, {"metadata": {"name": "c"}})
        wrong: list[tuple[Any, ...]] = []
        for row in ROWS:
            answer = await ask_row(ask, row)
            try:
                check(answer, row[:4])
            except AssertionError as error:
                wrong.append((str(error)[:900],))
            if answer.code != row[4] or (row[5] and row[5] not in answer.tree["message"]):
                wrong.append((row[:2], str(row[2])[:60], row[3], answer.code, answer.text[:300]))
        assert not wrong, "\n".join(map(str, wrong))
        assert (await ask("GET", f"{MAPS}/c")).tree["data"] == {"a": "\ufffd"}


FIELDS: list[Any] = [
    5, {}, [5], [{}], [{"fieldsV1": {"f:data": 5}}],
    [{"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": 5}}],
    [{"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {".": 5}}}],
    [{"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"k:x": {}}}],
    [{"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"i:x": {}}}],
    [{"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"v:{": {}}}],
    [{"manager": "m", "operation": "Other", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {}}}],
    [{"manager": "m", "operation": "Update", "apiVersion": "", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {}}}],
    [{"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV2", "fieldsV1": {"f:data": {}}}],
]  # fmt: skip


async def test_managed_fields_that_nobody_can_decode() -> None:
    """Upstream (structured-merge-diff's manager) goes on from the stored entries; what is no list of entries is a 400."""

    async with fuzzed() as ask:
        for i, fields in enumerate(FIELDS):
            tree: Tree = {"metadata": {"name": f"c{i}", "managedFields": fields}, "data": {"a": "b"}}
            bad = not isinstance(fields, list) or fields == [5]
            made = await ask("POST", MAPS, tree, query="fieldManager=me")
            assert made.code == (400 if bad else 201), (fields, made.text)
            if bad:
                continue
            if fields != [{}]:  # which asks for no entries
                assert [e["manager"] for e in made.tree["metadata"]["managedFields"]] == ["me"], fields
            changed = await ask("PUT", f"{MAPS}/c{i}", tree | {"data": {"a": "c"}}, query="fieldManager=you")
            assert changed.code == 200, (fields, changed.text)
            applied = await ask(
                "PATCH", f"{MAPS}/c{i}", {"apiVersion": "v1", "kind": "ConfigMap", "data": {"z": "1"}},
                query="fieldManager=it", content_type=APPLY,
            )  # fmt: skip
            assert applied.code == 200, (fields, applied.text)
        assert await ask.undecodable() == []


async def test_a_get_with_watch_is_a_get() -> None:
    async with fuzzed() as ask:
        await ask("POST", MAPS, {"metadata": {"name": "c"}})
        for query in ("watch=1", "watch=true", "watch"):
            async with asyncio.timeout(10):
                answer = await ask("GET", f"{MAPS}/c", query=query)
            assert answer.tree["kind"] == "ConfigMap"
        assert (await ask("GET", f"{MAPS}/none", query="watch=1")).code == 404
