"""Discovery, OpenAPI, version, health and metrics of the whole server."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from apiserver.assembly import assemble
from apiserver.config import Config
from apiserver.http.requestinfo import parse_request
from apiserver.offload import Offload
from apiserver.request import User
from apiserver.storage.memory import MemoryStore
from apiserver.wire.asgi import Request
from apiserver.wire.negotiation import accept
from navarch.api.errors import NotAcceptable
from navarch.exposition import head, labels
from navarch.world import RealWorld
from tests.apiserver.registry.widget import Caller

ADMIN = User("admin", ("system:masters", "system:authenticated"))


def serving(test: Callable[[Caller], Awaitable[None]], user: User = ADMIN) -> None:
    """Runs a test against everything that is served."""
    world = RealWorld()

    async def main() -> None:
        server = assemble(world, MemoryStore(), Config())
        async with world.task_group() as group:
            running = group.start(server.run(listen=False))
            while not server.ready:
                await world.sleep(0.01)
            await test(Caller(server, user))
            server.stop()
            await running

    world.run(main)


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/api/v1/pods", {}, ("list", "", "pods", "", "", "")),
        ("GET", "/api/v1/namespaces/a/pods", {"watch": "true"}, ("watch", "", "pods", "", "a", "")),
        ("GET", "/api/v1/namespaces/a", {}, ("get", "", "namespaces", "", "a", "a")),
        ("PUT", "/api/v1/namespaces/a/finalize", {}, ("update", "", "namespaces", "finalize", "a", "a")),
        ("DELETE", "/apis/apps/v1/namespaces/a/deployments", {}, ("deletecollection", "apps", "deployments", "", "a", "")),
        ("POST", "/api/v1/namespaces/a/pods/p/binding", {}, ("create", "", "pods", "binding", "a", "p")),
        ("GET", "/api/v1/pods", {"fieldSelector": "metadata.name=x"}, ("list", "", "pods", "", "", "x")),
        ("GET", "/api/v1/pods", {"labelSelector": "a=b"}, ("list", "", "pods", "", "", "")),
        ("GET", "/api/v1/watch/nodes", {}, ("watch", "", "nodes", "", "", "")),
        ("GET", "/api/v1/watch/nodes/n", {}, ("watch", "", "nodes", "", "", "n")),
        # One object is read once, whatever the query says: upstream looks at it only where there is no name.
        ("GET", "/api/v1/namespaces/a/pods/p", {"watch": "1"}, ("get", "", "pods", "", "a", "p")),
        ("GET", "/api/v1/nodes/n", {"watch": "true"}, ("get", "", "nodes", "", "", "n")),
        ("GET", "/api/v1/namespaces/a", {"watch": "1"}, ("get", "", "namespaces", "", "a", "a")),
        ("GET", "/api/v1/namespaces/a/pods/p/status", {"watch": "1"}, ("get", "", "pods", "status", "a", "p")),
    ],
)
def test_request_info(method: str, path: str, query: dict[str, str], expected: tuple[str, ...]) -> None:
    info = parse_request(method, path, query)
    assert info.is_resource
    assert (info.verb, info.group, info.resource, info.subresource, info.namespace, info.name) == expected
    selectors = (query.get("fieldSelector", ""), query.get("labelSelector", ""))
    assert (info.field_selector, info.label_selector) == selectors
    assert not parse_request("GET", "/apis/apps/v1", {}).is_resource


def test_accept() -> None:
    table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
    assert accept(table).shape == "Table"
    assert accept("application/json;as=Table;v=v9;g=meta.k8s.io,application/json").shape == ""
    assert accept("application/yaml;q=0.5, */*;q=0.1").media_type == "application/yaml"
    with pytest.raises(NotAcceptable):
        accept("application/vnd.kubernetes.protobuf")


async def test_discovery(call: Caller) -> None:
    wanted = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    for path in ("/api", "/apis"):
        answer = await call("GET", path, accept=wanted)
        assert answer.headers["content-type"] == "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        assert answer.tree["kind"] == "APIGroupDiscoveryList"
    assert (await call("GET", "/api")).tree["versions"] == ["v1"]
    listed = (await call("GET", "/api/v1")).tree
    found = {r["name"]: r for r in listed["resources"]}
    assert found["pods"]["shortNames"] == ["po"] and found["pods"]["categories"] == ["all"]
    assert {"pods/log", "pods/exec", "pods/binding", "pods/status", "serviceaccounts/token"} <= set(found)
    assert "componentstatuses" not in found
    groups = {g["name"] for g in (await call("GET", "/apis")).tree["groups"]}
    assert {"apps", "rbac.authorization.k8s.io", "authorization.k8s.io"} <= groups and "extensions" not in groups
    assert (await call("GET", "/apis/apps")).tree["preferredVersion"]["version"] == "v1"
    scale = {r["name"]: r for r in (await call("GET", "/apis/apps/v1")).tree["resources"]}["deployments/scale"]
    assert (scale["group"], scale["kind"]) == ("autoscaling", "Scale")
    for path in ("/apis/extensions", "/apis/extensions/v1/jobs", "/api/v2", "/nothing"):
        assert (await call("GET", path)).code == 404


def test_storage_version_hashes() -> None:
    """base64(sha256(group/version/Kind))[:8 bytes]; the first two are those that a Kubernetes cluster tells."""

    async def test(call: Caller) -> None:
        async def hashes(path: str) -> dict[str, str | None]:
            return {r["name"]: r.get("storageVersionHash") for r in (await call("GET", path)).tree["resources"]}

        core, apps = await hashes("/api/v1"), await hashes("/apis/apps/v1")
        assert core["pods"] == "xPOwRZ+Yhw8=" and apps["deployments"] == "8aSe+NMegvE="
        assert core["pods/status"] is None and core["pods/exec"] is None and core["bindings"] is None
        # One stored object in two shapes.
        assert (await hashes("/apis/events.k8s.io/v1"))["events"] == core["events"]
        scaling = "horizontalpodautoscalers"
        assert (await hashes("/apis/autoscaling/v1"))[scaling] == (await hashes("/apis/autoscaling/v2"))[scaling]

    serving(test)


async def test_health_version_and_metrics(call: Caller) -> None:
    version = (await call("GET", "/version")).tree
    assert version["minor"] == "34" and re.fullmatch("[0-9a-f]{40}", version["gitCommit"])
    for path in ("/healthz", "/livez", "/readyz", "/readyz/etcd"):
        assert (await call("GET", path)).tree == "ok"
    assert "[+]etcd ok" in (await call("GET", "/readyz", verbose="")).tree
    assert (await call("GET", "/readyz/nonsense")).code == 404
    # What upstream's conformance suite looks for, by the names of 1.34.
    for name in (
        "ping", "log", "etcd", "poststarthook/generic-apiserver-start-informers",
        "poststarthook/start-apiextensions-informers", "poststarthook/start-apiextensions-controllers",
        "poststarthook/crd-informer-synced", "poststarthook/bootstrap-controller",
        "poststarthook/scheduling/bootstrap-system-priority-classes", "poststarthook/rbac/bootstrap-roles",
        "poststarthook/start-cluster-authentication-info-controller", "poststarthook/start-kube-aggregator-informers",
        "poststarthook/apiservice-registration-controller", "poststarthook/kube-apiserver-autoregistration",
        "autoregister-completion", "poststarthook/apiservice-openapi-controller",
    ):  # fmt: skip
        for path in ("/healthz", "/livez", "/readyz"):
            text = (await call("GET", path, verbose="")).tree
            assert f"[+]{name} ok\n" in text and text.endswith(f"{path[1:]} check passed\n")
            assert (await call("GET", f"{path}/{name}")).tree == "ok"
    assert "[+]shutdown ok" in (await call("GET", "/readyz", verbose="")).tree
    text = (await call("GET", "/readyz", verbose="", exclude="none")).tree
    assert 'warn: some health checks cannot be excluded: no matches for "none"' in text
    await call("GET", "/api/v1/nodes/none")
    assert 'resource="nodes",subresource="",code="404"' in (await call("GET", "/metrics")).tree
    assert (await call("POST", "/version")).code == 405


def test_names_that_anybody_can_make_up_get_no_series() -> None:
    """Each would stay for ever, and one with a quote or a line break in it made the page unreadable."""

    async def test(call: Caller) -> None:
        for n in range(9):
            assert (await call("GET", f'/apis/a{n}.example.com/v1/no"such\n{n}')).code == 404
            assert (await call("GET", f'/api/v1/namespaces/default/pods/p/a"\n{n}')).code == 404
        await call("GET", "/api/v1/namespaces/default/pods/none/status")
        text = (await call("GET", "/metrics")).tree
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        counts = {tuple(s.labels.values()): s.value for s in samples if s.name == "apiserver_request_total"}
        assert len(counts) == len(call.server.metrics.durations) == 3
        assert counts["LIST", "", "", "", "", "404"] == counts["GET", "", "", "", "", "404"] == 9
        assert counts["GET", "", "v1", "pods", "status", "404"] == 1

    serving(test)


def test_label_values_are_escaped() -> None:
    value = 'a\\b"c\nd'
    page = "\n".join([*head("x", "gauge", "A."), f"x{{{labels([('y', value)])}}} 1"])
    (family,) = text_string_to_metric_families(page)
    assert [(s.labels, s.value) for s in family.samples] == [({"y": value}, 1.0)]


def test_access() -> None:
    async def test(call: Caller) -> None:
        denied = await call("GET", "/api/v1/namespaces/default/pods")
        assert denied.code == 403 and denied.tree["message"] == (
            'pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "default"'
        )
        review = {"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}}
        asked = await call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        assert asked.code == 201 and asked.tree["status"]["allowed"] is False

    serving(test, User("bob", ("system:authenticated",)))


async def test_gzip_for_clients_far_away(call: Caller) -> None:
    for host, packed in (("192.0.43.10", True), ("10.1.2.3", False)):
        sent: list[Any] = []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        scope = {"path": "/", "method": "GET", "headers": [(b"accept-encoding", b"gzip")], "client": (host, 1)}
        await Request(Offload(RealWorld()), scope, None, send).reply(200, b"x" * 200_000)  # type: ignore[arg-type]
        assert (b"content-encoding", b"gzip") in sent[0]["headers"] or not packed
        assert (len(sent[1]["body"]) < 10_000) == packed
