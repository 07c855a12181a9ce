"""Changes of pods that follow from a recommendation: pure. Requests become the target; limits keep their proportion to them.

A pod is changed when a request is outside of its bounds, or, twelve hours after its start, when the target has moved by a
tenth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controllers.verticalautoscaler.recommend import RESOURCES, policy_of
from navarch.api import quantity
from navarch.api.types import core_v1

Tree = dict[str, Any]
Amounts = Mapping[str, Any]
OLD = 12 * 3600.0  # seconds
MOVED = 0.1
MIN_REPLICAS = 2
TOLERANCE = 0.5
"""The share of a workload's pods that may be evicted at a time."""
NOTE = "vpaUpdates"


def resized(requests: Amounts, limits: Amounts, target: Mapping[str, str], policy: Tree) -> tuple[Tree, Tree]:
    """The requests and limits of a container that follows its target."""
    new_requests, new_limits = dict(requests), dict(limits)
    for resource, text in target.items():
        before = requests.get(resource) or limits.get(resource)
        if resource in limits and policy.get("controlledValues") != "RequestsOnly" and before and quantity.parse(before) > 0:
            share = quantity.parse(text) / quantity.parse(before)
            new_limits[resource] = amount(resource, float(quantity.parse(limits[resource]) * share))
        new_requests[resource] = text
        if resource in new_limits and quantity.compare(new_limits[resource], text) < 0:
            new_requests[resource] = new_limits[resource]  # RequestsOnly: a request is never above the limit
    return new_requests, new_limits


def amount(resource: str, value: float) -> str:
    """The text of cores, to the millicore, or of bytes."""
    return quantity.from_milli(round(1000 * value)) if resource == "cpu" else quantity.from_value(round(value))


def by_container(vpa: Tree) -> dict[str, Tree]:
    """The recommendations of an autoscaler by container."""
    provided = ((vpa.get("status") or {}).get("recommendation") or {}).get("containerRecommendations") or ()
    return {one["containerName"]: one for one in provided}


def policies(vpa: Tree) -> Sequence[Tree]:
    return (vpa["spec"].get("resourcePolicy") or {}).get("containerPolicies") or ()


def mode(vpa: Tree) -> str:
    """Off, Initial, Recreate or InPlaceOrRecreate. Auto is Recreate, as in Kubernetes."""
    name = str((vpa["spec"].get("updatePolicy") or {}).get("updateMode") or "Recreate")
    return "Recreate" if name == "Auto" else name


def containers(vpa: Tree, pod: Iterable[tuple[str, Amounts, Amounts]]) -> list[Tree]:
    """The containers that change, of those of a pod (name, requests, limits): name, resources."""
    advice, out = by_container(vpa), []
    for name, requests, limits in pod:
        if name not in advice:
            continue
        new = resized(requests, limits, advice[name].get("target") or {}, policy_of(policies(vpa), name))
        if not _same(new[0], requests) or not _same(new[1], limits):
            out.append({"name": name, "resources": {"requests": new[0], **({"limits": new[1]} if new[1] else {})}})
    return out


def _same(one: Amounts, other: Amounts) -> bool:
    return one.keys() == other.keys() and all(quantity.compare(one[k], other[k]) == 0 for k in one)


def of_pod(pod: core_v1.Pod) -> list[tuple[str, Amounts, Amounts]]:
    parts = [(c.name, c.resources) for c in pod.spec.containers]
    return [(name, (r.requests if r else None) or {}, (r.limits if r else None) or {}) for name, r in parts]


def is_due(vpa: Tree, pod: Iterable[tuple[str, Amounts, Amounts]], age: float) -> bool:
    """Whether a pod of this age in seconds shall be changed."""
    advice, moved = by_container(vpa), 0.0
    for name, requests, _ in pod:
        one = advice.get(name) or {}
        target, lower, upper = one.get("target") or {}, one.get("lowerBound") or {}, one.get("upperBound") or {}
        for resource in (r for r in RESOURCES if r in target):
            if resource not in requests:
                return True
            has = quantity.parse(requests[resource])
            if not quantity.parse(lower[resource]) <= has <= quantity.parse(upper[resource]):
                return True
            moved += float(abs(quantity.parse(target[resource]) - has) / has) if has else 1.0
    return age >= OLD and moved >= MOVED


def evictable(ready: int, total: int, least: int) -> int:
    """How many of a workload's pods may be evicted now, of which ``ready`` are ready; none if it has less than ``least``."""
    if total < least:
        return 0
    tolerated = int(TOLERANCE * total)
    return max(0, (tolerated or 1) - (total - ready))


def admission_patch(vpa: Tree, pod: Tree) -> list[Tree]:
    """The JSON patch of a pod that is being created; [] if it stays as it is."""
    spec, out = pod["spec"], []
    parts = [
        (c.get("name") or "", (c.get("resources") or {}).get("requests") or {}, (c.get("resources") or {}).get("limits") or {})
        for c in spec.get("containers") or ()
    ]
    numbers = {name: n for n, (name, _, _) in enumerate(parts)}
    for change in containers(vpa, parts):
        n = numbers[change["name"]]
        old = spec["containers"][n].get("resources") or {}
        out.append({"op": "add", "path": f"/spec/containers/{n}/resources", "value": {**old, **change["resources"]}})
    if not out:
        return []
    text = f"Pod resources updated by {vpa['metadata']['name']}"
    if pod["metadata"].get("annotations"):
        return [*out, {"op": "add", "path": f"/metadata/annotations/{NOTE}", "value": text}]
    return [*out, {"op": "add", "path": "/metadata/annotations", "value": {NOTE: text}}]
