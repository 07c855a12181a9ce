"""A little rtnetlink: exactly the requests a pod's network needs, batched.

This runs for every pod, on every node: a library costs four times the CPU and 20 MiB an agent (docs/decisions.md, D64). A
socket made here stays in the network namespace of the thread that made it, whoever uses it later, which is the trap that
libraries with a socket per thread set.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from typing import Self

_REQUEST, _ACK, _EXCL, _CREATE, _REPLACE = 1, 4, 0x200, 0x400, 0x100
_DUMP = 0x300
_ERROR, _DONE = 2, 3
NEWLINK, DELLINK, GETLINK, NEWADDR, NEWROUTE, DELROUTE, NEWNEIGH = 16, 17, 18, 20, 24, 25, 28
_UP = 1
_UNIVERSE, _LINK = 0, 253
_UNICAST, _UNREACHABLE = 1, 7
_STATIC = 4
_SEND_REDIRECTS, _RP_FILTER, _ROUTE_LOCALNET = 6, 8, 26  # numbers of IPv4 settings of a link


def _attribute(kind: int, data: bytes) -> bytes:
    length = 4 + len(data)
    return struct.pack("=HH", length, kind) + data + bytes(-length % 4)


def _u32(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _string(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _ip(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class NetlinkError(OSError):
    """The kernel refused a request."""


class Netlink:
    """A socket in the calling thread's network namespace. Requests queue up until ``commit``."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._sequence = 0
        self._queue: list[tuple[int, str, bytes, tuple[int, ...]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def _add(self, kind: int, flags: int, body: bytes, what: str, forgive: tuple[int, ...] = ()) -> None:
        self._sequence += 1
        header = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, self._sequence, 0)
        self._queue.append((self._sequence, what, header + body, forgive))

    def commit(self) -> None:
        """Sends what is queued; raises NetlinkError for the first request that failed (all are tried)."""
        queue, self._queue = self._queue, []
        if not queue:
            return
        self._socket.send(b"".join(message for _, _, message, _ in queue))
        waiting = {sequence: (what, forgive) for sequence, what, _, forgive in queue}
        failure: NetlinkError | None = None
        while waiting:
            data = self._socket.recv(1 << 16)
            while len(data) >= 16:
                length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data)
                if kind == _ERROR and sequence in waiting:
                    number = -struct.unpack_from("=i", data, 16)[0]
                    what, forgive = waiting.pop(sequence)
                    if number and number not in forgive and failure is None:
                        failure = NetlinkError(number, f"{os.strerror(number)} ({what})")
                data = data[(length + 3) & ~3 :]
        if failure is not None:
            raise failure

    # -- links

    def add_veth(self, name: str, mac: str, peer: str, peer_mac: str, peer_netns: int, mtu: int) -> None:
        """A veth pair; ``peer`` is born in the network namespace of the open file ``peer_netns``."""
        inner = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + _string(3, peer) + _attribute(1, _mac(peer_mac))
        inner += _u32(4, mtu) + _u32(28, peer_netns)
        info = _string(1, "veth") + _attribute(2, _attribute(1, inner))
        body = struct.pack("=BxHiII", 0, 0, 0, _UP, _UP) + _string(3, name) + _attribute(1, _mac(mac)) + _u32(4, mtu)
        self._add(NEWLINK, _CREATE | _EXCL, body + _attribute(18, info), f"add veth {name}")

    def set_up(self, index: int) -> None:
        self._add(NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, _UP, _UP), f"link {index} up")

    def guard(self, index: int) -> None:
        """Strict reverse path filtering, no redirects, and answers to 127.0.0.1 (host ports) on a link: what files
        below /proc/sys would set, without depending on the network namespace of the thread."""
        settings = _u32(_RP_FILTER, 1) + _u32(_SEND_REDIRECTS, 0) + _u32(_ROUTE_LOCALNET, 1)
        spec = _attribute(26, _attribute(socket.AF_INET, _attribute(1, settings)))
        self._add(NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0) + spec, f"guard link {index}")

    def delete_link(self, name: str) -> None:
        """Deletes a link by name (no error if it is gone)."""
        self._add(DELLINK, 0, struct.pack("=BxHiII", 0, 0, 0, 0, 0) + _string(3, name), f"delete {name}", (19,))

    # -- addresses, routes, neighbours

    def add_address(self, index: int, address: str, prefix: int) -> None:
        body = struct.pack("=BBBBi", _family(address), prefix, 0, 0, index)
        body += _attribute(2, _ip(address)) + _attribute(1, _ip(address))
        self._add(NEWADDR, _CREATE | _REPLACE, body, f"add address {address}/{prefix}")

    def add_route(
        self, destination: str, *, index: int = 0, gateway: str = "", metric: int = 0, source: str = "",
        unreachable: bool = False,
    ) -> None:  # fmt: skip
        """Adds or replaces a route of the main table. Without gateway it is on-link."""
        network = ipaddress.ip_network(destination)
        body = self._route(network, _UNREACHABLE if unreachable else _UNICAST, _UNIVERSE if gateway or unreachable else _LINK)
        if index:
            body += _u32(4, index)
        if gateway:
            body += _attribute(5, _ip(gateway))
        if source:
            body += _attribute(7, _ip(source))
        if metric:
            body += _u32(6, metric)
        self._add(NEWROUTE, _CREATE | _REPLACE, body, f"add route {destination}")

    @staticmethod
    def _route(network: ipaddress.IPv4Network | ipaddress.IPv6Network, kind: int, scope: int) -> bytes:
        family = socket.AF_INET6 if network.version == 6 else socket.AF_INET
        body = struct.pack("=BBBBBBBBI", family, network.prefixlen, 0, 0, 254, _STATIC, scope, kind, 0)
        return body + (_attribute(1, network.network_address.packed) if network.prefixlen else b"")

    def add_neighbour(self, index: int, address: str, mac: str) -> None:
        """A permanent neighbour entry: nobody ever has to ask with ARP."""
        body = struct.pack("=BxxxiHBB", _family(address), index, 0x80, 0, 0)
        body += _attribute(1, _ip(address)) + _attribute(2, _mac(mac))
        self._add(NEWNEIGH, _CREATE | _REPLACE, body, f"add neighbour {address}")

    # -- looking

    def index(self, name: str) -> int:
        """The index of the link of that name. Raises NetlinkError."""
        self._sequence += 1
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + _string(3, name)
        self._socket.send(struct.pack("=IHHII", 16 + len(body), GETLINK, _REQUEST, self._sequence, 0) + body)
        data = self._socket.recv(1 << 16)
        _, kind, _, _, _ = struct.unpack_from("=IHHII", data)
        number = struct.unpack_from("=i", data, 16 if kind == _ERROR else 20)[0]
        if kind == _ERROR:
            raise NetlinkError(-number, f"{os.strerror(-number)} (link {name})")
        return int(number)

    def links(self) -> dict[str, int]:
        """Names of all links -> their index."""
        self._sequence += 1
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
        self._socket.send(struct.pack("=IHHII", 16 + len(body), GETLINK, _REQUEST | _DUMP, self._sequence, 0) + body)
        indexes: dict[str, int] = {}
        while True:
            data = self._socket.recv(1 << 18)
            while len(data) >= 16:
                length, kind, _, _, _ = struct.unpack_from("=IHHII", data)
                if kind == _DONE:
                    return indexes
                if kind == _ERROR:
                    raise NetlinkError(-struct.unpack_from("=i", data, 16)[0], "list links")
                if kind == NEWLINK:
                    index = struct.unpack_from("=i", data, 20)[0]
                    offset = 32
                    while offset + 4 <= length:
                        size, attribute = struct.unpack_from("=HH", data, offset)
                        if attribute == 3:
                            indexes[data[offset + 4 : offset + size - 1].decode()] = index
                        offset += (size + 3) & ~3
                data = data[(length + 3) & ~3 :]


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
