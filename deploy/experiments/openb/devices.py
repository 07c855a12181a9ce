"""Account of GPU devices, and what all policies share: a share lies on one device, whole devices are free ones.

Amounts are thousandths of a device. What a policy says of a sort of pod is kept for each node, and worked out again for the
nodes on which a pod came or went.
"""

import numpy as np

from scheduler.framework.plugin import Plugin, Refusal
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.state.nodes import Log

MILLI, WHOLE, MOST = "openb/gpu-milli", 1000, 8
REFUSED = -np.inf


class Devices(Plugin):
    """A subclass overrides ``points``; the node with the most is taken, and on it the device with the most."""

    reads = NOTHING_ELSE

    def follow(self, table):
        self.table, self.log, self.known = table, Log(), {}
        self.sorts = {}  # (requests) -> how many such pods each row has

    def placed(self, pod, row, before):
        asks = pod.requests.get(MILLI, 0)
        if before is None:
            before = self.choose(pod, row) if asks else []
        self.table.own("devices", MOST)[row, before] += min(asks, WHOLE)
        self.count(pod, row, 1)
        return before

    def left(self, pod, row, share):
        self.table.own("devices", MOST)[row, share] -= min(pod.requests.get(MILLI, 0), WHOLE)
        self.count(pod, row, -1)

    def count(self, pod, row, more):
        self.log.add(row)
        column = self.sorts.setdefault(pod.requests.get(MILLI, 0), np.zeros(self.table.size, int))
        column[row] += more

    def free(self, rows):
        """The free part of each device of these rows (rows x devices); 0 of devices that a node does not have."""
        has = np.arange(MOST) < self.table.allocatable[MILLI][rows, None] // WHOLE
        return np.where(has, WHOLE - self.table.own("devices", MOST)[rows], 0)

    def fits(self, asks, free):
        """On which devices the pod, or one of its whole devices, may lie; none if there are too few."""
        able = free >= min(asks, WHOLE)
        return able & (able.sum(axis=1, keepdims=True) >= max(1, asks // WHOLE))

    def choose(self, pod, row):
        rows, asks = np.array([row]), pod.requests[MILLI]
        free = self.free(rows)
        points = np.where(self.fits(asks, free), self.points(pod, rows, free), REFUSED)[0]
        return np.argsort(-points, kind="stable")[: max(1, asks // WHOLE)].tolist()

    def points(self, pod, rows, free):
        """Of each device of these rows (rows x devices), the higher the better; may be one column for all devices."""
        return np.zeros((len(rows), 1))

    def best(self, pod):
        """The points of each row's best device, -inf where the pod does not fit."""
        key = tuple(sorted(pod.requests.items()))
        column, position = self.known.get(key, (None, 0))
        rows = self.log.since(position) if column is not None and len(column) == self.table.size else None
        if rows is None:
            column, rows = np.full(self.table.size, REFUSED), np.arange(self.table.size)
        rows = np.asarray(rows, int)
        if len(rows):
            free, asks = self.free(rows), pod.requests.get(MILLI, 0)
            points = np.broadcast_to(self.points(pod, rows, free), free.shape)
            column[rows] = np.where(self.fits(asks, free), points, REFUSED).max(axis=1) if asks else points[:, 0]
        self.known[key] = column, self.log.end
        return column

    def filter(self, state, pod, table):
        if not pod.requests.get(MILLI):
            return ()
        return [Refusal("node(s) had no device with enough room", self.best(pod) == REFUSED)]

    def score(self, state, pod, table):
        return np.maximum(self.best(pod), -1e300)
