"""Counts of pods by node, kept by deltas: what spreading and pod affinity are computed from.

Two sorts of columns, each with a number a row:

- *matching* pods: how many pods of a node match some selectors. A column is made when it is first asked for, and from
  then on each pod that comes or goes changes one number of it.
- *terms*: how many pods of a node have a given affinity term themselves, since affinity works both ways.

The sum over a topology domain (all nodes with one value of a label) is one ``bincount`` of such a column. Columns and
terms are found by one label that a pod must have, where the selector asks for one, so that a pod is compared only with
what may concern it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from scheduler.state.pods import Labels, PodInfo, PodSelector, Term

Column = npt.NDArray[np.int64]
Pair = tuple[str, str]
K = TypeVar("K")

MAX_COLUMNS = 1024


class Matching(NamedTuple):
    """Pods that match all of ``selectors``; ``staying``: only those that are not being deleted."""

    selectors: tuple[PodSelector, ...]
    staying: bool = False

    def matches(self, pod: PodInfo, namespaces: Mapping[str, Labels]) -> bool:
        if self.staying and pod.terminating:
            return False
        return all(s.matches(pod.namespace, pod.labels, namespaces) for s in self.selectors)


Sort = Literal["affinity", "anti-affinity", "preferred"]


class PodTerm(NamedTuple):
    """A term that pods on nodes have."""

    sort: Sort
    weight: int
    term: Term


class ByLabel(Generic[K]):
    """Columns of things with a selector, found by a label pair that the selector demands."""

    def __init__(self, selector: Callable[[K], PodSelector]) -> None:
        self._selector = selector
        self.columns: dict[K, Column] = {}
        self._index: dict[Pair | None, dict[K, None]] = {}

    def add(self, key: K, column: Column) -> None:
        self.columns[key] = column
        self._index.setdefault(self._pair(key), {})[key] = None

    def remove(self, key: K) -> None:
        del self.columns[key]
        pair = self._pair(key)
        del self._index[pair][key]
        if not self._index[pair]:
            del self._index[pair]

    def grow(self, size: int) -> None:
        for key, column in self.columns.items():
            self.columns[key] = np.concatenate([column, np.zeros(size - len(column), np.int64)])

    def candidates(self, labels: Labels) -> Iterator[K]:
        """Keys whose selector may match these labels."""
        if not self._index:
            return
        yield from self._index.get(None, ())
        for pair in labels.items():
            yield from self._index.get(pair, ())

    def _pair(self, key: K) -> Pair | None:
        return next(iter(self._selector(key).selector.exact.items()), None)


class Topology:
    """The columns of a node table. ``pods`` gives (pod, row) of all pods on nodes that exist."""

    def __init__(self, size: int, pods: Callable[[], Iterable[tuple[PodInfo, int]]]) -> None:
        self.size = size
        self.namespaces: dict[str, Labels] = {}
        self.version = 0  # of the terms that pods hold, and of the labels of namespaces
        self._pods = pods
        self._matching: ByLabel[Matching] = ByLabel(lambda key: key.selectors[0])
        self._terms: ByLabel[PodTerm] = ByLabel(lambda key: key.term.pods)

    def grow(self, size: int) -> None:
        self._matching.grow(size)
        self._terms.grow(size)
        self.size = size

    def set_namespace(self, name: str, labels: Labels | None) -> None:
        """The labels of a namespace; None when it is gone."""
        if self.namespaces.get(name) == labels:
            return
        if labels is None:
            self.namespaces.pop(name, None)
        else:
            self.namespaces[name] = labels
        self.version += 1
        for key in [k for k in self._matching.columns if any(s.namespace_selector for s in k.selectors)]:
            self._matching.remove(key)  # made anew when next asked for

    def count(self, pod: PodInfo, row: int, sign: int) -> None:
        """A pod comes (1) or goes (-1)."""
        for key in self._matching.candidates(pod.labels):
            if key.matches(pod, self.namespaces):
                self._matching.columns[key][row] += sign
        if any(pod.terms):
            self._hold(pod, row, sign)

    def _hold(self, pod: PodInfo, row: int, sign: int) -> None:
        self.version += 1
        for key in terms_of(pod):
            column = self._terms.columns.get(key)
            if column is None:
                column = np.zeros(self.size, np.int64)
                self._terms.add(key, column)
            column[row] += sign
            if sign < 0 and not column.any():
                self._terms.remove(key)

    def matching(self, key: Matching) -> Column:
        """How many pods of each row match. Do not change the result."""
        column = self._matching.columns.get(key)
        if column is None:
            if len(self._matching.columns) >= MAX_COLUMNS:
                self._matching.remove(next(iter(self._matching.columns)))
            column = np.zeros(self.size, np.int64)
            for pod, row in self._pods():
                if key.matches(pod, self.namespaces):
                    column[row] += 1
            self._matching.add(key, column)
        return column

    def terms_against(self, pod: PodInfo) -> list[tuple[PodTerm, Column]]:
        """The terms of pods on nodes that mean this pod, and how many pods of each row have them."""
        namespaces = self.namespaces
        return [
            (key, self._terms.columns[key])
            for key in self._terms.candidates(pod.labels)
            if key.term.pods.matches(pod.namespace, pod.labels, namespaces)
        ]


def terms_of(pod: PodInfo) -> Iterator[PodTerm]:
    for term in pod.terms.affinity:
        yield PodTerm("affinity", 0, term)
    for term in pod.terms.anti_affinity:
        yield PodTerm("anti-affinity", 0, term)
    for weight, term in pod.terms.preferred:
        yield PodTerm("preferred", weight, term)
