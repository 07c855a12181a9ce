"""Pods' network on one node: routed, without a bridge.

Each pod has a veth pair and one /32 address. The node has a route to that address through its end of the pair; the
pod's default route leads to a link-local gateway that exists only as a permanent neighbour entry. So every packet of
a pod is routed by its node, also to another pod of the same node: conntrack, services and network policies see all of
it, with no bridge-nf settings; there is no ARP, no broadcast, and no limit of a bridge's ports. Other nodes reach the
pods by a route for the node's pod range. Reverse path filtering keeps a pod from using another's address, and guard.py
from what else it has no reason to send.

Addresses come from the node's podCIDR. Which are taken follows from the sandboxes' records (see runtime/state.py),
so there is nothing else to persist and nothing to leak.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import socket
import struct
import threading
from collections.abc import Iterable

from nodeagent.network import guard
from nodeagent.network.netlink import Netlink

GATEWAY = "169.254.1.1"
POD_INTERFACE = "eth0"
# Packets to a pod address that no pod has end here, rather than leaving by the node's default route.
UNUSED_METRIC = 4000
_SIOCGIFMTU = 0x8921


class NoAddress(Exception):
    """The node's pod range is unknown or used up."""


class AddressPool:
    """Hands out addresses of a range, the longest unused first, so that a new pod does not inherit a late packet."""

    def __init__(self, cidr: str = "") -> None:
        self.network = ipaddress.ip_network(cidr) if cidr else None
        self._used: set[int] = set()
        self._next = 2

    def configure(self, cidr: str) -> None:
        network = ipaddress.ip_network(cidr)
        if network != self.network:
            self.network, self._next = network, 2

    def reserve(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            value = int(ipaddress.ip_address(address))
            self._used.add(value)
            if self.network is not None and ipaddress.ip_address(address) in self.network:
                self._next = max(self._next, value - int(self.network.network_address) + 1)

    def take(self) -> str:
        """An address. The range's first two (the network's, and the one a bridge would have) and last are left out."""
        if self.network is None:
            raise NoAddress("the node has no pod range (podCIDR) yet")
        base, size = int(self.network.network_address), self.network.num_addresses
        usable = range(2, size - 1) if size > 4 else range(size)
        for step in range(len(usable)):
            offset = usable[(self._next - usable.start + step) % len(usable)]
            if base + offset not in self._used:
                self._used.add(base + offset)
                self._next = offset + 1
                return str(ipaddress.ip_address(base + offset))
        raise NoAddress(f"no free address in {self.network}")

    def give_back(self, address: str) -> None:
        if address:
            self._used.discard(int(ipaddress.ip_address(address)))


def interface_name(sandbox_id: str) -> str:
    """The node's end of a sandbox's pair. Names must be new ones: an old pair goes away only some time after its pod."""
    return "nv" + hashlib.sha256(sandbox_id.encode()).hexdigest()[:12]


def mac_address(seed: str) -> str:
    """A locally administered unicast address, the same for the same seed."""
    raw = bytearray(hashlib.sha256(seed.encode()).digest()[:6])
    raw[0] = (raw[0] & 0xFC) | 2
    return raw.hex(":")


class PodNetwork:
    """The node's side. Make it in the node's network namespace; its methods may run in any thread."""

    def __init__(self, mtu: int = 0) -> None:
        self.mtu = mtu or default_mtu()
        self.pool = AddressPool()
        self._netlink = Netlink()
        self._lock = threading.Lock()
        self._prepared = ""

    def close(self) -> None:
        self._netlink.close()

    def configure(self, cidr: str) -> None:
        """Tells the node's podCIDR. Pods with a network of their own can start from now on."""
        with self._lock:
            self.pool.configure(cidr)
            if self._prepared != cidr:
                guard.set_up()
                _set("net/ipv4/ip_forward", "1")
                self._netlink.add_route(cidr, unreachable=True, metric=UNUSED_METRIC)
                self._netlink.commit()
                self._prepared = cidr

    def take_address(self) -> str:
        with self._lock:
            return self.pool.take()

    def give_back(self, address: str) -> None:
        """An address that no sandbox has come to have."""
        with self._lock:
            self.pool.give_back(address)

    def attach(self, sandbox_id: str, netns: int, address: str) -> None:
        """Gives the network namespace of the open file ``netns`` its ``eth0``, and the node a route to it.

        Call ``configure_inside`` in a thread of that namespace afterwards.
        """
        name = interface_name(sandbox_id)
        outside, inside = mac_address(f"{sandbox_id}/node"), mac_address(f"{sandbox_id}/pod")
        with self._lock:
            self._netlink.add_veth(name, outside, POD_INTERFACE, inside, netns, self.mtu)
            self._netlink.commit()
            index = self._netlink.index(name)
            self._netlink.guard(index)
            self._netlink.add_route(f"{address}/32", index=index)
            self._netlink.add_neighbour(index, address, inside)
            self._netlink.commit()

    def detach(self, sandbox_id: str, address: str) -> None:
        """Takes the pair and its route down at once, and frees the address. Not an error if they are gone."""
        with self._lock:
            self._netlink.delete_link(interface_name(sandbox_id))
            self._netlink.commit()
            self.pool.give_back(address)


def configure_inside(sandbox_id: str, address: str) -> None:
    """Loopback, address and default route, in the calling thread's network namespace."""
    with Netlink() as netlink:
        links = netlink.links()
        if sorted(links) != ["eth0", "lo"]:
            raise RuntimeError(f"not a pod's new network namespace: {sorted(links)}")
        index = links[POD_INTERFACE]
        netlink.set_up(links["lo"])
        netlink.set_up(index)
        netlink.add_address(index, address, 32)
        netlink.add_route(f"{GATEWAY}/32", index=index)
        netlink.add_route("0.0.0.0/0", index=index, gateway=GATEWAY)
        netlink.add_neighbour(index, GATEWAY, mac_address(f"{sandbox_id}/node"))
        netlink.commit()


def default_mtu() -> int:
    """The MTU of the link that the default route, or else eth0, uses; 1500 if there is neither."""
    name = "eth0"
    with open("/proc/thread-self/net/route") as file:
        for line in file:
            fields = line.split()
            if len(fields) > 7 and fields[1] == "00000000" and fields[7] == "00000000" and fields[0] not in ("*", "lo"):
                name = fields[0]
                break
    # Asked of a socket: /sys may belong to another network namespace.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            answer = fcntl.ioctl(probe, _SIOCGIFMTU, struct.pack("16sI12x", name.encode(), 0))
        except OSError:
            return 1500
    return int(struct.unpack_from("I", answer, 16)[0])


def _set(name: str, value: str) -> None:
    path = f"/proc/sys/{name}"
    with open(path) as file:
        if file.read().strip() == value:
            return
    with open(path, "w") as file:
        file.write(value)
