"""Places where no registry may send us: this machine and its link.

A registry answers with redirects and names the issuer of tokens. One from outside that names a service of this machine, or
a cloud's service for the machine's credentials, would have the gateway ask it, and could read the answer as a token.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any

from aiohttp.resolver import ThreadedResolver

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult


def is_inward(host: str) -> bool:
    """Whether this is an address, or the name, of the machine or its link. Other names: see :class:`OutwardResolver`."""
    name = host.strip("[]").rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost") or _is_inward_address(name)


def _is_inward_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_link_local or address.is_unspecified


class OutwardResolver(ThreadedResolver):
    """Resolves names of hosts, but not to this machine and its link. (localhost itself may be the machine's proxy.)"""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET, **more: Any
    ) -> list[ResolveResult]:
        places = await super().resolve(host, port, family, **more)
        if not is_inward(host) and any(_is_inward_address(place["host"]) for place in places):
            raise OSError(0, f"{host} is this machine or on its link, where a registry sends nobody")
        return places
