"""The node table: one column a fact, one row a node.

Filters and scores work on whole columns, so a cycle over thousands of nodes is a few numpy operations. The table is kept
by deltas: a pod that comes or goes touches one row. Masks that depend on nodes only (affinity, taints) are cached a pod
shape and are dropped when any node's labels, taints or schedulability change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from navarch.api import resources
from navarch.api.types import core_v1
from scheduler.pods import HostPort, PodInfo

Mask = npt.NDArray[np.bool_]
Column = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

FIRST_ROWS = 64


class NodeTable:
    """Rows of deleted nodes are reused; ``valid`` tells which are nodes now."""

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
        self.nonzero_cpu: Column = np.zeros(self.size, np.int64)
        self.nonzero_memory: Column = np.zeros(self.size, np.int64)
        self.ports: dict[tuple[str, int], dict[int, list[str]]] = {}
        self.pods: dict[str, tuple[PodInfo, str]] = {}  # uid -> the pod and its node's name, present or not
        self.by_node: dict[str, dict[str, PodInfo]] = {}
        self.version = 0  # of what static masks depend on
        self._cache: dict[tuple[str, bytes], Any] = {}
        self._cache_version = 0

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
        static = old is None or _static_facts(old) != _static_facts(node)
        capacity = old is None or old.status.allocatable != node.status.allocatable
        if static:
            self.version += 1
            self.unschedulable[row] = bool(node.spec.unschedulable)
        if capacity:
            listed = resources.amounts(node.status.allocatable)
            for resource in {**self.allocatable, **listed}:
                self._column(self.allocatable, resource)[row] = listed.get(resource, 0)
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
        for column in (*self.allocatable.values(), *self.requested.values()):
            column[row] = 0
        self.nodes[row] = None
        self.valid[row] = False
        self.free.append(row)
        self.version += 1

    def _new_row(self) -> int:
        if self.used == self.size:
            self._grow()
        self.nodes.append(None)
        self.used += 1
        return self.used - 1

    def _grow(self) -> None:
        more = self.size

        def longer(column: Any) -> Any:
            return np.concatenate([column, np.zeros(more, column.dtype)])

        self.valid, self.unschedulable = longer(self.valid), longer(self.unschedulable)
        self.nonzero_cpu, self.nonzero_memory = longer(self.nonzero_cpu), longer(self.nonzero_memory)
        for columns in (self.allocatable, self.requested):
            for resource in columns:
                columns[resource] = longer(columns[resource])
        self.size += more
        self._cache.clear()

    def _column(self, columns: dict[str, Column], resource: str) -> Column:
        if resource not in columns:
            columns[resource] = np.zeros(self.size, np.int64)
        return columns[resource]

    def free_of(self, resource: str) -> Column:
        """What is left of a resource on each row."""
        return self._column(self.allocatable, resource) - self._column(self.requested, resource)

    # Pods

    def add_pod(self, pod: PodInfo, node: str) -> None:
        """Counts a pod on a node (which may not be there yet); a pod that is counted already is moved."""
        self.remove_pod(pod.uid)
        self.pods[pod.uid] = (pod, node)
        self.by_node.setdefault(node, {})[pod.uid] = pod
        row = self.rows.get(node)
        if row is not None:
            self._count(pod, row, 1)

    def remove_pod(self, uid: str) -> bool:
        """Forgets a pod; False if it was not counted."""
        found = self.pods.pop(uid, None)
        if found is None:
            return False
        pod, node = found
        here = self.by_node[node]
        del here[uid]
        if not here:
            del self.by_node[node]
        row = self.rows.get(node)
        if row is not None:
            self._count(pod, row, -1)
        return True

    def _count(self, pod: PodInfo, row: int, sign: int) -> None:
        for resource, amount in pod.requests.items():
            self._column(self.requested, resource)[row] += sign * amount
        self.nonzero_cpu[row] += sign * pod.nonzero[0]
        self.nonzero_memory[row] += sign * pod.nonzero[1]
        for port in pod.host_ports:
            self._count_port(port, row, sign)

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

    def static(self, plugin: str, pod: PodInfo, function: Callable[[core_v1.Node], Any], kind: type) -> Any:
        """:meth:`each`, cached by plugin and pod shape for as long as no node changes. Do not change the result."""
        if self._cache_version != self.version or len(self._cache) > 4096:
            self._cache.clear()
            self._cache_version = self.version
        key = (plugin, pod.shape)
        found = self._cache.get(key)
        if found is None:
            found = self._cache[key] = self.each(function, kind)
        return found


def _static_facts(node: core_v1.Node) -> tuple[Any, ...]:
    return node.metadata.labels, node.spec.taints, node.spec.unschedulable
