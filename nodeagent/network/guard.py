"""Packets that no pod has reason to send, and that would reach more of the node than pods are meant to: dropped before routing.

- To or from 127.0.0.0/8 over a link. Host ports and node ports answer at 127.0.0.1, for which the kernel must route such
  addresses (route_localnet); it would then also deliver to the node's loopback what a pod or a neighbour addresses there, and
  what listens on loopback believes that only its own node can ask.
- IPv6 from pods. They have none, but each link has a link-local address: a pod could announce itself as a router, and take
  the IPv6 traffic of the node and its hostNetwork pods.

The rules stay when the agent ends. Reverse path filtering (netlink.py) does the rest: nobody uses another's address.
"""

from __future__ import annotations

from pathlib import Path

from navarch.linux.nftables import Nftables

TABLE = "navarch-guard"
POD_LINKS = '"nv*"'  # see interface_name() in network.py
_LOOPBACK = f"""
add table ip {TABLE}
delete table ip {TABLE}
add table ip {TABLE}
add chain ip {TABLE} prerouting {{ type filter hook prerouting priority raw; }}
add rule ip {TABLE} prerouting iif != "lo" ip daddr 127.0.0.0/8 drop
add rule ip {TABLE} prerouting iif != "lo" ip saddr 127.0.0.0/8 drop
"""
_IPV6 = f"""
add table ip6 {TABLE}
delete table ip6 {TABLE}
add table ip6 {TABLE}
add chain ip6 {TABLE} prerouting {{ type filter hook prerouting priority raw; }}
add rule ip6 {TABLE} prerouting iifname {POD_LINKS} drop
"""


def set_up() -> None:
    """Puts the rules into the network namespace of the calling thread. Idempotent. Raises NftablesError."""
    nft = Nftables()
    try:
        nft.run(_LOOPBACK)
        if Path("/proc/net/if_inet6").exists():  # else the kernel has no IPv6, and no such tables
            nft.run(_IPV6)
    finally:
        nft.close()
