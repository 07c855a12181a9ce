"""DNS answers, from informers filled by hand."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from dnslib import DNSRecord

from navarch.api.types import core_v1, discovery_v1, meta_v1
from navarch.world import RealWorld
from proxy.dns import Server, Zone


class Listed:
    """Stands for a synced informer."""

    def __init__(self, objects, indexers):
        self.objects, self.indexers = objects, indexers

    def get(self, namespace, name):
        return next((o for o in self.objects if (o.metadata.namespace, o.metadata.name) == (namespace, name)), None)

    def get_key(self, key):
        return self.get(*key.split("/"))

    def by_index(self, index, value):
        return [o for o in self.objects if value in self.indexers[index](o)]


def meta(name, namespace=None, **more):
    return meta_v1.ObjectMeta(name=name, namespace=namespace, **more)


def port(name, number):
    return core_v1.ServicePort(name=name, port=number, protocol="TCP")


SERVICES = [
    core_v1.Service(
        metadata=meta("web", "default"), spec=core_v1.ServiceSpec(cluster_ip="10.9.192.7", ports=[port("http", 80)])
    ),
    core_v1.Service(
        metadata=meta("db", "default"), spec=core_v1.ServiceSpec(cluster_ip="None", ports=[port("sql", 5432)])
    ),
    core_v1.Service(
        metadata=meta("far", "default"), spec=core_v1.ServiceSpec(type="ExternalName", external_name="example.org")
    ),
]
SLICES = [
    discovery_v1.EndpointSlice(
        metadata=meta("db-x", "default", labels={"kubernetes.io/service-name": "db"}),
        address_type="IPv4",
        ports=[discovery_v1.EndpointPort(name="sql", port=5432, protocol="TCP")],
        endpoints=[
            discovery_v1.Endpoint(addresses=["10.9.1.4"], hostname="db-0"),
            discovery_v1.Endpoint(addresses=["10.9.2.4"], conditions=discovery_v1.EndpointConditions(ready=True)),
            discovery_v1.Endpoint(addresses=["10.9.2.5"], conditions=discovery_v1.EndpointConditions(ready=False)),
        ],
    )
]


def ask(name: str, kind: str = "A") -> tuple[str, list[str]]:
    objects = {
        core_v1.Service: SERVICES,
        discovery_v1.EndpointSlice: SLICES,
        core_v1.Namespace: [core_v1.Namespace(metadata=meta("default"))],
    }
    informers = SimpleNamespace(informer=lambda cls, indexers=None: Listed(objects[cls], indexers or {}))
    server = Server(Zone(RealWorld(), informers), "127.0.0.1")
    packet = asyncio.run(server.reply(DNSRecord.question(name, kind).pack(), 512))
    reply = DNSRecord.parse(packet)
    rcodes = {0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}
    return rcodes[reply.header.rcode], sorted(str(r.rdata) for r in reply.rr)


def test_services():
    assert ask("web.default.svc.cluster.local") == ("NOERROR", ["10.9.192.7"])
    assert ask("WEB.default.svc.Cluster.Local") == ("NOERROR", ["10.9.192.7"])
    assert ask("web.default.svc.cluster.local", "AAAA") == ("NOERROR", [])
    assert ask("nope.default.svc.cluster.local") == ("NXDOMAIN", [])
    assert ask("far.default.svc.cluster.local", "CNAME") == ("NOERROR", ["example.org."])
    assert ask("_http._tcp.web.default.svc.cluster.local", "SRV")[1] == ["0 100 80 web.default.svc.cluster.local."]


def test_headless():
    assert ask("db.default.svc.cluster.local") == ("NOERROR", ["10.9.1.4", "10.9.2.4"])
    assert ask("db-0.db.default.svc.cluster.local") == ("NOERROR", ["10.9.1.4"])
    assert ask("10-9-2-4.db.default.svc.cluster.local") == ("NOERROR", ["10.9.2.4"])
    assert len(ask("_sql._tcp.db.default.svc.cluster.local", "SRV")[1]) == 2


def test_pods_and_reverse():
    assert ask("10-9-1-4.default.pod.cluster.local") == ("NOERROR", ["10.9.1.4"])
    assert ask("7.192.9.10.in-addr.arpa", "PTR") == ("NOERROR", ["web.default.svc.cluster.local."])
    assert ask("4.1.9.10.in-addr.arpa", "PTR") == ("NOERROR", ["db-0.db.default.svc.cluster.local."])


def test_the_world_outside_is_refused_without_an_upstream():
    assert ask("example.com") == ("REFUSED", [])


def test_garbage_gets_no_answer():
    server = Server(SimpleNamespace(), "127.0.0.1")
    assert asyncio.run(server.reply(b"\x00\x01garbage", 512)) is None
