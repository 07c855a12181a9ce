"""Rules on addresses and ports that Endpoints and EndpointSlices share."""

from __future__ import annotations

import ipaddress

from navarch.api import names
from navarch.api.errors import Cause, invalid

PROTOCOLS = ("SCTP", "TCP", "UDP")
SHOWN = 3


def special_address_cause(text: str, path: str) -> list[Cause]:
    """Addresses that no endpoint may have: they would let a user aim a Service at the node itself."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return [invalid(path, text, m) for m in names.ip_address(text)]
    rules = (
        (address.is_unspecified, f"may not be unspecified ({text})"),
        (address.is_loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (address.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (
            address.is_multicast and (text.startswith("224.0.0.") or address.version == 6),
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ),
    )
    return [invalid(path, text, message) for bad, message in rules if bad]
