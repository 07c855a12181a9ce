"""``navarch why POD --to TARGET:PORT``: the answer and the policies that give it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.errors import CommandError
from cli.reach import parse
from tests.cli.conftest import Navarch

PODS = """
{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}},
 spec: {{containers: [{{name: c, image: a, ports: [{{name: http, containerPort: 80}}]}}]}}}}
"""
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: from-client}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: http}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {matchLabels: {app: mon}}, policyTypes: [Egress]}
"""


def test_who_may_reach_whom(navarch: Navarch, tmp_path: Path) -> None:
    names = ("web", "client", "mon")
    file = tmp_path / "objects.yaml"
    file.write_text("---".join([POLICY, *(PODS.format(name=name) for name in names)]))
    own = ("-n", navarch.namespace)
    navarch.ok("apply", *own, "-f", str(file))
    navarch.ok("wait", *own, *(f"pod/{name}" for name in names), "--for=condition=Ready", "--timeout=30s")

    def ask(pod: str, to: str) -> list[str]:
        return navarch.ok("why", *own, pod, "--to", to).splitlines()

    web, client, mon = (f"{navarch.namespace}/{name}" for name in names)
    assert ask("client", "web:http") == [
        f"{client} may reach {web} at port 80/TCP",
        f"  Egress of {client}: allowed: no NetworkPolicy selects the pod in this direction",
        f"  Ingress of {web}: allowed by NetworkPolicy {navarch.namespace}/from-client (spec.ingress[0])",
    ]
    denied = "selects the pod, and no rule allows this"
    assert ask("client", "web:81")[2] == f"  Ingress of {web}: denied: NetworkPolicy {navarch.namespace}/from-client {denied}"
    assert ask("mon", f"{web}:80")[:2] == [
        f"{mon} may not reach {web} at port 80/TCP",
        f"  Egress of {mon}: denied: NetworkPolicy {navarch.namespace}/closed {denied}",
    ]
    assert ask("web", "web:9")[0].startswith(f"{web} may reach"), "a pod may reach itself"
    assert ask("mon", "192.0.2.1:53/udp")[0] == f"{mon} may not reach 192.0.2.1 at port 53/UDP"
    address = navarch.ok("get", *own, "pod", "web", "-o", "jsonpath={.status.podIP}")
    tree = json.loads(navarch.ok("why", *own, "client", "--to", f"{address}:80", "-o", "json"))
    assert tree["allowed"] and tree["to"] == web and tree["ingress"]["allowing"] == [[f"{navarch.namespace}/from-client", 0]]
    for to, text in (("nobody:80", 'pods "nobody" not found'), ("web:word", "no port named word"), ("web", "say POD:PORT")):
        ran = navarch("why", *own, "client", "--to", to)
        assert ran.code == 1 and text in ran.err


def test_targets() -> None:
    assert parse("x/web-1:80") == ("x/web-1", "80", "TCP") and parse("web:dns/udp") == ("web", "dns", "UDP")
    for bad in ("web", ":80", "web:", "web:80/icmp", "web:0", "web:70000"):
        with pytest.raises(CommandError):
            parse(bad)
