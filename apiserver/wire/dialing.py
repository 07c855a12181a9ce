"""Why a connection failed, in the words of Go's dialer: Python's name addresses of objects, which tell nobody anything."""

from __future__ import annotations

import os
from typing import Any


def dial_error(error: Exception, authority: str) -> str:
    """``authority``: HOST:PORT that was dialled."""
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    if verify := getattr(cause, "verify_message", None):
        return f"tls: failed to verify certificate: x509: {verify}"
    number: Any = getattr(error, "errno", None) or getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0 and getattr(cause, "reason", None) is None:
        return f"dial tcp {authority}: connect: {os.strerror(number).lower()}"
    if reason := getattr(cause, "reason", None):  # of TLS
        return f"tls: {str(reason).lower().replace('_', ' ')}"
    if type(error).__name__ == "ServerDisconnectedError":
        return "EOF"
    return str(cause) or type(cause).__name__
