"""Common questions about a pod: is it ready, finished, going away; which of two should be deleted first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from navarch.api.conditions import get_condition
from navarch.api.times import parse_time
from navarch.api.types import core_v1, meta_v1

TERMINAL_PHASES = ("Succeeded", "Failed")  # a pod that has finished for good
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def is_terminal(pod: core_v1.Pod) -> bool:
    """The pod has finished for good."""
    return pod.status.phase in TERMINAL_PHASES


def is_terminating(pod: core_v1.Pod) -> bool:
    """Deletion has been asked for."""
    return pod.metadata.deletion_timestamp is not None


def is_active(pod: core_v1.Pod) -> bool:
    """Counts as a replica: neither finished nor going away."""
    return not is_terminal(pod) and not is_terminating(pod)


def is_ready(pod: core_v1.Pod) -> bool:
    condition = get_condition(pod.status.conditions, "Ready")
    return condition is not None and condition.status == "True"


def ready_since(pod: core_v1.Pod) -> float | None:
    """Unix time since when the pod is ready, None if it is not."""
    condition = get_condition(pod.status.conditions, "Ready")
    if condition is None or condition.status != "True":
        return None
    return parse_time(condition.last_transition_time) if condition.last_transition_time else 0.0


def is_available(pod: core_v1.Pod, min_ready_seconds: float, now: float) -> bool:
    """Ready for at least ``min_ready_seconds``."""
    since = ready_since(pod)
    return since is not None and (not min_ready_seconds or (since > 0 and since + min_ready_seconds <= now))


def is_bound(pod: core_v1.Pod) -> bool:
    return bool(pod.spec.node_name)


def all_containers(pod: core_v1.Pod | core_v1.PodSpec) -> Iterator[core_v1.Container]:
    """Init containers, then containers (ephemeral ones have a type of their own)."""
    spec = pod.spec if isinstance(pod, core_v1.Pod) else pod
    yield from spec.init_containers or ()
    yield from spec.containers


def is_sidecar(container: core_v1.Container | Mapping[str, Any]) -> bool:
    """An init container, as struct or as JSON, that runs beside the others (restartPolicy Always)."""
    if isinstance(container, Mapping):
        return container.get("restartPolicy") == "Always"
    return container.restart_policy == "Always"


def container(pod: core_v1.Pod, name: str) -> core_v1.Container | None:
    return next((c for c in all_containers(pod) if c.name == name), None)


def container_status(pod: core_v1.Pod, name: str) -> core_v1.ContainerStatus | None:
    """The status of a container of any sort by name."""
    status = pod.status
    for statuses in (status.container_statuses, status.init_container_statuses, status.ephemeral_container_statuses):
        for one in statuses or ():
            if one.name == name:
                return one
    return None


def restarts(pod: core_v1.Pod) -> int:
    """The most restarts among the pod's containers."""
    return max((s.restart_count for s in pod.status.container_statuses or ()), default=0)


def controller_of(meta: meta_v1.ObjectMeta) -> meta_v1.OwnerReference | None:
    """The owner reference that manages the object."""
    return next((r for r in meta.owner_references or () if r.controller), None)


def deletion_cost(pod: core_v1.Pod) -> int:
    """The pod-deletion-cost annotation; what is not a number counts as 0."""
    text = (pod.metadata.annotations or {}).get(DELETION_COST, "0")
    try:
        return int(text)
    except ValueError:
        return 0


def deletion_rank(pod: core_v1.Pod, beside: int, now: float) -> tuple[float, ...]:
    """Sort key for scaling down: pods with smaller keys go first.

    The order: not bound; phase Pending, Unknown, Running; not ready; lower deletion cost; more of the same owner's pods
    on its node (``beside``); ready for a shorter time; more restarts; younger. Times are compared by their logarithm, as
    Kubernetes does, so that small differences do not decide.
    """
    since = ready_since(pod)
    creation = pod.metadata.creation_timestamp
    return (
        1 if is_bound(pod) else 0,
        {"Pending": 0, "Unknown": 1, "Running": 2}.get(pod.status.phase or "Pending", 0),
        0 if since is None else 1,
        deletion_cost(pod),
        -beside,
        _magnitude(now - since) if since else 0,
        -restarts(pod),
        _magnitude(now - parse_time(creation)) if creation else 0,
    )


def _magnitude(seconds: float) -> int:
    return max(0, int(seconds)).bit_length()
