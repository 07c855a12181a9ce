"""CDI, the Container Device Interface: a device by its name (vendor.com/class=name) is what a file on the node says of it.

Specifications are JSON or YAML files in /etc/cdi and /run/cdi; the latter count more. Of their edits we know variables, device
nodes and mounts. Others (hooks, groups) are refused: a device that is half there is worse than none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nodeagent.runtime.runtime import ContainerConfig, Device, Mount, RuntimeError_

FOLDERS = (Path("/etc/cdi"), Path("/run/cdi"))
_EDITS = ("env", "deviceNodes", "mounts")


def resolved(config: ContainerConfig, folders: Sequence[Path] = FOLDERS) -> ContainerConfig:
    """The configuration with what its CDI devices add. Raises RuntimeError_ (CreateContainerError)."""
    if not config.cdi_devices:
        return config
    specs = list(_specs(folders))
    env, devices, mounts = [*config.env], [*config.devices], [*config.mounts]
    for edits in _edits(specs, config.cdi_devices):
        if unknown := [key for key, value in edits.items() if key not in _EDITS and value]:
            raise _error(f"CDI edits {', '.join(sorted(unknown))} are not supported")
        env += [(name, value) for name, _, value in (text.partition("=") for text in edits.get("env", ()))]
        for node in edits.get("deviceNodes", ()):
            devices.append(Device(node.get("hostPath") or node["path"], node["path"], node.get("permissions") or "rwm"))
        for mount in edits.get("mounts", ()):
            mounts.append(Mount(mount["hostPath"], mount["containerPath"], "ro" in mount.get("options", ())))
    return replace(config, env=env, devices=devices, mounts=mounts)


def _edits(specs: Sequence[dict[str, Any]], names: Iterable[str]) -> list[dict[str, Any]]:
    """The edits of each device, and once those of its specification."""
    out: list[dict[str, Any]] = []
    seen_specs: dict[int, None] = {}
    unresolved = []
    for name in names:
        kind, _, device_name = name.partition("=")
        both = [
            (spec, device)
            for spec in specs
            for device in spec.get("devices", ())
            if spec.get("kind") == kind and device.get("name") == device_name
        ]
        if not both:
            unresolved.append(name)
            continue
        spec, device = both[-1]
        if id(spec) not in seen_specs:
            seen_specs[id(spec)] = None
            out.append(spec.get("containerEdits") or {})
        out.append(device.get("containerEdits") or {})
    if unresolved:
        raise _error(f"CDI device injection failed: unresolvable CDI devices {', '.join(unresolved)}")
    return out


def _specs(folders: Sequence[Path]) -> Iterable[dict[str, Any]]:
    for folder in folders:
        for path in sorted(folder.glob("*")) if folder.is_dir() else ():
            try:
                if path.suffix == ".json":
                    yield json.loads(path.read_bytes())
                elif path.suffix in (".yaml", ".yml"):
                    import yaml

                    yield yaml.safe_load(path.read_bytes()) or {}
            except Exception as error:  # not to be read, not JSON, not YAML
                raise _error(f"CDI specification {path}: {error}") from error


def _error(text: str) -> RuntimeError_:
    return RuntimeError_("CreateContainerError", text)
