"""Reaching a lab's API server from other machines: where it listens, and the names in its certificate."""

from __future__ import annotations

import ipaddress
import socket

from pyroute2 import IPRoute

from lab.namespaces import in_child
from lab.paths import LabError

WILDCARDS = ("0.0.0.0", "::")


def local_addresses(wished: list[str]) -> None:
    """Raises LabError if one of these is no address of this machine."""
    for text in wished:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise LabError(f"--listen {text}: give an IP address of this machine, or 0.0.0.0 for all") from None
        if str(address) not in (*WILDCARDS, *own_addresses()):
            raise LabError(f"--listen {text}: this machine does not have that address; it has {', '.join(own_addresses())}")


def own_addresses() -> list[str]:
    """This machine's addresses, those of links and of the loopback aside."""

    def read() -> list[str]:
        with IPRoute() as ip:
            addresses = [ipaddress.ip_address(entry.get("address") or entry.get("local")) for entry in ip.get_addr()]
        return [str(a) for a in addresses if not (a.is_loopback or a.is_link_local)]

    return list(in_child(read))


def certificate_names(listen: list[str]) -> list[str]:
    """The names by which clients elsewhere may call an API server that listens there."""
    if not listen:
        return []
    addresses = own_addresses() if set(listen) & set(WILDCARDS) else listen
    host = socket.gethostname()
    return list(dict.fromkeys([*addresses, host, socket.getfqdn(host)]))
