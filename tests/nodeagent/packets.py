"""Packets that no honest socket sends, and a wire to send them on: what an intruder with CAP_NET_RAW has in a pod."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from pathlib import Path

from navarch.linux import syscalls
from nodeagent.runtime.sandboxes import in_new_thread

IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
BROADCAST, ALL_NODES = b"\xff" * 6, bytes.fromhex("333300000001")
_SIOCGIFHWADDR = 0x8927


def checksum(data: bytes) -> int:
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp(source: str, target: str, port: int, data: bytes) -> bytes:
    """An IPv4 packet from port 999 of ``source``."""
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    body = struct.pack("!HHHH", 999, port, 8 + len(data), 0) + data
    body = body[:6] + struct.pack("!H", checksum(ends + struct.pack("!HH", 17, len(body)) + body)) + body[8:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 7, 0, 64, 17, 0) + ends
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def router_advertisement(source: str = "fe80::bad") -> bytes:
    """An IPv6 packet: this is your router, and 2001:db8:bad::/64 your network."""
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, "ff02::1")
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 7200, 7200, 0) + socket.inet_pton(socket.AF_INET6, "2001:db8:bad::")
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 9000, 0, 0) + prefix
    body = body[:2] + struct.pack("!H", checksum(ends + struct.pack("!II", len(body), 58) + body)) + body[4:]
    return struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + ends + body


def arp_claim(hardware: bytes, address: str) -> bytes:
    """Says unasked that the address is at this hardware."""
    own = hardware + socket.inet_aton(address)
    return struct.pack("!HHBBH", 1, IPV4, 6, 4, 2) + own + own


class Wire:
    """The link of a pod as it is: what is sent needs no address. Without ``hardware`` it goes to the gateway."""

    def __init__(self, namespace: Path, link: str, gateway: str) -> None:
        def make() -> socket.socket:
            enter(namespace)
            return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)

        self.socket = in_new_thread(make)
        self.socket.bind((link, 0))
        answer = fcntl.ioctl(self.socket, _SIOCGIFHWADDR, struct.pack("16s16x", link.encode()))
        self.hardware, self.gateway = answer[18:24], bytes.fromhex(gateway.replace(":", ""))

    def send(self, packet: bytes, kind: int = IPV4, hardware: bytes = b"") -> None:
        self.socket.send((hardware or self.gateway) + self.hardware + struct.pack("!H", kind) + packet)


def enter(namespace: Path) -> None:
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(fd, syscalls.CLONE_NEWNET)
    os.close(fd)


def receiver(namespace: Path | None, address: str, port: int) -> socket.socket:
    """A UDP socket in a network namespace (None: here)."""

    def make() -> socket.socket:
        if namespace is not None:
            enter(namespace)
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    made = in_new_thread(make)
    made.bind((address, port))
    made.settimeout(10)
    return made
