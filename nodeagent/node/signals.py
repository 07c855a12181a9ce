"""Reads the eviction signals of a node: how much memory, disk, inodes and processes it has left, of how many.

A lab's node is a control group: its memory is what it declares, less the working set of the group. Its disk is the
machine's, unless the node declares a size of its own: then its pods' storage counts against that.
"""

from __future__ import annotations

import os
from pathlib import Path

from navarch.api import quantity
from nodeagent.config import Config
from nodeagent.linux.cgroups import NodeUsage, Usage, max_pids
from nodeagent.node import thresholds as names
from nodeagent.node.eviction import Observation
from nodeagent.node.registration import available_memory


def node_usage(used: NodeUsage) -> Usage:
    """The node as a whole; the sum of its pods where the node does not count it."""
    return used.node or Usage.total((used.pods or used.containers).values())


def memory(config: Config, used: NodeUsage, capacity: int) -> Observation:
    """Memory that pods can still have; where containers are real, no more than the machine has."""
    available = max(0, capacity - node_usage(used).working_set)
    return Observation(min(available, available_memory()) if config.is_real else available, capacity)


def processes(config: Config, used: NodeUsage) -> Observation:
    """Processes and threads that pods can still start."""
    most = max_pids(config.max_pids)
    return Observation(max(0, most - node_usage(used).pids), most)


def disks(config: Config, pods_disk: int | None) -> dict[str, Observation]:
    """The file systems of pods and of images. ``pods_disk``: bytes that all pods use, for a node that declares how much
    they may. It blocks."""
    out: dict[str, Observation] = {}
    if config.is_real:
        for folder, space, inodes in (
            (config.root_dir, names.NODE_DISK, names.NODE_INODES),
            (config.image_root, names.IMAGE_DISK, names.IMAGE_INODES),
        ):
            out |= _disk(folder, space, inodes)
    if pods_disk is not None:
        capacity = declared_disk(config)
        rest = max(0, capacity - pods_disk)
        real = out.get(names.NODE_DISK)
        out[names.NODE_DISK] = Observation(rest if real is None else min(rest, real.available), capacity)
    return out


def _disk(folder: Path, space: str, inodes: str) -> dict[str, Observation]:
    try:
        stat = os.statvfs(folder)
    except OSError:
        return {}
    out = {space: Observation(stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize)}
    if stat.f_files:  # some file systems have no fixed number
        out[inodes] = Observation(stat.f_favail, stat.f_files)
    return out


def declared_disk(config: Config) -> int:
    """Bytes of local storage that the node declares, 0 if it does not."""
    return quantity.value(config.ephemeral_storage) if config.ephemeral_storage else 0


def shares_disk(config: Config) -> bool:
    """Whether pods and images are on one file system. It blocks."""
    try:
        return os.stat(config.root_dir).st_dev == os.stat(config.image_root).st_dev
    except OSError:
        return True
