"""HorizontalPodAutoscalers: how many replicas by what is measured. Stored as autoscaling/v2; v1 is in
:mod:`.autoscalingv1`."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, fill, kind, name_cell, spec_of, status_of
from apiserver.kinds.checks import validate_label_selector
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names, quantity
from navarch.api.errors import Cause, forbidden, invalid, not_supported, required

SOURCES = {
    "ContainerResource": "containerResource", "External": "external", "Object": "object", "Pods": "pods",
    "Resource": "resource",
}  # fmt: skip
TARGETS = ("AverageValue", "Utilization", "Value")
POLICY_TYPES = ("Percent", "Pods")
SELECT = ("Disabled", "Max", "Min")
MAX_WINDOW = 3600
MAX_PERIOD = 1800
DEFAULT_CPU = 80
SHOWN = 2
UP = [{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]
DOWN = [{"type": "Percent", "value": 100, "periodSeconds": 15}]
COLUMNS = (
    NAME_COLUMN, Column("Reference"), Column("Targets"), Column("MinPods"), Column("MaxPods"),
    Column("Replicas", "integer"), AGE_COLUMN,
)  # fmt: skip


class HorizontalPodAutoscalerStrategy(Strategy):
    kind = kind("autoscaling/v2", "HorizontalPodAutoscaler")
    has_status = True
    generation = False
    columns = COLUMNS

    def default(self, obj: Tree) -> None:
        spec = obj.setdefault("spec", {})
        fill(spec, minReplicas=1)
        if not spec.get("metrics"):
            target = {"type": "Utilization", "averageUtilization": DEFAULT_CPU}
            spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
        behavior = spec.get("behavior")
        if behavior is None:
            return
        up, down = behavior.setdefault("scaleUp", {}), behavior.setdefault("scaleDown", {})
        fill(up, stabilizationWindowSeconds=0)
        for rules, policies in ((up, UP), (down, DOWN)):
            fill(rules, selectPolicy="Max")
            if not rules.get("policies"):
                rules["policies"] = [dict(p) for p in policies]

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = self.zero_status()

    def validate(self, obj: Tree) -> list[Cause]:
        return validate_autoscaler(spec_of(obj))

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return autoscaler_cells(obj, now)


def autoscaler_cells(obj: Tree, now: float) -> list[Any]:
    """The row of an autoscaler in v2's shape."""
    spec, status = spec_of(obj), status_of(obj)
    target = spec.get("scaleTargetRef") or {}
    low = spec.get("minReplicas")
    return [
        name_cell(obj), f"{target.get('kind') or ''}/{target.get('name') or ''}", _targets(spec, status),
        "<unset>" if low is None else str(low), str(spec.get("maxReplicas") or 0), status.get("currentReplicas") or 0,
        age_cell(obj, now),
    ]  # fmt: skip


def _targets(spec: Tree, status: Tree) -> str:
    """``cpu: 12%/80%``: what is measured against what is wanted, two of them."""
    metrics, current = spec.get("metrics") or [], status.get("currentMetrics") or []
    if not metrics:
        return "<none>"
    texts = []
    for i, metric in enumerate(metrics):
        field = SOURCES.get(metric.get("type") or "", "")
        source, measured = metric.get(field) or {}, (current[i].get(field) or {}) if i < len(current) else {}
        target, now = source.get("target") or {}, measured.get("current") or {}
        if target.get("averageUtilization") is not None:
            have = now.get("averageUtilization")
            text = f"{'<unknown>' if have is None else f'{have}%'}/{target['averageUtilization']}%"
        elif target.get("averageValue") is not None:
            text = f"{now.get('averageValue') or '<unknown>'}/{target['averageValue']}"
            text += " (avg)" if field in ("external", "object") else ""
        else:
            text = f"{now.get('value') or '<unknown>'}/{target.get('value') or '<auto>'}"
        texts.append(f"{source.get('name')}: {text}" if field in ("resource", "containerResource") else text)
    shown = ", ".join(texts[:SHOWN])
    return f"{shown} + {len(texts) - SHOWN} more..." if len(texts) > SHOWN else shown


def validate_autoscaler(spec: Tree) -> list[Cause]:
    low, high = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    out: list[Cause] = []
    if low == 0 and not any(m.get("type") in ("Object", "External") for m in spec.get("metrics") or ()):
        # Pods that are not there have no metrics: only a number from outside can bring the first one back.
        text = "must specify at least one Object or External metric to support scaling to zero replicas"
        out.append(forbidden("spec.metrics", text))
    elif low is not None and low < 0:
        out.append(invalid("spec.minReplicas", low, "must be greater than or equal to 0"))
    if high < 1:
        out.append(invalid("spec.maxReplicas", high, "must be greater than 0"))
    if low is not None and high < low:
        out.append(invalid("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`"))
    out += _reference(spec.get("scaleTargetRef") or {}, "spec.scaleTargetRef")
    for i, metric in enumerate(spec.get("metrics") or ()):
        out += _metric(metric, f"spec.metrics[{i}]")
    behavior = spec.get("behavior") or {}
    for field in ("scaleUp", "scaleDown"):
        if behavior.get(field) is not None:
            out += _rules(behavior[field], f"spec.behavior.{field}")
    return out


def _reference(reference: Tree, path: str) -> list[Cause]:
    out: list[Cause] = []
    for field in ("kind", "name"):
        value = reference.get(field) or ""
        if not value:
            out.append(required(f"{path}.{field}"))
        out += [invalid(f"{path}.{field}", value, m) for m in names.path_segment(value)]
    return out


def _metric(metric: Tree, path: str) -> list[Cause]:
    type_ = metric.get("type") or ""
    if not type_:
        return [required(f"{path}.type", "must specify a metric source type")]
    out = [] if type_ in SOURCES else [not_supported(f"{path}.type", type_, list(SOURCES))]
    for other_type, field in SOURCES.items():
        if metric.get(field) is not None and other_type != type_:
            out.append(forbidden(f"{path}.{field}", "must populate the given metric source only"))
    field = SOURCES.get(type_, "")
    if not field:
        return out
    source, here = metric.get(field), f"{path}.{field}"
    if source is None:
        return [*out, required(here, "must populate information for the given metric source")]
    target = source.get("target") or {}
    if field in ("resource", "containerResource"):
        if not source.get("name"):
            out.append(required(f"{here}.name", "must specify a resource name"))
        if field == "containerResource" and not source.get("container"):
            out.append(required(f"{here}.container", "must specify a container"))
        if target.get("averageUtilization") is not None and target.get("averageValue") is not None:
            text = "may not set both a target raw value and a target utilization"
            out.append(forbidden(f"{here}.target.averageValue", text))
        elif target.get("averageUtilization") is None and target.get("averageValue") is None:
            text = "must set either a target raw value or a target utilization"
            out.append(required(f"{here}.target.averageUtilization", text))
    else:
        named = source.get("metric") or {}
        if not named.get("name"):
            out.append(required(f"{here}.metric.name", "must specify a metric name"))
        out += [invalid(f"{here}.metric.name", named["name"], m) for m in names.path_segment(named.get("name") or "")]
        out += validate_label_selector(named.get("selector"), f"{here}.metric.selector")
        if field == "object":
            out += _reference(source.get("describedObject") or {}, f"{here}.describedObject")
        if field == "pods" and target.get("averageValue") is None:
            out.append(required(f"{here}.target.averageValue", "must specify a positive target averageValue"))
        elif field != "pods" and target.get("value") is None and target.get("averageValue") is None:
            text = "must set either a target value for metric or a per-pod target"
            out.append(required(f"{here}.target.averageValue", text))
    return out + _target(target, f"{here}.target")


def _target(target: Tree, path: str) -> list[Cause]:
    type_, out = target.get("type") or "", []
    if not type_:
        out.append(required(f"{path}.type", "must specify a metric target type"))
    elif type_ not in TARGETS:
        text = "must be either Utilization, Value, or AverageValue"
        out.append(invalid(f"{path}.type", type_, text))
    share = target.get("averageUtilization")
    if share is not None and share < 1:
        out.append(invalid(f"{path}.averageUtilization", share, "must be greater than 0"))
    for field in ("value", "averageValue"):
        amount = target.get(field)
        if amount is not None and quantity.nanos(amount) <= 0:
            out.append(invalid(f"{path}.{field}", str(amount), "must be positive"))
    return out


def _rules(rules: Tree, path: str) -> list[Cause]:
    out: list[Cause] = []
    window, select, policies = rules.get("stabilizationWindowSeconds"), rules.get("selectPolicy"), rules.get("policies")
    if window is not None and window < 0:
        out.append(invalid(f"{path}.stabilizationWindowSeconds", window, "must be greater than or equal to zero"))
    if window is not None and window > MAX_WINDOW:
        text = f"must be less than or equal to {MAX_WINDOW}"
        out.append(invalid(f"{path}.stabilizationWindowSeconds", window, text))
    if select is not None and select not in SELECT:
        out.append(not_supported(f"{path}.selectPolicy", select, SELECT))
    if not policies:
        out.append(required(f"{path}.policies", "must specify at least one Policy"))
    for i, policy in enumerate(policies or ()):
        here, value, period = f"{path}.policies[{i}]", policy.get("value") or 0, policy.get("periodSeconds") or 0
        if policy.get("type") not in POLICY_TYPES:
            out.append(not_supported(f"{here}.type", policy.get("type") or "", POLICY_TYPES))
        if value <= 0:
            out.append(invalid(f"{here}.value", value, "must be greater than zero"))
        if period <= 0:
            out.append(invalid(f"{here}.periodSeconds", period, "must be greater than zero"))
        elif period > MAX_PERIOD:
            out.append(invalid(f"{here}.periodSeconds", period, f"must be less than or equal to {MAX_PERIOD}"))
    return out


