"""Encrypted values as seen from outside."""

from __future__ import annotations

from apiserver.storage.store import Unreadable

ENCRYPTED = b"k8s:enc:"
"""Prefix of every encrypted value; no JSON begins with it."""


def named(value: bytes) -> str:
    """The provider and key that an encrypted value names."""
    kind, _, rest = value[len(ENCRYPTED) :].partition(b":")
    name = rest.partition(b":")[2].partition(b":")[0]
    return f"{kind.decode(errors='replace')}, key {name.decode(errors='replace')!r}"


def check_readable(key: str, value: bytes) -> None:
    """Raises Unreadable for a value that is encrypted, read by a server that does not encrypt."""
    if value.startswith(ENCRYPTED):
        text = f"{key} is encrypted with {named(value)}: give the server the --encryption-provider-config with that key"
        raise Unreadable(text)
