"""Gateways, HTTPRoutes and grants as JSON trees, and what they are looked up in."""

from __future__ import annotations

from proxy.gateway.api import key
from proxy.gateway.site import Facts, plan
from proxy.ingress.backends import Services
from tests.proxy.ingress.objects import World

GROUP = "gateway.networking.k8s.io"


def listener(name="web", port=80, protocol="HTTP", **more):
    return {"name": name, "port": port, "protocol": protocol, **more}


def gateway(*listeners, name="edge", namespace="default", generation=1, **spec):
    meta = {"name": name, "namespace": namespace, "generation": generation, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"apiVersion": f"{GROUP}/v1", "kind": "Gateway", "metadata": meta,
            "spec": {"gatewayClassName": "navarch", "listeners": list(listeners) or [listener()], **spec}}  # fmt: skip


def route(*rules, name="r", namespace="default", hosts=(), parents=({"name": "edge"},), at="2026-01-01T00:00:00Z"):
    meta = {"name": name, "namespace": namespace, "generation": 1, "creationTimestamp": at}
    spec = {"parentRefs": list(parents), "rules": list(rules)} | ({"hostnames": list(hosts)} if hosts else {})
    return {"apiVersion": f"{GROUP}/v1", "kind": "HTTPRoute", "metadata": meta, "spec": spec}


def to(service, port=80, **more):
    return {"name": service, "port": port, **more}


def rule(*backends, matches=None, **more):
    return {"backendRefs": list(backends), **({"matches": matches} if matches else {}), **more}


def prefix(value, **more):
    return {"path": {"type": "PathPrefix", "value": value}, **more}


def exact(value, **more):
    return {"path": {"type": "Exact", "value": value}, **more}


def grant(namespace, kind, source, to_kind, name=None):
    return {"metadata": {"name": "g", "namespace": namespace}, "spec": {
        "from": [{"group": GROUP, "kind": kind, "namespace": source}],
        "to": [{"group": "", "kind": to_kind} | ({"name": name} if name else {})]}}  # fmt: skip


def planned(gateways, routes, world=None, grants=(), labels=None, inside=None):
    """The plan; ports are 11000 + port inside unless told."""
    world = world or World()
    ports = {port: 11000 + port for port in range(1, 9000)}
    inside = inside or {key(gateway): ports for gateway in gateways}
    services, slices, secrets = world.lookups()
    return plan(gateways, routes, Facts(Services(services, slices), secrets, grants, labels or {}, inside))


def findings(parent):
    return {f.type: (f.status, f.reason) for f in parent.findings}
