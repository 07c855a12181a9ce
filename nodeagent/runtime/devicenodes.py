"""Device nodes that a container gets beside the standard ones: nodes and rules of its OCI config."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import Any

from nodeagent.runtime import security
from nodeagent.runtime.runtime import Device, RuntimeError_


def nodes(devices: Iterable[Device]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(linux.devices, linux.resources.devices) for these devices. Raises RuntimeError_ (CreateContainerError)."""
    places: dict[str, dict[str, Any]] = {}
    rules: list[dict[str, Any]] = []
    for device in devices:
        for path, info in _each(device):
            node = security.device_node(path, info)
            if path not in places:
                places[path] = node
                rule = {key: node[key] for key in ("type", "major", "minor")}
                rules.append({"allow": True, "access": device.permissions or "rwm", **rule})
    return list(places.values()), rules


def _each(device: Device) -> Iterator[tuple[str, os.stat_result]]:
    """(path in the container, numbers) of a device, or of all devices in a folder."""
    try:
        info = os.stat(device.host_path)
        if not stat.S_ISDIR(info.st_mode):
            if not _is_device(info):
                raise RuntimeError_("CreateContainerError", f'"{device.host_path}" is not a device node')
            yield device.container_path, info
            return
        inside = [(entry.name, os.stat(entry.path)) for entry in sorted(os.scandir(device.host_path), key=lambda e: e.name)]
    except OSError as error:
        text = f'error gathering device information while adding custom device "{device.host_path}": {error.strerror}'
        raise RuntimeError_("CreateContainerError", text) from error
    for name, one in inside:
        if _is_device(one):
            yield f"{device.container_path}/{name}", one


def _is_device(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)
