"""The address plan of a lab: one /16 of its own, so that labs run side by side.

10.X.0.0/17     pods, a /24 a node: node number n has 10.X.n.0/24
10.X.128.0/20   nodes: .128.1 is the host, .128.2 the switch, node number n is .128.0 + 10 + n
10.X.140.0/22   load balancers, among the nodes' addresses: whoever is on the switch reaches them by ARP
10.X.192.0/20   services: .192.1 kubernetes.default, .192.10 cluster DNS
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
from pathlib import Path

from lab.paths import LabError

FIRST_INDEX, LAST_INDEX = 200, 250
MAX_NODES = 126


class Addresses:
    """Addresses of lab ``index``, all as text."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.range = f"10.{index}.0.0/16"
        self.pods = f"10.{index}.0.0/17"
        self.nodes = f"10.{index}.128.0/20"
        self.balancers = f"10.{index}.140.0/22"
        self.services = f"10.{index}.192.0/20"
        self.host = f"10.{index}.128.1"
        self.switch = f"10.{index}.128.2"
        self.prefix_length = 20
        self.kubernetes = f"10.{index}.192.1"
        self.dns = f"10.{index}.192.10"
        self.uplink = f"nv{index}"  # the host's link to the lab

    def node(self, number: int) -> str:
        if not 1 <= number <= MAX_NODES:
            raise LabError(f"a lab has room for {MAX_NODES} nodes")
        return str(ipaddress.IPv4Address(f"10.{self.index}.128.0") + 10 + number)

    def pod_range(self, number: int) -> str:
        return f"10.{self.index}.{number}.0/24"


RTF_REJECT = 0x200  # linux/route.h


def routed_networks() -> list[ipaddress.IPv4Network]:
    """The networks that the host has routes to, the default route and unreachable ones aside: a lab that was killed
    leaves an unreachable route, which must not take its range away for ever."""
    networks = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[3], 16) & RTF_REJECT:
            continue
        mask = ipaddress.IPv4Address(socket.ntohl(int(fields[7], 16)))
        if int(mask):
            destination = ipaddress.IPv4Address(socket.ntohl(int(fields[1], 16)))
            networks.append(ipaddress.IPv4Network((str(destination), str(mask)), strict=False))
    return networks


def claim_index(lab: str, earlier: int = 0) -> int:
    """Takes a free second byte for a lab: a file a lab in :func:`index_directory`, removed by release_index.

    ``lab`` is the lab's directory, which exists from before the claim until after its release. ``earlier`` is the one it
    has had so far: that or none. Raises LabError when it is, or all are, taken.
    """
    directory = index_directory()
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        routed = routed_networks()
        for index in [earlier] if earlier else range(FIRST_INDEX, LAST_INDEX + 1):
            file = directory / str(index)
            if file.exists():
                owner = file.read_text()
                if owner == lab:
                    return index
                if Path(owner).exists():
                    continue  # else its home was deleted
            if any(n.overlaps(ipaddress.IPv4Network(f"10.{index}.0.0/16")) for n in routed):
                continue
            file.write_text(lab)
            return index
    if earlier:
        raise LabError(f"addresses 10.{earlier}.0.0/16 of this lab are in use by something else on this machine")
    raise LabError(f"all address ranges for labs are in use (see {directory}); take a lab down first")


def holds_index(lab: str, index: int) -> bool:
    """True if the addresses are the lab's now. After a reboot, or when someone cleaned /run, they may be another's."""
    try:
        return (index_directory() / str(index)).read_text() == lab
    except FileNotFoundError:
        return False


def release_index(lab: str) -> None:
    directory = index_directory()
    for file in directory.glob("[0-9]*") if directory.exists() else ():
        if file.read_text() == lab:
            file.unlink()


def index_directory() -> Path:
    """Machine-wide for root (labs of all homes share the host's routes), else the user's."""
    return Path("/run/navarch/labs") if os.geteuid() == 0 else Path(f"/tmp/navarch-{os.geteuid()}/labs")
