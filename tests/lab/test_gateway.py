"""The lab's gateway without a lab: what a resolver is asked, what is passed on, and the rules of a way out as text."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

from dnslib import QTYPE, RCODE, RR, A, DNSRecord

from lab import wayout
from lab.addresses import Addresses
from lab.components import registries_conf
from lab.dnsrelay import DNSRelay, failure, nameservers
from lab.gateway import relay
from lab.paths import LabRecord
from navarch.world import RealWorld
from nodeagent.images import registries
from nodeagent.images.reference import parse
from tests.nodeagent.images.realregistry import free_port


def test_resolv_conf() -> None:
    text = "# x\nsearch a.example b.example\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver no\noptions ndots:2\n\n"
    assert nameservers(text) == ["127.0.0.53", "fe80::1"]
    assert len(nameservers("nameserver 192.0.2.1\n" * 9)) == 3
    assert wayout.resolv_conf(text, Addresses(200)) == "nameserver 10.200.192.10\nsearch a.example b.example\noptions ndots:2\n"


def test_the_rules_name_the_lab_alone() -> None:
    text = wayout.rules(Addresses(207))
    assert all(part in text for part in ("table ip nv207", "10.207.0.0/16", "169.254.0.0/16", "10.200.0.0-10.250.255.255"))
    assert text.count("10.207.") == 2


def test_names_of_the_labs_registry() -> None:
    record = LabRecord("mine", 203, 6443, "sqlite", registry=5003)
    known = registries.Registries(registries.parse(registries_conf(record)))
    for name in ("registry.mine:5003/a/b:1", "10.203.128.1:5003/a/b:1"):
        [endpoint] = known.endpoints(parse(name))
        assert (endpoint.api, endpoint.path, endpoint.insecure) == ("127.0.0.1:5003", "a/b", True)
    assert registries_conf(LabRecord("mine", 203, 6443, "sqlite")) == ""


class Resolver(asyncio.DatagramProtocol):
    """Knows one name; says of "large." that it does not fit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = answer(data)
        reply.header.tc = int(str(reply.q.qname) == "large.")
        if str(reply.q.qname) != "silent.":
            self.transport.sendto(reply.pack(), addr)  # type: ignore[attr-defined]


def answer(data: bytes) -> DNSRecord:
    reply = DNSRecord.parse(data).reply()
    reply.add_answer(RR(reply.q.qname, QTYPE.A, rdata=A("203.0.113.9")))
    return reply


async def over_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    (length,) = struct.unpack(">H", await reader.readexactly(2))
    data = answer(await reader.readexactly(length)).pack()
    writer.write(struct.pack(">H", len(data)) + data)
    writer.close()


async def ask(port: int, *names: str) -> list[DNSRecord]:
    """The replies to questions for these names, all over one TCP connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    replies = []
    for name in names:
        data = DNSRecord.question(name).pack()
        writer.write(struct.pack(">H", len(data)) + data)
        (length,) = struct.unpack(">H", await reader.readexactly(2))
        replies.append(DNSRecord.parse(await reader.readexactly(length)))
    writer.close()
    return replies


def test_questions_are_passed_on(tmp_path: Path) -> None:
    conf, port, own = tmp_path / "resolv.conf", free_port(), free_port()
    conf.write_text("nameserver 127.0.0.1\n")

    async def body() -> None:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(Resolver, local_addr=("127.0.0.1", port))
        await asyncio.start_server(over_tcp, "127.0.0.1", port)
        task = asyncio.ensure_future(DNSRelay(RealWorld(brief=True), conf, port).serve("127.0.0.1", own))
        await asyncio.sleep(0)
        while True:
            try:
                small, large = await ask(own, "small", "large")
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
        assert str(small.rr[0].rdata) == str(large.rr[0].rdata) == "203.0.113.9" and not large.header.tc
        conf.write_text("nameserver 127.0.0.1 # changed\nnameserver nonsense\n")
        [silent] = await ask(own, "silent")
        assert silent.header.rcode == RCODE.SERVFAIL and str(silent.q.qname) == "silent."
        task.cancel()

    RealWorld(brief=True).run(body)


def test_a_failure_has_the_id_of_its_question() -> None:
    question = DNSRecord.question("x").pack()
    assert DNSRecord.parse(failure(question)).header.id == DNSRecord.parse(question).header.id



def test_connections_are_passed_on() -> None:
    here, there = free_port(), free_port()

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())  # after the other side has said that it is done
        writer.close()

    async def body() -> None:
        await asyncio.start_server(shout, "127.0.0.1", there)
        task = asyncio.ensure_future(relay(("127.0.0.1", here), ("127.0.0.1", there)))
        await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", here)
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"HELLO"
        writer.close()
        task.cancel()

    RealWorld(brief=True).run(body)
