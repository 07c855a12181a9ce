"""ARP for load balancer addresses: frames, and which services this node answers for."""

from __future__ import annotations

from types import SimpleNamespace

from navarch.api.types import core_v1, meta_v1
from navarch.api.wellknown import ANNOUNCED_BY
from navarch.virtual import SimulatedWorld
from proxy.announcer import REPLY, REQUEST, Announcer, announcement, frame, request_of
from tests.proxy.test_proxy import Listed

OURS, THEIRS = b"\x02\x6e\x0a\x09\x80\x0b", b"\x02\x6e\x0a\x09\x80\x01"


def balanced(name, address, node="here", kind="LoadBalancer"):
    made = core_v1.Service(
        metadata=meta_v1.ObjectMeta(name=name, namespace="x", annotations={ANNOUNCED_BY: node}),
        spec=core_v1.ServiceSpec(type=kind),
    )
    made.status.load_balancer = core_v1.LoadBalancerStatus(ingress=[core_v1.LoadBalancerIngress(ip=address, ip_mode="VIP")])
    return made


def test_frames():
    asked = frame(REQUEST, THEIRS, "10.9.128.1", bytes(6), "10.9.140.1")
    assert len(asked) == 42 and asked[:6] == b"\xff" * 6 and asked[12:14] == b"\x08\x06"
    assert request_of(asked) == ("10.9.140.1", THEIRS, "10.9.128.1")
    for bad in (b"", asked[:41], frame(REPLY, THEIRS, "10.9.128.1", OURS, "10.9.140.1"), b"\0" * 42):
        assert request_of(bad) is None
    told = announcement(OURS, "10.9.140.1")
    assert request_of(told) == ("10.9.140.1", OURS, "10.9.140.1"), "asks for what it has: neighbours take note"


def test_which_addresses_are_answered_for():
    services = Listed()
    announcer = Announcer(SimulatedWorld(), SimpleNamespace(informer=lambda _: services), "here")
    asked = frame(REQUEST, THEIRS, "10.9.128.1", bytes(6), "10.9.140.1")
    assert announcer.answer(asked, OURS) is None
    services.put(balanced("a", "10.9.140.1"))
    services.put(balanced("b", "10.9.140.1"))
    services.put(balanced("c", "10.9.140.2", node="there"))
    services.put(balanced("d", "10.9.140.3", kind="ClusterIP"))
    assert list(announcer.addresses) == ["10.9.140.1"] and list(announcer.news) == ["10.9.140.1"]
    reply = announcer.answer(asked, OURS)
    assert reply == frame(REPLY, OURS, "10.9.140.1", THEIRS, "10.9.128.1") and reply[:6] == THEIRS
    assert announcer.answer(announcement(OURS, "10.9.140.1"), OURS) is None, "our own"
    announcer.on_service("DELETED", None, balanced("a", "10.9.140.1"))
    assert announcer.addresses, "the other service has it still"
    services.put(balanced("b", "10.9.140.1", node="there"))
    assert not announcer.addresses and not announcer.news and announcer.answer(asked, OURS) is None
