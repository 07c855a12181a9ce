"""A lab's network namespace, made on up and deleted on down: a switch between the nodes, one uplink to the host.

Node-to-node traffic never crosses the host's namespace, so no host firewall or bridge setting can touch it; deleting the
namespace takes the bridge, the ports, the uplink and its routes along. pyroute2 is for the lab alone: docs/decisions.md, D64.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, NetlinkError, netns

from lab import wayout
from lab.addresses import Addresses
from lab.namespaces import ProcessId, in_child
from navarch.linux.syscalls import (
    CLONE_NEWNET,
    setns,
)

BRIDGE = "br0"
LAST_RESORT = 4000  # metric of the unreachable routes that keep a lab's ranges off the default route


def namespace_name(lab: str) -> str:
    return f"navarch-{lab}"


def namespace_path(lab: str) -> Path:
    return Path("/run/netns") / namespace_name(lab)


def exists(lab: str) -> bool:
    return namespace_path(lab).exists()


def _set(path: str, value: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/sys/net", path).write_text(str(value))


def _index(ip: Any, name: str) -> int:
    indexes = ip.link_lookup(ifname=name)
    if not indexes:
        raise OSError(f"no link {name}")
    return int(indexes[0])


def hardware_address(address: str) -> str:
    """The Ethernet address of the interface with this IPv4 address.

    It is always the same, so that neighbours need not learn anew when a node comes back. The bridge would otherwise take
    the lowest address of its ports: a node that comes or goes could change it, and cut all others off for a minute.
    """
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x6E, *ipaddress.IPv4Address(address).packed))


def _inside(lab: str, function: Callable[[Any], Any]) -> Any:
    """Runs ``function(IPRoute())`` in a child process that is in the switch's namespace."""

    def child() -> Any:
        fd = os.open(namespace_path(lab), os.O_RDONLY)
        setns(fd, CLONE_NEWNET)
        os.close(fd)
        with IPRoute() as ip:
            return function(ip)

    return in_child(child)


def create(lab: str, addresses: Addresses) -> None:
    """Makes the switch, the uplink and the host's routes. Idempotent."""
    if exists(lab):
        return
    in_child(lambda: _block(addresses))

    def namespace() -> None:
        netns.create(namespace_name(lab))

    in_child(namespace)

    def bridge(ip: Any) -> None:
        ip.link("set", index=_index(ip, "lo"), state="up")
        hardware = hardware_address(addresses.switch)
        ip.link("add", ifname=BRIDGE, kind="bridge", address=hardware, br_stp_state=0, br_forward_delay=0)
        index = _index(ip, BRIDGE)
        ip.link("set", index=index, state="up")
        ip.addr("add", index=index, address=addresses.switch, prefixlen=addresses.prefix_length)
        _set("ipv4/ip_forward", 1)
        _set(f"ipv4/conf/{BRIDGE}/send_redirects", 0)
        _set("ipv4/conf/all/send_redirects", 0)
        _set("bridge/bridge-nf-call-iptables", 0)
        # What comes from outside (lab/wayout.py) has a source that the switch has no route to.
        _set("ipv4/conf/all/rp_filter", 0)
        _set(f"ipv4/conf/{BRIDGE}/rp_filter", 0)

    _inside(lab, bridge)

    def uplink() -> None:
        fd = os.open(namespace_path(lab), os.O_RDONLY)
        with IPRoute() as ip:
            for stale in ip.link_lookup(ifname=addresses.uplink):
                ip.link("del", index=stale)
            ip.link("add", ifname=addresses.uplink, kind="veth", peer={"ifname": "uplink", "net_ns_fd": fd})
            index = _index(ip, addresses.uplink)
            ip.addr("add", index=index, address=addresses.host, prefixlen=addresses.prefix_length)
            _set(f"ipv6/conf/{addresses.uplink}/accept_ra", 0)  # nobody in a lab is the machine's router
            ip.link("set", index=index, state="up")
            # The host must not route between labs, or from the lab to the world.
            _set(f"ipv4/conf/{addresses.uplink}/forwarding", 0)
            ip.route("replace", dst=addresses.pods, gateway=addresses.switch, oif=index)

    in_child(uplink)
    _inside(lab, lambda ip: _attach(ip, "uplink"))


def _attach(ip: Any, port: str) -> None:
    index = _index(ip, port)
    ip.link("set", index=index, master=_index(ip, BRIDGE), state="up")


def _block(addresses: Addresses) -> None:
    """While the lab is there, what is not routed to it must not leave by the host's default route."""
    with IPRoute() as ip:
        ip.route("replace", dst=addresses.range, type="unreachable", priority=LAST_RESORT)


def destroy(lab: str, addresses: Addresses | None) -> None:
    """Removes all of it; what is gone already is no error. ``addresses`` is None if they are not the lab's any more."""
    if addresses is not None:
        wayout.close(addresses)

    def outside() -> None:
        if addresses is not None:
            with IPRoute() as ip:
                for index in ip.link_lookup(ifname=addresses.uplink):
                    ip.link("del", index=index)
                try:
                    ip.route("del", dst=addresses.range, type="unreachable", priority=LAST_RESORT)
                except NetlinkError as error:
                    if error.code != errno.ESRCH:  # gone already
                        raise
        if exists(lab):
            netns.remove(namespace_name(lab))

    in_child(outside)


def port_name(number: int) -> str:
    return f"port{number}"


def plug(lab: str, addresses: Addresses, number: int, init: ProcessId, out: bool = False) -> None:
    """Connects the node's eth0 to the switch and sets its addresses and routes; with ``out`` also that to the machine."""
    address, port = addresses.node(number), port_name(number)

    def wire(ip: Any) -> None:
        for stale in ip.link_lookup(ifname=port):
            ip.link("del", index=stale)
        ip.link("add", ifname=port, kind="veth", peer={"ifname": "eth0", "net_ns_pid": init.pid})
        _attach(ip, port)
        ip.route("replace", dst=addresses.pod_range(number), gateway=address)

    _inside(lab, wire)

    def inside() -> None:
        init.enter(CLONE_NEWNET)
        with IPRoute() as ip:
            if [link.get("ifname") for link in ip.get_links() if link.get("ifname") not in ("lo", "eth0", "sit0")]:
                raise OSError("the node's network namespace is not its own")
            ip.link("set", index=_index(ip, "lo"), state="up")
            index = _index(ip, "eth0")
            ip.link("set", index=index, address=hardware_address(address))
            ip.addr("add", index=index, address=address, prefixlen=addresses.prefix_length)
            _set("ipv6/conf/eth0/accept_ra", 0)
            ip.link("set", index=index, state="up")
            ip.route("replace", dst=addresses.pods, gateway=addresses.switch, oif=index)
            # The node's own connections to service addresses need a route before DNAT picks the real one.
            ip.route("replace", dst=addresses.services, gateway=addresses.switch, oif=index)
            ip.route("replace", dst="0.0.0.0/0", type="unreachable", priority=LAST_RESORT)
            if out:
                ip.route("replace", dst="0.0.0.0/0", gateway=addresses.host, oif=index, priority=wayout.METRIC)
        _set("ipv4/ip_forward", 1)
        _set("ipv4/conf/all/send_redirects", 0)
        _set("ipv4/conf/eth0/send_redirects", 0)
        _set("ipv4/conf/all/route_localnet", 1)
        _set("bridge/bridge-nf-call-iptables", 1)

    in_child(inside)


def set_port(lab: str, number: int, up: bool) -> None:
    """Partitions a node (its own routes stay as they are) or heals it."""

    def work(ip: Any) -> None:
        ip.link("set", index=_index(ip, port_name(number)), state="up" if up else "down")

    _inside(lab, work)


def unplug(lab: str, number: int) -> None:
    def work(ip: Any) -> None:
        for index in ip.link_lookup(ifname=port_name(number)):
            ip.link("del", index=index)

    if exists(lab):
        _inside(lab, work)
