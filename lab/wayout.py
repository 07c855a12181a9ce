"""A lab's way out: forwarding and NAT on the machine's side, a default route on the nodes' side.

All rules are in one nftables table of the lab's own name, so that no other rules are touched and closing leaves nothing. Only
connections that the lab's nodes and pods begin pass, and only to what is no lab and no link-local address (where clouds keep
their machines' credentials). The machine's switch ``ip_forward`` is turned on with the first way out, and back with the last.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path

from lab.addresses import FIRST_INDEX, LAST_INDEX, Addresses, index_directory
from lab.namespaces import ProcessId, in_child
from navarch.linux.syscalls import CLONE_NEWNET

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
LABS = f"10.{FIRST_INDEX}.0.0-10.{LAST_INDEX}.255.255"
CLOSED = "169.254.0.0/16"
METRIC = 100  # below that of the unreachable route that every node has


def rules(addresses: Addresses) -> str:
    """The lab's table as commands of nft. Pure."""
    link = addresses.uplink
    return f"""
table ip {link} {{
  chain forward {{
    type filter hook forward priority -10; policy accept;
    oifname "nv*" ct state established,related accept
    oifname "nv*" drop
    iifname "{link}" ip daddr {{ {LABS}, {CLOSED} }} reject with icmp type admin-prohibited
    iifname "{link}" ip saddr != {addresses.range} drop
    iifname "{link}" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr {addresses.range} oifname != "{link}" masquerade
  }}
}}
"""


def open_(addresses: Addresses) -> None:
    """Lets the lab out. Idempotent; the rules are as they should be afterwards, whatever they were."""

    def work() -> None:
        from navarch.linux.nftables import Nftables

        link = addresses.uplink
        with _marks() as marks:
            if not any(marks.iterdir()) and IP_FORWARD.read_text().strip() == "0":
                (marks / "was-off").touch()
            (marks / link).touch()
            Nftables().run(f"add table ip {link}\ndelete table ip {link}\n{rules(addresses)}")
            IP_FORWARD.write_text("1")
            # That turned forwarding on for every link: labs without a way out stay closed.
            for other in Path("/proc/sys/net/ipv4/conf").glob("nv[0-9]*"):
                _forward(other.name, (marks / other.name).exists())

    in_child(work)


def close(addresses: Addresses) -> None:
    """Ends the lab's way out; what is closed already is no error."""
    if not (_folder() / addresses.uplink).exists():
        return

    def work() -> None:
        from navarch.linux.nftables import Nftables

        link = addresses.uplink
        with _marks() as marks:
            _forward(link, False)
            Nftables().run(f"add table ip {link}\ndelete table ip {link}")
            (marks / link).unlink(missing_ok=True)
            if [mark.name for mark in marks.iterdir()] == ["was-off"]:
                IP_FORWARD.write_text("0")
                (marks / "was-off").unlink()

    in_child(work)


def _folder() -> Path:
    return index_directory().parent / "wayout"


@contextlib.contextmanager
def _marks() -> Iterator[Path]:
    """The folder with a file for each way out that is open, locked."""
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "wayout.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _forward(link: str, on: bool) -> None:
    with contextlib.suppress(FileNotFoundError):
        Path(f"/proc/sys/net/ipv4/conf/{link}/forwarding").write_text("1" if on else "0")


def route_node(addresses: Addresses, init: ProcessId, out: bool) -> None:
    """Gives a node a default route to the machine, or takes it away. Idempotent."""

    def inside() -> None:
        from pyroute2 import IPRoute, NetlinkError

        init.enter(CLONE_NEWNET)
        with IPRoute() as ip:
            index = ip.link_lookup(ifname="eth0")[0]
            if out:
                ip.route("replace", dst="0.0.0.0/0", gateway=addresses.host, oif=index, priority=METRIC)
                return
            try:
                ip.route("del", dst="0.0.0.0/0", gateway=addresses.host, oif=index, priority=METRIC)
            except NetlinkError as error:
                if error.code != errno.ESRCH:  # there was none
                    raise

    in_child(inside)


def resolv_conf(machine: str, addresses: Addresses) -> str:
    """The resolv.conf of the lab's nodes: the cluster's DNS, which passes other names on, with the machine's search list."""
    lines = [line for line in machine.splitlines() if line.split()[:1] and line.split()[0] in ("search", "domain", "options")]
    return "\n".join([f"nameserver {addresses.dns}", *lines]) + "\n"
