"""Service rules: what is worked out, and that the kernel ends with the same rules whatever way it was led there."""

from __future__ import annotations

import os

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.namespaces import in_child
from navarch.api.types import core_v1, discovery_v1, meta_v1
from navarch.linux.nftables import Nftables
from navarch.linux.syscalls import (
    CLONE_NEWNET,
    unshare,
)
from proxy.externalips import ExternalIPs
from proxy.nftables import TABLE, RuleSet
from proxy.rules import Endpoint, Place, Rules, closest, endpoints_of, service_rules

CIDR = "10.9.0.0/17"


def service(name: str, ip: str = "10.9.192.5", affinity: bool = False, node_port: int = 0, **spec: object):
    return core_v1.Service(
        metadata=meta_v1.ObjectMeta(name=name, namespace="default"),
        spec=core_v1.ServiceSpec(
            cluster_ip=ip,
            cluster_ips=[ip],
            type="NodePort" if node_port else "ClusterIP",
            session_affinity="ClientIP" if affinity else "None",
            ports=[core_v1.ServicePort(port=80, protocol="TCP", node_port=node_port or None)],
            **spec,
        ),
    )


def slice_of(*endpoints: tuple[str, str]) -> discovery_v1.EndpointSlice:
    """Endpoints as (address, state), state one of ready, unready, ending."""
    return discovery_v1.EndpointSlice(
        address_type="IPv4",
        ports=[discovery_v1.EndpointPort(port=8080, protocol="TCP", name="")],
        endpoints=[
            discovery_v1.Endpoint(
                addresses=[address],
                node_name="here" if address.startswith("10.9.1.") else "there",
                conditions=discovery_v1.EndpointConditions(
                    ready=state == "ready", serving=state != "unready", terminating=state == "ending"
                ),
            )
            for address, state in endpoints
        ],
    )


def addresses(endpoints) -> list[str]:
    return [e.address for e in endpoints]


def test_terminating_endpoints_serve_only_when_nothing_else_does():
    port = core_v1.ServicePort(port=80)
    ready, ending = endpoints_of([slice_of(("10.9.1.1", "ready"), ("10.9.1.2", "ending"))], port, "here")
    assert (addresses(ready), addresses(ending)) == (["10.9.1.1"], ["10.9.1.2"])
    mixed = service_rules(service("a"), [slice_of(("10.9.1.1", "ready"), ("10.9.1.2", "ending"))], Place("here"), CIDR)
    assert "10.9.1.2" not in str(mixed.chains)
    last = service_rules(service("a"), [slice_of(("10.9.1.2", "ending"), ("10.9.1.3", "unready"))], Place("here"), CIDR)
    assert "10.9.1.2" in str(last.chains) and "10.9.1.3" not in str(last.chains)


def test_without_endpoints_connections_are_refused():
    rules = service_rules(service("a", node_port=30080), [], Place("here"), CIDR)
    assert set(rules.elements) == {("refused", "10.9.192.5 . tcp . 80"), ("refused-nodeports", "tcp . 30080")}


NAMES = st.lists(st.sampled_from(["10.9.192.5", "10.9.192.6", "10.9.140.1", "192.0.2.9", "10.9.128.1"]), max_size=3)


def balanced(made: core_v1.Service, address: str) -> core_v1.Service:
    made.status = core_v1.ServiceStatus(
        load_balancer=core_v1.LoadBalancerStatus(ingress=[core_v1.LoadBalancerIngress(ip=address)])
    )
    return made


def test_nobody_takes_what_others_have_by_external_ips():
    """Cluster IPs, with endpoints or without, and load balancer addresses, at any port; the API server at its own
    (CVE-2020-8554). One's own address, and one that is nobody's, are free to name."""
    external = ExternalIPs()
    names = ["10.9.192.5", "10.9.192.6", "10.9.140.1", "192.0.2.9", "10.9.128.1"]
    thief = service("a", "10.9.192.6", external_ips=names)
    assert external.put("aaa/thief", thief) == [] and external.refused("aaa/thief") == frozenset()
    assert external.put("default/web", balanced(service("web"), "10.9.140.1")) == ["aaa/thief"]
    assert external.put_api_servers([("10.9.128.1", 80), ("10.9.128.1", 6443)]) == ["aaa/thief"]
    refused = external.refused("aaa/thief")
    assert refused == {("10.9.192.5", 0), ("10.9.140.1", 0), ("10.9.128.1", 80), ("10.9.128.1", 6443)}
    made = service_rules(thief, [slice_of(("10.9.1.66", "ready"))], Place("here"), CIDR, refused)
    assert {key for key in made.elements if key[0] == "services"} == {
        ("services", "10.9.192.6 . tcp . 80"), ("services", "192.0.2.9 . tcp . 80"),
    }  # fmt: skip
    thief.spec.ports[0].port = 81
    more = service_rules(thief, [slice_of(("10.9.1.66", "ready"))], Place("here"), CIDR, refused)
    assert ("services", "10.9.128.1 . tcp . 81") in more.elements, "another port of that machine is nobody's"
    assert external.put("default/web", None) == ["aaa/thief"] and ("10.9.192.5", 0) not in external.refused("aaa/thief")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, "10.9.192.5", "10.9.192.6"]), NAMES), max_size=8))
def test_who_has_what_does_not_depend_on_the_order(steps):
    external, last, affected = ExternalIPs(), {}, {}
    for name, ip, names in steps:
        last[name] = service(name, ip, external_ips=names) if ip else None
        before = {key: external.refused(key) for key in "abc"}
        told = external.put(name, last[name])
        affected = {key for key in "abc" if external.refused(key) != before[key]} - {name}
        assert affected <= set(told), "whoever is concerned is named"
    fresh = ExternalIPs()
    for name in sorted(last):
        fresh.put(name, last[name])
    assert {key: external.refused(key) for key in "abc"} == {key: fresh.refused(key) for key in "abc"}


def test_local_policy_keeps_to_this_node():
    both = [slice_of(("10.9.1.1", "ready"), ("10.9.2.1", "ready"))]
    inside = service_rules(service("a", internal_traffic_policy="Local"), both, Place("here"), CIDR)
    assert "10.9.2.1" not in str(inside.chains) and "10.9.1.1" in str(inside.chains)
    outside = service_rules(service("a", node_port=30080, external_traffic_policy="Local"), both, Place("here"), CIDR)
    chain = next(lines for name, lines in outside.chains.items() if name.startswith("ext-"))
    assert "10.9.2.1" not in str(chain) and "10.9.1.1" in chain[-1]
    # Pods and the node itself are not outside: theirs goes on as for the cluster IP.
    inner = next(name for name in outside.chains if name.startswith("svc-"))
    assert chain[0] == f"ip saddr {CIDR} goto {inner}" and chain[2] == f"fib saddr type local goto {inner}"
    assert "10.9.2.1" in str(outside.chains[inner]) and not any(where.startswith("drop") for where, _ in outside.elements)
    narrow = service("a", node_port=30080, external_traffic_policy="Local", internal_traffic_policy="Local")
    rules = service_rules(narrow, both, Place("here"), CIDR)
    assert "10.9.2.1" not in str(rules.chains[inner])
    assert "10.9.2.1" in str(rules.chains[inner.replace("svc-", "all-")])


def test_local_policy_without_an_endpoint_here_drops_what_comes_from_outside():
    far = [slice_of(("10.9.2.1", "ready"))]
    made = service("a", node_port=30080, external_traffic_policy="Local", external_ips=["192.0.2.9"])
    rules = service_rules(made, far, Place("here"), CIDR)
    assert {key for key in rules.elements if key[0].startswith(("drop", "refuse"))} == {
        ("dropped", "192.0.2.9 . tcp . 80"),
        ("dropped-nodeports", "tcp . 30080"),
    }
    (chain,) = [lines for name, lines in rules.chains.items() if name.startswith("ext-")]
    assert len(chain) == 3 and "dnat" not in str(chain)  # the short cuts alone
    inside = service_rules(service("a", internal_traffic_policy="Local"), far, Place("here"), CIDR)
    assert set(inside.elements) == {("dropped", "10.9.192.5 . tcp . 80")} and not inside.chains


BAD = (
    "2001:db8::1", "::1", "fe80::1%eth0", "::ffff:zz", "example.org", "", "1.2.3", "1.2.3.4/24", "256.1.1.1", "1.2.3.4; flush",
    "10.9.192.5 }", "0x7f.0.0.1", "١.٢.٣.٤",
)  # fmt: skip


def test_what_is_no_ipv4_address_is_left_out_and_the_rest_stands():
    made = service("a", node_port=30080, external_ips=[*BAD, "192.0.2.9", "192.000.002.010", "::ffff:192.0.2.11"])
    made.spec.cluster_ips = ["10.9.192.5", "fd00::5"]
    balanced = [core_v1.LoadBalancerIngress(ip=ip) for ip in (*BAD, "192.0.2.20")]
    balanced.append(core_v1.LoadBalancerIngress(hostname="x.example.org"))
    balanced.append(core_v1.LoadBalancerIngress(ip="192.0.2.21", ip_mode="Proxy"))
    made.status.load_balancer = core_v1.LoadBalancerStatus(ingress=balanced)
    piece = slice_of(("10.9.1.1", "ready"), *((bad, "ready") for bad in BAD))
    rules = service_rules(made, [piece], Place("here"), CIDR)
    names = {key.split(" . ")[0] for where, key in rules.elements if where == "services"}
    assert names == {"10.9.192.5", "192.0.2.9", "192.0.2.10", "192.0.2.11", "192.0.2.20"}
    assert all(not bad or bad not in str((rules.chains, rules.elements)) for bad in BAD if bad not in ("1.2.3", "::1"))
    six = msgspec.structs.replace(piece, address_type="IPv6")
    assert endpoints_of([six], made.spec.ports[0], "here") == ([], [])


def test_numbers_out_of_range_make_no_rules():
    for number in (0, -1, 65536, 1 << 40):
        odd = service("a", node_port=30080)
        odd.spec.ports[0].port = number
        assert service_rules(odd, [slice_of(("10.9.1.1", "ready"))], Place("here"), CIDR) == Rules()
        odd.spec.ports[0].port, odd.spec.ports[0].node_port = 80, number
        piece = slice_of(("10.9.1.1", "ready"))
        assert not any(w == "nodeports" for w, _ in service_rules(odd, [piece], Place("here"), CIDR).elements)
        piece.ports[0].port = number
        assert endpoints_of([piece], odd.spec.ports[0], "here") == ([], [])
    for seconds, kept in ((-5, 1), (1 << 40, 86400), (7, 7), (0, 10800)):
        sticky = service("a", affinity=True)
        sticky.spec.session_affinity_config = core_v1.SessionAffinityConfig(
            client_ip=core_v1.ClientIPConfig(timeout_seconds=seconds)
        )
        rules = service_rules(sticky, [slice_of(("10.9.1.1", "ready"))], Place("here"), CIDR)
        assert list(rules.sets.values()) == [kept]


def test_source_ranges_of_load_balancers():
    made = service("a", node_port=30080)
    made.status.load_balancer = core_v1.LoadBalancerStatus(ingress=[core_v1.LoadBalancerIngress(ip="192.0.2.20")])
    piece = slice_of(("10.9.1.1", "ready"))
    made.spec.load_balancer_source_ranges = [" 10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/24", "fd00::/8", "nonsense"]
    rules = service_rules(made, [piece], Place("here"), CIDR)
    (firewall,) = [name for name in rules.chains if name.startswith("fw-")]
    assert rules.chains[firewall][0] == "ip saddr != { 10.0.0.0/8, 192.0.2.0/24 } drop"  # that overlap would be refused
    assert rules.elements["services", "192.0.2.20 . tcp . 80"] == f"goto {firewall}"
    assert firewall not in rules.elements["nodeports", "tcp . 30080"]
    for ranges in (["0.0.0.0/0", "10.0.0.0/8"], ["fd00::/8"], []):
        made.spec.load_balancer_source_ranges = ranges
        assert not any(n.startswith("fw-") for n in service_rules(made, [piece], Place("here"), CIDR).chains)


def at(address: str, zone: str = "", node: str = "") -> Endpoint:
    return Endpoint(address, 80, zones=(zone,) if zone else (), nodes=(node,) if node else ())


def test_traffic_stays_close_if_every_endpoint_has_a_hint():
    here = Place("n1", "a")
    zoned = [at("1", "a"), at("2", "b"), at("3", "a")]
    assert addresses(closest(zoned, here)) == ["1", "3"]
    assert closest(zoned, Place("n1")) == zoned  # a node without a zone
    assert closest(zoned, Place("n1", "c")) == zoned  # nobody is meant for this zone
    assert closest([*zoned, at("4")], here) == [*zoned, at("4")]
    noded = [at("1", "a", "n2"), at("2", "b", "n1"), at("3", "a", "n3")]
    assert addresses(closest(noded, here)) == ["2"]
    assert addresses(closest(noded, Place("n4", "a"))) == ["1", "3"]


def test_hints_do_not_leave_a_service_without_endpoints():
    piece = slice_of(("10.9.1.1", "ready"), ("10.9.2.1", "ready"))
    for endpoint, zone in zip(piece.endpoints, "ab", strict=True):
        endpoint.hints = discovery_v1.EndpointHints(for_zones=[discovery_v1.ForZone(name=zone)])
    near = service_rules(service("a", node_port=30080), [piece], Place("here", "a"), CIDR)
    assert "10.9.1.1" in str(near.chains) and "10.9.2.1" not in str(near.chains)
    far = service_rules(service("a"), [piece], Place("here", "z"), CIDR)
    assert "10.9.1.1" in str(far.chains) and "10.9.2.1" in str(far.chains)


def test_headless_services_have_no_rules():
    assert service_rules(service("a", ip="None"), [slice_of(("10.9.1.1", "ready"))], Place("here"), CIDR) == Rules()


STATE = st.sampled_from(["ready", "unready", "ending"])
CHANGES = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.booleans(),
        st.booleans(),
        st.lists(st.tuples(st.sampled_from(["10.9.1.1", "10.9.1.2", "10.9.2.1"]), STATE), max_size=3),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


def kernel(commands: list[str]) -> list[str]:
    """What the kernel lists after these transactions, in a network namespace of their own."""

    def work() -> list[str]:
        unshare(CLONE_NEWNET)
        nft = Nftables()
        for text in commands:
            if text:
                nft.run(text)
        return sorted(line.strip().rstrip(",") for line in nft.run(f"list table {TABLE}").split("\n"))

    return in_child(work)


@pytest.mark.root
@settings(max_examples=25, deadline=None)
@given(CHANGES)
def test_any_sequence_of_changes_ends_in_the_same_rules(changes):
    assert os.geteuid() == 0
    numbers = {"a": 1, "b": 2, "c": 3}
    moving, commands, latest = RuleSet(), [], {}
    commands.append(moving.full())
    for name, affinity, port, endpoints, gone, local in changes:
        number = numbers[name]
        made = service(name, f"10.9.192.{number}", affinity, 30000 + number if port else 0)
        if local:
            made.spec.external_traffic_policy, made.spec.external_ips = "Local", ["192.0.2.9"]
            made.spec.load_balancer_source_ranges = ["10.0.0.0/8"]
            balanced = core_v1.LoadBalancerIngress(ip=f"192.0.2.{number}")
            made.status.load_balancer = core_v1.LoadBalancerStatus(ingress=[balanced])
        latest[name] = Rules() if gone else service_rules(made, [slice_of(*endpoints)], Place("here"), CIDR)
        commands.append(moving.change({name: latest[name]}))
    fresh = RuleSet()
    fresh.change(latest)
    assert kernel(commands) == kernel([fresh.full()])
