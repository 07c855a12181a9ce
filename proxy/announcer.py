"""Answers ARP requests for load balancer addresses, so that whoever is on the nodes' link reaches them through this node.

The controller says in an annotation of the Service which node is to answer (controllers/loadbalancer). The address is not
given to the node itself: what listens on the node would listen there, too. So this process answers, and a packet for a
port that the service does not have is refused by the proxy's rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import struct

from navarch.api.types import core_v1
from navarch.api.wellknown import ANNOUNCED_BY
from navarch.client.informer import SharedInformers, key_of
from navarch.client.watch import DELETED
from navarch.world import World
from proxy.rules import ingress_addresses, ipv4_only

log = logging.getLogger(__name__)

ETHERTYPE_ARP, ETHERTYPE_IPV4 = 0x0806, 0x0800
REQUEST, REPLY = 1, 2
BROADCAST = b"\xff" * 6
REPEATS = (0.0, 0.5, 2.0)  # seconds after taking over at which all neighbours are told: one frame may be lost
_HEAD = struct.Struct("!6s6sHHHBBH6s4s6s4s")  # Ethernet's three fields, then ARP's


def frame(operation: int, source: bytes, address: str, target: bytes, target_address: str) -> bytes:
    """An ARP frame in which ``source`` (six bytes) has ``address``."""
    own, other = (ipaddress.IPv4Address(a).packed for a in (address, target_address))
    inner = BROADCAST if operation == REQUEST else target
    asked_hardware = bytes(6) if operation == REQUEST else target
    return _HEAD.pack(inner, source, ETHERTYPE_ARP, 1, ETHERTYPE_IPV4, 6, 4, operation, source, own, asked_hardware, other)


def announcement(hardware: bytes, address: str) -> bytes:
    """Tells all neighbours that the address is here (a gratuitous request)."""
    return frame(REQUEST, hardware, address, BROADCAST, address)


def request_of(data: bytes) -> tuple[str, bytes, str] | None:
    """(address that is asked for, hardware and address of who asks) of an ARP request; None for any other frame."""
    if len(data) < _HEAD.size:
        return None
    _, _, ethertype, hardware, protocol, size, length, operation, sender, own, _, asked_address = _HEAD.unpack_from(data)
    if (ethertype, hardware, protocol, size, length, operation) != (ETHERTYPE_ARP, 1, ETHERTYPE_IPV4, 6, 4, REQUEST):
        return None
    return str(ipaddress.IPv4Address(asked_address)), sender, str(ipaddress.IPv4Address(own))


class Announcer:
    """Answers on ``link`` for the services that name ``node``. Runs in the node's network namespace."""

    def __init__(self, world: World, informers: SharedInformers, node: str, link: str = "eth0") -> None:
        self.world, self.node, self.link = world, node, link
        self.addresses: dict[str, dict[str, None]] = {}  # address -> services that have it here
        self._of: dict[str, list[str]] = {}  # service -> addresses
        self.news: dict[str, None] = {}  # addresses that the neighbours have not been told of
        self.wake = asyncio.Event()
        self.services = informers.informer(core_v1.Service)
        self.services.add_handler(self.on_service)

    def on_service(self, kind: str, old: core_v1.Service | None, service: core_v1.Service) -> None:
        key = key_of(service.metadata.namespace, service.metadata.name or "")
        here = kind != DELETED and (service.metadata.annotations or {}).get(ANNOUNCED_BY) == self.node
        addresses = ipv4_only(ingress_addresses(service)) if here and service.spec.type == "LoadBalancer" else []
        for address in self._of.pop(key, []):
            self.addresses[address].pop(key)
        for address in addresses:
            if not self.addresses.get(address):
                self.news[address] = None
                self.wake.set()
            self.addresses.setdefault(address, {})[key] = None
        if addresses:
            self._of[key] = addresses
        for address in [a for a, services in self.addresses.items() if not services]:
            del self.addresses[address]
            self.news.pop(address, None)

    def answer(self, data: bytes, hardware: bytes) -> bytes | None:
        """The reply to a frame, if it asks for one of our addresses."""
        question = request_of(data)
        if question is None or question[0] not in self.addresses or question[1] == hardware:
            return None
        return frame(REPLY, hardware, question[0], question[1], question[2])

    async def run(self) -> None:
        """Answers until cancelled."""
        while not self.addresses:  # without load balancers there is nothing to listen for
            self.wake.clear()
            await self.wake.wait()
        self.news = dict.fromkeys(self.addresses)
        self.wake.set()
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE_ARP)) as packets:
            packets.bind((self.link, ETHERTYPE_ARP))
            packets.setblocking(False)
            hardware = packets.getsockname()[4]
            loop = asyncio.get_running_loop()
            loop.add_reader(packets, self._read, packets, hardware)
            try:
                async with self.world.task_group() as group:
                    while True:
                        await self.wake.wait()
                        self.wake.clear()
                        news, self.news = list(self.news), {}
                        group.start(self._tell(packets, hardware, news), name="announce")
            finally:
                loop.remove_reader(packets)

    def _read(self, packets: socket.socket, hardware: bytes) -> None:
        for _ in range(64):  # then others have a turn
            try:
                data, where = packets.recvfrom(128)
            except OSError:
                return
            if where[2] != socket.PACKET_OUTGOING and (reply := self.answer(data, hardware)) is not None:
                with contextlib.suppress(OSError):
                    packets.send(reply)

    async def _tell(self, packets: socket.socket, hardware: bytes, addresses: list[str]) -> None:
        log.info("answering for %s", ", ".join(addresses))
        passed = 0.0
        for at in REPEATS:
            await self.world.sleep(at - passed)
            passed = at
            for address in addresses:
                if address in self.addresses:
                    with contextlib.suppress(OSError):
                        packets.send(announcement(hardware, address))
