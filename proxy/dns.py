"""The cluster DNS: answers for services, headless pods and pods' addresses, after Kubernetes' DNS specification 1.1.

Everything is read from the informers' indexes at the moment of the question, so there is nothing to keep in step. Names
outside the cluster domain go to the upstream resolver if there is one, and are refused if not.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import struct
from collections.abc import Iterable
from typing import cast

from dnslib import A, CLASS, CNAME, DNSRecord, PTR, QTYPE, RCODE, RR, SOA, SRV, DNSError  # isort: skip

from navarch.api.types import core_v1, discovery_v1
from navarch.client.informer import SharedInformers, key_of
from navarch.world import World
from proxy.proxy import service_key

log = logging.getLogger(__name__)

TTL = 5  # seconds, as CoreDNS' kubernetes plugin has it
UDP_SIZE = 512


class Missing(Exception):
    """NXDOMAIN."""


class Zone:
    """Answers questions about the cluster domain."""

    def __init__(self, world: World, informers: SharedInformers, domain: str = "cluster.local") -> None:
        self.world = world
        self.domain = tuple(domain.lower().strip(".").split("."))
        self.services = informers.informer(core_v1.Service, indexers={"ip": _service_addresses})
        self.slices = informers.informer(
            discovery_v1.EndpointSlice, indexers={"service": service_key, "address": _slice_addresses}
        )
        self.namespaces = informers.informer(core_v1.Namespace)

    def owns(self, labels: tuple[str, ...]) -> bool:
        return labels[-len(self.domain) :] == self.domain

    def answer(self, name: str, kind: str) -> list[RR]:
        """Records for a name of this zone (lower case, no final dot). Raises Missing; no record of that type is []."""
        labels = tuple(name.split("."))
        rest = labels[: -len(self.domain)]
        if not rest or rest == ("svc",) or rest == ("pod",):
            return []
        if rest == ("dns-version",):
            return [RR(name, QTYPE.TXT, ttl=TTL, rdata=_text("1.1.0"))] if kind == "TXT" else []
        match rest[-1]:
            case "svc":
                return self._service(name, rest[:-1], kind)
            case "pod":
                return self._pod(name, rest[:-1], kind)
        raise Missing

    def _pod(self, name: str, rest: tuple[str, ...], kind: str) -> list[RR]:
        if len(rest) == 1 and self.namespaces.get(None, rest[0]):
            return []
        if len(rest) != 2 or not self.namespaces.get(None, rest[1]):
            raise Missing
        try:
            address = str(ipaddress.IPv4Address(rest[0].replace("-", ".")))
        except ValueError:
            raise Missing from None
        return [_a(name, address)] if kind == "A" else []

    def _service(self, name: str, rest: tuple[str, ...], kind: str) -> list[RR]:
        if len(rest) == 1:
            if self.namespaces.get(None, rest[0]):
                return []
            raise Missing
        service = self.services.get(rest[-1], rest[-2])
        if service is None:
            raise Missing
        spec, front = service.spec, rest[:-2]
        if spec.type == "ExternalName":
            if front:
                raise Missing
            return [RR(name, QTYPE.CNAME, ttl=TTL, rdata=CNAME(spec.external_name or ""))]
        headless = spec.cluster_ip == "None"
        if len(front) == 2 and front[0].startswith("_") and front[1] in ("_tcp", "_udp", "_sctp"):
            return self._srv(name, service, front[0][1:], front[1][1:].upper(), kind, headless)
        if not front:
            if not headless:
                return [_a(name, a) for a in _service_addresses(service)] if kind == "A" else []
            found = [address for address, _ in self._endpoints(service)]
            if not found:
                raise Missing
            self.world.random.shuffle(found)
            return [_a(name, a) for a in found] if kind == "A" else []
        if headless and len(front) == 1:
            named = [a for a, host in self._endpoints(service) if host == front[0]]
            if named:
                return [_a(name, a) for a in named] if kind == "A" else []
        raise Missing

    def _srv(
        self, name: str, service: core_v1.Service, port: str, protocol: str, kind: str, headless: bool
    ) -> list[RR]:
        base = ".".join((service.metadata.name or "", service.metadata.namespace or "", "svc", *self.domain))
        if not headless:
            numbers = [p.port for p in service.spec.ports or () if p.name == port and (p.protocol or "TCP") == protocol]
            if not numbers:
                raise Missing
            return [_srv(name, base, n, 100) for n in numbers] if kind == "SRV" else []
        found: dict[tuple[str, int], None] = {}
        for piece in self._slices(service):
            numbers = [
                p.port for p in piece.ports or () if p.name == port and (p.protocol or "TCP") == protocol and p.port
            ]
            for address, host in _ready(piece):
                found |= dict.fromkeys((f"{host}.{base}", n) for n in numbers)
                del address
        if not found:
            raise Missing
        weight = max(1, 100 // len(found))
        return [_srv(name, target, n, weight) for target, n in found] if kind == "SRV" else []

    def _slices(self, service: core_v1.Service) -> list[discovery_v1.EndpointSlice]:
        return self.slices.by_index("service", key_of(service.metadata.namespace, service.metadata.name or ""))

    def _endpoints(self, service: core_v1.Service) -> list[tuple[str, str]]:
        """(address, host name) of ready endpoints. The slice controller makes unready ones ready where a service
        publishes them."""
        return list(dict.fromkeys(pair for piece in self._slices(service) for pair in _ready(piece)))

    def reverse(self, name: str) -> list[RR]:
        """PTR records of ``d.c.b.a.in-addr.arpa``. Raises Missing."""
        parts = name.split(".")[:-2]
        address = ".".join(reversed(parts))
        for service in self.services.by_index("ip", address):
            target = ".".join((service.metadata.name or "", service.metadata.namespace or "", "svc", *self.domain))
            return [RR(name, QTYPE.PTR, ttl=TTL, rdata=PTR(target))]
        found = []
        for piece in self.slices.by_index("address", address):
            for key in service_key(piece):
                service_of = self.services.get_key(key)
                if service_of is None or service_of.spec.cluster_ip != "None":
                    continue
                namespace, _, short = key.partition("/")
                hosts = [host for a, host in _ready(piece) if a == address]
                found += [".".join((host, short, namespace, "svc", *self.domain)) for host in hosts]
        if not found:
            raise Missing
        return [RR(name, QTYPE.PTR, ttl=TTL, rdata=PTR(target)) for target in dict.fromkeys(found)]

    def soa(self) -> RR:
        domain = ".".join(self.domain)
        times = (1, 7200, 1800, 86400, TTL)
        return RR(domain, QTYPE.SOA, ttl=TTL, rdata=SOA(f"ns.dns.{domain}", f"hostmaster.{domain}", times))


class Server:
    """UDP and TCP on port 53 of one address."""

    def __init__(self, zone: Zone, address: str, port: int = 53, upstream: str = "") -> None:
        self.zone, self.address, self.port, self.upstream = zone, address, port, upstream

    async def run(self) -> None:
        """Serves until cancelled. Raises OSError if the port cannot be had."""
        loop = asyncio.get_running_loop()
        udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(self.address, self.port))
        tcp = await asyncio.start_server(self._stream, self.address, self.port)
        try:
            async with tcp:
                await tcp.serve_forever()
        finally:
            udp.close()

    def local(self, request: DNSRecord) -> DNSRecord | None:
        """The reply from the zone, None if the name is not ours."""
        name = str(request.q.qname).rstrip(".").lower()
        kind = QTYPE.get(request.q.qtype)
        labels = tuple(name.split("."))
        reply = request.reply(aa=1, ra=1)
        try:
            if self.zone.owns(labels):
                records = self.zone.answer(name, kind)
            elif name.endswith(".in-addr.arpa") and kind == "PTR":
                records = self.zone.reverse(name)
            else:
                return None
        except Missing:
            if name.endswith(".in-addr.arpa") and self.upstream:
                return None
            reply.header.rcode = RCODE.NXDOMAIN
            reply.add_auth(self.zone.soa())
            return reply
        for record in records:
            record.rname = request.q.qname  # with the case of the question
            reply.add_answer(record)
        if not records:
            reply.add_auth(self.zone.soa())
        return reply

    async def reply(self, data: bytes, most: int) -> bytes | None:
        """The answer to a packet, at most ``most`` bytes (0: any size); None for what is no question."""
        try:
            request = DNSRecord.parse(data)
        except (DNSError, ValueError, IndexError, struct.error):
            return None
        if request.header.qr or not request.questions or request.q.qclass != CLASS.IN:
            return None
        answer = self.local(request)
        if answer is None:
            forwarded = await self._forward(data) if self.upstream else None
            if forwarded is not None:
                return forwarded
            answer = request.reply(ra=1)
            answer.header.rcode = RCODE.SERVFAIL if self.upstream else RCODE.REFUSED
        packed: bytes = answer.pack()
        size = most
        for record in request.ar:
            if record.rtype == QTYPE.OPT and most:
                size = max(most, min(record.rclass, 4096))  # EDNS: the client's buffer
        if size and len(packed) > size:
            packed = answer.truncate().pack()
        return packed

    async def _forward(self, data: bytes) -> bytes | None:
        """Asks the upstream resolver over TCP, which needs no care about sizes and retries."""
        try:
            async with asyncio.timeout(4):
                reader, writer = await asyncio.open_connection(self.upstream, 53)
                try:
                    writer.write(struct.pack(">H", len(data)) + data)
                    (length,) = struct.unpack(">H", await reader.readexactly(2))
                    return await reader.readexactly(length)
                finally:
                    writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            log.info("upstream %s: %s", self.upstream, error)
            return None

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(30):
                    (length,) = struct.unpack(">H", await reader.readexactly(2))
                    data = await reader.readexactly(length)
                answer = await self.reply(data, 0)
                if answer is None:
                    return
                writer.write(struct.pack(">H", len(answer)) + answer)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: Server) -> None:
        self.server = server
        self.tasks: dict[asyncio.Task[None], None] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)  # uvloop's own class, not asyncio's

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(self.tasks) > 1000:
            return  # a resolver asks again; memory does not come back
        task = asyncio.ensure_future(self._answer(data, addr))
        self.tasks[task] = None
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.pop(task, None)
        if not task.cancelled() and task.exception():
            log.error("DNS: %s", task.exception())

    async def _answer(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = await self.server.reply(data, UDP_SIZE)
        if answer is not None:
            self.transport.sendto(answer, addr)

    def connection_lost(self, exc: Exception | None) -> None:
        for task in self.tasks:
            task.cancel()


def _service_addresses(service: core_v1.Service) -> list[str]:
    spec = service.spec
    listed = spec.cluster_ips or [spec.cluster_ip or ""]
    return [a for a in listed if a and a != "None" and ":" not in a]


def _slice_addresses(piece: discovery_v1.EndpointSlice) -> list[str]:
    return [a for e in piece.endpoints or () for a in e.addresses]


def _ready(piece: discovery_v1.EndpointSlice) -> Iterable[tuple[str, str]]:
    if piece.address_type != "IPv4":
        return
    for entry in piece.endpoints or ():
        if entry.conditions is None or entry.conditions.ready is not False:
            for address in entry.addresses:
                yield address, entry.hostname or address.replace(".", "-")


def _a(name: str, address: str) -> RR:
    return RR(name, QTYPE.A, ttl=TTL, rdata=A(address))


def _srv(name: str, target: str, port: int, weight: int) -> RR:
    return RR(name, QTYPE.SRV, ttl=TTL, rdata=SRV(0, weight, port, target))


def _text(value: str) -> object:
    from dnslib import TXT

    return TXT(value)
