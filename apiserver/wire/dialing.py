"""Why a connection failed, in the words of Go's dialer: Python's name addresses of objects, which tell nobody anything."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from navarch.client.wire import TransportError

_UNKNOWN = "certificate signed by unknown authority"
_X509 = {
    "unable to get local issuer certificate": _UNKNOWN,
    "self-signed certificate": _UNKNOWN,
    "self signed certificate": _UNKNOWN,
    "self-signed certificate in certificate chain": _UNKNOWN,
    "unable to verify the first certificate": _UNKNOWN,
    "certificate has expired": "certificate has expired or is not yet valid",
    "certificate is not yet valid": "certificate has expired or is not yet valid",
}
"""OpenSSL's words -> Go's."""


def dial_error(error: Exception, authority: str) -> str:
    """``authority``: HOST:PORT that was dialled."""
    if isinstance(error, TransportError):  # its own text names the request
        if error.__cause__ is None:
            return f"dial tcp {authority}: i/o timeout" if str(error).endswith("timed out") else "EOF"
        return dial_error(error.__cause__, authority)  # type: ignore[arg-type]
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    if verify := getattr(cause, "verify_message", None):
        return f"tls: failed to verify certificate: x509: {_X509.get(verify, verify)}"
    number: Any = getattr(error, "errno", None) or getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0 and getattr(cause, "reason", None) is None:
        return f"dial tcp {authority}: connect: {os.strerror(number).lower()}"
    if reason := getattr(cause, "reason", None):  # of TLS
        return f"tls: {str(reason).lower().replace('_', ' ')}"
    if isinstance(cause, socket.gaierror):
        return f"dial tcp: lookup {authority.rpartition(':')[0]}: no such host"
    if isinstance(cause, TimeoutError):
        return f"dial tcp {authority}: i/o timeout"
    # What is left is an answer that ended too soon, or is none: Python's words for it are no use to anybody.
    if isinstance(cause, ValueError | asyncio.LimitOverrunError):
        return "malformed HTTP response"
    return "EOF"
