"""Which nodes are not needed, since when, and which of them go now. Pure.

A node is not needed if little of it is requested, nothing forbids to move its pods, and the scheduler's filters find other
nodes for all of them at once. It goes once it was not needed for long enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from lab.nodeautoscaler.groups import Options
from lab.nodeautoscaler.room import Room
from navarch.api import quantity, selectors, wellknown
from navarch.api.pods import controller_of, is_terminal
from navarch.api.types import core_v1, policy_v1
from scheduler.state.pods import PodInfo

SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"
SCALE_DOWN_DISABLED = "cluster-autoscaler.kubernetes.io/scale-down-disabled"


class Candidate(NamedTuple):
    """A node of a group, Ready and not about to go, with the pods on it."""

    node: core_v1.Node
    group: str
    pods: tuple[PodInfo, ...]

    @property
    def name(self) -> str:
        return self.node.metadata.name or ""


class Shrinkage(NamedTuple):
    """``unneeded``: by node, the time since when it is not needed. ``empty`` nodes go at once and together, ``drain`` is the
    one that is emptied first, with the pods to evict. ``blocked``: of the others, why."""

    unneeded: dict[str, float]
    empty: tuple[Candidate, ...]
    drain: tuple[Candidate, tuple[PodInfo, ...]] | None
    blocked: dict[str, str]


def is_daemon(pod: core_v1.Pod) -> bool:
    owner = controller_of(pod.metadata)
    return owner is not None and owner.kind == "DaemonSet"


def to_move(pods: Sequence[PodInfo]) -> tuple[PodInfo, ...]:
    """The pods that need another place: none that a DaemonSet or the node itself owns, or that end anyway."""
    return tuple(
        p
        for p in pods
        if not is_daemon(p.pod)
        and not is_terminal(p.pod)
        and not p.terminating
        and wellknown.MIRROR_POD not in (p.pod.metadata.annotations or {})
    )


def utilization(candidate: Candidate, options: Options) -> float:
    """The larger of the requested shares of CPU and memory."""
    shares = []
    table = candidate.node.status.allocatable or {}
    pods = [p for p in candidate.pods if not (options.ignore_daemonsets_utilization and is_daemon(p.pod))]
    for resource, unit in (("cpu", 1000), ("memory", 1)):
        offered = float(quantity.parse(table.get(resource, 0))) * unit
        shares.append(sum(p.requests.get(resource, 0) for p in pods) / offered if offered else 0.0)
    return max(shares)


def blocker(pods: Sequence[PodInfo], budgets: Sequence[policy_v1.PodDisruptionBudget], options: Options) -> str:
    """Why these pods must stay where they are; "" if nothing forbids to move all of them."""
    need: dict[int, int] = {}
    for pod in pods:
        covering = [n for n, budget in enumerate(budgets) if _covers(budget, pod)]
        if why := _pinned(pod, bool(covering), options):
            return f"{pod.key}: {why}"
        for n in covering:
            need[n] = need.get(n, 0) + 1
            status = budgets[n].status
            if need[n] > (status.disruptions_allowed if status else 0):
                return f"{pod.key}: not enough pod disruption budget to move it"
    return ""


def _pinned(pod: PodInfo, has_budget: bool, options: Options) -> str:
    safe = (pod.pod.metadata.annotations or {}).get(SAFE_TO_EVICT)
    if safe == "true":
        return ""
    if controller_of(pod.pod.metadata) is None:
        return "it has no controller"
    if options.skip_nodes_with_system_pods and pod.namespace == "kube-system" and not has_budget:
        return "it is a pod of kube-system without a PodDisruptionBudget"
    if options.skip_nodes_with_local_storage and any(v.empty_dir or v.host_path for v in pod.pod.spec.volumes or ()):
        return "it has local storage"
    return "its annotation says that it is not safe to evict" if safe == "false" else ""


def _covers(budget: policy_v1.PodDisruptionBudget, pod: PodInfo) -> bool:
    if budget.metadata.namespace != pod.namespace or budget.spec.selector is None:
        return False
    return selectors.from_struct(budget.spec.selector).matches(pod.labels)


def shrink(
    candidates: Sequence[Candidate],
    room: Room,
    spare: Mapping[str, int],
    budgets: Sequence[policy_v1.PodDisruptionBudget],
    before: Mapping[str, float],
    now: float,
    options: Options,
) -> Shrinkage:
    """``spare``: of each group, how many nodes it has above its least. ``before``: the times that the last call gave. The
    room holds all nodes that pods may move to; it is used up."""
    unneeded: dict[str, float] = {}
    blocked: dict[str, str] = {}
    moving: dict[str, tuple[PodInfo, ...]] = {}
    shares = {c.name: utilization(c, options) for c in candidates}
    # Those that were chosen before come first: else two half-empty nodes would take turns in being needed.
    for one in sorted(candidates, key=lambda c: (c.name not in before, shares[c.name], c.name)):
        pods = to_move(one.pods)
        why = _needed(one, pods, shares[one.name], budgets, options)
        if why or (why := _no_other_place(one, room)):
            blocked[one.name] = why
            continue
        unneeded[one.name], moving[one.name] = before.get(one.name, now), pods
    room_for = dict(spare)
    empty: list[Candidate] = []
    drain: tuple[Candidate, tuple[PodInfo, ...]] | None = None
    by_name = {c.name: c for c in candidates}
    for name, since in sorted(unneeded.items(), key=lambda item: (bool(moving[item[0]]), item[1], item[0])):
        one = by_name[name]
        if now - since < options.unneeded_time:
            continue
        if room_for.get(one.group, 0) <= 0:
            blocked[name] = "its group has its least size"
        elif not moving[name] and len(empty) < options.max_empty_bulk_delete:
            empty.append(one)
            room_for[one.group] -= 1
        elif moving[name] and not empty and drain is None:
            drain = one, moving[name]
    return Shrinkage(unneeded, tuple(empty), drain, blocked)


def _needed(
    one: Candidate,
    pods: tuple[PodInfo, ...],
    share: float,
    budgets: Sequence[policy_v1.PodDisruptionBudget],
    options: Options,
) -> str:
    if (one.node.metadata.annotations or {}).get(SCALE_DOWN_DISABLED) == "true":
        return "its annotation forbids it"
    if share >= options.utilization_threshold:
        return f"{share:.0%} of it is requested"
    return blocker(pods, budgets, options)


def _no_other_place(one: Candidate, room: Room) -> str:
    """Moves the node's pods in the room, and those that came there from nodes which are not needed either; if one of them
    fits nowhere, all goes back."""
    here = room.remove_node(one.name)
    placed: list[PodInfo] = []
    for pod in to_move(here):
        if not room.place(unbound(pod)):
            for other in placed:
                room.table.remove_pod(other.uid)
            room.table.set_node(one.node)
            for other in here:
                room.table.add_pod(other, one.name)
            return f"{pod.key} would fit on no other node"
        placed.append(pod)
    return ""


def unbound(pod: PodInfo) -> PodInfo:
    """The pod as if it had no node yet."""
    if not pod.pod.spec.node_name:
        return pod
    return PodInfo(msgspec.structs.replace(pod.pod, spec=msgspec.structs.replace(pod.pod.spec, node_name=None)))
