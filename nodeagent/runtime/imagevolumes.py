"""Volumes that are images: their layers, mounted read-only for a pod, on the node's /run.

A mount stands from a pod's first container that needs it to the pod's last sandbox. While it stands the image counts as
used. A power loss takes mounts and folders alike; what a crash leaves is removed at the next start.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nodeagent.images.store import ImageStore
from nodeagent.linux import trees
from nodeagent.runtime import rootfs
from nodeagent.runtime.runtime import RuntimeError_


class ImageVolumes:
    """``folder``: where they are mounted; ``node``: the directory that the store knows the node by. All of it blocks."""

    def __init__(self, folder: Path, images: ImageStore, node: Path) -> None:
        self._folder, self._images, self._node = folder, images, node

    def mount(self, uid: str, name: str, image_id: str) -> Path:
        """The folder with the image's files. Raises RuntimeError_."""
        place = self._folder / uid / name
        if os.path.ismount(place):
            return place
        record = self._images.record(image_id)
        if record is None:
            raise RuntimeError_("CreateContainerError", f'image "{image_id}" not found')
        empty = self._folder / ".empty"
        try:
            self._images.use(self._node, _key(uid, name), image_id)
            for path in (place, empty):
                path.mkdir(parents=True, exist_ok=True)
            rootfs.mount_read_only(place, [self._images.layer(layer) for layer in record.layers], empty)
        except (OSError, KeyError) as error:
            self.remove(uid)
            raise RuntimeError_("CreateContainerError", f"failed to mount image volume {name}: {error}") from error
        return place

    def remove(self, uid: str) -> None:
        """Removes those of a pod, if it has any. Raises OSError."""
        folder = self._folder / uid
        if not folder.is_dir():
            return
        for place in sorted(folder.iterdir()):
            rootfs.unmount(place)
            self._images.release(self._node, _key(uid, place.name))
        trees.remove(folder)

    def sweep(self, uids: Iterable[str]) -> frozenset[str]:
        """Removes those of all pods but these; names under which the store knows the rest."""
        remaining = set(uids)
        if not self._folder.is_dir():
            return frozenset()
        pods = [path for path in sorted(self._folder.iterdir()) if path.name != ".empty"]
        for path in pods:
            if path.name not in remaining:
                self.remove(path.name)
        return frozenset(_key(pod.name, v.name) for pod in pods if pod.name in remaining for v in pod.iterdir())


def _key(uid: str, name: str) -> str:
    return f"volume-{uid}-{name}"
