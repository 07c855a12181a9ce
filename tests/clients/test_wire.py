"""What client-go does on the wire, as raw requests: JSON behind protobuf, lists by watching, aggregated discovery, tables."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from typing import Any

from tests.clients.conftest import Kubectl
from tests.e2e.harness import Lab

PROTOBUF_FIRST = "application/vnd.kubernetes.protobuf,application/json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"


def connect(lab: Lab) -> http.client.HTTPSConnection:
    pki = lab.directory / "pki"
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    port = json.loads((lab.directory / "lab.json").read_text())["port"]
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)


def get(lab: Lab, path: str, accept: str = PROTOBUF_FIRST) -> tuple[int, str, Any]:
    connection = connect(lab)
    try:
        connection.request("GET", path, headers={"Accept": accept, "User-Agent": "controller/v1.34 client-go"})
        response = connection.getresponse()
        body = response.read()
        content_type = response.getheader("Content-Type") or ""
        return response.status, content_type, json.loads(body) if "json" in content_type else body
    finally:
        connection.close()


def stream(lab: Lab, path: str, accept: str = PROTOBUF_FIRST) -> Iterator[dict[str, Any]]:
    """The events of a watch; closed with the generator."""
    connection = connect(lab)
    try:
        connection.request("GET", path, headers={"Accept": accept})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        while line := response.readline():
            yield json.loads(line)
    finally:
        connection.close()


def test_json_behind_protobuf(kubectl: Kubectl) -> None:
    path = f"/api/v1/namespaces/{kubectl.namespace}/configmaps"
    status, content_type, found = get(kubectl.lab, path)
    assert (status, content_type, found["kind"]) == (200, "application/json", "ConfigMapList")
    assert get(kubectl.lab, f"{path}/nope")[::2][0] == 404
    refused = get(kubectl.lab, path, "application/vnd.kubernetes.protobuf")
    assert refused[0] == 406 and refused[2]["reason"] == "NotAcceptable"
    both = get(kubectl.lab, path, f"{PROTOBUF_FIRST};as=Table;v=v1;g=meta.k8s.io,application/json")
    assert both[0] == 200


def test_aggregated_discovery(lab: Lab) -> None:
    accept = (
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
    )
    for path, group in (("/api", ""), ("/apis", "apps")):
        status, content_type, found = get(lab, path, accept)
        assert status == 200 and "as=APIGroupDiscoveryList" in content_type and "v=v2" in content_type
        named = {item["metadata"].get("name", ""): item for item in found["items"]}
        resources = {r["resource"]: r for r in named[group]["versions"][0]["resources"]}
        if group:
            subs = {s["subresource"] for s in resources["deployments"]["subresources"]}
            assert {"scale", "status"} <= subs
        else:
            assert resources["pods"]["shortNames"] == ["po"] and resources["nodes"]["scope"] == "Cluster"
    assert get(lab, "/apis", "application/json")[2]["kind"] == "APIGroupList"


def test_watch_list(kubectl: Kubectl) -> None:
    """Initial events, the bookmark that ends them, then what changes: what client-go's reflector does instead of a list."""
    for name in ("a", "b"):
        kubectl("create", "cm", name)
    query = (
        "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        "&timeoutSeconds=20&fieldSelector=metadata.name!=kube-root-ca.crt"
    )
    events = stream(kubectl.lab, f"/api/v1/namespaces/{kubectl.namespace}/configmaps{query}")
    try:
        first = [next(events) for _ in range(3)]
        assert sorted((e["type"], e["object"]["metadata"].get("name", "")) for e in first) == [
            ("ADDED", "a"), ("ADDED", "b"), ("BOOKMARK", ""),
        ]  # fmt: skip
        end = first[-1]["object"]
        assert end["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert end["kind"] == "ConfigMap" and int(end["metadata"]["resourceVersion"]) > 0
        kubectl("delete", "cm", "a")
        gone = next(e for e in events if e["type"] != "BOOKMARK")
        assert (gone["type"], gone["object"]["metadata"]["name"]) == ("DELETED", "a")
        assert int(gone["object"]["metadata"]["resourceVersion"]) > int(end["metadata"]["resourceVersion"])
    finally:
        events.close()
    without_match = query.replace("&resourceVersionMatch=NotOlderThan", "")
    status, _, refused = get(kubectl.lab, f"/api/v1/namespaces/{kubectl.namespace}/configmaps{without_match}")
    assert (status, refused["reason"]) == (422, "Invalid"), refused


def test_tables_and_metadata_on_a_watch(kubectl: Kubectl) -> None:
    path = f"/api/v1/namespaces/{kubectl.namespace}/configmaps"
    version = get(kubectl.lab, path)[2]["metadata"]["resourceVersion"]
    kubectl("create", "cm", "a", "--from-literal=k=v")
    kubectl("label", "cm", "a", "x=y")
    watch = f"{path}?watch=true&resourceVersion={version}&timeoutSeconds=20&fieldSelector=metadata.name=a"
    tables = stream(kubectl.lab, watch, TABLE)
    first, second = next(tables), next(tables)
    tables.close()
    assert (first["type"], second["type"]) == ("ADDED", "MODIFIED")
    assert first["object"]["kind"] == "Table" and first["object"]["rows"][0]["cells"][:2] == ["a", 1]
    assert [c["name"] for c in first["object"]["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert not second["object"].get("columnDefinitions"), "the columns are told once"
    row = second["object"]["rows"][0]["object"]
    assert row["kind"] == "PartialObjectMetadata" and row["metadata"]["labels"] == {"x": "y"}
    metadata = stream(kubectl.lab, watch, METADATA)
    only = next(metadata)["object"]
    metadata.close()
    assert only["kind"] == "PartialObjectMetadata" and "data" not in only
