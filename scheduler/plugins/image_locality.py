"""ImageLocality: prefers nodes that hold the pod's images already, the more the larger they are and the more nodes do."""

from __future__ import annotations

import numpy as np

from scheduler.framework.plugin import MAX_SCORE, CycleState, Plugin, Reach
from scheduler.framework.reads import NOTHING_ELSE
from scheduler.state.nodes import NodeTable, Scores
from scheduler.state.pods import PodInfo

MEGABYTE = 1024 * 1024
MIN_SIZE = 23 * MEGABYTE  # sums below count as nothing (upstream's thresholds)
MAX_SIZE = 1000 * MEGABYTE  # a container; above counts as this


class ImageLocality(Plugin):
    name = "ImageLocality"
    reads = NOTHING_ELSE

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.NOWHERE

    def apart(self, pod: PodInfo, table: NodeTable) -> bool:
        return not any(image in table.images for image in pod.images)  # else the number of nodes counts

    def score(self, state: CycleState, pod: PodInfo, table: NodeTable) -> Scores | None:
        rows_by_image = [rows for image in pod.images if (rows := table.images.get(image))]
        if not rows_by_image:
            return None  # nothing on any node: 0 for all
        total = np.zeros(table.size, np.int64)
        for rows in rows_by_image:
            part = len(rows) / len(table)
            for row, size in rows.items():
                total[row] += int(size * part)
        most = MAX_SIZE * len(pod.images)
        return np.floor((np.clip(total, MIN_SIZE, most) - MIN_SIZE) * MAX_SCORE / (most - MIN_SIZE))
