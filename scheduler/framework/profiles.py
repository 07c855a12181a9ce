"""Which plugins run, with which weights and arguments: the default profile, and KubeSchedulerConfiguration's.

The file format is Kubernetes' (see config.py): ``profiles`` with ``schedulerName``, ``plugins`` (an extension point, or
``multiPoint`` for all of them, with ``enabled`` and ``disabled``) and ``pluginConfig`` (arguments).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from navarch.api.errors import Cause, duplicate, invalid, required
from navarch.world import describe
from scheduler.framework import arguments
from scheduler.framework.arguments import Args, NoArgs, PluginArgs, Strict, decoded, weights
from scheduler.framework.plugin import Plugin, Profile, Weighted, overriding
from scheduler.plugins.gangs import Coscheduling
from scheduler.plugins.gates import SchedulingGates
from scheduler.plugins.image_locality import ImageLocality
from scheduler.plugins.node_affinity import NodeAffinity
from scheduler.plugins.node_name import NodeName
from scheduler.plugins.node_ports import NodePorts
from scheduler.plugins.node_resources import NodeResourcesBalancedAllocation, NodeResourcesFit
from scheduler.plugins.node_unschedulable import NodeUnschedulable
from scheduler.plugins.pod_affinity import InterPodAffinity
from scheduler.plugins.preemption import DefaultPreemption
from scheduler.plugins.strategies import MarathonConstraints, SwarmBinpack, SwarmSpread
from scheduler.plugins.taint_toleration import TaintToleration
from scheduler.plugins.topology_spread import Default, PodTopologySpread
from scheduler.plugins.unsupported import Unsupported
from scheduler.plugins.volume_binding import VolumeBinding
from scheduler.plugins.volume_limits import NodeVolumeLimits
from scheduler.plugins.volume_restrictions import VolumeRestrictions
from scheduler.plugins.volume_zone import VolumeZone

DEFAULT_SCHEDULER = "default-scheduler"
ENTRY_POINTS = "navarch.scheduler"
PRIORITY_SORT = "PrioritySort"

POINTS = {
    "preEnqueue": "pre_enqueue", "queueSort": "order", "preFilter": "pre_filter", "filter": "filter",
    "postFilter": "post_filter", "preScore": "pre_score", "score": "score", "reserve": "reserve", "permit": "permit",
    "preBind": "pre_bind", "bind": "bind", "postBind": "post_bind",
}  # fmt: skip
# Plugins of Kubernetes that are part of this scheduler itself, or whose refusals are in Unsupported.
BUILT_IN = (PRIORITY_SORT, "DefaultBinder", "DynamicResources")


class Recipe(NamedTuple):
    """How a plugin comes from its arguments."""

    args: type[PluginArgs]
    make: Callable[[Any], Plugin]


def _fit(args: arguments.NodeResourcesFitArgs) -> Plugin:
    strategy = args.scoring_strategy
    ratio = strategy.requested_to_capacity_ratio
    shape = [(p.utilization, p.score) for p in ratio.shape] if ratio else ()
    ignored = [*args.ignored_resources, *(f"{group}/" for group in args.ignored_resource_groups)]
    return NodeResourcesFit(strategy.type, weights(strategy.resources), shape or ((0, 0), (100, 10)), ignored)


def _spread(args: arguments.PodTopologySpreadArgs) -> Plugin:
    if args.defaulting_type == "System":
        return PodTopologySpread()
    return PodTopologySpread(
        [
            Default(
                c.max_skew, c.topology_key, c.when_unsatisfiable, c.min_domains or 1,
                (c.node_affinity_policy or "Honor") == "Honor", c.node_taints_policy == "Honor",
            )
            for c in args.default_constraints
        ]
    )  # fmt: skip


REGISTRY: Mapping[str, Recipe] = {
    "SchedulingGates": Recipe(NoArgs, lambda _: SchedulingGates()),
    "Unsupported": Recipe(NoArgs, lambda _: Unsupported()),
    "NodeUnschedulable": Recipe(NoArgs, lambda _: NodeUnschedulable()),
    "NodeName": Recipe(NoArgs, lambda _: NodeName()),
    "TaintToleration": Recipe(NoArgs, lambda _: TaintToleration()),
    "NodeAffinity": Recipe(arguments.NodeAffinityArgs, lambda a: NodeAffinity(a.added_affinity)),
    "NodePorts": Recipe(NoArgs, lambda _: NodePorts()),
    "NodeResourcesFit": Recipe(arguments.NodeResourcesFitArgs, _fit),
    "VolumeRestrictions": Recipe(NoArgs, lambda _: VolumeRestrictions()),
    "NodeVolumeLimits": Recipe(NoArgs, lambda _: NodeVolumeLimits()),
    "VolumeBinding": Recipe(arguments.VolumeBindingArgs, lambda a: VolumeBinding(a.bind_timeout_seconds)),
    "VolumeZone": Recipe(NoArgs, lambda _: VolumeZone()),
    "PodTopologySpread": Recipe(arguments.PodTopologySpreadArgs, _spread),
    "InterPodAffinity": Recipe(
        arguments.InterPodAffinityArgs,
        lambda a: InterPodAffinity(a.hard_pod_affinity_weight, a.ignore_preferred_terms_of_existing_pods),
    ),
    "NodeResourcesBalancedAllocation": Recipe(
        arguments.NodeResourcesBalancedAllocationArgs,
        lambda a: NodeResourcesBalancedAllocation(weights(a.resources)),
    ),
    "ImageLocality": Recipe(NoArgs, lambda _: ImageLocality()),
    "DefaultPreemption": Recipe(
        arguments.DefaultPreemptionArgs,
        lambda a: DefaultPreemption(a.min_candidate_nodes_percentage, a.min_candidate_nodes_absolute),
    ),
}
"""name -> how it is made, in Kubernetes' default order."""

OPTIONAL: Mapping[str, Recipe] = {
    "SwarmSpread": Recipe(NoArgs, lambda _: SwarmSpread()),
    "SwarmBinpack": Recipe(NoArgs, lambda _: SwarmBinpack()),
    "MarathonConstraints": Recipe(NoArgs, lambda _: MarathonConstraints()),
    "Coscheduling": Recipe(
        arguments.CoschedulingArgs,
        lambda a: Coscheduling(a.permit_waiting_time_seconds, a.pod_group_backoff_seconds),
    ),
}
"""Plugins that are on where a profile enables them, or --plugin names them."""

DEFAULT_WEIGHTS = {
    "TaintToleration": 3, "NodeAffinity": 2, "PodTopologySpread": 2, "InterPodAffinity": 2, "NodeResourcesFit": 1,
    "NodeResourcesBalancedAllocation": 1, "ImageLocality": 1,
}  # fmt: skip


class Entry(Strict):
    name: str = ""
    weight: int = 0


class PluginSet(Strict):
    enabled: list[Entry] = []
    disabled: list[Entry] = []


class PluginConfig(Strict):
    name: str = ""
    args: dict[str, Any] = {}


class ProfileConfig(Strict):
    """One entry of ``profiles``."""

    scheduler_name: str = DEFAULT_SCHEDULER
    percentage_of_nodes_to_score: int | None = None
    plugins: dict[str, PluginSet] = {}
    plugin_config: list[PluginConfig] = []


def default_profile(name: str = DEFAULT_SCHEDULER, user: Sequence[type[Plugin]] = ()) -> Profile:
    """The plugins in Kubernetes' order, with its weights; then the user's."""
    return profiles([ProfileConfig(name)], user, [])[0]


def _module_of(file: str) -> Any:
    """The module that a file is. It may import the files beside it, which hide nothing that is installed."""
    path = Path(file).resolve()
    name = path.stem if path.stem not in sys.modules and path.stem not in sys.stdlib_module_names else f"_{path.stem}"
    loaded = sys.modules.get(path.stem) or sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise ImportError(f"cannot load {file}")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # Not by the loader: it takes byte code of an earlier content, of the same length and second, for this one's.
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def load_plugin(text: str) -> type[Plugin]:
    """The class that ``module:Class`` or ``path/to/file.py:Class`` names, an installed entry point of the group
    ``navarch.scheduler``, or a plugin that comes with navarch and is off by default. Raises ValueError, ImportError."""
    module, colon, name = text.partition(":")
    if colon and module.endswith(".py"):
        class_ = getattr(_module_of(module), name, None)
    elif colon:
        class_ = getattr(importlib.import_module(module), name, None)
    elif text in OPTIONAL:
        return type(OPTIONAL[text].make(OPTIONAL[text].args()))
    else:
        entry = next(iter(metadata.entry_points(group=ENTRY_POINTS, name=text)), None)
        class_ = entry.load() if entry else None
    if not (isinstance(class_, type) and issubclass(class_, Plugin)):
        raise ValueError(
            f'"{text}" is no scheduler plugin: give module:Class with a subclass of scheduler.framework.plugin.Plugin'
        )
    if not isinstance(getattr(class_, "name", None), str):
        raise ValueError(f'"{text}" has no name: say name = "{class_.__name__}" in the class, as configurations call it')
    return class_


def profiles(configs: Sequence[ProfileConfig], user: Sequence[type[Plugin]], causes: list[Cause]) -> list[Profile]:
    """The profiles of a KubeSchedulerConfiguration; what is wrong with them is added to ``causes``, with the field's
    path. Plugins of the user are on in all of them unless they are disabled."""
    out: list[Profile] = []
    names: set[str] = set()
    sorters: list[str] = []
    for n, config in enumerate(configs):
        path = f"profiles[{n}]"
        if not config.scheduler_name:
            causes.append(required(f"{path}.schedulerName"))
        elif config.scheduler_name in names:
            causes.append(duplicate(f"{path}.schedulerName", config.scheduler_name))
        names.add(config.scheduler_name)
        profile = _Maker(config, user, path, causes).profile()
        out.append(profile)
        sorters.append(profile.sorter.name if profile.sorter else PRIORITY_SORT)
        if sorters[-1] != sorters[0]:
            text = "has to match for all profiles"
            causes.append(invalid(f"{path}.plugins.queueSort", sorters[-1], text))
    return out


class _Maker:
    """Makes one profile."""

    def __init__(self, config: ProfileConfig, user: Sequence[type[Plugin]], path: str, causes: list[Cause]) -> None:
        self.config, self.path, self.causes = config, path, causes
        self.registry: dict[str, Recipe] = {**REGISTRY, **OPTIONAL}
        self.users = [kind.name for kind in user]
        self.classes = {kind.name: kind for kind in user}
        for kind in user:
            if kind.name not in self.registry:
                self.registry[kind.name] = Recipe(NoArgs, kind)
        self.weights: dict[str, float] = {n: DEFAULT_WEIGHTS.get(n, 1) for n in self.registry}

    def profile(self) -> Profile:
        sets = self.config.plugins
        for point in sets:
            if point not in POINTS and point != "multiPoint":
                text = f'unknown extension point "{point}"'
                self.causes.append(Cause("FieldValueInvalid", text, f"{self.path}.plugins"))
        usual = [n for n in self.registry if n not in OPTIONAL or n in self.users]
        everywhere = self.names("multiPoint", usual)
        at = {point: self.names(point, everywhere) for point in POINTS}
        used = list(dict.fromkeys([*everywhere, *(n for names in at.values() for n in names)]))
        plugins = self.make(used)
        self.check_needed(at, plugins)
        scorers = [n for n in self.scorers(at["score"]) if n in plugins and type(plugins[n]).score is not Plugin.score]
        return Profile(
            self.config.scheduler_name,
            list(plugins.values()),
            [Weighted(plugins[n], self.weights[n]) for n in scorers],
            {method: [plugins[n] for n in at[point] if n in plugins] for point, method in POINTS.items()},
        )

    def scorers(self, names: Sequence[str]) -> Sequence[str]:
        """Those of the names that score: a strategy of the user's alone, with what the profile enables."""
        alone = [n for n in self.users if getattr(self.classes[n], "scores_alone", False) and n in names]
        if not alone:
            return names
        sets = [self.config.plugins.get(point) or PluginSet() for point in ("score", "multiPoint")]
        scoring = {e.name for one in sets for e in one.enabled} | {n for n in self.users if n not in OPTIONAL}
        return [n for n in names if n in alone or n in scoring]

    def names(self, point: str, names: list[str]) -> list[str]:
        """A list of names with ``disabled`` taken out and ``enabled`` put in; sets weights. What is enabled here although
        it is on everywhere comes first, in the order given."""
        change = self.config.plugins.get(point) or PluginSet()
        off = {e.name for e in change.disabled}
        # What this scheduler cannot do is refused even where all plugins are switched off, and gates are part of the API.
        others = [n for n in names if n not in off and ("*" not in off or n in ("Unsupported", "SchedulingGates"))]
        here: list[str] = []
        for n, entry in enumerate(change.enabled):
            path = f"{self.path}.plugins.{point}.enabled[{n}]"
            if entry.name in BUILT_IN:
                continue
            if entry.name not in self.registry:
                self.causes.append(Cause("FieldValueInvalid", f'unknown plugin "{entry.name}"', path))
                continue
            if entry.name in here:
                self.causes.append(Cause("FieldValueDuplicate", f'plugin "{entry.name}" already registered', path))
                continue
            if entry.weight:
                self.weights[entry.name] = float(entry.weight)
            here.append(entry.name)
        again = [n for n in here if n in others]
        return [*again, *(n for n in others if n not in again), *(n for n in here if n not in again)]

    def make(self, used: Sequence[str]) -> dict[str, Plugin]:
        """The plugins with their arguments."""
        args: dict[str, tuple[int, Args]] = {}
        for n, entry in enumerate(self.config.plugin_config):
            path = f"{self.path}.pluginConfig[{n}]"
            if not entry.name:
                self.causes.append(required(f"{path}.name"))
            elif entry.name in args:
                self.causes.append(duplicate(path, entry.name))
            elif entry.name not in self.registry and entry.name not in BUILT_IN:
                self.causes.append(invalid(f"{path}.name", entry.name, "no such plugin"))
            args.setdefault(entry.name, (n, entry.args))
        out: dict[str, Plugin] = {}
        for name in used:
            plugin_class = self.registry[name]
            n, written_args = args.get(name, (0, {}))
            path = f"{self.path}.pluginConfig[{n}].args"
            try:
                if name in self.users and name not in OPTIONAL:
                    out[name] = plugin_class.make(**written_args) if written_args else plugin_class.make()  # type: ignore[call-arg]
                    continue
                decoded_args = decoded(written_args, plugin_class.args, path)
                wrong = decoded_args.check(path)
                self.causes += wrong
                if not wrong:
                    out[name] = plugin_class.make(decoded_args)
            except Exception as error:
                text = str(error) if isinstance(error, ValueError | TypeError) else describe(error)
                where = "" if text.startswith(("strict decoding error", path)) else path
                self.causes.append(Cause("FieldValueInvalid", text, where))
        return out

    def check_needed(self, at: Mapping[str, Sequence[str]], plugins: Mapping[str, Plugin]) -> None:
        """Every scheduler needs an order for its queue, and somebody who binds."""
        for point, default, what in (("queueSort", PRIORITY_SORT, "queue sort"), ("bind", "DefaultBinder", "bind")):
            change = self.config.plugins.get(point) or PluginSet()
            off = {e.name for e in change.disabled} & {"*", default}
            on = any(e.name == default for e in change.enabled)
            own = overriding([plugins[n] for n in at[point] if n in plugins], POINTS[point])
            if off and not on and not own:
                self.causes.append(required(f"{self.path}.plugins.{point}", f"at least one {what} plugin is needed"))
