"""The arguments of the plugins, as pluginConfig gives them: decoded strictly, checked as Kubernetes checks them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from navarch.api.errors import Cause, duplicate, invalid, not_supported, required
from navarch.api.types import core_v1

T = TypeVar("T")
Args = Mapping[str, Any]
STRATEGIES = ("LeastAllocated", "MostAllocated", "RequestedToCapacityRatio")


class Strict(msgspec.Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """Refuses fields that it does not know."""


def decoded(tree: Any, kind: type[T], path: str) -> T:
    """``tree`` as a struct; nulls are absent. Raises ValueError with the path of what is wrong."""
    try:
        return msgspec.convert(_without_nulls(tree), kind)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `$")
        where = f"{path}{where.rstrip('`')}".lstrip(".")
        unknown = re.match(r"Object contains unknown field `(.*)`", text)
        if unknown:
            raise ValueError(
                f'strict decoding error: unknown field "{f"{where}." if where else ""}{unknown[1]}"'
            ) from error
        raise ValueError(f"{where}: {text}" if where else text) from error


def _without_nulls(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {k: _without_nulls(v) for k, v in tree.items() if v is not None}
    return [_without_nulls(v) for v in tree] if isinstance(tree, list) else tree


class PluginArgs(Strict):
    """The arguments that every plugin may have."""

    api_version: str = ""
    kind: str = ""

    def check(self, path: str) -> list[Cause]:
        return []


class NoArgs(PluginArgs):
    pass


class Resource(Strict):
    name: str = ""
    weight: int = 1


def weights(resources: Sequence[Resource]) -> dict[str, int]:
    return {r.name: r.weight or 1 for r in resources} or {"cpu": 1, "memory": 1}


class Point(Strict):
    utilization: int = 0
    score: int = 0


class Ratio(Strict):
    shape: list[Point] = []


class ScoringStrategy(Strict):
    type: str = "LeastAllocated"
    resources: list[Resource] = []
    requested_to_capacity_ratio: Ratio | None = None


def _check_shape(shape: Sequence[Point], path: str) -> list[Cause]:
    out: list[Cause] = []
    if not shape:
        out.append(required(path, "at least one point must be specified"))
    for n, point in enumerate(shape):
        if not 0 <= point.utilization <= 100:
            out.append(invalid(f"{path}[{n}].utilization", point.utilization, "not in valid range [0-100]"))
        elif n and point.utilization <= shape[n - 1].utilization:
            text = "utilization values must be sorted in increasing order"
            out.append(invalid(f"{path}[{n}].utilization", point.utilization, text))
        if not 0 <= point.score <= 10:
            out.append(invalid(f"{path}[{n}].score", point.score, "not in valid range [0-10]"))
    return out


class NodeResourcesFitArgs(PluginArgs):
    ignored_resources: list[str] = []
    ignored_resource_groups: list[str] = []
    scoring_strategy: ScoringStrategy = msgspec.field(default_factory=ScoringStrategy)

    def check(self, path: str) -> list[Cause]:
        out: list[Cause] = []
        for n, group in enumerate(self.ignored_resource_groups):
            if "/" in group:
                where = f"{path}.ignoredResourceGroups[{n}]"
                out.append(invalid(where, group, "resource group name can't contain '/'"))
        strategy, where = self.scoring_strategy, f"{path}.scoringStrategy"
        if strategy.type not in STRATEGIES:
            out.append(not_supported(f"{where}.type", strategy.type, STRATEGIES))
        for n, resource in enumerate(strategy.resources):
            if not 1 <= resource.weight <= 100:
                text = f"resource weight of {resource.name} not in valid range [1-100]"
                out.append(invalid(f"{where}.resources[{n}].weight", resource.weight, text))
        if strategy.type == "RequestedToCapacityRatio":
            ratio = strategy.requested_to_capacity_ratio or Ratio()
            out += _check_shape(ratio.shape, f"{where}.requestedToCapacityRatio.shape")
        return out


class NodeResourcesBalancedAllocationArgs(PluginArgs):
    resources: list[Resource] = []

    def check(self, path: str) -> list[Cause]:
        out: list[Cause] = []
        names = set()
        for n, resource in enumerate(self.resources):
            where = f"{path}.resources[{n}]"
            if resource.name in names:
                out.append(duplicate(f"{where}.name", resource.name))
            names.add(resource.name)
            if resource.weight != 1:
                out.append(invalid(f"{where}.weight", resource.weight, "must be 1"))
        return out


class DefaultConstraint(Strict):
    max_skew: int = 0
    topology_key: str = ""
    when_unsatisfiable: str = ""
    label_selector: dict[str, Any] | None = None
    min_domains: int | None = None
    node_affinity_policy: str | None = None
    node_taints_policy: str | None = None


class PodTopologySpreadArgs(PluginArgs):
    default_constraints: list[DefaultConstraint] = []
    defaulting_type: str = "System"

    def check(self, path: str) -> list[Cause]:
        out: list[Cause] = []
        if self.defaulting_type not in ("System", "List"):
            out.append(not_supported(f"{path}.defaultingType", self.defaulting_type, ["System", "List"]))
        elif self.defaulting_type == "System" and self.default_constraints:
            shown = [msgspec.to_builtins(c) for c in self.default_constraints]
            text = "when .defaultingType is System, constraints must be empty"
            out.append(invalid(f"{path}.defaultingType", shown, text))
        modes, pairs = ("DoNotSchedule", "ScheduleAnyway"), set()
        for n, c in enumerate(self.default_constraints):
            where = f"{path}.defaultConstraints[{n}]"
            if c.max_skew <= 0:
                out.append(invalid(f"{where}.maxSkew", c.max_skew, "not in valid range (0, inf)"))
            if not c.topology_key:
                out.append(required(f"{where}.topologyKey", "can not be empty"))
            if not c.when_unsatisfiable:
                out.append(required(f"{where}.whenUnsatisfiable", "can not be empty"))
            elif c.when_unsatisfiable not in modes:
                out.append(not_supported(f"{where}.whenUnsatisfiable", c.when_unsatisfiable, modes))
            if c.label_selector is not None:
                text = "constraint must not define a selector, as they deduced for each pod"
                out.append(Cause("FieldValueForbidden", f"Forbidden: {text}", f"{where}.labelSelector"))
            pair = c.topology_key, c.when_unsatisfiable
            if pair in pairs:
                out.append(duplicate(f"{where}.{{topologyKey, whenUnsatisfiable}}", f"{{{pair[0]}, {pair[1]}}}"))
            pairs.add(pair)
        return out


class InterPodAffinityArgs(PluginArgs):
    hard_pod_affinity_weight: int = 1
    ignore_preferred_terms_of_existing_pods: bool = False

    def check(self, path: str) -> list[Cause]:
        weight = self.hard_pod_affinity_weight
        if 0 <= weight <= 100:
            return []
        return [invalid(f"{path}.hardPodAffinityWeight", weight, "not in valid range [0, 100]")]


class NodeAffinityArgs(PluginArgs):
    added_affinity: core_v1.NodeAffinity | None = None


class DefaultPreemptionArgs(PluginArgs):
    min_candidate_nodes_percentage: int = 10
    min_candidate_nodes_absolute: int = 100

    def check(self, path: str) -> list[Cause]:
        percentage, absolute = self.min_candidate_nodes_percentage, self.min_candidate_nodes_absolute
        out: list[Cause] = []
        if not 0 <= percentage <= 100:
            out.append(invalid(f"{path}.minCandidateNodesPercentage", percentage, "not in valid range [0, 100]"))
        if absolute < 0:
            out.append(invalid(f"{path}.minCandidateNodesAbsolute", absolute, "not in valid range [0, inf)"))
        if percentage == absolute == 0:
            text = "cannot be zero at the same time as minCandidateNodesAbsolute"
            out.append(invalid(f"{path}.minCandidateNodesPercentage", percentage, text))
        return out


class VolumeBindingArgs(PluginArgs):
    bind_timeout_seconds: int = 600
    shape: list[Point] | None = None

    def check(self, path: str) -> list[Cause]:
        out: list[Cause] = []
        if self.bind_timeout_seconds < 0:
            text = "invalid BindTimeoutSeconds, should not be a negative value"
            out.append(invalid(f"{path}.bindTimeoutSeconds", self.bind_timeout_seconds, text))
        if self.shape is not None:
            out.append(invalid(f"{path}.shape", None, "scoring by capacity (an alpha feature) is not supported"))
        return out


class CoschedulingArgs(PluginArgs):
    permit_waiting_time_seconds: int = 60
    pod_group_backoff_seconds: int = 0

    def check(self, path: str) -> list[Cause]:
        out = []
        for name, value in (
            ("permitWaitingTimeSeconds", self.permit_waiting_time_seconds - 1),
            ("podGroupBackoffSeconds", self.pod_group_backoff_seconds),
        ):
            if value < 0:
                out.append(invalid(f"{path}.{name}", value, "must be greater than 0"))
        return out
