"""Eviction thresholds as kubelet's flags have them: ``memory.available<100Mi,nodefs.available<10%``. Pure."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from navarch.api import quantity
from navarch.api.durations import parse_duration

MEMORY, PIDS = "memory.available", "pid.available"
NODE_DISK, NODE_INODES = "nodefs.available", "nodefs.inodesFree"
IMAGE_DISK, IMAGE_INODES = "imagefs.available", "imagefs.inodesFree"
SIGNALS = (MEMORY, NODE_DISK, NODE_INODES, IMAGE_DISK, IMAGE_INODES, PIDS)
DEFAULT_HARD = (
    f"{MEMORY}<100Mi,{NODE_DISK}<10%,{NODE_INODES}<5%,{IMAGE_DISK}<15%,{IMAGE_INODES}<5%"  # kubelet's
)


@dataclass(frozen=True)
class Amount:
    """A quantity, or a share (0 to 1) of the capacity."""

    quantity: str = ""
    share: float = 0.0

    def of(self, capacity: int) -> int:
        """In bytes, inodes or processes."""
        return quantity.value(self.quantity) if self.quantity else int(capacity * self.share)

    def text(self, capacity: int) -> str:
        """As messages show it."""
        return quantity.canonical(self.quantity) if self.quantity else quantity.from_value(self.of(capacity), "BinarySI")


@dataclass(frozen=True)
class Threshold:
    """Met when less of ``signal`` than ``value`` is left. ``grace``: seconds for which it must be met before pods are
    evicted; a hard threshold has none. ``reclaim``: how much more than ``value`` must be left when eviction ends."""

    signal: str
    value: Amount
    grace: float | None = None
    reclaim: Amount | None = None

    @property
    def hard(self) -> bool:
        return self.grace is None


def _amount(text: str) -> Amount:
    """Raises ValueError."""
    if not text.endswith("%"):
        if quantity.value(text) < 0:
            raise ValueError(f"eviction threshold must be >= 0: {text}")
        return Amount(text)
    percent = float(text[:-1])
    if not percent >= 0:
        raise ValueError(f"eviction percentage threshold must be >= 0%: {text}")
    # kubelet keeps the share as a 32-bit number, which shows in the "Threshold quantity" of its messages.
    return Amount(share=struct.unpack("f", struct.pack("f", percent / 100))[0])


def _pairs(text: str, operator: str) -> dict[str, str]:
    out: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        signal, sign, value = (word.strip() for word in part.partition(operator))
        if not sign or not value:
            raise ValueError(f"{part} is not SIGNAL{operator}VALUE")
        if signal not in SIGNALS:
            raise ValueError(f"{signal} is none of the signals {', '.join(SIGNALS)}")
        if signal in out:
            raise ValueError(f"{signal} stands there twice")
        out[signal] = value
    return out


def read_amounts(text: str, operator: str = "<") -> dict[str, Amount]:
    """Amounts by signal, those that kubelet ignores (0%, 100%) left out. Raises ValueError."""
    amounts = {signal: _amount(value) for signal, value in _pairs(text, operator).items()}
    return {s: a for s, a in amounts.items() if a.quantity or a.share not in (0.0, 1.0)}


def read_durations(text: str) -> dict[str, float]:
    """Seconds by signal. Raises ValueError."""
    durations = {signal: parse_duration(value) for signal, value in _pairs(text, "=").items()}
    if any(seconds < 0 for seconds in durations.values()):
        raise ValueError(f"{text}: a grace period is 0 or more")
    return durations


def read(hard: str, soft: str = "", graces: str = "", reclaims: str = "") -> tuple[Threshold, ...]:
    """The thresholds that four flags describe. Raises ValueError."""
    least: Mapping[str, Amount] = read_amounts(reclaims, "=")
    periods = read_durations(graces)
    out = [Threshold(signal, value, None, least.get(signal)) for signal, value in read_amounts(hard).items()]
    for signal, value in read_amounts(soft).items():
        if signal not in periods:
            raise ValueError(f"grace period must be specified for the soft eviction threshold {signal}")
        out.append(Threshold(signal, value, periods[signal], least.get(signal)))
    return tuple(out)
