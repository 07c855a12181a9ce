"""The cluster DNS as a server: packets, sizes, and the way to other servers. What names there are, see zone.py.

Names outside the cluster domain go to the upstream resolver if there is one, and are refused if not. As in CoreDNS: a
reply that does not fit is cut, keeps its question, and says so, whereupon resolvers ask again over TCP; EDNS tells how
much fits; negative answers carry the zone's SOA; names come back in the case in which they were asked.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from typing import cast

from dnslib import CLASS, EDNS0, OPCODE, QTYPE, RCODE, RR, DNSError, DNSHeader, DNSQuestion, DNSRecord
from dnslib.label import DNSLabelError

from proxy.zone import Answer, Missing, Zone

log = logging.getLogger(__name__)

UDP_SIZE, MAX_UDP_SIZE = 512, 4096
HEADER = 12  # bytes
MAX_ASKED = 1000  # questions that are being answered at a time, over UDP
BADVERS = 16
_UNREADABLE = (DNSError, DNSLabelError, ValueError, IndexError, struct.error, UnicodeError)
_REVERSE = (".in-addr.arpa", ".ip6.arpa")


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

    # --- one question ---

    async def reply(self, data: bytes, most: int) -> bytes | None:
        """The answer to a packet, at most ``most`` bytes (0: any size); None for what is no question."""
        if len(data) < HEADER or data[2] & 0x80:
            return None
        try:
            request = DNSRecord.parse(data)
            request.pack()  # a name of more than 253 characters is read and cannot be written
        except _UNREADABLE:
            return _bare(data, RCODE.FORMERR)
        if request.header.opcode != OPCODE.QUERY:
            return _bare(data, RCODE.NOTIMP)
        if len(request.questions) != 1:
            return _bare(data, RCODE.FORMERR)
        option = next((r for r in request.ar if r.rtype == QTYPE.OPT), None)
        size = most and max(most, min(option.rclass, MAX_UDP_SIZE)) if option is not None else most
        unknown = option is not None and bool((option.ttl >> 16) & 0xFF)  # a version of EDNS after 0
        answer = _empty(request) if unknown else await self._answer(request, data)
        if not isinstance(answer, DNSRecord):
            return answer if not size or len(answer) <= size else _recut(answer, request, size)
        if option is not None:
            answer.add_ar(EDNS0(udp_len=max(UDP_SIZE, option.rclass), ext_rcode=BADVERS >> 4 if unknown else 0))
        return fitted(answer, size)

    async def _answer(self, request: DNSRecord, data: bytes) -> DNSRecord | bytes:
        """The reply, or (bytes) another server's as it came."""
        reply = _empty(request)
        if request.q.qclass != CLASS.IN:
            reply.header.rcode = RCODE.REFUSED
            return reply
        try:
            if await self._local(request, reply):
                return reply
        except Exception:  # an object that nobody has foreseen: that name has no answer, others do
            log.exception("DNS: %s", request.q)
            reply.rr, reply.header.rcode = [], RCODE.SERVFAIL
            return reply
        if self.upstream:
            forwarded = await self._forward(data)
            if forwarded is not None:
                return forwarded
        reply.header.rcode = RCODE.SERVFAIL if self.upstream else RCODE.REFUSED
        return reply

    async def _local(self, request: DNSRecord, reply: DNSRecord) -> bool:
        """Fills the reply from the zone. False if the name is not ours."""
        question = str(request.q.qname).rstrip(".")
        name, kind = question.lower(), QTYPE.get(request.q.qtype)
        try:
            if self.zone.owns(name):
                answer = self.zone.answer(name, kind)
            elif name.endswith(".in-addr.arpa") and kind == "PTR":
                answer = Answer(self.zone.reverse(name))
            elif name.endswith(_REVERSE) and not self.upstream:
                raise Missing
            else:
                return False
        except Missing:
            if name.endswith(_REVERSE) and self.upstream:
                return False
            reply.header.aa, reply.header.rcode = 1, RCODE.NXDOMAIN
            reply.add_auth(self.zone.soa())
            return True
        reply.header.aa = 1
        if answer.outside and self.upstream:
            answer.answers += await self._look_up(answer.outside, request.q.qtype)
        for record in answer.answers:
            if str(record.rname).rstrip(".") == name:
                record.rname = request.q.qname  # in the case of the question
            reply.add_answer(record)
        reply.add_ar(*answer.additional)
        if not answer.answers:
            reply.add_auth(self.zone.soa())
        return True

    # --- other servers ---

    async def _look_up(self, name: str, kind: int) -> list[RR]:
        """The records that the upstream resolver has of a name; none if it does not answer."""
        question = DNSRecord(DNSHeader(id=self.zone.world.random.getrandbits(16), rd=1), q=DNSQuestion(name, kind))
        data = await self._forward(question.pack())
        try:
            return list(DNSRecord.parse(data).rr) if data is not None else []
        except _UNREADABLE as error:
            log.info("upstream %s: %s", self.upstream, error)
            return []

    async def _forward(self, data: bytes) -> bytes | None:
        """Asks the upstream resolver over TCP, which needs no care about sizes and retries."""
        try:
            async with asyncio.timeout(4):
                host, _, port = self.upstream.rpartition(":")
                place = (host, int(port)) if "." in host else (self.upstream, 53)
                reader, writer = await asyncio.open_connection(*place)
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


def _empty(request: DNSRecord) -> DNSRecord:
    header = DNSHeader(id=request.header.id, qr=1, aa=0, ra=1, rd=request.header.rd)
    return DNSRecord(header, q=request.q)


def fitted(answer: DNSRecord, size: int) -> bytes:
    """The packet; cut to ``size`` bytes (0: 64 KiB) if need be. The question stays, and the client's EDNS record: glibc
    takes no reply without its question for an answer, and would not ask again over TCP."""
    packed: bytes = answer.pack()
    limit = size or 65535
    if len(packed) <= limit:
        return packed
    options = [r for r in answer.ar if r.rtype == QTYPE.OPT]
    records = [*answer.rr, *answer.auth, *(r for r in answer.ar if r.rtype != QTYPE.OPT)]
    first, second = len(answer.rr), len(answer.rr) + len(answer.auth)

    def cut(count: int) -> bytes:
        """The packet with so many of the records, from the first on."""
        answer.rr, answer.auth = records[: min(count, first)], records[first : max(first, min(count, second))]
        answer.ar, answer.header.tc = [*records[second : max(second, count)], *options], 1
        packed: bytes = answer.pack()
        return packed

    fits, too_many = 0, len(records)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if len(cut(middle)) <= limit else (fits, middle)
    return cut(fits)


def _recut(data: bytes, request: DNSRecord, size: int) -> bytes:
    """Another server's reply, which came over TCP and is too large for UDP."""
    try:
        return fitted(DNSRecord.parse(data), size)
    except (DNSError, ValueError, IndexError, struct.error, UnicodeError):
        reply = _empty(request)
        reply.header.tc = 1
        packed: bytes = reply.pack()
        return packed


def _bare(data: bytes, code: int) -> bytes:
    """A reply to what cannot be read or is not done here: the header alone."""
    (number, flags) = struct.unpack_from(">HH", data)
    return struct.pack(">HHHHHH", number, 0x8000 | flags & 0x7900 | code, 0, 0, 0, 0)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: Server) -> None:
        self.server = server
        self.tasks: dict[asyncio.Task[None], None] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)  # uvloop's own class, not asyncio's

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(self.tasks) > MAX_ASKED:
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
