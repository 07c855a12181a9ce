"""Host ports: packets to a port of the node go to a pod's port instead, by two maps of one nftables table.

The table is made when the first pod with a host port starts, and elements of the maps come and go with sandboxes, so
a port costs the same however many there are. It has nothing to do with services, which are the proxy's.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence

from navarch.linux.nftables import Nftables, NftablesError
from nodeagent.runtime.runtime import PortMapping

TABLE = "navarch-hostports"
_RULES = f"""
add table ip {TABLE}
add map ip {TABLE} any {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
add map ip {TABLE} one {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
add set ip {TABLE} hairpin {{ type ipv4_addr . ipv4_addr; }}
add chain ip {TABLE} ports
flush chain ip {TABLE} ports
add rule ip {TABLE} ports meta l4proto {{ tcp, udp, sctp }} dnat ip to ip daddr . meta l4proto . th dport map @one
add rule ip {TABLE} ports meta l4proto {{ tcp, udp, sctp }} dnat ip to meta l4proto . th dport map @any
add chain ip {TABLE} prerouting {{ type nat hook prerouting priority dstnat - 5; }}
flush chain ip {TABLE} prerouting
add rule ip {TABLE} prerouting fib daddr type local jump ports
add chain ip {TABLE} output {{ type nat hook output priority -105; }}
flush chain ip {TABLE} output
add rule ip {TABLE} output fib daddr type local jump ports
add chain ip {TABLE} postrouting {{ type nat hook postrouting priority srcnat - 5; }}
flush chain ip {TABLE} postrouting
add rule ip {TABLE} postrouting ip saddr . ip daddr @hairpin masquerade
add rule ip {TABLE} postrouting ip saddr 127.0.0.0/8 ct status dnat masquerade
"""


class HostPortError(Exception):
    """The rules could not be set; most often since another pod has the port."""


class HostPorts:
    """The table of the network namespace that the calling thread is in."""

    def __init__(self) -> None:
        self._nft: Nftables | None = None
        self._lock = threading.Lock()

    def _run(self, commands: str) -> None:
        try:
            if self._nft is None:
                nft = Nftables()
                nft.run(_RULES)
                self._nft = nft
            self._nft.run(commands)
        except NftablesError as error:
            raise HostPortError((str(error) or "nftables says nothing").splitlines()[0]) from error

    def add(self, address: str, ports: Sequence[PortMapping]) -> None:
        """Opens a pod's host ports. Raises HostPortError; nothing is changed then."""
        if not ports:
            return
        with self._lock:
            commands = [f"add element ip {TABLE} hairpin {{ {address} . {address} }}"]
            # "create" fails when another pod has the port: "add" would fail only if the target differs, and later.
            commands += [f"create element ip {TABLE} {element}" for element in _elements(address, ports)]
            self._run("\n".join(commands))

    def remove(self, address: str, ports: Sequence[PortMapping]) -> None:
        """Closes them again; those that are closed already are no error."""
        if not ports:
            return
        with self._lock:
            for element in [*_elements(address, ports), f"hairpin {{ {address} . {address} }}"]:
                with contextlib.suppress(HostPortError):
                    self._run(f"delete element ip {TABLE} {element}")


def _elements(address: str, ports: Sequence[PortMapping]) -> list[str]:
    elements: dict[str, None] = {}
    for port in ports:
        if not port.host_port:
            continue
        protocol, target = port.protocol.lower(), f"{address} . {port.container_port}"
        if port.host_ip in ("", "0.0.0.0"):
            elements[f"any {{ {protocol} . {port.host_port} : {target} }}"] = None
        elif ":" not in port.host_ip:
            elements[f"one {{ {port.host_ip} . {protocol} . {port.host_port} : {target} }}"] = None
    return list(elements)
