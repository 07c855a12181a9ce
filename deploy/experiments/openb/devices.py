"""Account of GPU devices, and what all policies share: a share lies on one device, whole devices are free ones.

Amounts are thousandths of a device. A policy gives points to nodes; the points of a sort of pod are kept, and worked out again
for the nodes on which a pod came or went. On a node, a share goes to the fullest device that has room for it, unless the policy
says otherwise. ``Target`` is the workload that is expected, by which the fragmentation of a node is measured.
"""

import collections
import csv
from pathlib import Path

import numpy as np

from scheduler.framework.plugin import Plugin, Reach, Refusal
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.state.nodes import Log

MILLI, WHOLE, MOST = "openb/gpu-milli", 1000, 8
REFUSED = -np.inf
REASON = "node(s) had no device with enough room"


def sort_of(pod):
    """All that a policy looks at: thousandths of a GPU, millicores."""
    return pod.requests.get(MILLI, 0), pod.requests.get("cpu", 0)


class Target:
    """The most common sorts of pods of a workload, ``popular`` of all: (millicores, thousandths of a GPU) of each pod."""

    def __init__(self, pods, popular=0.95):
        common = sorted(collections.Counter(pods).items(), key=lambda one: (one[1], one[0]), reverse=True)
        counts = np.cumsum([count for _, count in common])
        typical = common[: int(np.searchsorted(counts, popular * counts[-1])) + 1]
        weight = sum(count for _, count in typical)
        sorts = sorted({gpu for (_, gpu), _ in typical if gpu})
        self.milli = np.minimum(sorts, WHOLE)
        self.number = np.maximum(1, np.array(sorts) // WHOLE)
        self.cpus = np.array(sorted({cpu for (cpu, _), _ in typical}))
        self.common = np.zeros((len(self.cpus) + 1, len(sorts)))  # of pods that ask for at most the n-th cpu, by sort
        for (cpu, gpu), count in typical:
            if gpu:
                self.common[np.searchsorted(self.cpus, cpu) + 1 :, sorts.index(gpu)] += count / weight

    def fragments(self, cores, free):
        """Free GPU that the next pod, drawn from the workload, could not use, in the mean: cores (n), free (n x devices)."""
        usable = free[:, None, :] >= self.milli[:, None]
        enough = usable.sum(axis=2) >= self.number
        weights = self.common[np.searchsorted(self.cpus, cores, side="right")] * enough
        return free.sum(axis=1) - np.einsum("ng,ngd,nd->n", weights, usable, free)


def target(path):
    """Of the pods of a file, beside this one if the path is relative."""
    with open(Path(__file__).parent / path) as file:
        return Target([
            (int(r["cpu_milli"]), int(r["num_gpu"]) * int(r["gpu_milli"])) for r in csv.DictReader(file)
        ])  # fmt: skip


class Devices(Plugin):
    """A subclass overrides ``points``: the node with the most is taken. It overrides ``device_points`` where the fullest device
    is not the best one."""

    reads = NOTHING_ELSE
    scores_alone = True

    def __init__(self, workload="openb_pod_list_default.csv"):
        self.target = target(workload)

    def reach(self, pod, table):
        return Reach.ITS_NODE

    # The account

    def follow(self, table):
        self.table, self.log, self.kept = table, Log(), {}
        self.fragmented, self.seen = None, (0, 0)  # of each row, and up to where
        self.sorts = {}  # thousandths that a pod asks for -> how many such pods each row has

    def placed(self, pod, row, before):
        asks = sort_of(pod)[0]
        if before is None:
            before = self.choose(pod, row) if asks else []
        self.count(pod, row, before, 1)
        return before

    def left(self, pod, row, share):
        self.count(pod, row, share, -1)

    def count(self, pod, row, devices, sign):
        asks = sort_of(pod)[0]
        self.log.add(row)
        self.table.own("devices", MOST)[row, devices] += sign * min(asks, WHOLE)
        if asks not in self.sorts or len(self.sorts[asks]) != self.table.size:
            self.sorts[asks] = np.resize(self.sorts.get(asks, np.zeros(1, int)), self.table.size)
        self.sorts[asks][row] += sign

    def free(self, rows):
        """The free part of each device of these rows (rows x devices); 0 of devices that a node does not have."""
        has = np.arange(MOST) < self.table.allocatable[MILLI][rows, None] // WHOLE
        return np.where(has, WHOLE - self.table.own("devices", MOST)[rows], 0)

    def choose(self, pod, row):
        """Numbers of the devices for a pod that was counted on this row just now."""
        (asks, cpu), free = sort_of(pod), self.free(np.array([row]))
        if asks >= WHOLE:
            return np.flatnonzero(free[0] == WHOLE)[: asks // WHOLE].tolist()
        had = self.table.free_of("cpu")[[row]] + cpu
        points = np.where(free >= asks, self.device_points(pod, had, free), REFUSED)
        return [int(points[0].argmax())]

    def gauges(self):
        """Free GPU that the expected workload could not use: in per cent of all GPUs, and of the free ones."""
        table, rows = self.table, None
        if self.fragmented is not None and self.seen[0] == table.version:
            rows = self.log.since(self.seen[1])
        if rows is None:
            self.fragmented, rows = np.zeros(table.size), np.flatnonzero(table.valid)
        rows = np.asarray(rows, int)
        if len(rows):
            self.fragmented[rows] = self.target.fragments(table.free_of("cpu")[rows], self.free(rows))
        self.seen = table.version, self.log.end
        has = float(table.allocatable[MILLI].sum())
        left = has - float(table.own("devices", MOST).sum())
        sum_ = float(self.fragmented.sum())
        return {"fragmented": 100 * sum_ / has, "of_free": 100 * sum_ / left if left else 0.0}

    # Decisions

    def points(self, asks, cpu, rows, free, cores):
        """Of each of these rows, the higher the better. ``free``: of each device, ``cores``: millicores left."""
        return np.zeros(len(rows))

    def device_points(self, pod, cores, free):
        """Of each device of each row, for a share."""
        return -free

    def best(self, pod):
        """The points of each row, -inf where the pod does not fit."""
        asks, cpu = key = sort_of(pod)
        column, position = self.kept.get(key, (None, 0))
        rows = self.log.since(position) if column is not None and len(column) == self.table.size else None
        if rows is None:
            column, rows = np.full(self.table.size, REFUSED), np.flatnonzero(self.table.valid)
        rows = np.asarray(rows, int)
        if len(rows):
            free = self.free(rows)
            if asks:
                fits = (free >= min(asks, WHOLE)).sum(axis=1) >= max(1, asks // WHOLE)
                column[rows[~fits]] = REFUSED
                rows, free = rows[fits], free[fits]
            column[rows] = self.points(asks, cpu, rows, free, self.table.free_of("cpu")[rows])
        self.kept[key] = column, self.log.end
        return column

    def filter(self, state, pod, table):
        return [Refusal(REASON, self.best(pod) == REFUSED)] if sort_of(pod)[0] else ()

    def refuses(self, state, pod, table, row):
        return [REASON] if sort_of(pod)[0] and self.best(pod)[row] == REFUSED else []

    def score(self, state, pod, table):
        return np.maximum(self.best(pod), 0)

    def score_row(self, state, pod, table, row):
        return max(0.0, float(self.best(pod)[row]))
