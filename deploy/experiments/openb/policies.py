"""The policies of "Beware of Fragmentation" (USENIX ATC 2023, sections 4 and 6), as the paper describes them."""

import numpy as np
from devices import MILLI, MOST, WHOLE, Devices

CPU, GPU = 128_000.0, float(MOST * WHOLE)  # what amounts are divided by


class Random(Devices):
    """Chance among all nodes with room: run it with ``--ties random``."""

    name = "Random"


class DotProd(Devices):
    """The smallest dot product of what the node has left and what the pod asks for."""

    name = "DotProd"

    def points(self, pod, rows, free):
        cpu, gpu = pod.requests.get("cpu", 0) / CPU, pod.requests.get(MILLI, 0) / GPU
        left = self.table.free_of("cpu")[rows] / CPU * cpu + free.sum(axis=1) / GPU * gpu
        return -left[:, None] - free / 1e9  # of the devices, the fullest


class BestFit(Devices):
    """The least room left, summed over cpu and GPUs."""

    name = "BestFit"

    def points(self, pod, rows, free):
        left = self.table.free_of("cpu")[rows] / CPU + free.sum(axis=1) / GPU
        return -left[:, None] - free / 1e9


class GpuPacking(Devices):
    """First devices that are in use, then free devices of nodes that are, then free nodes; of each, the fullest."""

    name = "GpuPacking"

    def points(self, pod, rows, free):
        whole = (free == WHOLE).sum(axis=1)
        has = self.table.allocatable[MILLI][rows] // WHOLE
        used = (free > 0) & (free < WHOLE)
        tier = np.where(used, 2.0, np.where((whole < has)[:, None], 1.0, 0.0))
        return tier * 100 - whole[:, None] - free / 1e4


class GpuClustering(Devices):
    """Nodes whose pods ask for the same amount of GPU first; of those, the fullest."""

    name = "GpuClustering"

    def points(self, pod, rows, free):
        alike = self.sorts.get(pod.requests.get(MILLI, 0))
        same = np.zeros(len(rows)) if alike is None else np.minimum(alike[rows], 1)
        return same[:, None] * 100 - (free.sum(axis=1) / WHOLE)[:, None] - free / 1e6


class FGD(Devices):
    """Fragmentation gradient descent: the device on which the pod makes the expected fragmentation grow least."""

    name = "FGD"
    typical = ()  # (milli of a device, number of devices, cpus in order, how common pods of at most the n first are)

    def fragments(self, cpu, free):
        """How much free GPU pods of the typical workload could not use: cpu (...), free (..., devices)."""
        total = free.sum(axis=-1)
        out = np.zeros(total.shape)
        for milli, number, cpus, common in self.typical:
            useless = free < milli
            enough = (~useless).sum(axis=-1) >= number
            able = np.where(enough, common[np.searchsorted(cpus, cpu, side="right")], 0.0)
            out += able * np.where(useless, free, 0).sum(axis=-1) + (common[-1] - able) * total
        return out

    def points(self, pod, rows, free):
        cpu = self.table.free_of("cpu")[rows]
        asks, takes = pod.requests.get(MILLI, 0), pod.requests.get("cpu", 0)
        if pod.uid in self.table.pods:  # it was counted just now: only its device is to be chosen
            cpu = cpu + takes
        before = self.fragments(cpu, free)
        if asks < WHOLE:
            after = free[:, None, :] - np.eye(MOST, dtype=int) * asks if asks else free[:, None, :]
            grown = self.fragments((cpu - takes)[:, None], np.maximum(after, 0)) - before[:, None]
        else:
            order = np.cumsum(free == WHOLE, axis=1) * (free == WHOLE)
            after = np.where((order > 0) & (order <= asks // WHOLE), 0, free)
            grown = (self.fragments(cpu - takes, after) - before)[:, None]
        return -np.round(grown, 6)


POLICIES = {kind.name: kind for kind in (Random, DotProd, GpuClustering, GpuPacking, BestFit, FGD)}
