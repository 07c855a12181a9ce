"""Service rules: what is worked out, and that the kernel ends with the same rules whatever way it was led there."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.namespaces import NEWNET, in_child, unshare
from navarch.api.types import core_v1, discovery_v1, meta_v1
from proxy.nftables import TABLE, Nftables, RuleSet
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


def test_local_policy_keeps_to_this_node():
    both = [slice_of(("10.9.1.1", "ready"), ("10.9.2.1", "ready"))]
    inside = service_rules(service("a", internal_traffic_policy="Local"), both, Place("here"), CIDR)
    assert "10.9.2.1" not in str(inside.chains) and "10.9.1.1" in str(inside.chains)
    outside = service_rules(service("a", node_port=30080, external_traffic_policy="Local"), both, Place("here"), CIDR)
    (chain,) = [lines for name, lines in outside.chains.items() if name.startswith("ext-")]
    assert "10.9.2.1" not in str(chain) and "mark" not in str(chain)


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
    ),
    min_size=1,
    max_size=12,
)


def kernel(commands: list[str]) -> list[str]:
    """What the kernel lists after these transactions, in a network namespace of their own."""

    def work() -> list[str]:
        unshare(NEWNET)
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
    for name, affinity, port, endpoints, gone in changes:
        number = numbers[name]
        made = service(name, f"10.9.192.{number}", affinity, 30000 + number if port else 0)
        latest[name] = Rules() if gone else service_rules(made, [slice_of(*endpoints)], Place("here"), CIDR)
        commands.append(moving.change({name: latest[name]}))
    fresh = RuleSet()
    fresh.change(latest)
    assert kernel(commands) == kernel([fresh.full()])
