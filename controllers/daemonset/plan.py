"""On which nodes a daemon set has to run, which pods to make and to delete, what to report. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from controllers.history import HASH
from navarch.api import affinity
from navarch.api import pods as podrules
from navarch.api.intstr import scaled_value
from navarch.api.types import apps_v1, core_v1, meta_v1

Pod = core_v1.Pod
Node = core_v1.Node
DaemonSet = apps_v1.DaemonSet
BURST = 250
GENERATION = "pod-template-generation"
TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
_T = "node.kubernetes.io/"
TOLERATED = (
    (_T + "not-ready", "NoExecute"), (_T + "unreachable", "NoExecute"), (_T + "disk-pressure", "NoSchedule"),
    (_T + "memory-pressure", "NoSchedule"), (_T + "pid-pressure", "NoSchedule"), (_T + "unschedulable", "NoSchedule"),
)  # fmt: skip


class Plan(NamedTuple):
    """``create``: names of nodes."""

    create: list[str]
    delete: list[Pod]
    failed: list[Pod]  # of those to delete, the ones that failed by themselves


def tolerations(spec: core_v1.PodSpec) -> list[core_v1.Toleration]:
    """The template's, and those that keep daemons where other pods would have to go."""
    out = list(spec.tolerations or ())
    taints = list(TOLERATED)
    if spec.host_network:
        taints.append((_T + "network-unavailable", "NoSchedule"))
    for key, effect in taints:
        new = core_v1.Toleration(key=key, operator="Exists", effect=effect)
        if new not in out:
            out.append(new)
    return out


def belongs(ds: DaemonSet, node: Node) -> tuple[bool, bool]:
    """(should run on the node, may stay there)."""
    spec, name = ds.spec.template.spec, node.metadata.name or ""
    if spec.node_name and spec.node_name != name:
        return False, False
    if not affinity.pod_matches_node(spec, name, node.metadata.labels or {}):
        return False, False
    allowed = tolerations(spec)
    bad = [t.effect for t in node.spec.taints or () if not affinity.tolerated(allowed, t)]
    return not any(e in ("NoSchedule", "NoExecute") for e in bad), "NoExecute" not in bad


def node_of(pod: Pod) -> str:
    """Where the pod is, or has to go."""
    if pod.spec.node_name:
        return pod.spec.node_name
    where = pod.spec.affinity.node_affinity if pod.spec.affinity is not None else None
    required = where.required_during_scheduling_ignored_during_execution if where is not None else None
    for term in required.node_selector_terms if required is not None else ():
        for field in term.match_fields or ():
            if field.key == "metadata.name" and field.values:
                return field.values[0]
    return ""


def by_node(pods: Sequence[Pod]) -> dict[str, list[Pod]]:
    """Pods of each node, the oldest first; those that finished and are being deleted are as good as gone."""
    out: dict[str, list[Pod]] = {}
    for pod in sorted(pods, key=lambda p: (p.metadata.creation_timestamp or "", p.metadata.name or "")):
        if pod.metadata.deletion_timestamp is None or not podrules.is_terminal(pod):
            out.setdefault(node_of(pod), []).append(pod)
    return out


def is_new(pod: Pod, digest: str) -> bool:
    return (pod.metadata.labels or {}).get(HASH) == digest


def plan(ds: DaemonSet, nodes: Mapping[str, Node], pods: Sequence[Pod], digest: str, now: float) -> Plan:
    """Places first; where every place is filled, replaces old pods."""
    pods_by_node, out = by_node(pods), Plan([], [], [])
    eligible: list[str] = []
    surge = _rolling(ds).max_surge if ds.spec.update_strategy and ds.spec.update_strategy.type == "RollingUpdate" else 0
    for name, node in nodes.items():
        here = pods_by_node.get(name, [])
        run, stay = belongs(ds, node)
        if run:
            eligible.append(name)
        if run and not here:
            out.create.append(name)
        elif stay and here:
            _prune(here, digest, bool(scaled_value(surge, 1, up=True)), out)
        elif not stay:
            out.delete.extend(p for p in here if p.metadata.deletion_timestamp is None)
    for name in sorted(pods_by_node):
        if name and name not in nodes:  # the node is gone
            out.delete.extend(p for p in pods_by_node[name] if p.metadata.deletion_timestamp is None)
    if ds.spec.update_strategy is not None and ds.spec.update_strategy.type == "RollingUpdate":
        _update(ds, [(n, pods_by_node.get(n, [])) for n in eligible], digest, now, out)
    return Plan(out.create[:BURST], out.delete[:BURST], out.failed)


def _prune(here: Sequence[Pod], digest: str, surging: bool, out: Plan) -> None:
    """One pod a node (two while surging: an old and a new one); none that failed."""
    live = [p for p in here if p.metadata.deletion_timestamp is None]
    failed = [p for p in live if p.status.phase == "Failed"]
    out.failed.extend(failed)
    out.delete.extend(failed)
    good = [p for p in live if p.status.phase != "Failed"]
    new, old = [p for p in good if is_new(p, digest)], [p for p in good if not is_new(p, digest)]
    for group in (new, old) if surging else (good,):
        out.delete.extend(group[1:])


def _rolling(ds: DaemonSet) -> apps_v1.RollingUpdateDaemonSet:
    rolling_update = ds.spec.update_strategy.rolling_update if ds.spec.update_strategy is not None else None
    return rolling_update or apps_v1.RollingUpdateDaemonSet(max_unavailable=1)


def _update(ds: DaemonSet, places: Sequence[tuple[str, list[Pod]]], digest: str, now: float, out: Plan) -> None:
    """Takes old pods away (or, with a surge, puts new ones beside them) as far as the strategy allows."""
    rolling, grace = _rolling(ds), ds.spec.min_ready_seconds or 0
    surge = scaled_value(rolling.max_surge, len(places), up=True)
    most = scaled_value(rolling.max_unavailable, len(places), up=True)
    deleted_uids = {p.metadata.uid for p in out.delete}
    used = 0
    first: list[tuple[str, Pod]] = []  # old pods that serve nobody
    later: list[tuple[str, Pod]] = []
    for name, pods in places:
        live = [p for p in pods if p.metadata.deletion_timestamp is None and p.metadata.uid not in deleted_uids]
        new = next((p for p in live if is_new(p, digest)), None)
        old = next((p for p in live if not is_new(p, digest)), None)
        if surge and old is not None and new is not None:
            if podrules.is_available(new, grace, now):
                out.delete.append(old)
            else:
                used += 1
        elif old is not None:
            available = podrules.is_available(old, grace, now)
            used += 0 if surge or available else 1
            (later if available else first).append((name, old))
        elif not surge and (new is None or not podrules.is_available(new, grace, now)):
            used += 1
    budget = max(0, (surge or most) - used)
    chosen = first + later[:budget]
    if surge:
        out.create.extend(name for name, _ in chosen)
    else:
        out.delete.extend(old for _, old in chosen)


def new_pod(ds: DaemonSet, owner: meta_v1.OwnerReference, node: str, digest: str) -> Pod:
    meta, spec = ds.spec.template.metadata, ds.spec.template.spec
    labels = {**(meta.labels or {}), HASH: digest}
    generation = (ds.metadata.annotations or {}).get(TEMPLATE_GENERATION)
    if generation:
        labels[GENERATION] = generation
    here = core_v1.NodeSelectorRequirement(key="metadata.name", operator="In", values=[node])
    required = core_v1.NodeSelector(node_selector_terms=[core_v1.NodeSelectorTerm(match_fields=[here])])
    outer = spec.affinity or core_v1.Affinity()
    inner = outer.node_affinity or core_v1.NodeAffinity()
    inner = msgspec.structs.replace(inner, required_during_scheduling_ignored_during_execution=required)
    return Pod(
        metadata=meta_v1.ObjectMeta(
            generate_name=f"{ds.metadata.name}-", namespace=ds.metadata.namespace, labels=labels,
            annotations=meta.annotations, finalizers=meta.finalizers, owner_references=[owner],
        ),
        spec=msgspec.structs.replace(
            spec, affinity=msgspec.structs.replace(outer, node_affinity=inner), tolerations=tolerations(spec)
        ),
    )  # fmt: skip


def report(
    ds: DaemonSet, nodes: Mapping[str, Node], pods: Sequence[Pod], digest: str, now: float
) -> tuple[apps_v1.DaemonSetStatus, float | None]:
    """The status, and the seconds until a ready pod becomes available by waiting alone."""
    pods_by_node, grace = by_node(pods), ds.spec.min_ready_seconds or 0
    desired = current = wrong = ready = updated = available = 0
    waits: list[float] = []
    for name, node in nodes.items():
        run, _ = belongs(ds, node)
        here = pods_by_node.get(name, [])
        if not run:
            wrong += bool(here)
            continue
        desired += 1
        current += bool(here)
        good = [p for p in here if podrules.is_ready(p)]
        ready += bool(good)
        available += any(podrules.is_available(p, grace, now) for p in good)
        updated += any(is_new(p, digest) for p in here)
        waits += [s + grace - now for p in good if grace and (s := podrules.ready_since(p)) and s + grace > now]
    status = msgspec.structs.replace(
        ds.status,
        desired_number_scheduled=desired,
        current_number_scheduled=current,
        number_misscheduled=wrong,
        number_ready=ready,
        updated_number_scheduled=updated or None,
        number_available=available or None,
        number_unavailable=desired - available or None,
        observed_generation=ds.metadata.generation,
    )
    return status, max(0.0, min(waits)) + 0.01 if waits else None
