"""Capacity of simulated pods, and their use of cores and memory as it follows from their load: parts of ``behaviour``. Pure.

    capacity: 100/s              requests a second that one pod can answer
    cpu: 50m + 10m*rate          cores used: so much always, and so much for each request a second that it answers
    memory: 64Mi + 1Mi*rate      bytes used
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from lab.experiments import load as loads
from navarch.api import quantity

FIELDS = ("capacity", "cpu", "memory")
_USE = re.compile(r"([^\s+*]+)(?:\s*\+\s*([^\s+*]+)\s*\*\s*rate)?|([^\s+*]+)\s*\*\s*rate")


class Use(NamedTuple):
    """Cores or bytes: ``always``, and for each request a second."""

    always: float
    each: float

    def at(self, rate: float) -> float:
        return self.always + self.each * rate


def use(text: object) -> Use:
    """Reads ``50m + 10m*rate``, ``10m*rate`` or ``50m``. Raises ValueError."""
    match = _USE.fullmatch(str(text).strip())
    try:
        if match is None:
            raise ValueError
        always, each, only = (float(quantity.parse(part)) if part else 0.0 for part in match.groups())
        if min(always, each, only) < 0:
            raise ValueError
    except (ValueError, quantity.QuantityError):
        raise ValueError(f"{text!r} is no use such as 50m, 10m*rate, or 50m + 10m*rate") from None
    return Use(always, each + only)


def value(field: str, text: object) -> float | Use:
    """The value of one of FIELDS. Raises ValueError."""
    if field != "capacity":
        return use(text)
    rate = loads.per_second(text)
    if not rate:
        raise ValueError(f"{text!r}: a capacity must be above 0")
    return rate


class Servings:
    """The file's behaviour, as far as it is about load; later selectors win: default, then labels, then images."""

    def __init__(self, behaviour: Mapping[str, Mapping[str, Any]]) -> None:
        ranked = sorted(behaviour.items(), key=lambda item: rank(item[0]))
        self._listed = [(s, {f: value(f, v) for f, v in fields.items() if f in FIELDS}) for s, fields in ranked]
        self.uses = any("cpu" in fields or "memory" in fields for _, fields in self._listed)
        """Whether any pod's use follows its load."""

    def capacity(self, pod: Mapping[str, Any]) -> float | None:
        """In requests a second; None if the file does not say."""
        rate = self._of(pod).get("capacity")
        return rate if isinstance(rate, float) else None

    def use(self, pod: Mapping[str, Any]) -> dict[str, Use]:
        """By ``cpu`` and ``memory``, of the whole pod."""
        return {k: v for k, v in self._of(pod).items() if isinstance(v, Use)}

    def _of(self, pod: Mapping[str, Any]) -> dict[str, float | Use]:
        labels = pod.get("metadata", {}).get("labels") or {}
        images = [c.get("image", "") for c in pod.get("spec", {}).get("containers") or ()]
        out: dict[str, float | Use] = {}
        for selector, fields in self._listed:
            if fields and matches(selector, labels, images):
                out |= fields
        return out


def rank(selector: str) -> int:
    """The order of selectors of ``behaviour``: the last one wins."""
    return 0 if selector == "default" else 2 if selector.startswith("image:") else 1


def matches(selector: str, labels: Mapping[str, str], images: list[str]) -> bool:
    """Whether a selector of ``behaviour`` stands for a pod with these labels, or a container of these images."""
    key, equals, value = selector.partition("=")
    if selector.startswith("image:"):
        return selector.removeprefix("image:") in images
    return selector == "default" or bool(equals and labels.get(key) == value)
