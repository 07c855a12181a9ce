"""The pure parts: JSONPath, aligned text, durations, what apply writes down, flags as people write them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import threewayapply
from cli.describing.writer import aligned
from cli.errors import CommandError
from cli.objectwait import parse_duration
from cli.output import jsonpath
from cli.output.tables import Columns, TablePrinter
from cli.session import Resource
from navarch.api.kinds import BY_GVK, Kind

TREE = {
    "items": [
        {"metadata": {"name": "a", "labels": {"x.y/z": "1"}}, "n": 1, "on": True},
        {"metadata": {"name": "b"}, "n": 12, "deep": {"name": "c"}},
    ],
    "empty": None,
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{.items[*].metadata.name}", "a b"),
        ("{.items[0].metadata.labels.x\\.y/z}", "1"),
        ("{.items[0].metadata.labels['x.y/z']}", "1"),
        ("{.items[-1].n}", "12"),
        ("{.items[0:1].metadata.name}", "a"),
        ("{.items[?(@.n>2)].metadata.name}", "b"),
        ("{.items[?(@.metadata.name=='a')].n}", "1"),
        ('{.items[?(@.on==true)].metadata.name}', "a"),
        ("{.items[?(@.deep)].n}", "12"),
        ("{..name}", "a b c"),
        ("{.items[*]['n','on']}", "1 true 12"),
        ('{range .items[*]}{.metadata.name}{"\\t"}{.n}{"\\n"}{end}', "a\t1\nb\t12\n"),
        ("{range .items[*]}{range .metadata}[{.name}]{end};{end}", "[a];[b];"),
        ("{.missing}|{.empty}", "|"),
        ("{.items[1].deep}", '{"name":"c"}'),
        ("x{$.items[0].n}y", "x1y"),
    ],
)  # fmt: skip
def test_jsonpath(template: str, expected: str) -> None:
    assert jsonpath.evaluate(template, TREE) == expected


@pytest.mark.parametrize("template", ["{.a", "{range .a}", "{.a[x]}", "{end"])
def test_jsonpath_refuses(template: str) -> None:
    with pytest.raises(jsonpath.JSONPathError):
        jsonpath.evaluate(template, {"a": [1]})


def test_text_aligns_block_by_block() -> None:
    lines = ["Name:\tx", "Longer title:\ty", "Section:", "  a:\tb", "  cc\t\tend"]
    assert aligned(lines) == [
        "Name:          x",
        "Longer title:  y",
        "Section:",
        "  a:  b",
        "  cc    end",
    ]


@given(st.lists(st.lists(st.text(alphabet="ab ", max_size=5), min_size=1, max_size=4), max_size=8))
def test_aligning_loses_nothing(rows: list[list[str]]) -> None:
    out = aligned(["\t".join(row) for row in rows])
    assert len(out) == max(1, len(rows))
    for row, line in zip(rows, out, strict=False):
        assert line.replace(" ", "") == "".join(row).replace(" ", "")


def test_columns_only_grow() -> None:
    columns = Columns()
    assert columns.lines([["A", "B"], ["1", "2"]]) == ["A     B", "1     2"]
    assert columns.lines([["123456789", "3"], ["4", "5"]]) == ["123456789   3", "4           5"]
    assert columns.lines([["6", "7"]]) == ["6           7"]


def test_table_with_everything() -> None:
    table = {
        "columnDefinitions": [
            {"name": "Name", "format": "name"},
            {"name": "Ready"},
            {"name": "Extra", "priority": 1},
        ],
        "rows": [
            {"cells": ["x", True, "e"], "object": {"metadata": {"namespace": "n", "labels": {"a/b": "c"}}}},
            {"cells": ["yy", None, "two\nlines"], "object": {"metadata": {"namespace": "n"}}},
        ],
    }
    printer = TablePrinter(wide=True, with_namespace=True, prefix="pod", labels=["a/b"], show_labels=True)
    assert printer.lines(table) == [
        "NAMESPACE   NAME     READY    EXTRA    B     LABELS",
        "n           pod/x    true     e        c     a/b=c",
        "n           pod/yy   <none>   two...         <none>",
    ]


@pytest.mark.parametrize(("text", "seconds"), [("1h30m", 5400), ("500ms", 0.5), ("12", 12), ("-1s", -1), ("0", 0)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


def test_wrong_durations() -> None:
    for text in ("", "5x", "s", "1h30"):
        with pytest.raises(CommandError):
            parse_duration(text)


# --- apply ------------------------------------------------------------------------------------------------------------

DEPLOYMENT = Resource(BY_GVK["apps", "v1", "Deployment"], subresources=("status", "scale"))
CUSTOM = Resource(Kind("example.com", "v1", "Foo", "foos"))


def test_last_applied_is_written_as_kubectl_writes_it() -> None:
    tree = {"kind": "X", "metadata": {"name": "n", "annotations": {"k": "<&>"}}, "a": 1}
    modified = threewayapply.annotated(tree)
    text = modified["metadata"]["annotations"][threewayapply.LAST_APPLIED]
    assert text == ('{"a":1,"kind":"X","metadata":{"annotations":{"k":"\\u003c\\u0026\\u003e"},"name":"n"}}\n')
    assert threewayapply.annotated(modified) == modified
    assert threewayapply.last_applied(modified) == tree
    assert threewayapply.last_applied({"metadata": {"name": "n"}}) is None


def deployment(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "n"}, "spec": spec}


def test_three_way_keeps_what_others_added_and_removes_what_was_ours() -> None:
    first = threewayapply.annotated(deployment(replicas=2, paused=True))
    live = json.loads(json.dumps(first))
    live["spec"] |= {"replicas": 7, "revisionHistoryLimit": 10}
    second = threewayapply.annotated(deployment(minReadySeconds=3))
    patch = threewayapply.three_way(DEPLOYMENT, threewayapply.last_applied(live), second, live)
    assert patch is not None and patch.type == "strategic"
    assert patch.tree["spec"] == {"replicas": None, "paused": None, "minReadySeconds": 3}
    assert threewayapply.three_way(DEPLOYMENT, threewayapply.last_applied(first), first, live | {"spec": first["spec"]}) is None


def test_nulls_and_status_of_generated_manifests_change_nothing() -> None:
    tree = deployment(replicas=1) | {"status": {}}
    tree["metadata"]["creationTimestamp"] = None
    modified = threewayapply.annotated(tree)
    live = json.loads(json.dumps(modified))
    live["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    live["status"] = {"replicas": 1}
    assert threewayapply.three_way(DEPLOYMENT, threewayapply.last_applied(live), modified, live) is None


def test_custom_kinds_get_a_merge_patch() -> None:
    old = threewayapply.annotated({"metadata": {"name": "n"}, "spec": {"list": [1, 2], "gone": 1}})
    new = threewayapply.annotated({"metadata": {"name": "n"}, "spec": {"list": [2]}})
    patch = threewayapply.three_way(CUSTOM, threewayapply.last_applied(old), new, old)
    assert patch is not None and patch.type == "merge"
    assert patch.tree["spec"] == {"list": [2], "gone": None}
