"""Which Pod Security Standard a namespace asks for: its labels, read. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from navarch.api.errors import Cause, invalid

PRIVILEGED, BASELINE, RESTRICTED = LEVELS = ("privileged", "baseline", "restricted")
PREFIX = "pod-security.kubernetes.io/"
MODES = ("enforce", "audit", "warn")
LATEST = 1 << 30
_VERSION = re.compile(r"v1\.([0-9]|[1-9][0-9]*)", re.ASCII)


class Standard(NamedTuple):
    """A level, as it was in a minor version of Kubernetes."""

    level: str = PRIVILEGED
    minor: int = LATEST

    def __str__(self) -> str:
        return f"{self.level}:{'latest' if self.minor == LATEST else f'v1.{self.minor}'}"


class Policy(NamedTuple):
    """The levels that a namespace asks of its pods. ``enforce`` refuses pods; the others only tell of them."""

    enforce: Standard = Standard()
    audit: Standard = Standard()
    warn: Standard = Standard()

    def __str__(self) -> str:
        """Only what asks for something."""
        named = zip(MODES, self, strict=True)
        return ", ".join(f"{mode}={one}" for mode, one in named if one.level != PRIVILEGED)


def stricter(level: str, than: str) -> bool:
    return LEVELS.index(level) > LEVELS.index(than)


def parse_level(text: str) -> str | None:
    return text if text in LEVELS else None


def parse_minor(text: str) -> int | None:
    """``latest`` or ``v1.N``; None for anything else."""
    if text == "latest":
        return LATEST
    match = _VERSION.fullmatch(text)
    return int(match[1]) if match else None


def policy_of(labels: Mapping[str, str], default: Policy) -> tuple[Policy, list[Cause]]:
    """The policy of a namespace with these labels, and what is wrong with them.

    A wrong level is restricted where it is enforced and privileged elsewhere; a wrong version is the latest.
    """
    out: list[Cause] = []
    standards: list[Standard] = []
    for mode, standard in zip(MODES, default, strict=True):
        level, minor = standard
        label = PREFIX + mode
        if (text := labels.get(label)) is not None:
            level = parse_level(text) or (RESTRICTED if mode == "enforce" else PRIVILEGED)
            if text not in LEVELS:
                out.append(_wrong(label, text, f"must be one of {', '.join(LEVELS)}"))
        if (text := labels.get(f"{label}-version")) is not None:
            version = parse_minor(text)
            minor = LATEST if version is None else version
            if version is None:
                out.append(_wrong(f"{label}-version", text, 'must be "latest" or "v1.x"'))
        standards.append(Standard(level, minor))
    return Policy(*standards), out


def _wrong(label: str, value: str, why: str) -> Cause:
    return invalid(f"metadata.labels[{label}]", value, why)
