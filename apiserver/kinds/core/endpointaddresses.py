"""Rules on addresses and ports that Endpoints and EndpointSlices share."""

from __future__ import annotations

from navarch.api import names
from navarch.api.addresses import special_address
from navarch.api.errors import Cause, invalid

PROTOCOLS = ("SCTP", "TCP", "UDP")
SHOWN = 3


def special_address_cause(text: str, path: str) -> list[Cause]:
    """Addresses that no endpoint may have: they would let a user aim a Service at the node itself."""
    return [invalid(path, text, message) for message in names.ip_address(text) or special_address(text)]
