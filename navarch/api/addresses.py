"""The kind of an IP address, whichever way it is written.

An IPv4 address can stand inside an IPv6 one, and what lies on the way (the kernel, a NAT64 gateway, a tunnel) takes it out
again. So whoever guards against an address has to look at all its :func:`forms`. Kinds are those of Go's net.IP, by which
Kubernetes decides.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from enum import StrEnum

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressKind(StrEnum):
    """Go's: everything that is none of the special ones counts as global unicast, private addresses too."""

    UNSPECIFIED = "unspecified"
    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"
    LINK_LOCAL_MULTICAST = "link-local multicast"
    MULTICAST = "multicast"
    BROADCAST = "broadcast"
    GLOBAL_UNICAST = "global unicast"


_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")
_LINK_LOCAL_GROUPS = ipaddress.IPv4Network("224.0.0.0/24")
_LAST_32_BITS = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "::/96",  # IPv4-compatible (RFC 4291, 2.5.5.1)
        "::ffff:0:0:0/96",  # IPv4-translated (RFC 2765)
        "64:ff9b::/96",  # NAT64 (RFC 6052)
        "64:ff9b:1::/48",  # NAT64 of local use (RFC 8215)
    )
)
_ISATAP = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")  # RFC 5214, 6.1


def parse_address(text: str) -> Address:
    """The address; an IPv4-mapped one is the IPv4 address, as for Go. Raises ValueError, also for one with a zone."""
    if "%" in text:
        raise ValueError(f"{text!r} names a zone")
    address = ipaddress.ip_address(text)
    if address.version == 6 and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def kind_of(address: Address) -> AddressKind:
    """Of an address from :func:`parse_address`."""
    if address.is_unspecified:
        return AddressKind.UNSPECIFIED
    if address.is_loopback:
        return AddressKind.LOOPBACK
    if address.is_multicast:
        # In IPv6 the scope tells; the flags before it do not matter.
        near = address in _LINK_LOCAL_GROUPS if address.version == 4 else address.packed[1] & 0x0F == 2
        return AddressKind.LINK_LOCAL_MULTICAST if near else AddressKind.MULTICAST
    if address.is_link_local:
        return AddressKind.LINK_LOCAL
    return AddressKind.BROADCAST if address == _BROADCAST else AddressKind.GLOBAL_UNICAST


def forms(address: Address) -> list[Address]:
    """The address, and every IPv4 address that stands inside it: a packet sent to the one may end at the other."""
    if address.version == 4:
        return [address]
    packed = address.packed
    inside: list[bytes] = []
    special = kind_of(address) is not AddressKind.GLOBAL_UNICAST  # :: and ::1 are themselves and nothing else
    if address.ipv4_mapped is not None or (not special and any(address in network for network in _LAST_32_BITS)):
        inside.append(packed[12:])
    if address.sixtofour is not None:
        inside.append(packed[2:6])
    if address.teredo is not None:
        inside += [part.packed for part in address.teredo]
    if packed[8:12] in _ISATAP:
        inside.append(packed[12:])
    return [address, *(ipaddress.IPv4Address(part) for part in inside)]


def is_dialable(text: str) -> bool:
    """Whether a server may connect to an address that a user names: not if any form of it leads to the server's own
    machine or its link, or is no single host's; False for what is no address."""
    try:
        all_forms = forms(parse_address(text))
    except ValueError:
        return False
    return all(kind_of(form) is AddressKind.GLOBAL_UNICAST and form not in _THIS_NETWORK for form in all_forms)


def is_address(text: str) -> bool:
    try:
        parse_address(text)
    except ValueError:
        return False
    return True


def in_networks(text: str, networks: Iterable[str]) -> bool:
    """Whether any form of the address lies in one of the networks. Raises ValueError."""
    all_forms = forms(parse_address(text))
    return any(form in ipaddress.ip_network(network, strict=False) for network in networks for form in all_forms)


def special_address(text: str) -> list[str]:
    """Kubernetes' objections to an endpoint or an external IP at this address (ValidateEndpointIP): it would let a user
    aim a Service at the node itself. Raises ValueError."""
    match kind_of(parse_address(text)):
        case AddressKind.UNSPECIFIED:
            return [f"may not be unspecified ({text})"]
        case AddressKind.LOOPBACK:
            return ["may not be in the loopback range (127.0.0.0/8, ::1/128)"]
        case AddressKind.LINK_LOCAL:
            return ["may not be in the link-local range (169.254.0.0/16, fe80::/10)"]
        case AddressKind.LINK_LOCAL_MULTICAST:
            return ["may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"]
    return []
