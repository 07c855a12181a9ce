"""An intruder in a pod who may send any packet: nobody takes it for another, and it reaches no more than any pod does.

Packets of one link are dealt with in the order in which they were sent, so a last, honest one tells when to look.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from nodeagent.network.network import PodNetwork, mac_address
from nodeagent.runtime import sandboxes
from tests.nodeagent import packets
from tests.nodeagent.runtime.harness import sandbox_config
from tests.nodeagent.runtime.test_runtimes import give_node_address

pytestmark = pytest.mark.node
NODE, PORT = "192.0.2.1", 4000


class Place:
    """A node with two pods: ``wire`` is the intruder's, ``own`` its address, ``neighbour`` the other pod's."""

    def __init__(self, folder: Path) -> None:
        self.network = PodNetwork(1500)
        self.network.configure("10.244.7.0/24")
        give_node_address()
        self.pins, self.addresses = {}, {}
        for name in ("a", "b"):
            (folder / name).mkdir()
            self.addresses[name] = self.network.take_address()
            sandboxes.create(folder / name, name, sandbox_config(name), self.network, self.addresses[name])
            self.pins[name] = folder / name / sandboxes.NETWORK
        self.own, self.neighbour = self.addresses["a"], self.addresses["b"]
        self.wire = packets.Wire(self.pins["a"], "eth0", mac_address("a/node"))

    def heard(self, ear: socket.socket, target: str) -> list[str]:
        """The senders of what arrived before the honest packet, which is sent now."""
        self.wire.send(packets.udp(self.own, target, ear.getsockname()[1], b"honest"))
        senders = []
        while True:
            data, (sender, _) = ear.recvfrom(100)
            if data == b"honest":
                assert sender == self.own
                return senders
            senders.append(sender)




def test_no_address_but_its_own(tmp_path: Path) -> None:
    place = Place(tmp_path)
    ears = {NODE: packets.receiver(None, NODE, PORT), place.neighbour: packets.receiver(place.pins["b"], "0.0.0.0", PORT)}
    free, elsewhere = "10.244.7.200", ("10.244.8.2", "10.96.0.1", "198.51.100.7")
    nobody = ("0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "169.254.1.1", "10.244.7.255")
    for target, ear in ears.items():
        for source in (NODE, place.neighbour, free, *elsewhere, *nobody):
            place.wire.send(packets.udp(source, target, PORT, b"forged"))
        assert place.heard(ear, target) == []


def test_claims_of_others_addresses_count_for_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    neighbour, intruder = (packets.receiver(place.pins[name], "0.0.0.0", PORT) for name in ("b", "a"))
    node = packets.receiver(None, NODE, PORT)
    for address in (place.neighbour, NODE, "169.254.1.1"):
        place.wire.send(packets.arp_claim(place.wire.hardware, address), packets.ARP, packets.BROADCAST)
    assert place.heard(node, NODE) == []
    node.sendto(b"for b", (place.neighbour, PORT))
    assert neighbour.recv(100) == b"for b"
    node.sendto(b"for a", (place.own, PORT))
    assert intruder.recv(100) == b"for a"


def test_the_loopback_of_its_node_is_out_of_reach(tmp_path: Path) -> None:
    """The kernel routes 127.0.0.1 for host ports and node ports (route_localnet): it must not do so for pods."""
    place = Place(tmp_path)
    secret, node = packets.receiver(None, "127.0.0.1", PORT), packets.receiver(None, NODE, PORT)
    secret.setblocking(False)
    for target in ("127.0.0.1", "127.1.2.3"):
        place.wire.send(packets.udp(place.own, target, PORT, b"knock"))
    assert place.heard(node, NODE) == []
    with pytest.raises(BlockingIOError):
        secret.recv(100)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.sendto(b"hello", ("127.0.0.1", PORT))
    assert secret.recv(100) == b"hello", "the node itself reaches it"


def test_a_pod_is_not_its_nodes_router(tmp_path: Path) -> None:
    place = Place(tmp_path)
    node = packets.receiver(None, NODE, PORT)
    place.wire.send(packets.router_advertisement(), packets.IPV6, packets.ALL_NODES)
    assert place.heard(node, NODE) == []
    routes = Path("/proc/thread-self/net/ipv6_route")
    learnt = [line for line in routes.read_text().splitlines() if " nv" in line and "20010db8" in line.split()[0]]
    assert learnt == [] and place.network is not None
