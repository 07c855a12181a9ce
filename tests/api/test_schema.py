"""Schemas and the walker that prunes by them, for built-in kinds and custom resources."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.api import pruning, schema
from navarch.api.errors import BadRequest
from navarch.api.kinds import KINDS
from navarch.api.types import apiextensions_v1, apps_v1, core_v1

POD = schema.schema_of(core_v1.Pod)


def test_every_kind_compiles() -> None:
    for kind in KINDS:
        seen: list[schema.Node] = []
        todo = [schema.schema_of(kind.type)]
        while todo:
            node = todo.pop()
            if any(node is s for s in seen):
                continue
            seen.append(node)
            if node.kind == schema.OBJECT:
                todo += node.fields.values()
            elif node.kind in (schema.LIST, schema.MAP):
                todo.append(node.element)


def test_prepare_brings_into_order() -> None:
    pod: dict[str, Any] = {
        "metadata": {"name": "a", "creationTimestamp": None, "foo": 1, "labels": {"x": None}},
        "spec": {
            "containers": [
                {
                    "name": "c",
                    "bar": {},
                    "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi", "x": "0.0001"}},
                    "args": [None],
                },
            ],
            "volumes": [{"name": "e", "emptyDir": {"sizeLimit": "1.5Gi"}}],
            "hostNetwork": False,
            "tolerations": None,
        },
        "status": {"startTime": "2024-01-01T01:00:00.5+01:00"},
    }
    problems = pruning.prepare(pod, POD)
    assert problems.strict(["spec.x"]) == [
        'duplicate field "spec.x"',
        'unknown field "metadata.foo"',
        'unknown field "spec.containers[0].bar"',
    ]
    assert not problems.types
    assert pod == {
        "metadata": {"name": "a", "labels": {"x": ""}},
        "spec": {
            "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "1Gi", "x": "1m"}}, "args": [""]}
            ],
            "volumes": [{"name": "e", "emptyDir": {"sizeLimit": "1536Mi"}}],
        },
        "status": {"startTime": "2024-01-01T00:00:00Z"},
    }
    assert not pruning.prepare(pod, POD)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"metadata": {"labels": {"a.b/c": 1}}},
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            {"spec": {"containers": [{"command": ["a", 3]}]}},
            "json: cannot unmarshal number into Go struct field Container.spec.containers.command of type string",
        ),
        (
            {"spec": {"containers": {}}},
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            {"spec": {"containers": [1]}},
            "json: cannot unmarshal number into Go struct field PodSpec.spec.containers of type v1.Container",
        ),
        ({"spec": "x"}, "json: cannot unmarshal string into Go struct field Pod.spec of type v1.PodSpec"),
        (
            {"spec": {"priority": 1.5}},
            "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            {"spec": {"priority": 2**31}},
            "json: cannot unmarshal number 2147483648 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            {"spec": {"containers": [{"env": [{"value": True}]}]}},
            "json: cannot unmarshal bool into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        (
            {"spec": {"overhead": {"cpu": "1z"}}},
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ],
)
def test_wrong_types(tree: dict[str, Any], message: str) -> None:
    assert [p.message() for p in pruning.prepare(tree, POD).types] == [message]


def test_bad_request() -> None:
    problems = pruning.prepare({"spec": {"replicas": "3"}}, schema.schema_of(apps_v1.Deployment))
    text = (
        'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct '
        "field DeploymentSpec.spec.replicas of type int32"
    )
    with pytest.raises(BadRequest) as raised:
        problems.raise_types("Deployment", "v1")
    assert raised.value.message == text
    strict = pruning.strict_error("Deployment", "v1", ['unknown field "spec.foo"', 'unknown field "bar"'])
    assert strict.message.endswith('strict decoding error: unknown field "spec.foo", unknown field "bar"')


def test_schemas_contain_themselves() -> None:
    crd = schema.schema_of(apiextensions_v1.JSONSchemaProps)
    tree: dict[str, Any] = {"properties": {"a": {"properties": {"b": {"type": "string", "oops": 1}}}}}
    assert pruning.prepare(tree, crd).unknown == ["properties.a.properties.b.oops"]


CUSTOM = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "integer", "nullable": True},
                "port": {"x-kubernetes-int-or-string": True},
                "free": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": {"n": {"type": "integer"}},
                },
                "items": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["k"],
                    "items": {
                        "type": "object",
                        "required": ["k"],
                        "properties": {"k": {"type": "string", "default": "d"}},
                    },
                },
                "map": {"type": "object", "additionalProperties": {"type": "number"}},
            },
        }
    },
}


def test_custom_resources() -> None:
    node = schema.from_openapi(CUSTOM)
    tree: dict[str, Any] = {
        "apiVersion": "x/v1",
        "kind": "X",
        "metadata": {"name": "a", "odd": 1},
        "spec": {
            "size": None,
            "port": 1,
            "free": {"a": None, "n": 1},
            "items": [{"k": "a", "z": 1}],
            "map": {"a": 1},
            "other": 1,
        },
    }
    problems = pruning.prepare(tree, node)
    assert problems.unknown == ["metadata.odd", "spec.items[0].z", "spec.other"] and not problems.types
    assert tree["spec"] == {
        "size": None,
        "port": 1,
        "free": {"a": None, "n": 1},
        "items": [{"k": "a"}],
        "map": {"a": 1},
    }
    items = node.fields["spec"].fields["items"]
    assert items.list_type == "map" and items.list_keys == ("k",) and items.element.key_default("k") == "d"
    assert items.element.required == ("k",)
    bad = pruning.prepare({"spec": {"size": "x"}}, node).types[0].cause()
    assert bad.text() == 'spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"'
