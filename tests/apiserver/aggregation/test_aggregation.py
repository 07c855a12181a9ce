"""A server in this process with another one behind it: what users see of that, and when it is not there."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from apiserver.config import Config
from apiserver.tls import make_certificates
from lab.certificates import Authority
from navarch.world import RealWorld
from tests.apiserver.aggregation.jokes import AGGREGATED, BASE, GROUP, VERSION, Jokes, serving_jokes
from tests.apiserver.crd.support import MERGE, Caller, crontabs, serving
from tests.within import Within


@pytest.fixture
def call() -> Within:
    return Within(serving)

Tree = dict[str, Any]
SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
NAME = f"{VERSION}.{GROUP}"
JOKES = f"{BASE}/namespaces/default/jokes"


def api_service(bundle: str, **spec: Any) -> Tree:
    reference = {"name": "jokes", "namespace": "default"}
    whole = {
        "group": GROUP,
        "version": VERSION,
        "groupPriorityMinimum": 2000,
        "versionPriority": 10,
        "service": reference,
    }
    return {"metadata": {"name": NAME}, "spec": whole | {"caBundle": bundle} | spec}


async def service(call: Caller, port: int) -> None:
    """The Service before the server, with an endpoint on this machine."""
    tree = {"metadata": {"name": "jokes"}, "spec": {"ports": [{"name": "https", "port": 443, "targetPort": 1}]}}
    await call.ok("POST", "/api/v1/namespaces/default/services", tree)
    part = {
        "metadata": {"name": "jokes-1", "labels": {"kubernetes.io/service-name": "jokes"}},
        "addressType": "IPv4",
        "ports": [{"port": port, "name": "https", "protocol": "TCP"}],
        "endpoints": [{"addresses": ["127.0.0.1"]}],
    }
    slices = call.server.resources["discovery.k8s.io", "endpointslices"]
    slices.strategy.validate = lambda obj: []  # type: ignore[method-assign]  # loopback is refused there
    await call.ok("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", part)


async def condition(call: Caller, reason: str) -> Tree:
    """Waits until the APIService is in this condition."""
    while True:
        found = await call.ok("GET", f"{SERVICES}/{NAME}")
        for one in (found.get("status") or {}).get("conditions") or ():
            if one["reason"] == reason:
                return one  # type: ignore[no-any-return]
        await asyncio.sleep(0.005)


def behind(tmp_path: Path, test: Callable[[Caller, Jokes, str], Awaitable[None]]) -> None:
    """Runs a test with a server of jokes, its certificate by the lab's authority."""
    config = make_certificates(RealWorld(), Config(cert_dir=str(tmp_path / "api"), advertise_address="10.0.0.1"))
    home = tmp_path / "jokes"
    home.mkdir()
    Authority(home, "jokes-ca").issue("server", "jokes", hosts=("jokes.default.svc",))
    bundle = base64.b64encode((home / "ca.crt").read_bytes()).decode()

    async def main(call: Caller) -> None:
        front = Path(config.requestheader_client_ca_file)
        async with serving_jokes(home / "server.crt", home / "server.key", front) as jokes:
            await test(call, jokes, bundle)

    serving(main, config=config)


async def everything(call: Caller, jokes: Jokes, bundle: str) -> None:
    await service(call, jokes.port)
    await call.ok("POST", SERVICES, api_service(bundle))
    await condition(call, "Passed")


@pytest.mark.parametrize("aggregated", [True, False])
def test_requests_pass_through(tmp_path: Path, aggregated: bool) -> None:
    async def test(call: Caller, jokes: Jokes, bundle: str) -> None:
        jokes.aggregated = aggregated
        await everything(call, jokes, bundle)
        made = await call.ok("POST", JOKES, {"kind": "Joke", "metadata": {"name": "a"}, "text": "ha"})
        assert made["teller"] == "system:apiserver"
        headers = next(h for h in jokes.seen if h["X-Remote-User"] == "system:apiserver")
        assert headers.getall("X-Remote-Group") == ["system:masters", "system:authenticated"]
        assert (await call.ok("GET", f"{JOKES}/a"))["text"] == "ha"
        assert [o["metadata"]["name"] for o in (await call.ok("GET", f"{BASE}/jokes"))["items"]] == ["a"]
        missing = await call("GET", f"{JOKES}/b")
        assert missing.code == 404 and missing.message == "no such joke"
        # Discovery: both forms; its own path is answered by the server itself.
        groups = await call.ok("GET", "/apis")
        assert GROUP in [g["name"] for g in groups["groups"]]
        assert (await call.ok("GET", f"/apis/{GROUP}"))["preferredVersion"]["version"] == VERSION
        assert (await call.ok("GET", BASE))["resources"][0]["name"] == "jokes"
        found = await call.ok("GET", "/apis", accept=AGGREGATED)
        own = next(g for g in found["items"] if g["metadata"]["name"] == GROUP)["versions"][0]
        assert own["freshness"] == "Current" and own["resources"][0]["resource"] == "jokes"
        assert own["resources"][0]["scope"] == "Namespaced" and own["resources"][0]["shortNames"] == ["jk"]
        # OpenAPI
        index = await call.ok("GET", "/openapi/v3")
        assert index["paths"][BASE[1:]] == {"serverRelativeURL": f"/openapi/v3{BASE}?hash=ABC"}
        assert "apis/apps/v1" in index["paths"]
        document = await call.ok("GET", f"/openapi/v3{BASE}", hash="ABC")
        assert list(document["components"]["schemas"]) == ["com.example.fun.v1alpha1.Joke"]
        swagger = await call.ok("GET", "/openapi/v2")
        assert f"{BASE}/jokes" in swagger["paths"] and "com.example.fun.v1alpha1.Joke" in swagger["definitions"]
        assert "get" in swagger["paths"]["/apis/"] and "/api/v1/pods" in swagger["paths"]
        protobuf = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
        raw = await call.transport.request("GET", "/openapi/v2", accept=protobuf)
        assert raw.status == 200 and b"com.example.fun.v1alpha1.Joke" in raw.body
        # It goes: so does the group.
        await call.ok("DELETE", f"{SERVICES}/{NAME}")
        while (await call("GET", f"/apis/{GROUP}")).code != 404:
            await asyncio.sleep(0.005)
        assert (await call("GET", JOKES)).code == 404

    behind(tmp_path, test)


def test_watches(tmp_path: Path) -> None:
    async def test(call: Caller, jokes: Jokes, bundle: str) -> None:
        await everything(call, jokes, bundle)
        async with call.transport.stream("GET", JOKES, query=[("watch", "true")]) as answer:
            chunks = answer.chunks()
            while not jokes.watchers():
                await asyncio.sleep(0.005)
            await call.ok("POST", JOKES, {"kind": "Joke", "metadata": {"name": "a"}})
            assert json.loads(await anext(chunks))["type"] == "ADDED"
            await call.ok("DELETE", f"{JOKES}/a")
            assert json.loads(await anext(chunks))["type"] == "DELETED"
        # Whoever leaves is known to have left behind, too: the next event finds nobody.
        await call.ok("POST", JOKES, {"kind": "Joke", "metadata": {"name": "b"}})
        while jokes.watchers():
            await asyncio.sleep(0.005)

    behind(tmp_path, test)


def test_conditions(tmp_path: Path) -> None:
    async def test(call: Caller, jokes: Jokes, bundle: str) -> None:
        made = await call.ok("POST", SERVICES, api_service(bundle))
        assert made["spec"]["service"]["port"] == 443
        found = await condition(call, "ServiceNotFound")
        assert found["status"] == "False" and found["message"] == 'service/jokes in "default" is not present'
        refused = await call("GET", JOKES)
        assert refused.code == 503 and refused.tree == "service unavailable\n"
        # The group is listed all the same: clients are told that it is stale.
        tree = await call.ok("GET", "/apis", accept=AGGREGATED)
        assert next(g for g in tree["items"] if g["metadata"]["name"] == GROUP)["versions"][0]["freshness"] == "Stale"
        await service(call, jokes.port)
        await condition(call, "Passed")
        await call.ok("GET", JOKES)
        path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/jokes-1"
        part = await call.ok(
            "PATCH", path, {"endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": False}}]}, MERGE
        )
        found = await condition(call, "MissingEndpoints")
        assert (
            found["message"] == 'endpointslices for service/jokes in "default" have no addresses with port name "https"'
        )
        jokes.healthy = False
        await call.ok("PATCH", path, {"endpoints": [{"addresses": ["127.0.0.1"]}]}, MERGE)
        found = await condition(call, "FailedDiscoveryCheck")
        url = f"https://127.0.0.1:{jokes.port}{BASE}"
        assert found["message"] == f"failing or missing response from {url}: bad status from {url}: 500"
        jokes.healthy = True  # found out by itself: checks go on, with back-off
        await condition(call, "Passed")
        await call.ok("DELETE", path)
        found = await condition(call, "EndpointsNotFound")
        assert found["message"] == 'cannot find endpointslices for service/jokes in "default"'
        await call.ok("PATCH", f"{SERVICES}/{NAME}", {"spec": {"service": {"port": 444}}}, MERGE)
        found = await condition(call, "ServicePortError")
        assert found["message"] == 'service/jokes in "default" is not listening on port 444'
        assert part

    behind(tmp_path, test)


def test_strange_authorities_are_refused(tmp_path: Path) -> None:
    async def test(call: Caller, jokes: Jokes, bundle: str) -> None:
        await service(call, jokes.port)
        await call.ok("POST", SERVICES, api_service(""))
        found = await condition(call, "FailedDiscoveryCheck")
        why = "tls: failed to verify certificate: x509: certificate signed by unknown authority"
        assert found["message"].endswith(why), found
        change = {"spec": {"caBundle": None, "insecureSkipTLSVerify": True}}
        await call.ok("PATCH", f"{SERVICES}/{NAME}", change, MERGE)
        await condition(call, "Passed")

    behind(tmp_path, test)


async def test_local_services(call: Caller) -> None:
    found = {s["metadata"]["name"]: s for s in (await call.ok("GET", SERVICES))["items"]}
    assert "v1.apiregistration.k8s.io" not in found
    core = found["v1."]
    assert core["spec"] == {"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1}
    assert core["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
    assert [(c["status"], c["reason"]) for c in core["status"]["conditions"]] == [("True", "Local")]
    # One for every group and version that is served.
    for group in (await call.ok("GET", "/apis"))["groups"]:
        if group["name"] != "apiregistration.k8s.io":
            assert {f"{v['version']}.{group['name']}" for v in group["versions"]} <= set(found)
    await call.define(crontabs())
    path = f"{SERVICES}/v1.stable.example.com"
    while (made := await call("GET", path)).code == 404:
        await asyncio.sleep(0.005)
    assert made.tree["spec"]["groupPriorityMinimum"] == 1000 and made.tree["spec"]["versionPriority"] == 100
    assert made.tree["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "true"}
    # Taken away by hand, it comes back; with its definition, it goes.
    uid = made.tree["metadata"]["uid"]
    await call.ok("DELETE", path)
    while (made := await call("GET", path)).code == 404 or made.tree["metadata"]["uid"] == uid:
        await asyncio.sleep(0.005)
    await call.ok("DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crontabs.stable.example.com")
    await call.gone(path)


async def test_priorities_order_discovery(call: Caller) -> None:
    names = [g["name"] for g in (await call.ok("GET", "/apis"))["groups"]]
    assert names[:4] == ["apiregistration.k8s.io", "apps", "events.k8s.io", "authentication.k8s.io"]
    versions = (await call.ok("GET", "/apis/autoscaling"))["versions"]
    assert [v["version"] for v in versions] == ["v2", "v1"]
    change = {"spec": {"versionPriority": 99}}
    await call.ok("PATCH", f"{SERVICES}/v1.autoscaling", change, MERGE)
    while [v["version"] for v in (await call.ok("GET", "/apis/autoscaling"))["versions"]] != ["v1", "v2"]:
        await asyncio.sleep(0.005)


def test_authentication_is_published(tmp_path: Path) -> None:
    async def test(call: Caller, jokes: Jokes, bundle: str) -> None:
        found = await call.ok("GET", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")
        data = found["data"]
        assert data["client-ca-file"] == (tmp_path / "api" / "ca.crt").read_text()
        assert data["requestheader-client-ca-file"] == (tmp_path / "api" / "front-proxy-ca.crt").read_text()
        assert json.loads(data["requestheader-allowed-names"]) == ["front-proxy-client"]
        assert json.loads(data["requestheader-username-headers"]) == ["X-Remote-User"]
        assert json.loads(data["requestheader-extra-headers-prefix"]) == ["X-Remote-Extra-"]
        rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system"
        await call.ok("GET", f"{rbac}/roles/extension-apiserver-authentication-reader")
        await call.ok("GET", f"{rbac}/rolebindings/system::extension-apiserver-authentication-reader")

    behind(tmp_path, test)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"group": "other.example.com"}, 'metadata.name: Invalid value: "v1alpha1.fun.example.com": must be '
         '`spec.version+"."+spec.group`: "v1alpha1.other.example.com"'),
        ({"groupPriorityMinimum": 0}, "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000"),
        ({"versionPriority": 1001}, "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000"),
        ({"service": {"name": "a"}}, "spec.service.namespace: Required value"),
        ({"insecureSkipTLSVerify": True},
         "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present"),
        ({"service": None}, 'spec.caBundle: Invalid value: "3 bytes": local APIServices may not have a caBundle'),
    ],
)  # fmt: skip
async def test_rules(call: Caller, change: Tree, cause: str) -> None:
    refused = await call("POST", SERVICES, api_service("YWJj", **change))
    assert refused.code == 422 and cause in refused.message, refused.message
