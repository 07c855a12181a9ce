"""The node table: one column a fact, one row a node.

Filters and scores work on whole columns, so a cycle over thousands of nodes is a few numpy operations. The table is kept
by deltas: a pod that comes or goes touches one row. Columns that depend on nodes only (affinity, taints) are cached for
each sort of pod; when a node's labels, taints or schedulability change, one number of each is worked out again.

The table writes down which rows changed, so that who keeps something computed from it (see ranking.py) can follow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from navarch.api import resources
from navarch.api.selectors import LabelSelector
from navarch.api.types import core_v1
from scheduler.state.pods import HostPort, PodInfo, normalized_image, saturated
from scheduler.state.topology import Topology
from scheduler.state.volumes import Volumes

Mask = npt.NDArray[np.bool_]
Column = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

K = TypeVar("K")

FIRST_ROWS = 64
LOG_LENGTH = 4096
CACHED_COLUMNS = 1024
CACHED_SUMS = 64


def _log_failure(pod: PodInfo, error: Exception) -> None:
    logging.getLogger(__name__).error("a plugin's account failed on %s", pod.key, exc_info=error)


class Log(Generic[K]):
    """Which rows (or nodes) changed, by a position that only grows; the oldest entries are forgotten."""

    def __init__(self) -> None:
        self.end = 0
        self._keys: list[K] = []

    def add(self, key: K) -> None:
        self._keys.append(key)
        self.end += 1
        if len(self._keys) > 2 * LOG_LENGTH:
            del self._keys[:LOG_LENGTH]

    def since(self, position: int) -> list[K] | None:
        """The changes since, each once; None if that is not known any more."""
        new = self.end - position
        if new > len(self._keys):
            return None
        return list(dict.fromkeys(self._keys[-new:])) if new else []


class Account(Protocol):
    """A listener that hears of every pod that the table counts, and of every one that it counts no longer."""

    def follow(self, table: NodeTable) -> None: ...

    def placed(self, pod: PodInfo, row: int, before: Any) -> Any: ...

    def left(self, pod: PodInfo, row: int, share: Any) -> None: ...


class NodeTable:
    """One numpy element a row, one row a node; rows of deleted nodes are reused, ``valid`` tells which are nodes now.

    ``size``: elements of every column, at least ``used``; doubles when rows run out. ``rows``: node's name -> row.
    ``allocatable`` and ``requested``: resource -> int64 column, in the units that a PodInfo's requests are in (cpu in
    thousandths, others in whole ones); ``nonzero_cpu`` and ``nonzero_memory`` count pods that ask for nothing as a little.
    ``ports``: (protocol, port) -> row -> the addresses on which it is taken. ``version`` grows with every change of nodes,
    ``touches`` with those that concern more than the rows in ``node_changes``; ``changes``, ``node_changes`` and ``starts``
    are what a ranking follows. ``spread_selector``, ``violating`` and ``node_differs`` are set by the scheduler.
    """

    def __init__(self) -> None:
        self.size = FIRST_ROWS
        self.used = 0  # rows below this have been given out at some time
        self.rows: dict[str, int] = {}
        self.nodes: list[core_v1.Node | None] = []
        self.free: list[int] = []
        self.valid: Mask = np.zeros(self.size, bool)
        self.unschedulable: Mask = np.zeros(self.size, bool)
        self.allocatable: dict[str, Column] = {}
        self.requested: dict[str, Column] = {}
        self.by_priority: dict[int, dict[str, Column]] = {}  # requested, by the pods' priority
        self.nonzero_cpu: Column = np.zeros(self.size, np.int64)
        self.nonzero_memory: Column = np.zeros(self.size, np.int64)
        self.ports: dict[tuple[str, int], dict[int, list[str]]] = {}
        self.pods: dict[str, tuple[PodInfo, str]] = {}  # uid -> the pod and its node's name, present or not
        self.by_node: dict[str, dict[str, PodInfo]] = {}
        self.version = 0  # of the nodes themselves: labels, taints, images, coming and going
        self.touches = 0  # of these, the changes that concern more than the rows in ``node_changes``
        self.images: dict[str, dict[int, int]] = {}  # name -> row -> bytes
        self.nodes_images: dict[int, list[tuple[str, int]]] = {}
        self.topology = Topology(self.size, self._placed)
        self.volumes = Volumes()
        self.changes: Log[int] = Log()  # of amounts and pods
        self.node_changes: Log[int] = Log()  # of nodes that came, went, or have other labels or taints
        self.starts: Log[int] = Log()  # of pods whose start became known, which matters to preemption alone
        self.spread_selector: Callable[[PodInfo], LabelSelector | None] = lambda _: None
        self.violating: Callable[[Sequence[PodInfo]], list[bool]] = lambda pods: [False] * len(pods)
        self.node_differs: Callable[[core_v1.Node, core_v1.Node], bool] = lambda old, new: False
        self.trying = 0  # while it is above 0, pods come and go for the sake of a question only, and all come back
        self.account_failed: Callable[[PodInfo, Exception], None] = _log_failure
        self._accounts: list[Account] = []
        self._shares: dict[tuple[int, str], Any] = {}  # by account and uid
        self._aside: dict[tuple[int, str], tuple[int, Any]] = {}  # of pods that left while something is tried, with the row
        self._own: dict[str, npt.NDArray[Any]] = {}
        self._names: list[str] = []
        self._names_read = False
        self._codes: dict[str, int] = {"": 0}
        self._domains: dict[str, dict[str, int]] = {}
        self._sums: dict[tuple[str, int], DomainSums] = {}  # by label and column, the one used last at the end
        self._cache: dict[tuple[str, bytes], tuple[Any, int]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    # Nodes

    def set_node(self, node: core_v1.Node) -> bool:
        """Adds or changes a node; True if anything that scheduling looks at changed."""
        name = node.metadata.name or ""
        row = self.rows.get(name)
        if row is None:
            row = self.free.pop() if self.free else self._new_row()
            self.rows[name] = row
            old = None
            self.valid[row] = True
        else:
            old = self.nodes[row]
        self.nodes[row] = node
        if old is None:
            self._name(row, name)
        static = old is None or _static_facts(old) != _static_facts(node) or self.node_differs(old, node)
        capacity = old is None or old.status.allocatable != node.status.allocatable
        if static:
            self.unschedulable[row] = bool(node.spec.unschedulable)
            self._node_changed(row)
        if capacity:
            listed = {r: saturated(n) for r, n in resources.amounts(node.status.allocatable).items()}
            for resource in {**self.allocatable, **listed}:
                self._column(self.allocatable, resource)[row] = listed.get(resource, 0)
            self.changes.add(row)
        if (old.status.images if old else None) != node.status.images:
            self._set_images(row, node)
        if old is None:
            for pod in self.by_node.get(name, {}).values():
                self._count(pod, row, 1)
        return static or capacity

    def remove_node(self, name: str) -> None:
        row = self.rows.pop(name, None)
        if row is None:
            return
        for pod in self.by_node.get(name, {}).values():
            self._count(pod, row, -1)
        for column in self.allocatable.values():
            column[row] = 0
        self._set_images(row, None)
        self.nodes[row] = None
        self._name(row, "")
        self.valid[row] = self.unschedulable[row] = False
        self.free.append(row)
        self._node_changed(row)

    def _node_changed(self, row: int) -> None:
        self.version += 1
        self.node_changes.add(row)

    def _set_images(self, row: int, node: core_v1.Node | None) -> None:
        old = self.nodes_images.pop(row, ())
        new = [
            (normalized_image(name), image.size_bytes or 0)
            for image in (node.status.images if node else None) or ()
            for name in image.names or ()
        ]
        for name, _ in old:
            rows = self.images.get(name, {})
            rows.pop(row, None)
            if not rows:
                self.images.pop(name, None)
        for name, size in new:
            self.images.setdefault(name, {})[row] = size
        if new:
            self.nodes_images[row] = new
        if old or new:
            self.touch()

    def _new_row(self) -> int:
        if self.used == self.size:
            self._grow()
        self.nodes.append(None)
        self.used += 1
        return self.used - 1

    def _grow(self) -> None:
        more = self.size

        def longer(column: Any) -> Any:
            return np.concatenate([column, np.zeros((more, *column.shape[1:]), column.dtype)])

        self.valid, self.unschedulable = longer(self.valid), longer(self.unschedulable)
        self.nonzero_cpu, self.nonzero_memory = longer(self.nonzero_cpu), longer(self.nonzero_memory)
        for columns in (self.allocatable, self.requested, *self.by_priority.values()):
            for resource in columns:
                columns[resource] = longer(columns[resource])
        self._own = {name: longer(column) for name, column in self._own.items()}
        self.size += more
        self.topology.grow(self.size)
        self._cache.clear()

    def _column(self, columns: dict[str, Column], resource: str) -> Column:
        if resource not in columns:
            columns[resource] = np.zeros(self.size, np.int64)
        return columns[resource]

    def free_of(self, resource: str) -> Column:
        """The amount of a resource that is left on each row."""
        return self._column(self.allocatable, resource) - self._column(self.requested, resource)

    def free_at(self, resource: str, row: int) -> int:
        """The amount of a resource that is left on one row."""
        has, used = self.allocatable.get(resource), self.requested.get(resource)
        return (0 if has is None else int(has[row])) - (0 if used is None else int(used[row]))

    # Pods

    def add_pod(self, pod: PodInfo, node: str) -> None:
        """Counts a pod on a node (which may not be there yet); a pod that is counted already is moved."""
        if pod.uid in self.pods:  # on the same node it leaves only to come back
            self.trying += 1
            self.remove_pod(pod.uid)
            self._place(pod, node)
            self.tried()
        else:
            self._place(pod, node)

    def _place(self, pod: PodInfo, node: str) -> None:
        self.pods[pod.uid] = (pod, node)
        self.by_node.setdefault(node, {})[pod.uid] = pod
        row = self.rows.get(node)
        if row is not None:
            self._count(pod, row, 1)

    def remove_pod(self, uid: str) -> bool:
        """Forgets a pod; False if it was not counted."""
        entry = self.pods.pop(uid, None)
        if entry is None:
            return False
        pod, node = entry
        here = self.by_node[node]
        del here[uid]
        if not here:
            del self.by_node[node]
        row = self.rows.get(node)
        if row is not None:
            self._count(pod, row, -1)
        return True

    @contextmanager
    def as_if(self, pods: Iterable[tuple[PodInfo, str]]) -> Iterator[None]:
        """Counts pods, which are not counted yet, on nodes for a while."""
        added = []
        self.trying += 1
        try:
            for pod, node in pods:
                self.add_pod(pod, node)
                added.append(pod.uid)
            yield
        finally:
            for uid in added:
                self.remove_pod(uid)
            self.tried()

    def tried(self) -> None:
        """Ends what was begun by raising ``trying``."""
        self.trying -= 1
        if not self.trying:
            self._aside.clear()

    # Accounts of plugins

    def attach(self, account: Account) -> None:
        """Tells somebody of all pods that come and go from now on, and first of those that are here."""
        number = len(self._accounts)
        self._accounts.append(account)
        account.follow(self)
        for pod, row in self._placed():
            self._shares[number, pod.uid] = account.placed(pod, row, None)

    def share(self, account: Account, uid: str) -> Any:
        """The share that an account gave a pod which is on a node; None if it is on none."""
        return self._shares.get((self._accounts.index(account), uid))

    def own(self, name: str, width: int = 0, kind: type = np.int64) -> npt.NDArray[Any]:
        """A column (with ``width``, so many side by side) of a plugin's own, zeros at first, as long as the table is. It
        is another array once the table has grown: ask for it each time."""
        if name not in self._own:
            self._own[name] = np.zeros((self.size, width) if width else self.size, kind)
        return self._own[name]

    def _account(self, pod: PodInfo, row: int, sign: int) -> None:
        for number, account in enumerate(self._accounts):
            key = number, pod.uid
            if sign > 0:
                place, share = self._aside.pop(key, (row, None))
                try:
                    self._shares[key] = account.placed(pod, row, share if place == row else None)
                except Exception as error:  # the table must be right for all others
                    self._shares[key] = None
                    self.account_failed(pod, error)
            else:
                share = self._shares.pop(key, None)
                if self.trying:
                    self._aside[key] = row, share
                try:
                    account.left(pod, row, share)
                except Exception as error:
                    self.account_failed(pod, error)

    def _count(self, pod: PodInfo, row: int, sign: int) -> None:
        by_priority = self.by_priority.setdefault(pod.priority, {})
        for resource, amount in pod.requests.items():
            self._column(self.requested, resource)[row] += sign * amount
            self._column(by_priority, resource)[row] += sign * amount
        self.nonzero_cpu[row] += sign * pod.nonzero[0]
        self.nonzero_memory[row] += sign * pod.nonzero[1]
        for port in pod.host_ports:
            self._count_port(port, row, sign)
        if pod.claims or pod.disks:
            self.volumes.usage.count(pod, row, sign)
        self.topology.count(pod, row, sign)
        if self._accounts:
            self._account(pod, row, sign)
        self.changes.add(row)

    def refresh(self, uid: str, pod: core_v1.Pod) -> None:
        """Takes the newest state of a pod that is counted already, and changed in nothing that is counted."""
        info, node = self.pods[uid]
        began = info.pod.status.start_time != pod.status.start_time
        info.renew(pod)
        if began and (row := self.rows.get(node)) is not None:
            self.starts.add(row)

    def _placed(self) -> Iterator[tuple[PodInfo, int]]:
        """All pods on nodes that exist, with their rows."""
        for pod, node in self.pods.values():
            row = self.rows.get(node)
            if row is not None:
                yield pod, row

    def names(self) -> list[str]:
        """The name of each row, "" where there is no node. A node that comes or goes makes a new list, if this was read."""
        self._names_read = True
        return self._names

    def _name(self, row: int, name: str) -> None:
        if self._names_read:
            self._names, self._names_read = self._names.copy(), False
        if row == len(self._names):
            self._names.append(name)
        else:
            self._names[row] = name

    def touch(self) -> None:
        """Something that decisions depend on changed, and not for single rows."""
        self.version += 1
        self.touches += 1

    def _count_port(self, port: HostPort, row: int, sign: int) -> None:
        rows = self.ports.setdefault(port[:2], {})
        if sign > 0:
            rows.setdefault(row, []).append(port[2])
            return
        rows[row].remove(port[2])
        if not rows[row]:
            del rows[row]
        if not rows:
            del self.ports[port[:2]]

    # Columns from a function

    def each(self, function: Callable[[core_v1.Node], Any], kind: type) -> Any:
        """A column of ``function(node)``, 0 where there is no node: how a rule written node by node is lifted."""
        out: Any = np.zeros(self.size, kind)
        for row in self.rows.values():
            node = self.nodes[row]
            assert node is not None
            out[row] = function(node)
        return out

    def static(self, plugin: str, key: bytes, function: Callable[[core_v1.Node], Any], kind: type) -> Any:
        """:meth:`each`, cached by plugin and what it looks at; only rows whose node changed are asked again. Do not change
        the result."""
        where = (plugin, key)
        cached = self._cache.get(where)
        if cached is not None:
            rows = self.node_changes.since(cached[1])
            if rows is not None:
                column = cached[0]
                for row in rows:
                    node = self.nodes[row]
                    column[row] = function(node) if node else 0
                if rows:
                    self._cache[where] = (column, self.node_changes.end)
                return column
        if len(self._cache) > CACHED_COLUMNS:
            self._cache.clear()
        column = self.each(function, kind)
        self._cache[where] = (column, self.node_changes.end)
        return column

    def static_codes(self, plugin: str, key: bytes, function: Callable[[core_v1.Node], str]) -> Column:
        """As :meth:`static` for a function that gives texts: a column of their numbers in ``texts`` (0 is "")."""

        def code(node: core_v1.Node) -> int:
            text = function(node)
            return self._codes.setdefault(text, len(self._codes)) if text else 0

        return self.static(plugin, key, code, np.int64)  # type: ignore[no-any-return]

    def text(self, code: int) -> str:
        return list(self._codes)[code]

    def rows_with(self, key: str, value: str) -> list[int]:
        """The rows whose nodes have a label of this value."""
        column, _ = self.domains(key)
        number = self._domains[key].get(value)
        return [] if number is None else np.flatnonzero((column == number) & self.valid).tolist()

    def domain_sums(self, key: str, column: Column) -> DomainSums:
        """The sums of a column of the topology over the domains of a label, followed from one question to the next. Do not
        change them."""
        where = (key, id(column))
        sums = self._sums.pop(where, None)
        if sums is None or not sums.follow(self, column):
            sums = DomainSums(self, key, column)
            if len(self._sums) >= CACHED_SUMS:
                self._sums.pop(next(iter(self._sums)))
        self._sums[where] = sums
        return sums

    def domains(self, key: str) -> tuple[Column, int]:
        """Which topology domain each row is in: a number for each value of the label, -1 without; and how many numbers."""
        numbers = self._domains.setdefault(key, {})

        def number(node: core_v1.Node) -> int:
            value = (node.metadata.labels or {}).get(key)
            return 0 if value is None else numbers.setdefault(value, len(numbers)) + 1

        # One more than the number, so that rows without a node (0) have none.
        return self.static("domains/" + key, b"", number, np.int64) - 1, len(numbers)


class DomainSums:
    """A column summed over the domains of a topology key. ``values``: each row's domain's sum, 0 without a domain."""

    def __init__(self, table: NodeTable, key: str, column: Column) -> None:
        self._column, self._version = column, table.version
        self._domains, number = table.domains(key)
        self._has = (self._domains >= 0) & table.valid
        self._counts = np.where(self._has, column, 0)
        domains = self._domains[self._has]
        self._single = bool(np.bincount(domains, minlength=max(number, 1)).max() <= 1)
        self.sums: Column = np.bincount(domains, weights=self._counts[self._has], minlength=max(number, 1)).astype(np.int64)
        self.values: Column = np.where(self._has, self.sums[self._domains], 0)
        self._position = table.changes.end

    @property
    def labelled(self) -> Mask:
        """Rows that are in a domain."""
        return self._has

    def follow(self, table: NodeTable, column: Column) -> bool:
        """Brings the sums up to date; False if they must be made anew."""
        if column is not self._column or self._version != table.version:
            return False
        rows = table.changes.since(self._position)
        if rows is None:
            return False
        changed = False
        for row in rows:
            if not self._has[row] or not (more := column.item(row) - self._counts.item(row)):
                continue
            self._counts[row] += more
            self.sums[self._domains[row]] += more
            if self._single:
                self.values[row] += more
            else:
                changed = True
        if changed:
            self.values = np.where(self._has, self.sums[self._domains], 0)
        self._position = table.changes.end
        return True


def _static_facts(node: core_v1.Node) -> tuple[Any, ...]:
    return node.metadata.labels, node.spec.taints, node.spec.unschedulable
