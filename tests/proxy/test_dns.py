"""DNS answers, from informers filled by hand: as packets, and as glibc understands them."""

from __future__ import annotations

import asyncio
import struct
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from dnslib import EDNS0, QTYPE, RR, A, DNSHeader, DNSQuestion, DNSRecord

from lab.namespaces import in_child
from navarch.api.types import core_v1, discovery_v1, meta_v1
from navarch.linux.syscalls import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    MS_BIND,
    MS_PRIVATE,
    MS_REC,
    mount,
    unshare,
)
from navarch.world import RealWorld
from proxy.dns import Server
from proxy.zone import Zone


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


def external(name, target):
    spec = core_v1.ServiceSpec(type="ExternalName", external_name=target)
    return core_v1.Service(metadata=meta(name, "default"), spec=spec)


def cluster_ip(name, ip, *ports):
    return core_v1.Service(metadata=meta(name, "default"), spec=core_v1.ServiceSpec(cluster_ip=ip, ports=list(ports)))


def slice_of(service, number, *endpoints):
    return discovery_v1.EndpointSlice(
        metadata=meta(f"{service}-x", "default", labels={"kubernetes.io/service-name": service}),
        address_type="IPv4",
        ports=[discovery_v1.EndpointPort(name="sql", port=number, protocol="TCP")],
        endpoints=list(endpoints),
    )


MANY = [f"10.9.5.{n}" for n in range(1, 101)]
SERVICES = [
    cluster_ip("web", "10.9.192.7", port("http", 80)),
    cluster_ip("both", "10.9.192.8", port("http", 80), port("https", 443)),
    cluster_ip("db", "None", port("sql", 5432)),
    cluster_ip("many", "None", port("sql", 5432)),
    cluster_ip("empty", "None", port("sql", 5432)),
    external("far", "example.org"),
    external("near", "DB.default.svc.cluster.local."),
    external("twice", "near.default.svc.cluster.local"),
    external("dead", "nope.default.svc.cluster.local"),
    external("circle", "round.default.svc.cluster.local"),
    external("round", "circle.default.svc.cluster.local"),
    external("self", "self.default.svc.cluster.local"),
    external("address", "192.0.2.7"),
]
SLICES = [
    slice_of(
        "db",
        5432,
        discovery_v1.Endpoint(addresses=["10.9.1.4"], hostname="db-0"),
        discovery_v1.Endpoint(addresses=["10.9.2.4"], conditions=discovery_v1.EndpointConditions(ready=True)),
        discovery_v1.Endpoint(addresses=["10.9.2.5"], conditions=discovery_v1.EndpointConditions(ready=False)),
        discovery_v1.Endpoint(addresses=["fd00::1"]),  # which the API would refuse
    ),
    slice_of("many", 5432, *(discovery_v1.Endpoint(addresses=[a]) for a in MANY)),
    slice_of("web", 8080, discovery_v1.Endpoint(addresses=["10.9.1.4"], hostname="web-0")),
]
ZONE = "default.svc.cluster.local"


class Upstream(Server):
    """Another resolver is there, and knows example.org."""

    def __init__(self, zone):
        super().__init__(zone, "127.0.0.1", upstream="192.0.2.53")

    async def _forward(self, data):
        request = DNSRecord.parse(data)
        reply = request.reply()
        for n in range(100 if str(request.q.qname) == "big.org." else 1):
            reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(f"192.0.2.{n + 1}")))
        return reply.pack()


def server(made=Server, *arguments):
    objects = {
        core_v1.Service: SERVICES,
        discovery_v1.EndpointSlice: SLICES,
        core_v1.Namespace: [core_v1.Namespace(metadata=meta("default"))],
    }
    informers = SimpleNamespace(informer=lambda cls, indexers=None: Listed(objects[cls], indexers or {}))
    return made(Zone(RealWorld(), informers, address="10.9.250.1"), *arguments)


def reply_to(packet: bytes, most: int = 512, made=None) -> DNSRecord:
    answer = asyncio.run((made or server(Server, "127.0.0.1")).reply(packet, most))
    assert answer is not None
    return DNSRecord.parse(answer)


RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


def ask(name: str, kind: str = "A") -> tuple[str, list[str]]:
    reply = reply_to(DNSRecord.question(name, kind).pack())
    assert reply.header.rcode or reply.header.aa
    assert bool(reply.rr) != (bool(reply.auth) or reply.header.rcode == 5), "a negative answer carries the SOA, no other"
    assert all(r.rtype == QTYPE.SOA and r.ttl == 5 for r in reply.auth)
    return RCODES[reply.header.rcode], sorted(str(r.rdata) for r in reply.rr)


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


def test_names_between():
    """Names that hold others exist, though they have no records: NODATA and not NXDOMAIN."""
    for name in ("cluster.local", "svc.cluster.local", ZONE, "pod.cluster.local", "default.pod.cluster.local"):
        assert ask(name) == ("NOERROR", []), name
    for name in ("x.cluster.local", "none.svc.cluster.local", f"a.b.c.web.{ZONE}", "x.default.pod.cluster.local"):
        assert ask(name) == ("NXDOMAIN", []), name
    assert ask("dns-version.cluster.local", "TXT") == ("NOERROR", ['"1.1.0"'])
    assert ask("cluster.local", "NS") == ("NOERROR", ["ns.dns.cluster.local."])
    assert ask("ns.dns.cluster.local") == ("NOERROR", ["10.9.250.1"])
    assert ask("cluster.local", "SOA")[1][0].startswith("ns.dns.cluster.local. hostmaster.cluster.local.")


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT", "NS", "SOA", "PTR", "ANY", "HTTPS", "SRV"])
def test_another_type_of_a_name_that_exists_is_no_data(kind):
    expected = ["0 100 5432 db-0.db." + ZONE + "."] if kind == "SRV" else []
    assert ask(f"db-0.db.{ZONE}", kind) == ("NOERROR", expected)
    assert ask(f"nope.{ZONE}", kind) == ("NXDOMAIN", [])
    assert ask(f"empty.{ZONE}", kind) == ("NXDOMAIN", [])  # a headless service without endpoints


def test_services_of_ports():
    assert ask(f"_http._tcp.both.{ZONE}", "SRV")[1] == [f"0 100 80 both.{ZONE}."]
    assert ask(f"both.{ZONE}", "SRV")[1] == [f"0 50 443 both.{ZONE}.", f"0 50 80 both.{ZONE}."]
    assert ask(f"_http._tcp.both.{ZONE}") == ("NOERROR", ["10.9.192.8"])
    for name in ("_nope._tcp", "_http._udp", "_http", "x._http._tcp"):
        assert ask(f"{name}.both.{ZONE}", "SRV") == ("NXDOMAIN", []), name
    reply = reply_to(DNSRecord.question(f"_sql._tcp.db.{ZONE}", "SRV").pack())
    told = sorted((str(r.rname), str(r.rdata)) for r in reply.ar)
    assert told == [(f"10-9-2-4.db.{ZONE}.", "10.9.2.4"), (f"db-0.db.{ZONE}.", "10.9.1.4")]  # no second question
    assert ask(f"web-0.web.{ZONE}") == ("NOERROR", ["10.9.1.4"])  # endpoints of any service have names


def test_aliases_come_with_what_they_lead_to():
    reply = reply_to(DNSRecord.question(f"twice.{ZONE}").pack())
    chain = [(str(r.rname), QTYPE[r.rtype], str(r.rdata)) for r in reply.rr]
    near, db = f"near.{ZONE}.", f"db.{ZONE}."
    assert chain[:2] == [(f"twice.{ZONE}.", "CNAME", near), (near, "CNAME", db)]
    assert sorted(chain[2:]) == [(db, "A", "10.9.1.4"), (db, "A", "10.9.2.4")]
    assert ask(f"near.{ZONE}", "CNAME") == ("NOERROR", [db])
    for name in ("dead", "circle", "self"):  # nothing to be had there
        assert ask(f"{name}.{ZONE}") == ("NOERROR", []), name
    assert ask(f"near.{ZONE}", "AAAA") == ("NOERROR", []) == ask(f"near.{ZONE}", "SRV")
    assert ask(f"address.{ZONE}") == ("NXDOMAIN", []) == ask(f"x.far.{ZONE}")
    assert ask(f"far.{ZONE}") == ("NOERROR", ["example.org."])  # nobody to ask for the rest
    outside = reply_to(DNSRecord.question(f"far.{ZONE}").pack(), made=server(Upstream))
    assert [(str(r.rname), str(r.rdata)) for r in outside.rr] == [
        (f"far.{ZONE}.", "example.org."),
        ("example.org.", "192.0.2.1"),
    ]


def test_a_reply_that_does_not_fit_says_so_and_keeps_its_question():
    question = DNSRecord.question(f"many.{ZONE}")
    cut = reply_to(question.pack())
    assert cut.header.tc and str(cut.q.qname) == f"many.{ZONE}." and 20 <= len(cut.rr) < 100
    assert len(cut.pack()) <= 512
    whole = reply_to(question.pack(), 0)  # over TCP
    assert not whole.header.tc and sorted(str(r.rdata) for r in whole.rr) == sorted(MANY)
    srv = reply_to(DNSRecord.question(f"_sql._tcp.many.{ZONE}", "SRV").pack())
    assert srv.header.tc and srv.questions and not srv.ar and len(srv.pack()) <= 512
    for size, fits in ((512, False), (1232, False), (4096, True), (100, False), (65000, True)):
        question = DNSRecord.question(f"many.{ZONE}")
        question.add_ar(EDNS0(udp_len=size))
        reply = reply_to(question.pack())
        assert bool(reply.header.tc) != fits and len(reply.pack()) <= max(512, min(size, 4096)), size
        options = [r for r in reply.ar if r.rtype == QTYPE.OPT]
        assert len(options) == 1 and options[0].rclass == max(512, size)
    big = reply_to(DNSRecord.question("big.org").pack(), made=server(Upstream))
    assert big.header.tc and big.questions and len(big.pack()) <= 512


def test_the_case_of_the_question_comes_back():
    reply = reply_to(DNSRecord.question("wEb.DEFAULT.svc.Cluster.local").pack())
    assert str(reply.q.qname) == "wEb.DEFAULT.svc.Cluster.local." == str(reply.rr[0].rname)
    gone = reply_to(DNSRecord.question("nOpe.default.svc.cluster.local").pack())
    assert str(gone.q.qname) == "nOpe.default.svc.cluster.local."


def test_the_world_outside_is_refused_without_an_upstream():
    assert ask("example.com") == ("REFUSED", [])
    assert ask("1.2.0.192.in-addr.arpa", "PTR") == ("NXDOMAIN", [])
    assert ask(f"{'0.' * 32}ip6.arpa", "PTR") == ("NXDOMAIN", [])
    assert ask("xcluster.local") == ("REFUSED", [])


def test_what_is_no_question():
    made = server(Server, "127.0.0.1")

    def code(packet: bytes) -> str | None:
        answer = asyncio.run(made.reply(packet, 512))
        return None if answer is None else RCODES.get(answer[3] & 15)

    good = DNSRecord.question("web.default.svc.cluster.local").pack()
    assert code(b"\x00\x01garbage") is None and code(b"") is None
    assert code(good[:2] + b"\x81\x80" + good[4:]) is None  # an answer
    assert code(good[:14]) == "FORMERR"
    long = b"".join(b"\x3f" + b"a" * 63 for _ in range(4)) + b"\0" + good[-4:]  # 255 characters
    assert code(good[:12] + long) == "FORMERR"
    assert code(good[:2] + b"\x29\x00" + good[4:]) == "NOTIMP"  # an update
    none = DNSRecord(DNSHeader(id=5, rd=1)).pack()
    assert code(none) == "FORMERR"
    two = DNSRecord.question("a.cluster.local")
    two.add_question(DNSQuestion("b.cluster.local"))
    assert code(two.pack()) == "FORMERR"
    assert code(DNSRecord(DNSHeader(rd=1), q=DNSQuestion("version.bind", QTYPE.TXT, 3)).pack()) == "REFUSED"
    option = b"\0" + struct.pack(">HHBBHH", QTYPE.OPT, 1232, 0, 1, 0, 0)  # EDNS version 1
    reply = reply_to(good[:10] + b"\x00\x01" + good[12:] + option)
    assert reply.header.rcode == 0 and reply.ar[0].ttl >> 24 == 1 and not reply.rr  # BADVERS
    for number in range(0, len(good)):
        for value in (0x00, 0xC0, 0xFF):
            asyncio.run(made.reply(good[:number] + bytes([value]) + good[number + 1 :], 512))  # never an exception


GETENT = (
    ("ahostsv4", f"many.{ZONE}", 100),
    ("ahostsv4", "many", 100),
    ("ahostsv4", "web.default.svc", 1),
    ("ahostsv4", f"twice.{ZONE}", 2),
    ("ahosts", "near", 2),
    ("ahosts", "web.default", 1),
    ("ahosts", "nope", 0),
    ("ahosts", f"dead.{ZONE}", 0),
    ("ahosts", f"WEB.{ZONE}", 1),
    ("hosts", "10.9.192.7", 1),
    ("hosts", "10.9.192.99", 0),
)


@pytest.mark.root
@pytest.mark.parametrize("options", ["ndots:5", "ndots:5 edns0", "ndots:5 use-vc", "ndots:5 single-request"])
def test_glibc_understands(options):
    """getent in a network namespace of its own, with the search path of a pod."""

    def work() -> list[int]:
        unshare(CLONE_NEWNET | CLONE_NEWNS)
        mount("none", "/", "", MS_REC | MS_PRIVATE)
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write(f"search {ZONE} svc.cluster.local cluster.local\nnameserver 127.0.0.1\noptions {options}\n")
            file.flush()
            mount(file.name, str(Path("/etc/resolv.conf").resolve()), "", MS_BIND)
            return asyncio.run(questions())

    async def questions() -> list[int]:
        # glibc asks for IPv4 addresses only where there is one beside the loopback's own.
        for command in ("link set lo up", "address add 10.9.250.1/32 dev lo"):
            process = await asyncio.create_subprocess_exec("ip", *command.split())
            assert await process.wait() == 0
        serving = asyncio.ensure_future(server(Server, "127.0.0.1").run())
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", 53)  # it listens on UDP before
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0)
        writer.close()
        counts = []
        for database, name, _ in GETENT:
            process = await asyncio.create_subprocess_exec(
                "getent", database, name, stdout=asyncio.subprocess.PIPE, env={"PATH": "/usr/bin:/bin"}
            )
            out, _ = await asyncio.wait_for(process.communicate(), 20)
            lines = {line.split()[0] for line in out.decode().splitlines()}
            counts.append(len(lines))
        serving.cancel()
        return counts

    assert in_child(work) == [count for _, _, count in GETENT]


def test_tcp_carries_several_questions():
    async def main() -> list[int]:
        made = server(Server, "127.0.0.1")
        listener = await asyncio.start_server(made._stream, "127.0.0.1", 0)
        async with listener:
            reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
            counts = []
            for name in ("many", "web", "nope"):
                packet = DNSRecord.question(f"{name}.{ZONE}").pack()
                writer.write(struct.pack(">H", len(packet)) + packet)
                (length,) = struct.unpack(">H", await reader.readexactly(2))
                counts.append(len(DNSRecord.parse(await reader.readexactly(length)).rr))
            writer.close()
            return counts

    assert asyncio.run(main()) == [100, 1, 0]
