"""Packing endpoints: stable, complete, and few writes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.endpoints import members, slices, subsets
from navarch.api.kinds import copy
from navarch.api.types import core_v1, discovery_v1, meta_v1
from tests.controllers.test_replicaset_plan import pod as base_pod

ZONES = {"n1": "z1", "n2": None}


def service(**spec: object) -> core_v1.Service:
    default: dict[str, object] = {
        "cluster_ip": "10.96.0.7",
        "ip_families": ["IPv4"],
        "selector": {"app": "web"},
        "ports": [core_v1.ServicePort(port=80, name="http", protocol="TCP", target_port="web")],
    }
    return core_v1.Service(
        metadata=meta_v1.ObjectMeta(name="web", namespace="default", uid="svc", labels={"team": "a"}),
        spec=core_v1.ServiceSpec(**(default | spec)),  # type: ignore[arg-type]
    )


def pod(number: int, *, ready: bool = True, port: int = 8080, node: str = "n1", **spec: object) -> core_v1.Pod:
    out = base_pod(f"p{number:03}", ready=10 if ready else None, node=node)
    out.status.pod_ip = f"10.244.{number // 250}.{number % 250 + 1}"
    out.status.pod_ips = [core_v1.PodIP(ip=out.status.pod_ip)]
    out.spec.containers[0].ports = [core_v1.ContainerPort(container_port=port, name="web", protocol="TCP")]
    for name, value in spec.items():
        setattr(out.spec, name, value)
    return out


class Server:
    """Slices as an API server keeps them."""

    def __init__(self) -> None:
        self.slices: dict[str, discovery_v1.EndpointSlice] = {}
        self.made = 0

    def apply(self, plan: slices.Plan) -> int:
        for s in plan.create:
            self.made += 1
            s = copy(s)
            s.metadata.name = f"web-{self.made:04}"
            self.slices[s.metadata.name] = s
        for s in plan.update:
            assert s.metadata.name in self.slices
            self.slices[s.metadata.name or ""] = copy(s)
        for s in plan.delete:
            del self.slices[s.metadata.name or ""]
        return len(plan.create) + len(plan.update) + len(plan.delete)

    def sync(self, svc: core_v1.Service, pods: list[core_v1.Pod], most: int = 100) -> int:
        writes = self.apply(slices.plan(svc, pods, ZONES, list(self.slices.values()), most=most))
        assert self.apply(slices.plan(svc, pods[::-1], ZONES, list(self.slices.values()), most=most)) == 0
        return writes

    def addresses(self) -> list[str]:
        return sorted(a for s in self.slices.values() for e in s.endpoints for a in e.addresses)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(st.integers(0, 60), st.tuples(st.booleans(), st.sampled_from([8080, 9090]))), max_size=6))
def test_slices_follow_pods(rounds: list[dict[int, tuple[bool, int]]]) -> None:
    server = Server()
    for wanted in rounds:
        pods = [pod(n, ready=ready, port=port) for n, (ready, port) in wanted.items()]
        server.sync(service(), pods, most=8)
        assert server.addresses() == sorted(p.status.pod_ip or "" for p in pods)
        assert server.slices and all(len(s.endpoints) <= 8 for s in server.slices.values())
        for s in server.slices.values():
            for e in s.endpoints:
                ready, port = wanted[int(str(e.target_ref and e.target_ref.name)[1:])]
                assert (s.ports or [])[0].port == port
                assert e.conditions is not None and e.conditions.ready is ready


def test_one_change_is_one_write() -> None:
    server = Server()
    pods = [pod(n) for n in range(250)]
    assert server.sync(service(), pods) == 3
    pods[7] = pod(7, ready=False)
    assert server.sync(service(), pods) == 1
    assert server.sync(service(), [*pods[:20], *pods[21:]]) == 1
    assert server.sync(service(), pods) == 1


def test_what_a_slice_says() -> None:
    terminating = pod(2, ready=True, node="n2")
    terminating.metadata.deletion_timestamp = "2024-01-01T00:00:00Z"
    finished, lost = pod(3), pod(4, node="gone")
    finished.status.phase = "Succeeded"
    server = Server()
    server.sync(service(), [pod(1), terminating, finished, lost])
    (s,) = server.slices.values()
    assert s.metadata.labels == {
        "team": "a",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    (owner,) = s.metadata.owner_references or []
    assert (owner.kind, owner.uid, owner.controller) == ("Service", "svc", True)
    assert s.metadata.generate_name == "web-" and s.address_type == "IPv4"
    assert s.ports == [discovery_v1.EndpointPort(name="http", port=8080, protocol="TCP")]
    first, second = s.endpoints
    assert (first.node_name, first.zone, second.zone) == ("n1", "z1", None)
    assert first.conditions == discovery_v1.EndpointConditions(ready=True, serving=True, terminating=False)
    assert second.conditions == discovery_v1.EndpointConditions(ready=False, serving=True, terminating=True)


def test_headless_names_and_unready_addresses() -> None:
    svc = service(cluster_ip="None", ports=None, publish_not_ready_addresses=True)
    server = Server()
    server.sync(svc, [pod(1, ready=False, hostname="a", subdomain="web"), pod(2, hostname="b", subdomain="other")])
    (s,) = server.slices.values()
    assert (s.metadata.labels or {})[members.HEADLESS] == ""
    assert [e.hostname for e in s.endpoints] == ["a", None]
    assert all(e.conditions is not None and e.conditions.ready for e in s.endpoints)
    assert not s.ports


def test_a_service_without_pods_keeps_one_slice() -> None:
    server = Server()
    assert server.sync(service(), []) == 1
    assert server.sync(service(), [pod(1)]) == 1
    assert server.sync(service(), []) == 1
    assert len(server.slices) == 1


def test_subsets() -> None:
    svc = service()
    made = subsets.plan(svc, [pod(2), pod(1), pod(3, ready=False), pod(4, port=9090)], None, "2024-01-01T00:00:00Z")
    assert made is not None and made.subsets is not None
    assert (made.metadata.annotations or {})[members.LAST_CHANGE] == "2024-01-01T00:00:00Z"
    first, second = made.subsets
    assert [a.ip for a in first.addresses or ()] == ["10.244.0.2", "10.244.0.3"]
    assert [a.ip for a in first.not_ready_addresses or ()] == ["10.244.0.4"]
    assert [p.port for s in (first, second) for p in s.ports or ()] == [8080, 9090]
    assert subsets.plan(svc, [pod(1), pod(2), pod(3, ready=False), pod(4, port=9090)], made) is None


def test_many_addresses_are_truncated() -> None:
    pods = [pod(n, ready=n % 2 == 0) for n in range(1300)]
    made = subsets.plan(service(), pods, None)
    assert made is not None and made.subsets is not None
    assert (made.metadata.annotations or {})[subsets.OVER_CAPACITY] == "truncated"
    assert sum(len(s.addresses or ()) for s in made.subsets) == 650
    assert sum(len(s.not_ready_addresses or ()) for s in made.subsets) == 350


def test_mirroring() -> None:
    def endpoints(*subsets: core_v1.EndpointSubset) -> core_v1.Endpoints:
        meta = meta_v1.ObjectMeta(name="db", namespace="default", uid="ep", labels={"a": "b"})
        return core_v1.Endpoints(metadata=meta, subsets=list(subsets))

    def addresses(*ips: str) -> list[core_v1.EndpointAddress]:
        return [core_v1.EndpointAddress(ip=ip) for ip in ips]

    port = [core_v1.EndpointPort(port=5432, name="sql", protocol="TCP")]
    subset = core_v1.EndpointSubset(
        addresses=addresses("192.0.2.1", "2001:db8::1"), not_ready_addresses=addresses("192.0.2.2"), ports=port
    )
    server = Server()
    assert server.apply(slices.mirror(endpoints(subset), [])) == 2
    four, six = sorted(server.slices.values(), key=lambda s: s.address_type)
    assert (four.address_type, six.address_type) == ("IPv4", "IPv6")
    assert [(e.addresses, e.conditions and e.conditions.ready) for e in four.endpoints] == [
        (["192.0.2.1"], True),
        (["192.0.2.2"], False),
    ]
    assert four.metadata.labels == {
        "a": "b",
        "kubernetes.io/service-name": "db",
        "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
    }
    assert [r.kind for r in four.metadata.owner_references or []] == ["Endpoints"]
    assert server.apply(slices.mirror(endpoints(subset), list(server.slices.values()))) == 0
    assert server.apply(slices.mirror(endpoints(), list(server.slices.values()))) == 2
    assert not server.slices


def test_hints_follow_the_traffic_distribution() -> None:
    """Ready endpoints are hinted at, as far as their place is known; a change of the service changes them in place."""
    server = Server()
    pods = [pod(1), pod(2, node="n2"), pod(3, ready=False)]

    def hints() -> list[tuple[list[str], list[str]] | None]:
        (piece,) = server.slices.values()
        found = sorted(piece.endpoints, key=lambda e: e.addresses)
        return [
            ([z.name for z in e.hints.for_zones or ()], [n.name for n in e.hints.for_nodes or ()]) if e.hints else None
            for e in found
        ]

    server.sync(service(), pods)
    assert hints() == [None, None, None]
    assert server.sync(service(traffic_distribution="PreferClose"), pods) == 1
    assert hints() == [(["z1"], []), None, None]
    assert server.sync(service(traffic_distribution="PreferSameNode"), pods) == 1
    assert hints() == [(["z1"], ["n1"]), ([], ["n2"]), None]
    server.sync(service(), pods)
    assert hints() == [None, None, None]
