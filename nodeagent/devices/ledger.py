"""Which container has which devices: a ledger that survives the agent, and the choice among free devices. Pure, but for the
file that it is kept in.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from navarch.api import resources
from navarch.api.pods import is_sidecar
from navarch.api.types import core_v1
from nodeagent.runtime.runtime import Device, Mount


class Gift(msgspec.Struct, frozen=True):
    """All that a plugin wants a container to have along with its devices."""

    env: dict[str, str] = {}
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    annotations: dict[str, str] = {}
    cdi: tuple[str, ...] = ()  # names of CDI devices


class Share(msgspec.Struct, frozen=True):
    """The devices of one resource that one container has."""

    ids: tuple[str, ...]
    gift: Gift = Gift()


class DeviceError(Exception):
    """The node cannot give a pod its devices; the message is kubelet's."""


class Ledger(msgspec.Struct):
    """``shares``: pod uid -> container -> resource -> share. ``resources``: those that plugins have registered."""

    shares: dict[str, dict[str, dict[str, Share]]] = {}
    resources: list[str] = []

    def of(self, uid: str, container: str) -> dict[str, Share]:
        return self.shares.get(uid, {}).get(container, {})

    def put(self, uid: str, container: str, resource: str, share: Share) -> None:
        self.shares.setdefault(uid, {}).setdefault(container, {})[resource] = share

    def drop(self, uid: str, container: str, resource: str) -> None:
        """Takes one share back."""
        self.of(uid, container).pop(resource, None)

    def used(self, resource: str) -> dict[str, None]:
        """Ids of the devices of a resource that some container has."""
        containers = (container for pod in self.shares.values() for container in pod.values())
        return {number: None for shares in containers if resource in shares for number in shares[resource].ids}

    def release(self, uid: str) -> bool:
        """Takes back all that a pod has. False if it has nothing."""
        return self.shares.pop(uid, None) is not None

    def reusable(self, pod: core_v1.Pod, container: str, resource: str) -> list[str]:
        """Devices of the pod's earlier init containers, which have ended when this container starts. Those of sidecars, and
        those that another container of the same stage has, are not free."""
        uid, init = pod.metadata.uid or "", pod.spec.init_containers or ()
        out: dict[str, None] = {}
        names = [c.name for c in init]
        is_init = container in names
        for one in init:
            if one.name == container:
                break
            ids = self.of(uid, one.name).get(resource, Share(())).ids
            if is_sidecar(one):
                for number in ids:
                    out.pop(number, None)
            else:
                out.update(dict.fromkeys(ids))
        if not is_init:
            for main in pod.spec.containers:
                for number in self.of(uid, main.name).get(resource, Share(())).ids:
                    out.pop(number, None)
        return list(out)


def requests(container: core_v1.Container) -> Iterator[tuple[str, int]]:
    """(extended resource, amount) of a container, in a fixed order."""
    limits = (container.resources.limits if container.resources else None) or {}
    for name in sorted(limits):
        if resources.is_extended(name) and (count := resources.amount(name, limits[name])) > 0:
            yield name, count


def choose(
    resource: str, count: int, healthy: Iterable[str], ledger: Ledger, reusable: Iterable[str]
) -> tuple[list[str], list[str]]:
    """(devices to have in any case, free ones to choose the others from). Raises DeviceError."""
    sound = dict.fromkeys(healthy)
    must = [number for number in reusable if number in sound][:count]
    used = ledger.used(resource)
    free = [number for number in sound if number not in used]
    if len(must) + len(free) < count:
        raise DeviceError(
            f"requested number of devices unavailable for {resource}. Requested: {count - len(must)}, Available: {len(free)}"
        )
    return must, free


def picked(count: int, must: list[str], free: list[str], preferred: Iterable[str]) -> tuple[str, ...]:
    """``count`` devices: those that must be, those that the plugin prefers as far as they are free, then any."""
    offered = dict.fromkeys(free)
    wishes = [number for number in preferred if number in offered]
    return tuple(dict.fromkeys([*must, *wishes, *free]))[:count]


def merged(gifts: Mapping[str, Gift]) -> Gift:
    """The gifts of several resources as one. A mount or device at a place that has one already is left out."""
    env: dict[str, str] = {}
    annotations: dict[str, str] = {}
    mounts: dict[str, Mount] = {}
    devices: dict[str, Device] = {}
    cdi: dict[str, None] = {}
    for _, gift in sorted(gifts.items()):
        env |= gift.env
        annotations |= gift.annotations
        cdi |= dict.fromkeys(gift.cdi)
        for mount in gift.mounts:
            mounts.setdefault(mount.container_path, mount)
        for device in gift.devices:
            devices.setdefault(device.container_path, device)
    return Gift(env, tuple(mounts.values()), tuple(devices.values()), annotations, tuple(cdi))


def load(path: Path) -> Ledger:
    """The ledger in a file, an empty one if there is none. Raises OSError, msgspec.DecodeError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Ledger)
    except FileNotFoundError:
        return Ledger()


def save(path: Path, data: bytes) -> None:
    """Replaces the file in one step; what was there before survives a failure. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".new")
    with open(scratch, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
