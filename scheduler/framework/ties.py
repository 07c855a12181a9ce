"""Which of several nodes with the same total a pod gets.

kube-scheduler lets chance decide. An experiment may want a rule, because the order moves its results: by name, by an order
that the seed shuffles once, or by a function of its own.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scheduler.state.pods import PodInfo

Rows = Sequence[int] | npt.NDArray[np.intp]


class TieBreak(Protocol):
    """Picks one of at least two ``rows``; ``names`` gives the name of each row of the table."""

    def __call__(self, pod: PodInfo, rows: Rows, names: Sequence[str], chance: random.Random, /) -> int: ...


def by_chance(pod: PodInfo, rows: Rows, names: Sequence[str], chance: random.Random, /) -> int:
    return int(rows[chance.randrange(len(rows))])


class Ordered:
    """The row whose node's name has the smallest ``key``; among equals, the first by name."""

    def __init__(self, key: Callable[[str], Any]) -> None:
        self._key = key
        self._names: Sequence[str] = ()
        self._ranks: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def __call__(self, pod: PodInfo, rows: Rows, names: Sequence[str], chance: random.Random, /) -> int:
        if names is not self._names:  # a node that comes or goes makes a new list
            order = sorted(range(len(names)), key=lambda row: (self._key(names[row]), names[row]))
            self._ranks = np.empty(len(names), np.int64)
            self._ranks[order] = np.arange(len(names))
            self._names = names
        return int(rows[int(self._ranks[rows].argmin())])


class Shuffled(Ordered):
    """One order of all nodes, that chance draws once. It does not depend on which nodes come later."""

    def __init__(self) -> None:
        self._salt = b""
        super().__init__(lambda name: hashlib.blake2b(name.encode(), key=self._salt).digest())

    def __call__(self, pod: PodInfo, rows: Rows, names: Sequence[str], chance: random.Random, /) -> int:
        self._salt = self._salt or chance.getrandbits(64).to_bytes(8, "big")
        return super().__call__(pod, rows, names, chance)


class ByRule:
    """The node for which ``key(pod, name)`` is smallest; among equals, the first by name."""

    def __init__(self, key: Callable[[PodInfo, str], Any]) -> None:
        self._key = key

    def __call__(self, pod: PodInfo, rows: Rows, names: Sequence[str], chance: random.Random, /) -> int:
        return min((int(row) for row in rows), key=lambda row: (self._key(pod, names[row]), names[row]))


RULES: dict[str, Callable[[], TieBreak]] = {
    "random": lambda: by_chance,
    "name": lambda: Ordered(lambda name: ""),
    "shuffled": Shuffled,
}


def tie_break(rule: str | Callable[[PodInfo, str], Any] = "random") -> TieBreak:
    """By the name of a rule ("random", "name", or "shuffled": one order from the seed), or by a function of the pod and a
    node's name, of which the smallest value wins. Raises ValueError."""
    if callable(rule):
        return ByRule(rule)
    if rule not in RULES:
        raise ValueError(f'no rule "{rule}" for ties; known: {", ".join(RULES)}')
    return RULES[rule]()
