"""What definitions are refused for, and in what words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from apiserver.crd.checks import check_spec
from apiserver.crd.definition import CustomResourceDefinitionStrategy
from apiserver.crd.structural import check_schema
from navarch.world import RealWorld
from tests.apiserver.crd.support import CRDS, MERGE, Caller, crontabs, spec_schema

Tree = dict[str, Any]
STRATEGY = CustomResourceDefinitionStrategy(RealWorld())
AT = "spec.versions[0].schema.openAPIV3Schema"


def texts(definition: Tree) -> list[str]:
    STRATEGY.default(definition)
    definition["status"] = {
        "storedVersions": [v["name"] for v in definition["spec"]["versions"] if v.get("storage")][:1]
    }
    return [c.text() for c in STRATEGY.validate(definition)]


def of_schema(schema: Tree) -> list[str]:
    return [c.text() for c in check_schema({"type": "object", "properties": {"x": schema}}, "s")]


def test_a_good_one() -> None:
    assert texts(crontabs()) == []
    assert check_spec(crontabs()["spec"] | {"conversion": {"strategy": "None"}}) != []  # listKind comes by default


def change(path: str, value: Any) -> Callable[[Tree], None]:
    def apply(tree: Tree) -> None:
        at: Any = tree
        *above, last = path.split("/")
        for part in above:
            at = at[int(part)] if part.isdigit() else at[part]
        if value is None:
            del at[last]
        else:
            at[last] = value

    return apply


@pytest.mark.parametrize(
    ("path", "value", "cause"),
    [
        ("metadata/name", "x.y", 'metadata.name: Invalid value: "x.y": must be spec.names.plural+"."+spec.group'),
        ("spec/group", "example", 'spec.group: Invalid value: "example": should be a domain with at least one dot'),
        ("spec/scope", None, "spec.scope: Required value"),
        ("spec/scope", "World", 'spec.scope: Unsupported value: "World": supported values: "Cluster", "Namespaced"'),
        (
            "spec/preserveUnknownFields",
            True,
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set "
            "x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ),
        (
            "spec/names/listKind",
            "CronTab",
            'spec.names.listKind: Invalid value: "CronTab": kind and listKind may not be the same',
        ),
        (
            "spec/versions/0/storage",
            False,
            'spec.versions: Invalid value: ["v1"]: must have exactly one version marked as storage version',
        ),
        ("spec/versions/0/schema", None, f"{AT}: Required value: schemas are required"),
        (
            "spec/versions/0/deprecationWarning",
            "w",
            'spec.versions[0].deprecationWarning: Invalid value: "w": can only be set for deprecated versions',
        ),
        (
            "spec/versions/0/subresources/scale/specReplicasPath",
            ".status.x",
            "spec.versions[0].subresources.scale."
            'specReplicasPath: Invalid value: ".status.x": should be a json path under .spec',
        ),
        (
            "spec/versions/0/selectableFields/0/jsonPath",
            ".spec.nope",
            "spec.versions[0].selectableFields[0].jsonPath: "
            'Invalid value: ".spec.nope": does not refer to a valid field',
        ),
        (
            "spec/versions/0/additionalPrinterColumns/0/type",
            "text",
            "spec.versions[0].additionalPrinterColumns[0].type: "
            'Invalid value: "text": must be one of boolean,date,integer,number,string',
        ),
        (
            "spec/versions/0/schema/openAPIV3Schema/anyOf",
            [{"required": ["spec"]}],
            "XValidations] fields are allowed at the root of the schema if the status subresource is enabled",
        ),
        (
            "spec/conversion",
            {"strategy": "Webhook"},
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
        ),
    ],
)
def test_spec(path: str, value: Any, cause: str) -> None:
    definition = crontabs()
    change(path, value)(definition)
    assert any(cause in text for text in texts(definition))


def test_protected_groups() -> None:
    definition = crontabs()
    definition["spec"]["group"] = "things.k8s.io"
    definition["metadata"]["name"] = "crontabs.things.k8s.io"
    assert [t for t in texts(definition) if "protected groups must have approval annotation" in t]
    definition["metadata"]["annotations"] = {"api-approved.kubernetes.io": "https://github.com/kubernetes/x/pull/1"}
    assert texts(definition) == []


@pytest.mark.parametrize(
    ("schema", "cause"),
    [
        ({}, "s.properties[x].type: Required value: must not be empty for specified object fields"),
        ({"type": "array"}, "s.properties[x].items: Required value: must be specified"),
        (
            {"type": "array", "items": {}},
            "s.properties[x].items.type: Required value: must not be empty for specified array items",
        ),
        (
            {"type": "text"},
            's.properties[x].type: Unsupported value: "text": supported values: "array", "boolean", "integer", '
            '"number", "object", "string"',
        ),
        (
            {"type": "object", "additionalProperties": False},
            "s.properties[x].additionalProperties: Forbidden: additionalProperties cannot be set to false",
        ),
        (
            {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
            "s.properties[x].uniqueItems: Forbidden: uniqueItems cannot be set to true since the "
            "runtime complexity becomes quadratic",
        ),
        (
            {"type": "object", "anyOf": [{"properties": {"a": {"minimum": 1}}}]},
            "s.properties[x].properties[a]: Required value: because it is defined in s.properties[x].anyOf[0].properties[a]",
        ),
        (
            {"type": "object", "allOf": [{"type": "object"}]},
            "s.properties[x].allOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            {"type": "string", "pattern": "("},
            's.properties[x].pattern: Invalid value: "(": must be a valid regular expression, '
            "but isn't: error parsing regexp: missing ): (",
        ),
        (
            {"type": "integer", "minimum": 3, "default": 1},
            "s.properties[x].default: Invalid value: 1:  in body should be greater than or equal to 3",
        ),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "default": {"b": 1}},
            's.properties[x].default: Invalid value: {"b":1}: must not have unknown fields',
        ),
        (
            {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "map"},
            "s.properties[x].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        (
            {"type": "object", "x-kubernetes-preserve-unknown-fields": False},
            "s.properties[x].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
        ),
        (
            {"type": "string", "x-kubernetes-int-or-string": True},
            "s.properties[x].type: Forbidden: must be empty if x-kubernetes-int-or-string is true",
        ),
    ],
)
def test_structure(schema: Tree, cause: str) -> None:
    assert cause in of_schema(schema)


def test_structural_ones() -> None:
    for schema in (
        {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        {"x-kubernetes-preserve-unknown-fields": True},
        {
            "type": "object",
            "properties": {"a": {"type": "string"}},
            "oneOf": [{"required": ["a"]}, {"not": {"required": ["a"]}}],
        },
    ):
        assert of_schema(schema) == [], schema
    root = check_schema({"type": "string"}, "s")
    assert [c.text() for c in root] == ['s.type: Invalid value: "string": must be object at the root']
    named = {
        "type": "object",
        "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}}}},
    }
    assert check_schema(named, "s") == []
    named["properties"]["metadata"]["properties"]["labels"] = {"type": "object"}  # type: ignore[index]
    assert "must not specify anything other than name and generateName" in check_schema(named, "s")[0].text()


async def test_updates(call: Caller) -> None:
    await call.define(crontabs())
    path = f"{CRDS}/crontabs.stable.example.com"
    for patch, cause in (
        ({"spec": {"scope": "Cluster"}}, 'spec.scope: Invalid value: "Cluster": field is immutable'),
        ({"spec": {"names": {"kind": "Other"}}}, 'spec.names.kind: Invalid value: "Other": field is immutable'),
    ):
        answer = await call("PATCH", path, patch, MERGE)
        assert answer.code == 422 and cause in answer.message, answer.tree
    strict = crontabs()
    strict["metadata"]["name"] = "a.stable.example.com"
    strict["spec"]["frobnicate"] = True
    answer = await call("POST", CRDS, strict, fieldValidation="Strict")
    assert answer.code == 400 and 'unknown field "spec.frobnicate"' in answer.message
    # Annotations of a definition that is there do not count as a change of its schema.
    changed = await call.ok("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, MERGE)
    assert changed["metadata"]["generation"] == 1
    spec_schema(changed)["properties"]["new"] = {"type": "string"}
    assert (await call.ok("PUT", path, changed))["metadata"]["generation"] == 2
