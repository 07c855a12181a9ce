"""The policies of "Beware of Fragmentation" (USENIX ATC 2023, sections 4 and 6).

As in the paper's experiment, points are whole numbers from 0 to 100, so that many nodes are equal; then the first in an order
is taken that the seed draws (``tie-break: shuffled``). With chance among equals FGD allocates 5 points less: nodes in use and
free nodes are often equal, and only an order fills the former first.
"""

import collections

import numpy as np
from devices import MILLI, MOST, WHOLE, Devices, sort_of

from navarch.world import chance

CPU, GPU = 128_000.0, float(MOST * WHOLE)  # the largest node: what amounts are divided by


class Random(Devices):
    """Chance among all nodes with room (``tie-break: random``) and among the devices of a node."""

    name = "Random"

    def device_points(self, pod, cores, free):
        return np.array([[chance(pod.key + str(n)).random() for n in range(MOST)]])


class DotProd(Devices):
    """The smallest dot product of what the node has left and what the pod asks for."""

    name = "DotProd"

    def points(self, asks, cpu, rows, free, cores):
        product = cores / CPU * (cpu / CPU) + free.sum(axis=1) / GPU * (asks / GPU)
        return np.floor(100 * (1 - product / 2))


class BestFit(Devices):
    """The least room left once the pod is there, half of it cpu and half GPUs."""

    name = "BestFit"

    def points(self, asks, cpu, rows, free, cores):
        left = (cores - cpu) / CPU + (free.sum(axis=1) - asks) / GPU
        return np.floor((1 - left / 2) * 100)


class GpuPacking(Devices):
    """First devices that are in use (the fullest first), then free devices of nodes in use, then free nodes (the smallest)."""

    name = "GpuPacking"

    def points(self, asks, cpu, rows, free, cores):
        if not asks:
            return np.zeros(len(rows))
        has = self.table.allocatable[MILLI][rows] // WHOLE
        idle = (free == WHOLE).sum(axis=1)
        tightest = np.where(free >= min(asks, WHOLE), free, WHOLE).min(axis=1)
        in_use = np.where(tightest < WHOLE, 100 - tightest // 10 // 10, 50 - max(1, asks // WHOLE))
        return np.where(idle == has, 33 - idle, in_use)


class GpuClustering(Devices):
    """Nodes whose pods are all of the pod's sort first (a share, one GPU, two, ...), then nodes that have such pods beside
    others, then free nodes, then the rest; of each, the one with the fewest GPUs free."""

    name = "GpuClustering"

    def points(self, asks, cpu, rows, free, cores):
        if not asks:
            return np.zeros(len(rows))
        kinds = collections.defaultdict(int)
        for milli, counts in self.sorts.items():
            if milli:
                kinds[max(milli, WHOLE - 1)] += counts[rows] > 0
        of_this = np.minimum(kinds.pop(max(asks, WHOLE - 1), np.zeros(len(rows), int)), 1)
        others = sum(np.minimum(found, 1) for found in kinds.values()) + np.zeros(len(rows), int)
        tier = np.where(of_this > 0, np.where(others == 0, 75, 50), np.where(others == 0, 25, 0))
        return tier + (25 * (GPU - free.sum(axis=1))) // GPU


class FGD(Devices):
    """Fragmentation gradient descent: where the pod makes the expected fragmentation grow least."""

    name = "FGD"
    def falls(self, before, cores, free):
        """Points for how much less fragmentation there would be."""
        return np.floor(100 / (1 + np.exp((self.target.fragments(cores, free) - before) / 1000)))

    def shares(self, asks, cpu, cores, free):
        """Points of each device of each row."""
        after = (free[:, None, :] - np.eye(MOST, dtype=int) * asks).reshape(-1, MOST)
        before = np.repeat(self.target.fragments(cores, free), MOST)
        return self.falls(before, np.repeat(cores - cpu, MOST), np.maximum(after, 0)).reshape(free.shape)

    def points(self, asks, cpu, rows, free, cores):
        if 0 < asks < WHOLE:
            return np.where(free >= asks, self.shares(asks, cpu, cores, free), -1).max(axis=1)
        idle = free == WHOLE
        after = np.where(idle & (np.cumsum(idle, axis=1) <= asks // WHOLE), 0, free)
        return self.falls(self.target.fragments(cores, free), cores - cpu, after)

    def device_points(self, pod, cores, free):
        return self.shares(*sort_of(pod), cores, free)


POLICIES = {kind.name: kind for kind in (Random, DotProd, GpuClustering, GpuPacking, BestFit, FGD)}
