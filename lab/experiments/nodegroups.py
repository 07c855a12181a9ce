"""``cluster.autoscaler`` of a file: its mistakes, and the groups and options that the node autoscaler takes."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from lab.experiments import nodefiles
from lab.experiments.model import MAX_COUNT, Autoscaler, ClusterPart, NodeGroup
from lab.experiments.schema import Problem, one_of, seconds_of, time_of
from lab.nodeautoscaler.groups import EXPANDERS, Group, Options
from navarch.api import quantity
from navarch.api.types import core_v1
from nodeagent.hollow.objects import NodeSpec
from nodeagent.runtime.spread import spread

PATH = "cluster.autoscaler"
_DURATIONS = {
    "scan_interval": "scan_interval", "scale_down_unneeded_time": "unneeded_time",
    "scale_down_delay_after_add": "delay_after_add", "scale_down_delay_after_delete": "delay_after_delete",
    "scale_down_delay_after_failure": "delay_after_failure", "max_pod_eviction_time": "max_pod_eviction_time",
    "max_graceful_termination": "max_graceful_termination",
}  # fmt: skip
_PLAIN = {
    "expander": "expander", "scale_down_enabled": "scale_down", "scale_down_utilization_threshold": "utilization_threshold",
    "max_empty_bulk_delete": "max_empty_bulk_delete", "ignore_daemonsets_utilization": "ignore_daemonsets_utilization",
    "skip_nodes_with_local_storage": "skip_nodes_with_local_storage",
    "skip_nodes_with_system_pods": "skip_nodes_with_system_pods",
}  # fmt: skip
assert {*_DURATIONS, *_PLAIN, "groups"} == set(Autoscaler.__struct_fields__), "no field may be passed over"


def check(cluster: ClusterPart, problems: list[Problem]) -> None:
    """Adds every mistake of the part."""
    part = cluster.autoscaler
    if part is None:
        return
    if not part.groups:
        problems.append(Problem(f"{PATH}.groups", "is required: at least one group"))
    one_of(f"{PATH}.expander", part.expander, EXPANDERS, problems)
    for name in _DURATIONS:
        before = len(problems)
        path = f"{PATH}.{name.replace('_', '-')}"
        seconds = seconds_of(getattr(part, name), path, problems)
        if name == "scan_interval" and seconds <= 0 and len(problems) == before:
            problems.append(Problem(path, "must be above 0"))
    if not 0 <= part.scale_down_utilization_threshold <= 1:
        problems.append(Problem(f"{PATH}.scale-down-utilization-threshold", "must be between 0 and 1"))
    if part.max_empty_bulk_delete < 1:
        problems.append(Problem(f"{PATH}.max-empty-bulk-delete", "must be at least 1"))
    names = [group.name for group in part.groups]
    prefixes = {nodes.prefix for nodes in cluster.nodes}
    for n, group in enumerate(part.groups):
        path = f"{PATH}.groups[{n}]"
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", group.name):
            problems.append(Problem(f"{path}.name", "must be a name: lower-case letters, digits, hyphens"))
        elif group.name in names[:n] or f"{group.name}-" in prefixes:
            problems.append(Problem(f"{path}.name", f"nodes of another group are called {group.name}-1, too"))
        _check(group, path, problems)
        if part.expander == "price" and group.price <= 0:
            problems.append(Problem(f"{path}.price", "is required, above 0, by the expander price"))


def _check(group: NodeGroup, path: str, problems: list[Problem]) -> None:
    if group.min < 0:
        problems.append(Problem(f"{path}.min", "must be at least 0"))
    if group.max > MAX_COUNT:
        problems.append(Problem(f"{path}.max", f"must be at most {MAX_COUNT}"))
    if group.max < max(1, group.min):
        problems.append(Problem(f"{path}.max", f"must be at least {max(1, group.min)}"))
    if group.pods < 1:
        problems.append(Problem(f"{path}.pods", "must be at least 1"))
    if group.price < 0:
        problems.append(Problem(f"{path}.price", "must be at least 0"))
    time_of(group.boot, f"{path}.boot", problems)
    amounts = {"cpu": group.cpu, "memory": group.memory} | {f"resources.{k}": v for k, v in group.resources.items()}
    for name, value in amounts.items():
        try:
            if quantity.parse(str(value)) < 0:
                raise ValueError
        except ValueError:
            problems.append(Problem(f"{path}.{name}", f"{value!r} is no quantity such as 4, 500m, 16Gi"))
    zone = {"zone": group.zone} if group.zone else {}
    nodefiles.check_kind(
        group.labels | zone, group.resources, [(t.key, t.value, t.effect) for t in group.taints], path, problems
    )


def groups(cluster: ClusterPart) -> list[Group]:
    """Those of a file that was checked; none without an autoscaler."""
    return [] if cluster.autoscaler is None else [_group(one) for one in cluster.autoscaler.groups]


def _group(one: NodeGroup) -> Group:
    template = NodeSpec(
        one.name, str(one.cpu), str(one.memory), one.pods, labels={k: str(v) for k, v in one.labels.items()}, zone=one.zone,
        resources={k: str(v) for k, v in one.resources.items()},
        taints=tuple(core_v1.Taint(key=t.key, value=t.value or None, effect=t.effect) for t in one.taints),
    )  # fmt: skip
    return Group(one.name, one.min, one.max, template, spread(str(one.boot)), one.price)


def options(cluster: ClusterPart) -> Options:
    """Those of a file that was checked."""
    part = cluster.autoscaler
    assert part is not None
    values = msgspec.structs.asdict(part)
    named: dict[str, Any] = {new: seconds_of(values[old], old, []) for old, new in _DURATIONS.items()}
    return Options(**named | {new: values[old] for old, new in _PLAIN.items()})
