"""File systems in /stats/summary: the node's own, and what containers, volumes and pods take of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from navarch.api.times import format_time
from nodeagent.config import Config
from nodeagent.linux.cgroups import NodeUsage, max_pids
from nodeagent.linux.diskusage import DiskUse
from nodeagent.node.signals import node_usage
from nodeagent.node.storage import PodDisk
from nodeagent.pods.worker import PodWorker

Tree = dict[str, Any]


def file_system(folder: Path, now: float) -> Tree:
    """A file system as a whole; it blocks. Empty if it cannot be read."""
    try:
        stat = os.statvfs(folder)
    except OSError:
        return {}
    return {
        "time": format_time(now),
        "availableBytes": stat.f_bavail * stat.f_frsize, "capacityBytes": stat.f_blocks * stat.f_frsize,
        "usedBytes": (stat.f_blocks - stat.f_bfree) * stat.f_frsize,
        "inodesFree": stat.f_ffree, "inodes": stat.f_files, "inodesUsed": stat.f_files - stat.f_ffree,
    }  # fmt: skip


def _part(whole: Tree, used: DiskUse) -> Tree:
    """The usage of a part of a file system."""
    return whole | {"usedBytes": used.bytes, "inodesUsed": used.inodes}


def add(
    summary: Tree,
    config: Config,
    workers: Sequence[PodWorker],
    disk: Mapping[str, PodDisk],
    used: NodeUsage,
    disks: tuple[Tree, Tree],
) -> None:
    """Puts file systems into a summary of these workers' pods. ``disks``: those of pods and of images."""
    node, pods_disk = summary["node"], disks[0]
    node["fs"], node["runtime"] = pods_disk, {"imageFs": disks[1], "containerFs": pods_disk}
    node["rlimit"] = {
        "time": node["memory"]["time"], "maxpid": max_pids(config.max_pids), "curproc": node_usage(used).pids,
    }  # fmt: skip
    for pod, worker in zip(summary["pods"], workers, strict=True):
        own = disk.get(worker.uid)
        if own is None:
            continue
        for container in pod["containers"]:
            name = container["name"]
            for key, listed in (("rootfs", own.layers), ("logs", own.logs)):
                if name in listed:
                    container[key] = _part(pods_disk, listed[name])
        pod["volume"] = [{"name": n, **_part(pods_disk, use)} for n, use in own.volumes.items()]
        pod["volume"] += [
            {"name": n, "time": node["memory"]["time"], "usedBytes": use.bytes, "inodesUsed": use.inodes}
            for n, use in own.memory_volumes.items()
        ]
        whole = DiskUse.total([*own.layers.values(), *own.logs.values(), *own.volumes.values()])
        pod["ephemeral-storage"] = _part(pods_disk, whole)
