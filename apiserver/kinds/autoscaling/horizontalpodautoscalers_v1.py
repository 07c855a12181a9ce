"""autoscaling/v1 HorizontalPodAutoscaler: a view of the v2 object. What v1 has no fields for (metrics other than cpu
utilization, conditions, behavior) is kept in annotations, as in Kubernetes."""

from __future__ import annotations

import json
from typing import Any

from apiserver.kinds.autoscaling.horizontalpodautoscalers import COLUMNS, autoscaler_cells, validate_autoscaler
from apiserver.kinds.cells import at, fill, kind, spec_of, status_of
from apiserver.registry.codec import TreeCodec
from apiserver.registry.strategy import Strategy, Tree
from apiserver.request import Context
from navarch.api.errors import Cause, invalid

PREFIX = "autoscaling.alpha.kubernetes.io/"
METRICS, CURRENT = PREFIX + "metrics", PREFIX + "current-metrics"
CONDITIONS, BEHAVIOR = PREFIX + "conditions", PREFIX + "behavior"
V2_ANNOTATIONS = (METRICS, CURRENT, CONDITIONS, BEHAVIOR)
CPU = "targetCPUUtilizationPercentage"
CPU_NOW = "currentCPUUtilizationPercentage"
V1, V2 = "autoscaling/v1", "autoscaling/v2"


_ZEROS: Tree = {"currentReplicas": 0, "desiredReplicas": 0}  # what Go writes of a status that nobody set


class _AsV2(TreeCodec):
    """Autoscalers are stored as autoscaling/v2; what version 1 has no field for is kept in annotations."""

    def stored(self, obj: Tree) -> Tree:
        spec, status = dict(spec_of(obj)), dict(status_of(obj))
        metadata = dict(obj.get("metadata") or {})
        notes = dict(metadata.get("annotations") or {})
        v2_parts = {name: _loaded(notes.pop(name, None)) for name in V2_ANNOTATIONS}
        metrics = [_modern(m) for m in v2_parts[METRICS] or ()]
        share, share_now = spec.pop(CPU, None), status.pop(CPU_NOW, None)
        if share is not None:
            metrics.append(_cpu("target", {"type": "Utilization", "averageUtilization": share}))
        if metrics:
            spec["metrics"] = metrics
        if v2_parts[BEHAVIOR]:
            spec["behavior"] = _recased(v2_parts[BEHAVIOR], str.lower)
        current = list(v2_parts[CURRENT] or ())
        if share_now is not None:
            current.append(_cpu("current", {"averageUtilization": share_now}))
        if current:
            status["currentMetrics"] = current
        if v2_parts[CONDITIONS]:
            status["conditions"] = v2_parts[CONDITIONS]
        if notes:
            metadata["annotations"] = notes
        else:
            metadata.pop("annotations", None)
        return {**obj, "apiVersion": V2, "metadata": metadata, "spec": spec, "status": status}

    def served_tree(self, obj: Tree) -> Tree:
        spec, status = dict(spec_of(obj)), _ZEROS | status_of(obj)
        metadata = dict(obj.get("metadata") or {})
        notes: Tree = {}
        others = []
        for metric in spec.pop("metrics", None) or ():
            share = at(metric, "resource", "target", "averageUtilization")
            if at(metric, "resource", "name") == "cpu" and share is not None and CPU not in spec:
                spec[CPU] = share
            else:
                others.append(_ancient(metric))
        current = []
        for metric in status.pop("currentMetrics", None) or ():
            share = at(metric, "resource", "current", "averageUtilization")
            if at(metric, "resource", "name") == "cpu" and share is not None and CPU_NOW not in status:
                status[CPU_NOW] = share
            else:
                current.append(metric)
        behavior = spec.pop("behavior", None)
        newer_fields = {
            METRICS: others, CURRENT: current, CONDITIONS: status.pop("conditions", None),
            BEHAVIOR: _recased(behavior, str.upper) if behavior else None,
        }  # fmt: skip
        notes = {name: json.dumps(value, separators=(",", ":")) for name, value in newer_fields.items() if value}
        if notes:
            metadata["annotations"] = {**(metadata.get("annotations") or {}), **notes}
        return {**obj, "apiVersion": V1, "metadata": metadata, "spec": spec, "status": status}


class HorizontalPodAutoscalerV1Strategy(Strategy):
    codec = _AsV2()
    kind = kind(V1, "HorizontalPodAutoscaler")
    has_status = True
    generation = False
    columns = COLUMNS

    def default(self, obj: Tree) -> None:
        fill(obj.setdefault("spec", {}), minReplicas=1)

    def prepare_create(self, context: Context, obj: Tree) -> None:
        spec = obj["spec"]
        if METRICS not in (obj["metadata"].get("annotations") or {}):
            fill(spec, **{CPU: 80})
        obj["status"] = self.zero_status()

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        out = validate_autoscaler({**spec, "metrics": [], "behavior": None})
        share = spec.get(CPU)
        if share is not None and share < 1:
            out.append(invalid(f"spec.{CPU}", share, "must be greater than 0"))
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return autoscaler_cells(self.codec.stored(obj), now)


def _cpu(field: str, value: Tree) -> Tree:
    return {"type": "Resource", "resource": {"name": "cpu", field: value}}


def _loaded(text: str | None) -> Any:
    """Parses an annotation's JSON; one that a person broke counts for nothing."""
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def _recased(value: Any, case: Any) -> Any:
    """Field names with their first letter in the other case: the annotation has Go's names."""
    if isinstance(value, dict):
        return {case(k[:1]) + k[1:]: _recased(v, case) for k, v in value.items()}
    return [_recased(v, case) for v in value] if isinstance(value, list) else value


def _ancient(metric: Tree) -> Tree:
    """A v2 metric in v1's flat shape."""
    type_ = metric.get("type") or ""
    field = type_[:1].lower() + type_[1:]
    source = dict(metric.get(field) or {})
    target, named = source.pop("target", None) or {}, source.pop("metric", None) or {}
    described = source.pop("describedObject", None)
    flat: Tree = source
    if named:
        flat["metricName"] = named.get("name")
        if named.get("selector") is not None:
            flat["metricSelector" if field == "external" else "selector"] = named["selector"]
    if described is not None:
        flat["target"] = described
    average = "averageValue" if field == "object" else "targetAverageValue"
    for new, old in (("averageUtilization", "targetAverageUtilization"), ("averageValue", average), ("value", "targetValue")):
        if target.get(new) is not None:
            flat[old] = target[new]
    return {"type": type_, field: flat}


def _modern(metric: Tree) -> Tree:
    """The inverse of :func:`_ancient`."""
    type_ = metric.get("type") or ""
    field = type_[:1].lower() + type_[1:]
    flat = dict(metric.get(field) or {})
    target: Tree = {}
    average = "averageValue" if field == "object" else "targetAverageValue"
    for type_name, new, old in (
        ("Utilization", "averageUtilization", "targetAverageUtilization"), ("AverageValue", "averageValue", average),
        ("Value", "value", "targetValue"),
    ):  # fmt: skip
        value = flat.pop(old, None)
        if value is not None:
            target |= {new: value}
            target.setdefault("type", type_name)
    if field == "object" and flat.get("target") is not None:
        flat["describedObject"] = flat.pop("target")
    if flat.get("metricName") is not None:
        named = {"name": flat.pop("metricName")}
        selector = flat.pop("metricSelector" if field == "external" else "selector", None)
        flat["metric"] = named if selector is None else {**named, "selector": selector}
    return {"type": type_, field: {**flat, "target": target}}
