"""Garbage collection of images: which ones go when the disk is too full, or when nobody has used them for long.

The rules are kubelet's: above the high threshold unused images go, the one that was used longest ago first, until usage is
at the low one. Never those in use, nor those younger than the least age; nor, which is our own rule, those that were built
or imported, since no registry would give them back.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from nodeagent.images.store import ImageInUse, ImageStore
from nodeagent.runtime.runtime import CollectedImages, ImagePolicy

STALE_SECONDS = 24 * 3600.0  # after which what a broken pull left is worth nothing


class Candidate(NamedTuple):
    last_used: float  # Unix seconds
    id: str


class Disk(NamedTuple):
    """Bytes of a file system."""

    capacity: int
    available: int


def disk_of(store: ImageStore) -> Disk:
    disk = os.statvfs(store.root)
    return Disk(disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize)


def bytes_to_free(disk: Disk, policy: ImagePolicy) -> int:
    """Bytes by which usage is above the low threshold; 0 if it is below the high one. Pure."""
    if disk.capacity <= 0 or policy.high >= 100:
        return 0
    used_percent = 100 - disk.available * 100 // disk.capacity
    if used_percent < policy.high:
        return 0
    return max(0, disk.capacity * (100 - policy.low) // 100 - disk.available)


def candidates(images: Iterable[Candidate], policy: ImagePolicy, now: float) -> list[Candidate]:
    """Unused images that are old enough to go, the one to go first in front. Pure."""
    return sorted(image for image in images if now - image.last_used >= policy.min_age)


def collect(
    store: ImageStore, policy: ImagePolicy, now: float, measure: Callable[[ImageStore], Disk] = disk_of
) -> CollectedImages:
    """Removes what the policy says. One process of a home at a time: another one that is at it does the work."""
    lock = store.try_lock("garbage")
    if lock is None:
        return CollectedImages()
    try:
        return _collect(store, policy, now, measure)
    finally:
        os.close(lock)


def _collect(store: ImageStore, policy: ImagePolicy, now: float, measure: Callable[[ImageStore], Disk]) -> CollectedImages:
    store.clean(now - STALE_SECONDS)
    used = store.used()
    unused = [Candidate(store.last_used(r.id), r.id) for r in store.records() if r.pulled and r.id not in used]
    in_order = candidates(unused, policy, now)
    removed: list[str] = []
    freed = 0
    if policy.max_age:
        for image in [image for image in in_order if now - image.last_used > policy.max_age]:
            _remove(store, image.id, removed)
    target = bytes_to_free(measure(store), policy)
    for image in in_order:
        if freed >= target:
            break
        if image.id not in removed:
            freed += _remove(store, image.id, removed)
    return CollectedImages(target, freed, tuple(removed))


def _remove(store: ImageStore, image_id: str, removed: list[str]) -> int:
    """Bytes that this freed; 0 if a container has come to stand on the image meanwhile."""
    record = store.record(image_id)
    size = store.disk_of(record) if record is not None else 0
    with contextlib.suppress(ImageInUse):
        if store.remove(image_id):
            removed.append(image_id)
            return size
    return 0
