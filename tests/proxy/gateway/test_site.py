"""Which listeners and routes are accepted, and in which words the others are refused: tables."""

from __future__ import annotations

import pytest

from proxy.gateway.hostnames import meet
from proxy.gateway.ports import chosen, service_for
from proxy.gateway.statuses import gateway_status, route_status
from tests.proxy.gateway.objects import (
    exact,
    findings,
    gateway,
    grant,
    listener,
    planned,
    prefix,
    route,
    rule,
    to,
)  # fmt: skip
from tests.proxy.ingress.objects import World, pair, secret, service


@pytest.mark.parametrize(("one", "other", "both"), [
    ("", "a.test", "a.test"), ("a.test", "", "a.test"), ("a.test", "b.test", None), ("*.test", "a.b.test", "a.b.test"),
    ("*.test", "test", None), ("*.b.test", "*.test", "*.b.test"), ("*.a.test", "*.b.test", None),
    ("a.test", "*.test", "a.test"),
])  # fmt: skip
def test_hostnames_meet(one, other, both):
    assert meet(one, other) == both == meet(other, one)


HTTPS = {"protocol": "HTTPS", "port": 443}


@pytest.mark.parametrize(("spec", "condition", "reason"), [
    (listener(protocol="TCP"), "Accepted", "UnsupportedProtocol"),
    (listener(hostname="a b"), "Accepted", "UnsupportedValue"),
    (listener(**HTTPS, tls={"mode": "Passthrough"}), "Accepted", "UnsupportedValue"),
    (listener(**HTTPS, tls={"options": {"a": "b"}}), "Accepted", "UnsupportedValue"),
    (listener(**HTTPS, tls={"certificateRefs": []}), "ResolvedRefs", "InvalidCertificateRef"),
    (listener(**HTTPS, tls={"certificateRefs": [{"name": "none"}]}), "ResolvedRefs", "InvalidCertificateRef"),
    (listener(**HTTPS, tls={"certificateRefs": [{"name": "good", "kind": "Odd"}]}), "ResolvedRefs", "InvalidCertificateRef"),
    (listener(**HTTPS, tls={"certificateRefs": [{"name": "good", "namespace": "far"}]}), "ResolvedRefs", "RefNotPermitted"),
    (listener(allowedRoutes={"kinds": [{"kind": "TCPRoute"}]}), "ResolvedRefs", "InvalidRouteKinds"),
    (listener("second"), "Conflicted", "HostnameConflict"),
    (listener("second", protocol="HTTPS", tls={"certificateRefs": [{"name": "good"}]}), "Conflicted", "ProtocolConflict"),
])  # fmt: skip
def test_a_listener_that_is_refused(spec, condition, reason):
    first = [listener("first")] if spec["name"] == "second" else []
    world = World(secrets=[secret("good", *pair("x.test"))])
    made = planned([gateway(*first, spec)], [], world).listeners["default/edge"][-1]
    found = {f.type: f for f in made.findings()}
    assert found[condition].reason == reason and found[condition].status == (condition == "Conflicted")
    assert made.serves == (reason == "InvalidRouteKinds")


def test_a_certificate_of_another_namespace_with_a_grant():
    cert = secret("good", *pair("x.test"))
    world = World()
    world.secrets["far/good"] = cert
    spec = listener(**HTTPS, tls={"certificateRefs": [{"name": "good", "namespace": "far"}]})
    for grants, serves in ((grant("far", "Gateway", "default", "Secret", "good"), True),
                           (grant("far", "Gateway", "other", "Secret"), False),
                           (grant("far", "HTTPRoute", "default", "Secret"), False),
                           (grant("far", "Gateway", "default", "Secret", "bad"), False)):  # fmt: skip
        assert planned([gateway(spec)], [], world, [grants]).listeners["default/edge"][0].serves == serves


def filtered(kind, field, value, match=None):
    return {"filters": [{"type": kind, field: value}], "matches": [match or prefix("/")]}


def test_where_a_route_attaches():
    named = [listener("web", hostname="*.x.test"), listener("open", 81, allowedRoutes={"namespaces": {
        "from": "Selector", "selector": {"matchLabels": {"team": "a"}}}})]  # fmt: skip
    far = {"name": "edge", "namespace": "default"}
    cases = [
        (route(rule()), "Accepted"), (route(rule(), hosts=["a.x.test"]), "Accepted"),
        (route(rule(), hosts=["y.test"]), "NoMatchingListenerHostname"),
        (route(rule(), parents=[{"name": "edge", "port": 82}]), "NoMatchingParent"),
        (route(rule(), parents=[{"name": "edge", "sectionName": "none"}]), "NoMatchingParent"),
        (route(rule(), namespace="a", parents=[far]), "Accepted"),
        (route(rule(), namespace="b", parents=[far]), "NotAllowedByListeners"),
    ]
    found = []
    for one, _ in cases:
        labels = {"a": {"team": "a"}, "b": {"team": "b"}}
        (parent,) = planned([gateway(*named)], [one], labels=labels).parents[f"{one['metadata']['namespace']}/r"]
        found.append(findings(parent)["Accepted"][1])
    assert found == [reason for _, reason in cases]
    assert planned([gateway()], [route(rule(), parents=[{"name": "another"}])]).parents["default/r"] == []


@pytest.mark.parametrize(("bad", "reason"), [
    (rule(matches=[{"path": {"type": "RegularExpression", "value": "/.*"}}]), "UnsupportedValue"),
    (rule(matches=[{"headers": [{"type": "RegularExpression", "name": "a", "value": "b"}]}]), "UnsupportedValue"),
    (rule(matches=[{"headers": [{"name": "a_b", "value": "b"}]}]), "UnsupportedValue"),
    (rule(matches=[prefix("/a\nb")]), "UnsupportedValue"), (rule(matches=[exact("/a%0ab")]), "UnsupportedValue"),
    (rule(retry={"attempts": 2}), "UnsupportedValue"), (rule(timeouts={"request": "soon"}), "UnsupportedValue"),
    (filtered("RequestMirror", "requestMirror", {}), "UnsupportedValue"),
    (filtered("RequestHeaderModifier", "requestHeaderModifier", {"remove": ["Content-Length"]}), "UnsupportedValue"),
    (filtered("RequestHeaderModifier", "requestHeaderModifier", {"set": [{"name": "a", "value": "\n"}]}), "UnsupportedValue"),
    (filtered("RequestRedirect", "requestRedirect", {"statusCode": 307}), "UnsupportedValue"),
    (filtered("URLRewrite", "urlRewrite", {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}, exact("/a")),
     "IncompatibleFilters"),
    ({"filters": [{"type": "RequestRedirect"}, {"type": "URLRewrite"}]}, "IncompatibleFilters"),
    (rule(to("a", filters=[{"type": "URLRewrite"}])), "UnsupportedValue"),
])  # fmt: skip
def test_a_route_that_is_refused(bad, reason):
    built = planned([gateway()], [route(bad)])
    accepted = built.parents["default/r"][0].findings[0]
    assert (accepted.status, accepted.reason) == (False, reason) and "spec.rules[0]" in accepted.text
    assert built.listeners["default/edge"][0].routes == [] and not any(host.locations for host in built.site.hosts)


def test_backends_that_cannot_be_reached():
    world = World(service("a"))
    world.services["far/a"] = service("a")
    world.services["default/odd"] = service("odd")
    world.services["default/odd"].spec.ports[0].app_protocol = "kubernetes.io/h2c"
    table = {"none": to("none"), "port": to("a", 81), "kind": to("a", kind="Bucket"), "far": to("a", namespace="far"),
             "odd": to("odd")}  # fmt: skip
    built = planned([gateway()], [route(rule(backend), name=name) for name, backend in table.items()], world)
    reasons = {name: findings(built.parents[f"default/{name}"][0])["ResolvedRefs"] for name in table}
    assert reasons == {"none": (False, "BackendNotFound"), "port": (False, "BackendNotFound"), "kind": (False, "InvalidKind"),
                       "far": (False, "RefNotPermitted"), "odd": (False, "UnsupportedProtocol")}  # fmt: skip
    granted = planned([gateway()], [route(rule(table["far"]))], world, [grant("far", "HTTPRoute", "default", "Service")])
    assert findings(granted.parents["default/r"][0])["ResolvedRefs"] == (True, "ResolvedRefs")


def test_statuses():
    made = gateway(listener(), listener("tcp", 81, "TCP"), generation=3)
    built = planned([made], [route(rule())])
    status = gateway_status(made, built.listeners["default/edge"], "192.0.2.1", "now")
    assert status["addresses"] == [{"type": "IPAddress", "value": "192.0.2.1"}]
    assert [one["attachedRoutes"] for one in status["listeners"]] == [1, 1]
    words = {c["type"]: (c["status"], c["reason"], c["observedGeneration"]) for c in status["conditions"]}
    assert words == {"Accepted": ("True", "ListenersNotValid", 3), "Programmed": ("True", "Programmed", 3)}
    made["status"] = status
    again = gateway_status(made, built.listeners["default/edge"], "", "later")
    times = {c["type"]: (c["reason"], c["lastTransitionTime"]) for c in again["conditions"]}
    assert times == {"Accepted": ("ListenersNotValid", "now"), "Programmed": ("AddressNotAssigned", "later")}
    foreign = {"controllerName": "example.com/x", "parentRef": {"name": "edge"}, "conditions": []}
    one = route(rule()) | {"status": {"parents": [foreign]}}
    entries = route_status(one, built.parents["default/r"], "now")["parents"]
    assert [entry["controllerName"] for entry in entries] == ["example.com/x", "navarch.dev/gateway"]
    for spec, reason in (({"infrastructure": {}}, "Accepted"), ({"infrastructure": {"labels": {}}}, "InvalidParameters"),
                         ({"addresses": [{"type": "Hostname", "value": "x"}]}, "UnsupportedAddress")):  # fmt: skip
        assert gateway_status(gateway(**spec), [], "", "now")["conditions"][0]["reason"] == reason


def test_ports_stay_and_none_is_given_twice():
    first, second = gateway(listener(), listener("b", 8080)), gateway(name="two")
    one = service_for(first, chosen(first, []))
    assert [p.target_port for p in one.spec.ports] == [11000, 11001]
    two = service_for(second, chosen(second, [one]))
    assert [p.target_port for p in two.spec.ports] == [11002]
    fewer = gateway(listener("b", 8080), listener("c", 81))
    assert chosen(fewer, [one, two]) == {8080: 11001, 81: 11003}
