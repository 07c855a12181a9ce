"""Which plugins run, with which weights and arguments: the default profile, and KubeSchedulerConfiguration's.

The file format is Kubernetes' (kubescheduler.config.k8s.io/v1): ``profiles`` with ``schedulerName``, ``plugins`` (an
extension point, or ``multiPoint`` for all of them, with ``enabled`` and ``disabled``) and ``pluginConfig`` (arguments).
What tunes sampling and parallelism there has no meaning here, since every node is always scored, and is accepted.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from navarch.api.types import core_v1
from scheduler.plugin import Plugin, PluginFactory, Profile, Weighted
from scheduler.plugins.gates import SchedulingGates
from scheduler.plugins.image_locality import ImageLocality
from scheduler.plugins.node_affinity import NodeAffinity
from scheduler.plugins.node_name import NodeName
from scheduler.plugins.node_ports import NodePorts
from scheduler.plugins.node_resources import CPU_AND_MEMORY, NodeResourcesBalancedAllocation, NodeResourcesFit
from scheduler.plugins.node_unschedulable import NodeUnschedulable
from scheduler.plugins.pod_affinity import from_args as pod_affinity
from scheduler.plugins.preemption import DefaultPreemption
from scheduler.plugins.strategies import MarathonConstraints, SwarmBinpack, SwarmSpread
from scheduler.plugins.taint_toleration import TaintToleration
from scheduler.plugins.topology_spread import Default, PodTopologySpread
from scheduler.plugins.unsupported import Unsupported

DEFAULT_SCHEDULER = "default-scheduler"
ENTRY_POINTS = "navarch.scheduler"
Args = Mapping[str, Any]

POINTS = {
    "preEnqueue": "pre_enqueue", "queueSort": "order", "preFilter": "pre_filter", "filter": "filter",
    "postFilter": "post_filter", "preScore": "pre_score", "score": "score", "reserve": "reserve", "permit": "permit",
    "preBind": "pre_bind", "bind": "bind", "postBind": "post_bind",
}  # fmt: skip
# Plugins of Kubernetes that are part of this scheduler itself, or whose refusals are in Unsupported.
BUILT_IN = ("PrioritySort", "DefaultBinder", "VolumeBinding", "VolumeRestrictions", "VolumeZone", "NodeVolumeLimits",
            "DynamicResources", "EBSLimits", "GCEPDLimits", "AzureDiskLimits")  # fmt: skip


def _weights(listed: Sequence[Args] | None) -> Mapping[str, int]:
    return {r["name"]: int(r.get("weight") or 1) for r in listed} if listed else CPU_AND_MEMORY


def _fit(args: Args) -> Plugin:
    strategy = args.get("scoringStrategy") or {}
    ratio = strategy.get("requestedToCapacityRatio") or {}
    shape = [(int(p["utilization"]), int(p["score"])) for p in ratio.get("shape") or ()]
    ignored = [*(args.get("ignoredResources") or ()), *(f"{g}/" for g in args.get("ignoredResourceGroups") or ())]
    return NodeResourcesFit(
        strategy.get("type", "LeastAllocated"),
        _weights(strategy.get("resources")),
        shape or ((0, 0), (100, 10)),
        ignored,
    )


def _spread(args: Args) -> Plugin:
    listed = args.get("defaultConstraints") or ()
    if args.get("defaultingType", "System") == "System":
        if listed:
            raise ValueError("defaultConstraints: when .defaultingType is System, constraints must be empty")
        return PodTopologySpread()
    return PodTopologySpread([Default(int(c["maxSkew"]), c["topologyKey"], c["whenUnsatisfiable"]) for c in listed])


def _affinity(args: Args) -> Plugin:
    added = args.get("addedAffinity")
    import msgspec

    return NodeAffinity(msgspec.convert(added, core_v1.NodeAffinity) if added else None)


def _preemption(args: Args) -> Plugin:
    return DefaultPreemption(
        int(args.get("minCandidateNodesPercentage", 10)), int(args.get("minCandidateNodesAbsolute", 100))
    )


REGISTRY: Mapping[str, PluginFactory] = {
    "SchedulingGates": lambda _: SchedulingGates(),
    "Unsupported": lambda _: Unsupported(),
    "NodeUnschedulable": lambda _: NodeUnschedulable(),
    "NodeName": lambda _: NodeName(),
    "TaintToleration": lambda _: TaintToleration(),
    "NodeAffinity": _affinity,
    "NodePorts": lambda _: NodePorts(),
    "NodeResourcesFit": _fit,
    "PodTopologySpread": _spread,
    "InterPodAffinity": pod_affinity,
    "NodeResourcesBalancedAllocation": lambda a: NodeResourcesBalancedAllocation(_weights(a.get("resources"))),
    "ImageLocality": lambda _: ImageLocality(),
    "DefaultPreemption": _preemption,
}
"""name -> a function from the plugin's arguments to the plugin, in Kubernetes' default order."""

OPTIONAL: Mapping[str, PluginFactory] = {
    "SwarmSpread": lambda _: SwarmSpread(),
    "SwarmBinpack": lambda _: SwarmBinpack(),
    "MarathonConstraints": lambda _: MarathonConstraints(),
}
"""Plugins that are on where a profile enables them."""

DEFAULT_WEIGHTS = {
    "TaintToleration": 3, "NodeAffinity": 2, "PodTopologySpread": 2, "InterPodAffinity": 2, "NodeResourcesFit": 1,
    "NodeResourcesBalancedAllocation": 1, "ImageLocality": 1,
}  # fmt: skip


def default_profile(name: str = DEFAULT_SCHEDULER, user: Sequence[type[Plugin]] = ()) -> Profile:
    """The plugins in Kubernetes' order, with its weights; then the user's."""
    return profile({"schedulerName": name}, user)


def load_plugin(text: str) -> type[Plugin]:
    """The class that ``module:Class`` names, or an installed entry point of the group ``navarch.scheduler``."""
    module, colon, name = text.partition(":")
    if colon:
        found = getattr(importlib.import_module(module), name, None)
    else:
        entry = next(iter(metadata.entry_points(group=ENTRY_POINTS, name=text)), None)
        found = entry.load() if entry else None
    if not (isinstance(found, type) and issubclass(found, Plugin)):
        raise ValueError(
            f'"{text}" is no scheduler plugin: give module:Class with a subclass of scheduler.plugin.Plugin'
        )
    return found


def profiles(config: Args, user: Sequence[type[Plugin]] = ()) -> list[Profile]:
    """The profiles of a KubeSchedulerConfiguration. Raises ValueError with the field's path."""
    listed = config.get("profiles") or [{}]
    out = []
    for n, one in enumerate(listed):
        try:
            out.append(profile(one, user))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"profiles[{n}]: {error}") from error
    names = [p.name for p in out]
    if len(set(names)) < len(names):
        raise ValueError(f"profiles: schedulerName must be unique: {', '.join(names)}")
    return out


def profile(config: Args, user: Sequence[type[Plugin]] = ()) -> Profile:
    """One entry of ``profiles``. Plugins of the user are on unless they are disabled."""
    args = {c["name"]: c.get("args") or {} for c in config.get("pluginConfig") or ()}
    registry: dict[str, PluginFactory] = {**REGISTRY, **OPTIONAL}
    for kind in user:
        registry[kind.name] = lambda a, kind=kind: kind(**a)  # type: ignore[misc]
    sets: Mapping[str, Any] = config.get("plugins") or {}
    for point in sets:
        if point not in POINTS and point != "multiPoint":
            raise ValueError(f'plugins: unknown extension point "{point}"')
    weights: dict[str, float] = {n: DEFAULT_WEIGHTS.get(n, 1) for n in registry}
    everywhere = _apply(sets.get("multiPoint"), [n for n in registry if n not in OPTIONAL], weights, registry)
    at = {point: _apply(sets.get(point), list(everywhere), weights, registry) for point in POINTS}
    used = list(dict.fromkeys([*everywhere, *(n for names in at.values() for n in names)]))
    made = {name: registry[name](args.get(name, {})) for name in used}
    for name in args:
        if name not in made and name not in BUILT_IN:
            raise ValueError(f'pluginConfig: "{name}" is not enabled')
    return Profile(
        config.get("schedulerName") or DEFAULT_SCHEDULER,
        list(made.values()),
        [Weighted(made[n], weights[n]) for n in at["score"] if type(made[n]).score is not Plugin.score],
        {method: [made[n] for n in at[point]] for point, method in POINTS.items()},
    )


def _apply(
    change: Any, names: list[str], weights: dict[str, float], registry: Mapping[str, PluginFactory]
) -> list[str]:
    """A list of names with ``disabled`` taken out and ``enabled`` put in; sets weights."""
    change = change or {}
    off = [p["name"] for p in change.get("disabled") or ()]
    # What this scheduler cannot do is refused even where all plugins are switched off, and gates are part of the API.
    names = [n for n in names if n not in off and ("*" not in off or n in ("Unsupported", "SchedulingGates"))]
    for entry in change.get("enabled") or ():
        name = entry["name"]
        if name in BUILT_IN:
            continue
        if name not in registry:
            raise ValueError(f'plugins: unknown plugin "{name}"')
        if entry.get("weight"):
            weights[name] = float(entry["weight"])
        if name not in names:
            names.append(name)
    return names
