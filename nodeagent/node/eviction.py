"""Eviction under pressure: which thresholds are met, what the node's conditions are, and which pod goes first. Pure.

Time is an input, and what must be remembered from one look to the next is :class:`Memory`. The rules and the words are
kubelet's (concept docs, "Node-pressure Eviction").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from navarch.api import affinity, quantity, resources, wellknown
from navarch.api.pods import is_sidecar
from navarch.api.types import core_v1
from nodeagent.linux.diskusage import DiskUse
from nodeagent.node import thresholds as names
from nodeagent.node.thresholds import Threshold
from nodeagent.pods.sources import is_critical

REASON = "Evicted"
MEMORY_PRESSURE, DISK_PRESSURE, PID_PRESSURE = "MemoryPressure", "DiskPressure", "PIDPressure"
CONDITION = {
    names.MEMORY: MEMORY_PRESSURE,
    names.NODE_DISK: DISK_PRESSURE,
    names.NODE_INODES: DISK_PRESSURE,
    names.IMAGE_DISK: DISK_PRESSURE,
    names.IMAGE_INODES: DISK_PRESSURE,
    names.PIDS: PID_PRESSURE,
}
RESOURCE = {
    names.MEMORY: "memory",
    names.NODE_DISK: "ephemeral-storage",
    names.NODE_INODES: "inodes",
    names.IMAGE_DISK: "ephemeral-storage",
    names.IMAGE_INODES: "inodes",
    names.PIDS: "pids",
}
HARD_GRACE = 1.0  # seconds that a pod gets when a hard threshold is met


@dataclass(frozen=True)
class Observation:
    """How much of a signal is left, of how much: bytes, inodes or processes."""

    available: int
    capacity: int


@dataclass(frozen=True)
class ContainerUse:
    """``memory``: working set in bytes, None if it is not known; so with its disk."""

    name: str
    memory: int | None = None
    rootfs: DiskUse | None = None
    logs: DiskUse | None = None


@dataclass(frozen=True)
class PodUse:
    """The usage of a pod. ``volumes``: its emptyDirs on disk; ``memory_volumes``: those in memory."""

    memory: int | None = None
    pids: int = 0
    containers: tuple[ContainerUse, ...] = ()
    volumes: Mapping[str, DiskUse] = field(default_factory=dict)
    memory_volumes: Mapping[str, DiskUse] = field(default_factory=dict)

    @property
    def disk(self) -> DiskUse:
        """Writable layers, logs and volumes."""
        parts = [part for c in self.containers for part in (c.rootfs, c.logs) if part is not None]
        return DiskUse.total([*parts, *self.volumes.values()])


@dataclass(frozen=True)
class Memory:
    """The state that one look leaves to the next. Times are seconds of one clock."""

    met: tuple[Threshold, ...] = ()
    since: Mapping[Threshold, float] = field(default_factory=dict)  # when each was met first
    observed: Mapping[str, float] = field(default_factory=dict)  # when each condition was seen last


@dataclass(frozen=True)
class Look:
    """``conditions``: those that are true now. ``due``: thresholds for which something must be reclaimed, first things
    first."""

    memory: Memory
    conditions: tuple[str, ...]
    due: tuple[Threshold, ...]


def is_met(threshold: Threshold, observation: Observation | None, with_reclaim: bool = False) -> bool:
    """``with_reclaim``: until the minimum that is to be reclaimed is there, too."""
    if observation is None:
        return False
    least = threshold.value.of(observation.capacity)
    if with_reclaim and threshold.reclaim is not None:
        least += threshold.reclaim.of(observation.capacity)
    return observation.available < least


def look(
    before: Memory,
    thresholds: Sequence[Threshold],
    signals: Mapping[str, Observation],
    now: float,
    transition: float,
) -> Look:
    """Judges the signals. ``transition``: seconds for which a condition stays after it was seen last."""
    met = [t for t in thresholds if is_met(t, signals.get(t.signal))]
    met += [t for t in before.met if t not in met and is_met(t, signals.get(t.signal), with_reclaim=True)]
    since = {t: before.since.get(t, now) for t in met}
    observed = dict(before.observed) | {CONDITION[t.signal]: now for t in met}
    observed = {name: last for name, last in observed.items() if last == now or now - last < transition}
    conditions = tuple(name for name in (MEMORY_PRESSURE, DISK_PRESSURE, PID_PRESSURE) if name in observed)
    due = [t for t in met if now - since[t] >= (t.grace or 0.0)]
    due.sort(key=lambda t: t.signal != names.MEMORY)
    # Only what is due is remembered as met: a soft threshold counts with its minimum once pods were evicted for it.
    return Look(Memory(tuple(due), since, observed), conditions, tuple(due))


def grace_of(threshold: Threshold, pod: core_v1.Pod, most: float) -> float:
    """Seconds that a pod gets to end; ``most`` is the node's limit for soft thresholds."""
    if threshold.hard:
        return HARD_GRACE
    own = pod.spec.termination_grace_period_seconds
    return max(HARD_GRACE, most if own is None else min(most, float(own)))


def rank(signal: str, pods: Iterable[core_v1.Pod], uses: Mapping[str, PodUse]) -> list[core_v1.Pod]:
    """The pods in the order in which they are evicted: those above their requests first (and those of which nothing is
    known), then by priority, then by what they use above their requests. ``uses`` is by uid."""
    resource = RESOURCE[signal]

    def key(pod: core_v1.Pod) -> tuple[bool, bool, int, int]:
        use = uses.get(pod.metadata.uid or "")
        priority = pod.spec.priority or 0
        if resource == "pids":
            return use is not None, False, priority, -(use.pids if use else 0)
        amount = _amount(resource, use)
        if amount is None:
            return False, False, priority, 0
        above = amount - resources.pod_requests(pod).get(resource, 0)
        return True, above <= 0, priority, -above

    return sorted(pods, key=key)


def _amount(resource: str, use: PodUse | None) -> int | None:
    if use is None:
        return None
    if resource == "memory":
        return use.memory
    return use.disk.inodes if resource == "inodes" else use.disk.bytes


def candidates(pods: Iterable[core_v1.Pod]) -> list[core_v1.Pod]:
    """The pods that may be evicted at all."""
    return [pod for pod in pods if not is_critical(pod)]


def message(threshold: Threshold, signals: Mapping[str, Observation], pod: core_v1.Pod, use: PodUse | None) -> str:
    """Why the pod was evicted."""
    resource = RESOURCE[threshold.signal]
    text = f"The node was low on resource: {resource}. "
    if (observation := signals.get(threshold.signal)) is not None:
        family: quantity.Format = "DecimalSI" if resource in ("inodes", "pids") else "BinarySI"
        available = quantity.from_value(observation.available, family)
        text += f"Threshold quantity: {threshold.value.text(observation.capacity)}, available: {available}. "
    return text + "".join(_consumption(resource, pod, use))


def _consumption(resource: str, pod: core_v1.Pod, use: PodUse | None) -> Iterable[str]:
    sidecars = [c for c in pod.spec.init_containers or () if is_sidecar(c)]
    for container in (*pod.spec.containers, *sidecars):
        own = next((c for c in (use.containers if use else ()) if c.name == container.name), None)
        amount: int | None = None
        if own is not None and resource == "memory":
            amount = own.memory
        elif own is not None and resource == "ephemeral-storage" and own.rootfs is not None and own.logs is not None:
            amount = own.rootfs.bytes + own.logs.bytes
        request = ((container.resources.requests if container.resources else None) or {}).get(resource, "0")
        if amount is not None and amount > quantity.value(request):
            usage = quantity.from_value(amount, "BinarySI")
            yield (
                f"Container {container.name} was using {usage}, request is {quantity.canonical(request)}, "
                f"has larger consumption of {resource}. "
            )


# --- limits of local storage, which need no pressure ---------------------------------------------------------------


def exceeds_storage(pod: core_v1.Pod, use: PodUse) -> str:
    """Which limit of local storage the pod has exceeded, in words; "" for none."""
    for volume in pod.spec.volumes or ():
        limit = volume.empty_dir.size_limit if volume.empty_dir else None
        used = use.volumes.get(volume.name) or use.memory_volumes.get(volume.name)
        if limit is not None and used is not None and 0 < quantity.value(limit) < used.bytes:
            return f'Usage of EmptyDir volume "{volume.name}" exceeds the limit "{quantity.canonical(limit)}". '
    whole = resources.pod_limits(pod).get("ephemeral-storage", 0)
    if _has_limit(pod) and use.disk.bytes > whole:
        shown = quantity.from_value(whole, "BinarySI")
        return f"Pod ephemeral local storage usage exceeds the total limit of containers {shown}. "
    for container in pod.spec.containers:
        limits = (container.resources.limits if container.resources else None) or {}
        own = next((c for c in use.containers if c.name == container.name), None)
        most = limits.get("ephemeral-storage")
        if most is None or own is None or quantity.value(most) == 0:
            continue
        if DiskUse.total(part for part in (own.logs, own.rootfs) if part is not None).bytes > quantity.value(most):
            shown = quantity.canonical(most)
            return f'Container {container.name} exceeded its local ephemeral storage limit "{shown}". '
    return ""


def _has_limit(pod: core_v1.Pod) -> bool:
    return "ephemeral-storage" in resources.pod_limits(pod)


def limits_storage(pod: core_v1.Pod) -> bool:
    """Whether the pod has any limit of local storage."""
    return _has_limit(pod) or any(v.empty_dir is not None and v.empty_dir.size_limit for v in pod.spec.volumes or ())


# --- admission -------------------------------------------------------------------------------------------------------


def reject(pod: core_v1.Pod, conditions: Sequence[str], qos: str) -> str:
    """Why a node under pressure does not take a new pod, "" if it does."""
    if not conditions or is_critical(pod):
        return ""
    if list(conditions) == [MEMORY_PRESSURE] and (qos != "BestEffort" or _tolerates_memory_pressure(pod)):
        return ""
    return f"The node had condition: [{' '.join(conditions)}]. "


def _tolerates_memory_pressure(pod: core_v1.Pod) -> bool:
    taint = core_v1.Taint(key=wellknown.MEMORY_PRESSURE, effect="NoSchedule")
    return affinity.tolerated(pod.spec.tolerations, taint)
