"""Kubernetes' functions on URLs, IP addresses and networks."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


def url(text: str) -> dict[str, str]:
    parts = urlsplit(text)
    if not (parts.scheme and (parts.netloc or parts.path)) and not text.startswith("/"):
        raise ValueError(f'URL parse error during conversion from string: parse "{text}": invalid URI for request')
    return {"url": text}


URL_PARTS: dict[str, Callable[[Any], str]] = {
    "getScheme": lambda u: urlsplit(u["url"]).scheme,
    "getHost": lambda u: urlsplit(u["url"]).netloc.rpartition("@")[2],
    "getHostname": lambda u: urlsplit(u["url"]).hostname or "",
    "getPort": lambda u: str(urlsplit(u["url"]).port or ""),
    "getEscapedPath": lambda u: urlsplit(u["url"]).path,
}


def query(value: dict[str, str]) -> dict[str, list[str]]:
    return parse_qs(urlsplit(value["url"]).query, True)


def ip(text: str) -> dict[str, str]:
    if "%" in text:
        raise ValueError(f"IP Address {text!r} with zone value is not allowed")
    address = ipaddress.ip_address(text)
    if address.version == 6 and address.ipv4_mapped is not None:
        raise ValueError(f"IPv4-mapped IPv6 address {text!r} is not allowed")
    return {"ip": str(address)}


def is_canonical(text: str) -> bool:
    return ip(text)["ip"] == text


def cidr(text: str) -> dict[str, str]:
    if "/" not in text:
        raise ValueError(f"network address parse error during conversion from string: {text}")
    return {"cidr": str(ipaddress.ip_interface(text).with_prefixlen)}


def _global(address: Address) -> bool:
    """As Go has it: private addresses count."""
    return not (
        address.is_unspecified
        or address.is_loopback
        or address.is_multicast
        or address.is_link_local
        or address == _BROADCAST
    )


ADDRESS_TESTS: dict[str, Callable[[Address], bool]] = {
    "isUnspecified": lambda a: a.is_unspecified,
    "isLoopback": lambda a: a.is_loopback,
    "isLinkLocalUnicast": lambda a: a.is_link_local and not a.is_multicast,
    "isLinkLocalMulticast": lambda a: a in _LINK_LOCAL_MULTICAST[a.version],
    "isGlobalUnicast": _global,
}
_LINK_LOCAL_MULTICAST: dict[int, Any] = {
    4: ipaddress.ip_network("224.0.0.0/24"),
    6: ipaddress.ip_network("ff02::/16"),
}


def within(network: dict[str, str], other: Any) -> bool:
    """Whether an address or a network, also as a text, lies in a network."""
    outer = ipaddress.ip_network(network["cidr"], strict=False)
    if isinstance(other, str):
        other = cidr(other) if "/" in other else ip(other)
    if "ip" in other:
        return ipaddress.ip_address(other["ip"]) in outer
    inner = ipaddress.ip_network(other["cidr"], strict=False)
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]
