"""The Gateway API on real nodes, by deploy/manifests/gateway: TLS, a canary, redirects, and reloads under load."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.harness import ROOT, Lab, wait_for
from tests.e2e.test_ingress import create, get
from tests.proxy.ingress.objects import pair, secret

MANIFESTS = str(ROOT / "deploy" / "manifests" / "gateway")
ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes"
HOST = "www.shop.test"


@pytest.fixture(scope="module")
def authority(lab: Lab) -> Iterator[str]:
    """The PEM that trusts the Gateway's certificate; the lab has the manifests' objects."""
    certificate, private = pair(HOST)
    lab.up("--gateway")
    try:
        create(lab, secret("shop-tls", certificate, private))
        lab.kubectl("apply", "-f", MANIFESTS)
        lab.kubectl("wait", "--for=condition=Programmed", "gateway/edge", "--timeout=60s")
        lab.kubectl("wait", "--for=condition=Available", "deployment/shop-v1", "deployment/shop-v2", "--timeout=60s")
        yield certificate.decode()
    finally:
        lab.kubectl("delete", "-f", MANIFESTS, "--ignore-not-found")
        lab.kubectl("delete", "secret/shop-tls")
        services = "/api/v1/namespaces/kube-system/services?labelSelector=navarch.dev%2Fgateway"
        wait_for(lambda: lab.call("GET", services)[1]["items"] == [], "the Gateway's Service is gone", 20)
        lab.up("--no-gateway")
        wait_for(lambda: lab.call("GET", ROUTES)[0] == 404, "the kinds are gone", 20)


@pytest.fixture
def address(lab: Lab, authority: str) -> str:
    return lab.kubectl("get", "gateway", "edge", "-o", "jsonpath={.status.addresses[0].value}")


def accepted(lab: Lab, name: str) -> str:
    """Reasons of a route's conditions."""
    return lab.kubectl("get", "httproute", name, "-o", "jsonpath={.status.parents[*].conditions[*].reason}")


def test_a_canary_behind_tls(address: str, authority: str) -> None:
    def version(target: str = "/version") -> str:
        status, body = get(address, HOST, target, authority)
        return body.split()[0] if status == 200 else str(status)

    wait_for(lambda: version() in ("v1", "v2"), "it serves TLS", 30)
    found = Counter(version() for _ in range(200))  # three to one: the other way round once in 10^12 times
    assert set(found) == {"v1", "v2"} and found["v1"] > found["v2"]
    assert version("/api/version") == "v1"
    assert get(address, HOST, "/version")[0] == 301 and get(address, "else.test", "/")[0] == 404
    status, reason = get(address, "else.shop.test", "/", authority)
    assert status == 0 and "certificate" in reason, "the certificate has another name"


def test_reasons_as_kubectl_shows_them(lab: Lab, authority: str) -> None:
    mirror = {"filters": [{"type": "RequestMirror", "requestMirror": {}}]}
    lost = {"backendRefs": [{"name": "none", "port": 80}]}
    table = (("mirror", mirror, "UnsupportedValue ResolvedRefs"), ("lost", lost, "Accepted BackendNotFound"))
    for name, rule, reason in table:
        apply(lab, name, [rule])
        wait_for(lambda name=name, reason=reason: accepted(lab, name) == reason, f"{name} is told", 20)
    lab.kubectl("delete", "httproute", "mirror", "lost")
    bad = json.dumps(route("bad", [{"timeouts": {"request": "soon"}}]))
    refused = lab.run("kubectl", "apply", "-f", "-", stdin=bad, check=False)
    assert "spec.rules[0].timeouts.request" in refused.stderr


def test_no_request_is_lost_while_routes_change(lab: Lab, address: str, authority: str) -> None:
    end, failures, count = threading.Event(), [], [0]

    def load() -> None:
        while not end.is_set():
            answer = get(address, HOST, "/version", authority)
            count[0] += 1
            if answer[0] != 200:
                failures.append(answer)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(6):
            apply(lab, "moving", [answering(number)])
            wait_for(lambda number=number: get(address, "moving.test", "/")[0] == 300 + 1 + number % 2, "it moved", 20)
    finally:
        end.set()
        for thread in threads:
            thread.join()
        lab.kubectl("delete", "httproute", "moving")
    assert not failures and count[0] > 20


def answering(number: int) -> dict[str, Any]:
    target = {"hostname": f"h{number}.test", "statusCode": 301 + number % 2}
    return {"filters": [{"type": "RequestRedirect", "requestRedirect": target}]}


def route(name: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    spec = {"parentRefs": [{"name": "edge", "sectionName": "web"}], "hostnames": [f"{name}.test"], "rules": rules}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name}, "spec": spec}


def apply(lab: Lab, name: str, rules: list[dict[str, Any]]) -> None:
    lab.run("kubectl", "apply", "-f", "-", stdin=json.dumps(route(name, rules)))
