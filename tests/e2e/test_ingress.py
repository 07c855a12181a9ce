"""Ingresses on real nodes: nginx behind a load balancer's address, with TLS (deploy/manifests/ingress)."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from navarch.api.kinds import encode
from tests.e2e.harness import ROOT, Lab, wait_for
from tests.proxy.ingress.objects import pair, secret

MANIFESTS = str(ROOT / "deploy" / "manifests" / "ingress")


@pytest.fixture
def served(lab: Lab, guestbook: Lab) -> Iterator[str]:
    """The lab with an ingress controller; the address at which it serves."""
    lab.up("--ingress")
    service = "/api/v1/namespaces/kube-system/services/navarch-ingress"
    try:
        yield wait_for(
            lambda: lab.call("GET", service)[1]["status"]["loadBalancer"]["ingress"][0]["ip"], "an address", 30
        )
    finally:
        lab.up("--no-ingress")
        assert lab.call("GET", service)[0] == 404
        wait_for(lambda: not masters(lab), "nginx has ended", 20)


def masters(lab: Lab) -> list[int]:
    """Pids of nginx masters in the lab's nodes."""
    out = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b"nginx: master" in (entry / "cmdline").read_bytes() and f"/{lab.id}/" in (entry / "cgroup").read_text():
                out.append(int(entry.name))
        except OSError:
            continue
    return out


def get(address: str, host: str, target: str, authority: str = "") -> tuple[int, str]:
    """Status and body; over TLS if an authority's PEM is given. (0, reason) if there is no answer."""
    connection = http.client.HTTPConnection(address, 80, timeout=10)
    try:
        if authority:
            context = ssl.create_default_context(cadata=authority)
            raw = socket.create_connection((address, 443), 10)
            connection.sock = context.wrap_socket(raw, server_hostname=host)
        connection.request("GET", target, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError as error:
        return 0, str(error)
    finally:
        connection.close()


def create(lab: Lab, obj: Any) -> None:
    """Creates a Secret."""
    tree = orjson.loads(encode(obj))
    tree["metadata"].pop("creationTimestamp", None)
    status, answer = lab.call("POST", "/api/v1/namespaces/default/secrets", tree)
    assert status == 201, answer


def test_hosts_paths_and_tls(lab: Lab, served: str) -> None:
    certificate, private = pair("book.test")
    create(lab, secret("book-tls", certificate, private))
    lab.kubectl("apply", "-f", MANIFESTS)
    lab.kubectl("create", "ingress", "lost", "--rule=book.test/none*=nothing:80")
    try:
        wait_for(lambda: get(served, "book.test", "/version")[0] == 200, "it serves", 30)
        assert "v1" in get(served, "book.test", "/version")[1]
        wait_for(lambda: get(served, "book.test", "/version", certificate.decode())[0] == 200, "it serves TLS", 20)
        assert get(served, "book.test", "/versions")[0] == 404 and get(served, "else.test", "/version")[0] == 404
        wait_for(lambda: get(served, "book.test", "/none")[0] == 503, "the other Ingress is served too", 20)
        row = lab.kubectl("get", "ingress", "book", "--no-headers").split()
        assert row[:6] == ["book", "navarch", "book.test", served, "80,", "443"], "the default class was taken"
        described = ("describe", "ingress", "lost")
        wait_for(lambda: "BackendNotFound" in lab.kubectl(*described), "the event is there", 20)
        assert "there is no Service default/nothing" in lab.kubectl(*described)
        # The controller dies: nginx goes on. nginx dies: it is started again.
        nodes = [node["name"] for node in lab.status()["nodes"]]
        wait_for(lambda: len(masters(lab)) == len(nodes), "nginx runs on every node", 20)
        before = masters(lab)
        for node in nodes:
            lab.kill(f"ingress/{node}")
        assert all(get(served, "book.test", "/version")[0] == 200 for _ in range(20))
        wait_for(lambda: lab.status() and all(lab.pid(f"ingress/{node}") for node in nodes), "they are back", 20)
        wait_for(lambda: "active" in ready_pages(lab, nodes), "they are ready", 20)
        assert masters(lab) == before, "the same nginx"
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(masters(lab)) == len(nodes) and not set(masters(lab)) & set(before), "nginx is back", 30)
        wait_for(lambda: get(served, "book.test", "/version", certificate.decode())[0] == 200, "it serves again", 30)
    finally:
        lab.kubectl("delete", "ingress/book", "ingress/lost", "secret/book-tls")
    wait_for(lambda: get(served, "book.test", "/version")[0] == 404, "it is gone", 20)


def ready_pages(lab: Lab, nodes: list[str]) -> str:
    """``active`` once the controllers of all nodes say that they are ready."""
    code = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:10254/readyz', timeout=2).status)"
    answers = [lab.in_node(node, "python3", "-S", "-c", code, check=False).strip() for node in nodes]
    return "active" if answers == ["200"] * len(nodes) else str(answers)
