"""Asking a component for one of its pages (/readyz, /metrics, ...) over its unix socket."""

from __future__ import annotations

import socket
from pathlib import Path

from lab.forking import short_path

PATIENCE = 5.0  # seconds that the component has to answer


def page(component: Path, path: str, timeout: float = PATIENCE) -> tuple[int, bytes]:
    """Status and body. ``component`` is its socket. Raises OSError if it does not answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        with short_path(component) as name:
            connection.connect(name)
        connection.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        with connection.makefile("rb") as stream:
            head, _, body = stream.read().partition(b"\r\n\r\n")
    words = head.split(b"\r\n")[0].split()
    if len(words) < 2 or not words[1].isdigit():
        raise OSError("no answer")
    return int(words[1]), body
