"""Which group grows, and by how many nodes, for the pods that fit nowhere. Pure, but for the chance that it is given.

Of each group that may grow a number of new nodes is worked out that takes as many of the pods as possible; the expander
chooses one of these options. What remains is looked at in the next scan.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from lab.nodeautoscaler.groups import Group
from lab.nodeautoscaler.room import Room
from navarch.api import quantity
from nodeagent.hollow.objects import NodeSpec
from scheduler.state.pods import PodInfo

MAX_SIZE = "max node group size reached"


class Option(NamedTuple):
    group: Group
    nodes: int
    pods: tuple[PodInfo, ...]


class Growth(NamedTuple):
    """``choice``: None if no group helps. ``refused``: of each pod that no group helps, how many groups for what."""

    choice: Option | None
    refused: Mapping[str, tuple[PodInfo, Mapping[str, int]]]


def grow(
    pods: Sequence[PodInfo], room: Room, groups: Mapping[Group, int], expander: str, chance: random.Random
) -> Growth:
    """``pods``: pending ones; those that fit into the room by now are left out. ``groups``: with their present sizes."""
    waiting = [pod for pod in pods if not room.place(pod)]
    options: list[Option] = []
    reasons: dict[str, Counter[str]] = {pod.uid: Counter() for pod in waiting}
    for group, size in groups.items():
        if size >= group.most:
            for counter in reasons.values():
                counter[MAX_SIZE] += 1
            continue
        option, refused = _estimate(waiting, room, group, group.most - size)
        for uid, texts in refused.items():
            reasons[uid].update(texts)
        if option.pods:
            options.append(option)
    helped = {pod.uid for option in options for pod in option.pods}
    refused_by_all = {p.uid: (p, reasons[p.uid]) for p in waiting if p.uid not in helped and reasons[p.uid]}
    return Growth(choose(options, expander, chance) if options else None, refused_by_all)


def _estimate(pods: Sequence[PodInfo], room: Room, group: Group, most: int) -> tuple[Option, dict[str, set[str]]]:
    """First fit, the largest pods first, on new nodes of a group; and why the others fit on none. The room is afterwards as
    it was."""
    template = group.template
    ordered = sorted(pods, key=lambda pod: -_share(pod, template))
    new: list[str] = []
    fitting: list[PodInfo] = []
    refused: dict[str, set[str]] = {}
    hopeless: dict[bytes, set[str]] = {}  # pods that fit on no fresh node, by likeness
    for pod in ordered:
        if pod.likeness in hopeless:
            refused[pod.uid] = hopeless[pod.likeness]
            continue
        if room.place(pod):
            fitting.append(pod)
            continue
        if len(new) == most:
            continue
        name = f"template-of-{group.name}-{len(new) + 1}"
        room.add_template(replace(group.node(0, template.address), name=name))
        fit = room.fit(pod)
        if fit.node:
            room.table.add_pod(pod, fit.node)
            new.append(name)
            fitting.append(pod)
        else:
            refused[pod.uid] = hopeless[pod.likeness] = set(room.refusals(fit, pod, name))
            room.remove_node(name)
    for pod in fitting:
        room.table.remove_pod(pod.uid)
    for name in new:
        room.remove_node(name)
    return Option(group, len(new), tuple(fitting) if new else ()), refused


def choose(options: Sequence[Option], expander: str, chance: random.Random) -> Option:
    """The best options by the expander's rule; among equals chance."""
    rule = _RULES[expander]
    best = min(rule(option) for option in options)
    return chance.choice([option for option in options if rule(option) == best])


def waste(option: Option) -> float:
    """The mean of the shares of CPU and memory of the new nodes that the pods leave free."""
    free = []
    for resource in ("cpu", "memory"):
        offered = option.nodes * capacity(option.group.template, resource)
        requested = sum(pod.requests.get(resource, 0) for pod in option.pods)
        free.append((offered - requested) / offered if offered else 0.0)
    return sum(free) / len(free)


def price(option: Option) -> float:
    """An hour, for each pod that is helped."""
    return option.nodes * option.group.price / len(option.pods)


_RULES: Mapping[str, Callable[[Option], float]] = {
    "random": lambda option: 0.0, "least-waste": waste, "price": price, "most-pods": lambda option: -len(option.pods),
}  # fmt: skip


def capacity(spec: NodeSpec, resource: str) -> float:
    """In the units of a PodInfo's requests: millicores, bytes."""
    return float(quantity.parse(spec.cpu)) * 1000 if resource == "cpu" else float(quantity.parse(spec.memory))


def _share(pod: PodInfo, template: NodeSpec) -> float:
    return sum(pod.requests.get(r, 0) / max(1.0, capacity(template, r)) for r in ("cpu", "memory"))
