"""What objects are refused for; defaults, pruning and nulls."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.crd.formats import FORMATS
from apiserver.crd.parts import compile_parts
from apiserver.crd.paths import PathError, compile_path
from apiserver.crd.values import Check
from tests.apiserver.crd.support import MERGE, PATH, Caller, crontab, crontabs

Tree = dict[str, Any]


def causes(schema: Tree, value: Any, *old: Any) -> list[str]:
    out: list[Any] = []
    Check({"type": "object", "properties": {"x": schema}}).run({"x": value}, "", out, *[{"x": o} for o in old])
    if (parts := compile_parts({"type": "object", "properties": {"x": schema}})) is not None:
        parts({"x": value}, "", out)
    return [c.text() for c in out]


STRING, INTEGER = {"type": "string"}, {"type": "integer"}


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        (INTEGER, "a", 'x: Invalid value: "string": x in body must be of type integer: "string"'),
        (INTEGER, 1.5, 'x: Invalid value: "number": x in body must be of type integer: "number"'),
        (INTEGER, None, 'x: Invalid value: "null": x in body must be of type integer: "null"'),
        (INTEGER | {"nullable": True}, None, None),
        (INTEGER, 2.0, None),
        (INTEGER, True, 'x: Invalid value: "boolean": x in body must be of type integer: "boolean"'),
        ({"type": "number"}, 3, None),
        ({"x-kubernetes-int-or-string": True}, "a", None),
        (
            {"x-kubernetes-int-or-string": True},
            True,
            'x: Invalid value: "boolean": x in body must be of type integer,string: "boolean"',
        ),
        (INTEGER | {"minimum": 2}, 1, "x: Invalid value: 1: x in body should be greater than or equal to 2"),
        (INTEGER | {"maximum": 2, "exclusiveMaximum": True}, 2, "x: Invalid value: 2: x in body should be less than 2"),
        ({"type": "number", "multipleOf": 0.1}, 0.3, None),
        (INTEGER | {"multipleOf": 2}, 3, "x: Invalid value: 3: x in body should be a multiple of 2"),
        (
            INTEGER | {"format": "int32"},
            2**40,
            "x: Invalid value: 1099511627776: Checked value must be of type integer with format int32 in x",
        ),
        (STRING | {"pattern": "^a"}, "b", "x: Invalid value: \"b\": x in body should match '^a'"),
        (STRING | {"minLength": 2}, "b", 'x: Invalid value: "b": x in body should be at least 2 chars long'),
        (STRING | {"maxLength": 2}, "bbb", "x: Too long: may not be more than 2 bytes"),
        (STRING | {"enum": ["b", "a"]}, "c", 'x: Unsupported value: "c": supported values: "b", "a"'),
        (
            STRING | {"format": "date-time"},
            "never",
            'x: Invalid value: "never": x in body must be of type date-time: "never"',
        ),
        ({"type": "array", "items": STRING, "maxItems": 1}, ["a", "b"], "x: Too many: 2: must have at most 1 items"),
        (
            {"type": "array", "items": STRING, "minItems": 1},
            [],
            "x: Invalid value: 0: x in body should have at least 1 items",
        ),
        (
            {"type": "array", "items": INTEGER},
            [1, None],
            'x[1]: Invalid value: "null": x[1] in body must be of type integer: "null"',
        ),
        (
            {"type": "array", "items": STRING, "x-kubernetes-list-type": "set"},
            ["a", "b", "a"],
            'x[2]: Duplicate value: "a"',
        ),
        (
            {
                "type": "array",
                "items": {"type": "object", "properties": {"k": STRING}},
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"],
            },
            [{"k": "a"}, {"k": "a"}],
            'x[1]: Duplicate value: {"k":"a"}',
        ),
        ({"type": "object", "required": ["a"]}, {}, "x.a: Required value"),
        (
            {"type": "object", "additionalProperties": INTEGER},
            {"k": "v"},
            'x.k: Invalid value: "string": x.k in body must be of type integer: "string"',
        ),
        (
            {"type": "object", "minProperties": 1},
            {},
            "x: Invalid value: 0: x in body should have at least 1 properties",
        ),
        (
            {"type": "object", "x-kubernetes-embedded-resource": True},
            {"kind": "Pod"},
            "x.apiVersion: Required value: must not be empty",
        ),
        (
            INTEGER | {"anyOf": [{"minimum": 5}, {"maximum": 1}]},
            3,
            '<nil>: Invalid value: "": "x" must validate at least one schema (anyOf)',
        ),
        (
            INTEGER | {"oneOf": [{"minimum": 1}, {"maximum": 5}]},
            3,
            '<nil>: Invalid value: "": "x" must validate one and only one schema (oneOf). Found 2 valid alternatives',
        ),
        (
            INTEGER | {"allOf": [{"minimum": 5}, {"maximum": 5}]},
            3,
            '<nil>: Invalid value: "": "x" must validate all the schemas (allOf)',
        ),
        (INTEGER | {"not": {"enum": [3]}}, 3, '<nil>: Invalid value: "": "x" must not validate the schema (not)'),
    ],
)
def test_causes(schema: Tree, value: Any, expected: str | None) -> None:
    found = causes(schema, value)
    assert (expected in found) if expected else found == []


def test_what_did_not_change_passes() -> None:
    keyed = {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "properties": {"k": STRING, "n": INTEGER | {"maximum": 1}}},
    }
    bad, good = {"k": "a", "n": 5}, {"k": "b", "n": 1}
    assert causes(keyed, [good, bad], [bad]) == []
    assert len(causes(keyed, [good, bad | {"n": 6}], [bad])) == 1
    assert (
        len(causes({"type": "array", "items": INTEGER | {"maximum": 1}}, [5, 1], [5])) == 1
    )  # atomic: as a whole or not


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date-time", "2024-01-02T03:04:05.123Z", "2024-13-02T03:04:05Z"),
        ("date", "2024-02-29", "2023-02-29"),
        ("duration", "1h30m", "soon"),
        ("ipv4", "10.0.0.1", "10.0.0.256"),
        ("ipv6", "::1", "10.0.0.1"),
        ("cidr", "10.0.0.0/8", "10.0.0.0"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123"),
        ("email", "a@b.example", "a"),
        ("hostname", "a-b.example", "a_b"),
        ("uri", "https://a/b", "a b"),
        ("byte", "YQ==", "%"),
        ("mac", "01:02:03:04:05:06", "01:02"),
        ("hexcolor", "#ff00aa", "#ff"),
        ("k8s-short-name", "a-b", "A"),
        ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
        ("isbn10", "0-306-40615-2", "1"),
        ("isbn13", "978-0-306-40615-7", "978-0-306-40615-8"),
        ("ssn", "111-22-3333", "11-22"),
        ("rgbcolor", "rgb(1, 2,3)", "rgb(1,2)"),
        ("bsonobjectid", "507f1f77bcf86cd799439011", "5"),
    ],
)
def test_formats(name: str, good: str, bad: str) -> None:
    assert FORMATS[name](good) and not FORMATS[name](bad)


def test_paths() -> None:
    tree = {"a": {"b.c": 1}, "l": [{"t": "x", "n": 1}, {"t": "y", "n": 2}], "deep": {"n": {"n": 3}}}
    for path, expected in (
        (".a['b.c']", [1]),
        (".a.b\\.c", []),
        (".l[*].n", [1, 2]),
        (".l[-1].t", ["y"]),
        (".l[0:1].n", [1]),
        ('.l[?(@.t=="y")].n', [2]),
        (".l[?(@.n>1)].t", ["y"]),
        (".nope.x", []),
        (".l[?(@.zz)].n", []),
    ):
        if "\\" not in path:
            assert compile_path(path).find(tree) == expected, path
    for bad in ("a.b", ".a[", ".l[?(@.t==y)]"):
        with pytest.raises(PathError):
            compile_path(bad)


SPEC = {
    "replicas": None,
    "image": None,
    "nope": 1,
    "free": {"any": {"thing": None, "n": 1}},
    "labels": {"a": "b", "c": None},
    "port": 80,
    "parts": [{"name": "p", "nope": 1}],
    "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n", "nope": 1}, "spec": {"x": 1}},
}
STORED_SPEC = {
    "cronSpec": "* * 5",
    "replicas": 1,
    "free": {"any": {"thing": None, "n": 1}},
    "labels": {"a": "b"},
    "port": 80,
    "parts": [{"name": "p", "size": 7}],
    "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n"}, "spec": {"x": 1}},
}


async def test_defaults_pruning_and_nulls(call: Caller) -> None:
    await call.define(crontabs())
    answer = await call("POST", PATH, crontab("a", **SPEC))
    assert answer.code == 201, answer.tree
    assert answer.tree["spec"] == STORED_SPEC
    assert "unknown field" in answer.headers["warning"]
    strict = await call("POST", PATH, crontab("b", nope=1), fieldValidation="Strict")
    assert strict.code == 400 and 'strict decoding error: unknown field "spec.nope"' in strict.message


async def test_values_that_the_schema_refuses(call: Caller) -> None:
    await call.define(crontabs())
    assert (await call("POST", PATH, crontab("a", **SPEC))).code == 201
    many = await call("POST", PATH, crontab("b", cronSpec="x", replicas="many", color="blue", tags=["a", "a"]))
    assert many.code == 422
    assert {c["field"] for c in many.tree["details"]["causes"]} == {
        "spec.cronSpec",
        "spec.replicas",
        "spec.color",
        "spec.tags[1]",
    }
    assert many.message.startswith('CronTab.stable.example.com "b" is invalid: [')
    merged = await call("PATCH", f"{PATH}/a", {"spec": {"replicas": 11}}, MERGE)
    assert merged.message == (
        'CronTab.stable.example.com "a" is invalid: spec.replicas: Invalid value: 11: '
        "spec.replicas in body should be less than or equal to 10"
    )
    wrong = crontab("c") | {"metadata": {"name": "c", "labels": {"a": 1}}}
    assert (await call("POST", PATH, wrong)).code == 400
