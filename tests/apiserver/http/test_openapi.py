"""OpenAPI v3 and v2: valid, complete, cheap to ask for again; and the protobuf form read by protobuf's own library."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from openapi_spec_validator import OpenAPIV2SpecValidator, OpenAPIV30SpecValidator

from apiserver.http.openapi import gnostic
from apiserver.http.openapi.definitions import to_v2
from apiserver.http.openapi.operations import group_word
from apiserver.http.openapi.serving import V2_OLD_PROTOBUF, V2_PROTOBUF
from tests.apiserver.crd.support import CRDS, crontabs
from tests.apiserver.registry.widget import Caller

METHODS = ("get", "put", "post", "patch", "delete", "head", "options")


def operations(document: Any) -> dict[str, Any]:
    """All operations by id; no id stands twice."""
    found = [o for path in document["paths"].values() for method, o in path.items() if method in METHODS]
    out = {o["operationId"]: o for o in found}
    assert len(out) == len(found)
    return out


async def fetch(call: Caller, path: str, accept: str = "application/json", **headers: str) -> Any:
    return await call.transport.request("GET", path, accept=accept, headers=headers)


async def document(call: Caller, path: str = "/openapi/v2") -> Any:
    answer = await fetch(call, path)
    assert answer.status == 200
    return json.loads(answer.body)


async def test_v3_is_valid_and_links_lead_somewhere(call: Caller) -> None:
    index = (await document(call, "/openapi/v3"))["paths"]
    assert {"api", "apis", "apis/apps", "version", "apis/apps/v1", "api/v1"} <= set(index)
    for name in index:
        whole = await document(call, f"/openapi/v3/{name}")
        operations(whole)
        text = json.dumps(whole)
        links = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
        assert links <= set(whole["components"]["schemas"])
        assert '"null"' not in text and "$defs" not in text
        assert not list(OpenAPIV30SpecValidator(whole).iter_errors()), name


async def test_v3_has_what_kubectl_looks_for(call: Caller) -> None:
    index = (await document(call, "/openapi/v3"))["paths"]
    url, _, digest = index["apis/apps/v1"]["serverRelativeURL"].partition("?hash=")
    answer = await call("GET", url, hash=digest)
    assert answer.headers["etag"] == f'"{digest}"' and "immutable" in answer.headers["cache-control"]
    patch = answer.tree["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert "application/strategic-merge-patch+json" in patch["requestBody"]["content"]
    assert "fieldValidation" in {p["name"] for p in patch["parameters"]}
    schemas = answer.tree["components"]["schemas"]
    assert schemas["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"]["default"] == "TCP"
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name" and containers["type"] == "array"
    assert containers["description"]
    core = operations(await document(call, "/openapi/v3/api/v1"))
    assert {
        "listCoreV1NamespacedPod", "listCoreV1PodForAllNamespaces", "createCoreV1NamespacedPodBinding",
        "readCoreV1NamespacedPodLog", "connectCoreV1GetNamespacedPodExec", "connectCoreV1GetNodeProxyWithPath",
        "replaceCoreV1NamespaceFinalize", "deleteCoreV1CollectionNamespacedConfigMap", "patchCoreV1NodeStatus",
        "watchCoreV1NamespacedPodList", "createCoreV1NamespacedServiceAccountToken", "getCoreV1APIResources",
    } <= set(core)  # fmt: skip


async def test_every_resource_of_discovery_has_its_paths(call: Caller) -> None:
    whole = await document(call)
    actions = {"get": "get", "list": "get", "create": "post", "update": "put", "patch": "patch", "delete": "delete"}
    checked = 0
    for group in ["", *(g["name"] for g in (await call("GET", "/apis")).tree["groups"])]:
        for version in call.server.apis.discovery.groups[group]:
            prefix = f"/apis/{group}/{version}" if group else f"/api/{version}"
            for one in (await call("GET", prefix)).tree["resources"]:
                name, _, sub = one["name"].partition("/")
                where = f"{prefix}/namespaces/{{namespace}}/{name}" if one["namespaced"] else f"{prefix}/{name}"
                for verb, method in actions.items():
                    if verb in one["verbs"]:
                        inner = "/{name}" if sub or verb not in ("list", "create") else ""
                        assert method in whole["paths"][f"{where}{inner}{f'/{sub}' if sub else ''}"], (where, verb)
                        checked += 1
    assert checked > 300


async def test_v2_is_valid_and_follows_the_definitions(call: Caller) -> None:
    first = await fetch(call, "/openapi/v2")
    before = json.loads(first.body)
    operations(before)
    assert not list(OpenAPIV2SpecValidator(before).iter_errors())
    pod = before["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]
    assert pod["containers"]["x-kubernetes-patch-strategy"] == "merge"
    assert pod["affinity"] == {"$ref": "#/definitions/io.k8s.api.core.v1.Affinity"} | {
        "description": pod["affinity"]["description"]
    }
    port = before["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]
    assert (port["type"], port["format"]) == ("string", "int-or-string")
    assert (await call("POST", CRDS, crontabs())).code == 201
    while ("stable.example.com", "v1", "crontabs") not in call.server.resources.served:
        await call.server.world.sleep(0.005)
    second = await fetch(call, "/openapi/v2", **{"if-none-match": first.headers["etag"]})
    assert second.status == 200 and second.headers["etag"] != first.headers["etag"]
    after = json.loads(second.body)
    assert "description" in after["definitions"]["com.example.stable.v1.CronTab"]["properties"]["metadata"]
    assert "listStableExampleComV1NamespacedCronTab" in operations(after)


async def test_documents_are_asked_for_again_for_nothing(call: Caller) -> None:
    for path in ("/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1"):
        plain = await fetch(call, path)
        packed = await fetch(call, path, **{"accept-encoding": "gzip"})
        assert packed.headers["content-encoding"] == "gzip" and len(packed.body) < len(plain.body) / 2
        etag = plain.headers["etag"]
        for tags in (etag, f'"other", W/{etag}'):
            again = await fetch(call, path, **{"if-none-match": tags})
            assert (again.status, again.body) == (304, b"")
    assert (await fetch(call, "/openapi/v2", accept="image/png")).status == 406
    assert (await fetch(call, "/openapi/v3", accept="image/png")).status == 406
    assert (await call("POST", "/openapi/v2")).code == 405
    assert (await call("GET", "/openapi/v3/apis/none/v1")).code == 404


# --- protobuf ---------------------------------------------------------------------------------------------------------

# The part of openapi.v2's messages that our documents use, for protobuf's library: an independent reader.
MESSAGES = """
Any yaml:2:s
NamedAny name:1:s value:2:Any
Document swagger:1:s info:2:Info paths:8:Paths definitions:9:Definitions security_definitions:13:SecurityDefinitions
Info title:1:s version:2:s
Paths path:2:*NamedPathItem
NamedPathItem name:1:s value:2:PathItem
PathItem get:2:Operation put:3:Operation post:4:Operation delete:5:Operation options:6:Operation head:7:Operation
PathItem patch:8:Operation parameters:9:*ParametersItem
Operation tags:1:*s description:3:s operation_id:5:s produces:6:*s consumes:7:*s parameters:8:*ParametersItem
Operation responses:9:Responses schemes:10:*s vendor_extension:13:*NamedAny
ParametersItem parameter:1:Parameter
Parameter body_parameter:1:BodyParameter non_body_parameter:2:NonBodyParameter
BodyParameter description:1:s name:2:s in:3:s required:4:b schema:5:Schema
NonBodyParameter query_parameter_sub_schema:3:Query path_parameter_sub_schema:4:Path
Query required:1:b in:2:s description:3:s name:4:s type:6:s
Path required:1:b in:2:s description:3:s name:4:s type:5:s
Responses response_code:1:*NamedResponseValue
NamedResponseValue name:1:s value:2:ResponseValue
ResponseValue response:1:Response
Response description:1:s schema:2:SchemaItem
SchemaItem schema:1:Schema
Definitions additional_properties:1:*NamedSchema
NamedSchema name:1:s value:2:Schema
Schema _ref:1:s format:2:s description:4:s maximum:7:d exclusive_minimum:10:b max_length:11:i pattern:13:s required:19:*s
Schema enum:20:*Any additional_properties:21:AdditionalPropertiesItem type:22:TypeItem items:23:ItemsItem
Schema properties:25:Definitions vendor_extension:31:*NamedAny
AdditionalPropertiesItem schema:1:Schema boolean:2:b
TypeItem value:1:*s
ItemsItem schema:1:*Schema
SecurityDefinitions additional_properties:1:*NamedSecurity
NamedSecurity name:1:s value:2:SecurityItem
SecurityItem api_key_security:2:ApiKey
ApiKey type:1:s name:2:s in:3:s description:4:s
"""


def reader() -> Any:
    """The class of openapi.v2.Document, made at run time."""
    file = descriptor_pb2.FileDescriptorProto(name="openapi.proto", package="openapi.v2", syntax="proto3")
    kinds = {"s": 9, "b": 8, "d": 1, "i": 3}
    found: dict[str, Any] = {}
    for line in MESSAGES.strip().splitlines():
        name, *fields = line.split()
        if name not in found:
            found[name] = file.message_type.add(name=name)
        for field in fields:
            word, number, kind = field.split(":")
            many, kind = kind.startswith("*"), kind.lstrip("*")
            one = found[name].field.add(name=word, number=int(number), label=3 if many else 1)
            one.type = kinds.get(kind, 11)
            if kind not in kinds:
                one.type_name = f".openapi.v2.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("openapi.v2.Document"))


def schema_of(message: Any) -> Any:
    """A Schema message back as the tree from which it was made."""
    out: dict[str, Any] = {"$ref": message._ref, "format": message.format, "description": message.description}
    out = {k: v for k, v in out.items() if v}
    if message.type.value:
        out["type"] = message.type.value[0]
    if message.HasField("items"):
        out["items"] = schema_of(message.items.schema[0])
    if message.HasField("additional_properties"):
        more = message.additional_properties
        out["additionalProperties"] = schema_of(more.schema) if more.HasField("schema") else more.boolean
    if message.HasField("properties"):
        out["properties"] = {p.name: schema_of(p.value) for p in message.properties.additional_properties}
    if message.required:
        out["required"] = list(message.required)
    if message.enum:
        out["enum"] = [json.loads(e.yaml) for e in message.enum]
    return out | {e.name: json.loads(e.value.yaml) for e in message.vendor_extension}


async def test_protobuf_tells_the_same_as_json(call: Caller) -> None:
    whole = await document(call)
    for media_type in (V2_OLD_PROTOBUF, V2_PROTOBUF):
        answer = await fetch(call, "/openapi/v2", accept=f"{media_type}, application/json;q=0.5")
        assert answer.headers["content-type"] == V2_PROTOBUF
    read = reader().FromString(answer.body)
    assert (read.swagger, read.info.title) == ("2.0", "Kubernetes")
    schemas = {s.name: schema_of(s.value) for s in read.definitions.additional_properties}
    assert schemas == whole["definitions"]
    paths = {p.name: p.value for p in read.paths.path}
    assert set(paths) == set(whole["paths"])
    for name, path in whole["paths"].items():
        for method in METHODS:
            assert paths[name].HasField(method) == (method in path)
    patch = paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"].patch
    extensions = {e.name: json.loads(e.value.yaml) for e in patch.vendor_extension}
    assert extensions["x-kubernetes-group-version-kind"]["kind"] == "Deployment"
    body, dry_run = (p.parameter for p in patch.parameters[:2])
    assert body.body_parameter.schema._ref.endswith("v1.Patch") and body.body_parameter.required
    assert dry_run.non_body_parameter.query_parameter_sub_schema.name == "dryRun"
    assert [r.name for r in patch.responses.response_code] == ["200", "201", "401"]
    assert "application/strategic-merge-patch+json" in patch.consumes


def test_what_has_no_place_in_protobuf_is_an_error() -> None:
    with pytest.raises(KeyError):
        gnostic.document({"swagger": "2.0", "nonsense": 1})


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "object", "nullable": True, "properties": {"a": {}}}, {}),
        ({"x-kubernetes-int-or-string": True}, {"x-kubernetes-int-or-string": True, "format": "int-or-string"}),
        (
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"a": {"type": "string"}}},
            {"x-kubernetes-preserve-unknown-fields": True},
        ),
        ({"type": "array", "x-kubernetes-list-type": "atomic"}, {"x-kubernetes-list-type": "atomic"}),
        (
            {
                "type": "object", "description": "d", "x-kubernetes-preserve-unknown-fields": True,
                "properties": {"a": {}}, "x-kubernetes-group-version-kind": [{"kind": "A"}],
            },
            {"type": "object", "x-kubernetes-group-version-kind": [{"kind": "A"}]},
        ),
        ({"type": "string", "default": "x", "oneOf": [{"minLength": 1}]}, {"type": "string"}),
        (
            {"allOf": [{"$ref": "#/components/schemas/A"}], "description": "d"},
            {"$ref": "#/definitions/A", "description": "d"},
        ),
    ],
)
def test_schemas_of_v2(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    assert to_v2("X", schema) == expected


def test_words_for_groups() -> None:
    names = ("", "apps", "rbac.authorization.k8s.io", "flowcontrol.apiserver.k8s.io", "stable.example.com")
    assert [group_word(n) for n in names] == [
        "core", "apps", "rbacAuthorization", "flowcontrolApiserver", "stableExampleCom",
    ]  # fmt: skip
