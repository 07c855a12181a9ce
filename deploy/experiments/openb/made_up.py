"""Writes a small made-up trace of the shape of openb's, for whoever does not have that one: 80 nodes, 600 pods.

    python deploy/experiments/openb/made_up.py [FOLDER]

Files that are there already are left alone.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Sequence
from pathlib import Path

NODES, PODS = "openb_node_list_gpu_node.csv", "openb_pod_list_default.csv"
SHAPES = (("P100", 64000, 262144, 2), ("T4", 96000, 393216, 4), ("G2", 128000, 786432, 8))  # model, mCPU, MiB, GPUs
SHARES = (100, 330, 460, 510, 600, 710, 820, 900)  # thousandths of a GPU


def nodes(count: int = 80) -> list[list[object]]:
    rows = [SHAPES[n % len(SHAPES)] for n in range(count)]
    return [[f"node-{n:04d}", cpu, memory, gpus, model] for n, (model, cpu, memory, gpus) in enumerate(rows)]


def pods(count: int = 800, seed: int = 1) -> list[list[object]]:
    """Two in five ask for a share of a GPU, as many for whole ones, one for none."""
    draw, rows = random.Random(seed), []
    for number in range(count):
        gpus, milli = draw.choices(
            [(1, draw.choice(SHARES)), (1, 1000), (2, 1000), (4, 1000), (8, 1000), (0, 0)], [40, 20, 8, 8, 2, 22]
        )[0]
        cpu = draw.choice([2000, 4000, 8000, 12000, 16000]) * max(1, gpus)
        rows.append([f"pod-{number:04d}", cpu, cpu * 4, gpus, milli, number * 60, 1_000_000 + number * 60])
    return rows


def write(folder: Path) -> None:
    heads = (
        (NODES, ["sn", "cpu_milli", "memory_mib", "gpu", "model"], nodes()),
        (PODS, ["name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "creation_time", "deletion_time"], pods()),
    )  # fmt: skip
    for name, head, rows in heads:
        if not (folder / name).exists():
            with (folder / name).open("w", newline="") as file:
                csv.writer(file).writerows([head, *rows])


def main(arguments: Sequence[str]) -> None:
    write(Path(arguments[0]) if arguments else Path(__file__).parent)


if __name__ == "__main__":
    main(sys.argv[1:])
