"""The Gateway API in a lab: its kinds as CustomResourceDefinitions, a class, and the rights of who serves it.

The schemas have the fields that proxy/gateway acts upon, and those that it refuses in a condition. A field that is in neither
list is unknown to the API server, which says so to whoever sets it.
"""

from __future__ import annotations

from typing import Any

from lab.apiclient import Api
from lab.components import GATEWAY_USER
from lab.paths import LabError

GROUP, CLASS = "gateway.networking.k8s.io", "navarch"
GROUP_PATH = f"/apis/{GROUP}/"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

Schema = dict[str, Any]


def text(*values: str, longest: int = 253, default: str = "", pattern: str = "") -> Schema:
    out: Schema = {"type": "string"} | ({"enum": list(values)} if values else {"maxLength": longest})
    return out | ({"default": default} if default else {}) | ({"pattern": pattern} if pattern else {})


def number(least: int, most: int, default: int | None = None) -> Schema:
    out: Schema = {"type": "integer", "format": "int32", "minimum": least, "maximum": most}
    return out if default is None else out | {"default": default}


def array(items: Schema, most: int = 16, keys: str = "", least: int = 0) -> Schema:
    out: Schema = {"type": "array", "items": items, "maxItems": most} | ({"minItems": least} if least else {})
    return out | ({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys.split()} if keys else {})


def struct(*required: str, **fields: Schema) -> Schema:
    return {"type": "object", "properties": fields} | ({"required": list(required)} if required else {})


ANY: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
"""Something that is refused, whatever is in it."""
WORDS: Schema = {"type": "object", "additionalProperties": text(longest=4096)}
PORT = number(1, 65535)
NAME, HOST = text(longest=253) | {"minLength": 1}, text(longest=253)
HEADER = struct("name", "value", name=text(longest=256), value=text(longest=4096))
CONDITIONS = array(struct(
    "type", "status", "lastTransitionTime", "reason", "message",
    type=text(longest=316), status=text("True", "False", "Unknown"), reason=text(longest=1024), message=text(longest=32768),
    observedGeneration={"type": "integer", "format": "int64", "minimum": 0},
    lastTransitionTime={"type": "string", "format": "date-time"},
), 8, "type")  # fmt: skip


def reference(kind: str, **more: Schema) -> Schema:
    group = GROUP if kind == "Gateway" else ""
    first: Schema = {"type": "string", "maxLength": 253, "default": group}
    return struct("name", group=first, kind=text(longest=63, default=kind), name=NAME, namespace=text(longest=63), **more)


def selector() -> Schema:
    operators = text("In", "NotIn", "Exists", "DoesNotExist")
    expression = struct("key", "operator", key=text(longest=317), operator=operators, values=array(text(longest=63), 64))
    labels: Schema = {"type": "object", "additionalProperties": text(longest=63)}
    return struct(matchLabels=labels, matchExpressions=array(expression, 64))


def gateway_class() -> tuple[Schema, Schema]:
    spec = struct("controllerName", controllerName=text(longest=253), description=text(longest=64), parametersRef=ANY)
    return spec, struct(conditions=CONDITIONS)


def gateway() -> tuple[Schema, Schema]:
    kinds = array(struct("kind", group={"type": "string", "maxLength": 253, "default": GROUP}, kind=text(longest=63)), 8)
    namespaces = {"from": text("All", "Selector", "Same", default="Same"), "selector": selector()}
    allowed = struct(namespaces=struct(**namespaces) | {"default": {"from": "Same"}}, kinds=kinds)
    allowed["default"] = {"namespaces": {"from": "Same"}}
    tls = struct(mode=text("Terminate", "Passthrough", default="Terminate"), certificateRefs=array(reference("Secret"), 64),
                 options=WORDS, frontendValidation=ANY)  # fmt: skip
    listener = struct("name", "port", "protocol", name=NAME, hostname=HOST, port=PORT, protocol=text(longest=255), tls=tls,
                      allowedRoutes=allowed)  # fmt: skip
    address = struct(type=text(longest=253, default="IPAddress"), value=text(longest=253))
    spec = struct("gatewayClassName", "listeners", gatewayClassName=NAME, listeners=array(listener, 64, "name", 1),
                  addresses=array(address), infrastructure=ANY)  # fmt: skip
    state = struct("name", "supportedKinds", "attachedRoutes", "conditions", name=NAME, supportedKinds=kinds,
                   attachedRoutes=number(0, 2**31 - 1), conditions=CONDITIONS)  # fmt: skip
    return spec, struct(addresses=array(address), conditions=CONDITIONS, listeners=array(state, 64, "name"))


def http_route() -> tuple[Schema, Schema]:
    parent = reference("Gateway", sectionName=text(longest=253), port=PORT)
    test = struct("name", "value", type=text("Exact", "RegularExpression", default="Exact"), name=text(longest=256),
                  value=text(longest=4096))  # fmt: skip
    path = struct(type=text("Exact", "PathPrefix", "RegularExpression", default="PathPrefix"),
                  value=text(longest=1024, default="/")) | {"default": {"type": "PathPrefix", "value": "/"}}  # fmt: skip
    match = struct(path=path, headers=array(test), queryParams=array(test),
                   method=text("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"))  # fmt: skip
    changes = struct(set=array(HEADER, keys="name"), add=array(HEADER, keys="name"), remove=array(text(longest=256)))
    new_path = struct("type", type=text("ReplaceFullPath", "ReplacePrefixMatch"), replaceFullPath=text(longest=1024),
                      replacePrefixMatch=text(longest=1024))  # fmt: skip
    redirect = struct(scheme=text("http", "https"), hostname=HOST, path=new_path, port=PORT,
                      statusCode={"type": "integer", "enum": [301, 302], "default": 302})  # fmt: skip
    kinds = ("RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "RequestMirror",
             "ExtensionRef", "CORS")  # fmt: skip
    part = struct("type", type=text(*kinds), requestHeaderModifier=changes, responseHeaderModifier=changes,
                  requestRedirect=redirect, urlRewrite=struct(hostname=HOST, path=new_path), requestMirror=ANY,
                  extensionRef=ANY, cors=ANY)  # fmt: skip
    backend = reference("Service", port=PORT, weight=number(0, 1_000_000, 1), filters=array(ANY))
    duration = text(pattern="^([0-9]{1,5}(h|m|s|ms)){1,4}$")
    matches = array(match, 64) | {"default": [{"path": path["default"]}]}
    rule = struct(name=text(longest=253), matches=matches, filters=array(part), backendRefs=array(backend), retry=ANY,
                  timeouts=struct(request=duration, backendRequest=duration), sessionPersistence=ANY)  # fmt: skip
    spec = struct(parentRefs=array(parent, 32), hostnames=array(HOST), rules=array(rule, 16) | {
        "default": [{"matches": [{"path": path["default"]}]}]})  # fmt: skip
    entry = struct("parentRef", "controllerName", parentRef=parent, controllerName=text(longest=253), conditions=CONDITIONS)
    return spec, struct("parents", parents=array(entry, 32))


def reference_grant() -> tuple[Schema, None]:
    source = struct("group", "kind", "namespace", group=text(longest=253), kind=text(longest=63), namespace=text(longest=63))
    target = struct("group", "kind", group=text(longest=253), kind=text(longest=63), name=text(longest=253))
    return struct("from", "to", **{"from": array(source, least=1), "to": array(target, least=1)}), None


def column(name: str, path: str, kind: str = "string") -> dict[str, str]:
    return {"name": name, "jsonPath": path, "type": kind}


AGE = column("Age", ".metadata.creationTimestamp", "date")


def definition(
    kind: str, plural: str, short: list[str], schemas: tuple[Schema, Schema | None], columns: list[dict[str, str]],
    scope: str = "Namespaced", version: str = "v1", group: str = GROUP,
) -> dict[str, Any]:  # fmt: skip
    spec, status = schemas
    fields = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}, "spec": spec}
    tree = struct(**fields, **({"status": status} if status is not None else {}))
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower(), "shortNames": short,
             **({"categories": ["gateway-api"]} if group == GROUP else {})}  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            # The API server lets only approved definitions of a *.k8s.io group be Established without a word.
            "annotations": {"api-approved.kubernetes.io": "unapproved, navarch's own text"},
        },
        "spec": {"group": group, "scope": scope, "names": names, "versions": [{
            "name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": tree},
            "additionalPrinterColumns": columns, **({"subresources": {"status": {}}} if status is not None else {}),
        }]},
    }  # fmt: skip


def definitions() -> list[dict[str, Any]]:
    accepted = '.status.conditions[?(@.type=="Accepted")].status'
    programmed = '.status.conditions[?(@.type=="Programmed")].status'
    return [
        definition("GatewayClass", "gatewayclasses", ["gc"], gateway_class(),
                   [column("Controller", ".spec.controllerName"), column("Accepted", accepted), AGE], "Cluster"),
        definition("Gateway", "gateways", ["gtw"], gateway(),
                   [column("Class", ".spec.gatewayClassName"), column("Address", ".status.addresses[*].value"),
                    column("Programmed", programmed), AGE]),
        definition("HTTPRoute", "httproutes", [], http_route(), [column("Hostnames", ".spec.hostnames"), AGE]),
        definition("ReferenceGrant", "referencegrants", ["refgrant"], reference_grant(), [AGE], version="v1beta1"),
    ]  # fmt: skip


def rights() -> list[tuple[str, dict[str, Any]]]:
    group, reads = "rbac.authorization.k8s.io", ["get", "list", "watch"]
    rules = [
        {"apiGroups": [GROUP], "resources": ["gatewayclasses", "gateways", "httproutes", "referencegrants"], "verbs": reads},
        {"apiGroups": [GROUP], "resources": [f"{r}/status" for r in ("gatewayclasses", "gateways", "httproutes")],
         "verbs": ["patch", "update"]},
        {"apiGroups": [""], "resources": ["services", "secrets", "namespaces"], "verbs": reads},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": reads},
    ]  # fmt: skip
    own = [
        {"apiGroups": [""], "resources": ["services"], "verbs": ["create", "update", "delete"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["create", "update"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
    ]
    out = []
    for kind, prefix, some in (("ClusterRole", "", rules), ("Role", "namespaces/kube-system/", own)):
        meta = {"name": GATEWAY_USER} | ({"namespace": "kube-system"} if prefix else {})
        binding = {
            "apiVersion": f"{group}/v1", "kind": f"{kind}Binding", "metadata": meta,
            "roleRef": {"apiGroup": group, "kind": kind, "name": GATEWAY_USER},
            "subjects": [{"kind": "User", "apiGroup": group, "name": GATEWAY_USER}],
        }  # fmt: skip
        role = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": meta, "rules": some}
        path = f"/apis/{group}/v1/{prefix}{kind.lower()}"
        out += [(f"{path}s", role), (f"{path}bindings", binding)]
    return out


def objects() -> list[tuple[str, dict[str, Any]]]:
    """Objects that `up --gateway` makes: (path of the collection, object) pairs."""
    own_class = {"apiVersion": f"{GROUP}/v1", "kind": "GatewayClass", "metadata": {"name": CLASS},
                 "spec": {"controllerName": "navarch.dev/gateway", "description": "nginx on each node of the lab"}}  # fmt: skip
    return [*((CRDS, one) for one in definitions()), *rights(), (f"{GROUP_PATH}v1/gatewayclasses", own_class)]


def wait_served(api: Api) -> None:
    """Until the group's kinds are served."""
    path = f"{GROUP_PATH}v1/gatewayclasses"
    api.wait_for(lambda: api.call("GET", path)[0] == 200, 30, "the Gateway API's kinds are not served", "apiserver")


def remove(api: Api) -> None:
    """Deletes what `up --gateway` made, with all Gateways and routes."""
    services = "/api/v1/namespaces/kube-system/services"
    for path, obj in [*reversed(objects())]:
        status, body = api.call("DELETE", f"{path}/{obj['metadata']['name']}")
        if status not in (200, 202, 404):
            raise LabError(f"could not delete {obj['kind']}: {body.decode(errors='replace')[:300]}")
    status, body = api.call("DELETE", f"{services}?labelSelector=navarch.dev/gateway%3Dtrue")
    if status not in (200, 404):
        raise LabError(f"could not delete the Services of Gateways: {body.decode(errors='replace')[:300]}")
