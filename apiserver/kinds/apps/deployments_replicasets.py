"""Deployments and ReplicaSets: a selector that never changes, and a template that it must select."""

from __future__ import annotations

from typing import Any, ClassVar

from apiserver.kinds.cells import age_cell, containers_text, fill, kind, name_cell, selector_text, spec_of, status_of
from apiserver.kinds.checks import (
    MAX_INT32,
    immutable,
    non_negative,
    selector_empty,
    selector_matches,
    validate_label_selector,
)
from apiserver.kinds.core.pods.defaults import default_pod_spec
from apiserver.kinds.core.pods.validation import validate_template
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names
from navarch.api.errors import Cause, forbidden, invalid, not_supported, required

WIDE = (Column("Containers", priority=1), Column("Images", priority=1), Column("Selector", priority=1))


def wide_cells(spec: Tree) -> list[Any]:
    containers, images = containers_text((spec.get("template") or {}).get("spec") or {})
    return [containers, images, selector_text(spec.get("selector"))]


def validate_selected_template(
    spec: Tree, path: str = "spec", *, empty: str = "deployment", owner: str = "ReplicaSet"
) -> list[Cause]:
    """The selector is there, is valid and selects the template's pods; the template is valid and restarts for ever.

    ``empty`` and ``owner``: how the texts name the kind."""
    selector, template = spec.get("selector"), spec.get("template")
    out: list[Cause] = []
    if selector is None:
        out.append(required(f"{path}.selector"))
    else:
        wrong = validate_label_selector(selector, f"{path}.selector")
        out += wrong
        if selector_empty(selector):
            out.append(invalid(f"{path}.selector", selector, f"empty selector is invalid for {empty}"))
        labels = ((template or {}).get("metadata") or {}).get("labels") or {}
        usable = not wrong and template is not None and not selector_empty(selector)
        if usable and not selector_matches(selector, labels):
            text = "`selector` does not match template `labels`"
            out.append(invalid(f"{path}.template.metadata.labels", labels, text))
    if template is None:
        out.append(required(f"{path}.template"))
        return out
    return out + validate_endless_template(template, f"{path}.template", owner)


def validate_endless_template(template: Tree, path: str, owner: str) -> list[Cause]:
    """A valid template of pods that run for ever."""
    out = validate_template(template, path)
    pod = template.get("spec") or {}
    if pod.get("restartPolicy") != "Always":
        out.append(not_supported(f"{path}.spec.restartPolicy", pod.get("restartPolicy"), ("Always",)))
    if pod.get("activeDeadlineSeconds") is not None:
        text = f"activeDeadlineSeconds in {owner} is not Supported"
        out.append(forbidden(f"{path}.spec.activeDeadlineSeconds", text))
    return out


def int_or_percent(value: Any, path: str) -> list[Cause]:
    """A count of pods, or a share of them."""
    if isinstance(value, str):
        return [invalid(path, value, m) for m in names.percent(value)]
    return non_negative(value, path)


def percent_of(value: Any) -> int | None:
    return int(value[:-1]) if isinstance(value, str) and not names.percent(value) else None


class Workload(Strategy):
    """What the kinds with replicas of a template share."""

    has_status = True
    scale_path = True
    counts: ClassVar[tuple[str, ...]] = ()

    def default(self, obj: Tree) -> None:
        spec = obj.setdefault("spec", {})
        fill(spec, replicas=1)
        if spec.get("template") is not None:
            default_pod_spec(spec["template"].setdefault("spec", {}))

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = self.zero_status()

    def prepare_update(self, context: Context, obj: Tree, old: Tree) -> None:
        obj["status"] = dict(old.get("status") or {})

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        return self.validate(obj) + immutable(
            spec_of(obj).get("selector"), spec_of(old).get("selector"), "spec.selector"
        )

    def validate_status(self, obj: Tree, old: Tree) -> list[Cause]:
        status = status_of(obj)
        out: list[Cause] = []
        for field in (*self.counts, "observedGeneration"):
            out += non_negative(status.get(field), f"status.{field}")
        total = status.get("replicas") or 0
        for field in self.counts[1:]:
            if field != "unavailableReplicas" and (status.get(field) or 0) > total:
                out.append(invalid(f"status.{field}", status[field], "cannot be greater than status.replicas"))
        ready, available = status.get("readyReplicas") or 0, status.get("availableReplicas") or 0
        if available > ready:
            out.append(invalid("status.availableReplicas", available, "cannot be greater than readyReplicas"))
        return out


class DeploymentStrategy(Workload):
    kind = kind("apps/v1", "Deployment")
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas")
    columns = (
        NAME_COLUMN, Column("Ready"), Column("Up-to-date", "integer"), Column("Available", "integer"), AGE_COLUMN, *WIDE,
    )  # fmt: skip

    def default(self, obj: Tree) -> None:
        super().default(obj)
        spec = obj["spec"]
        fill(spec, strategy={}, revisionHistoryLimit=10, progressDeadlineSeconds=600)
        strategy = spec["strategy"]
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            fill(strategy, rollingUpdate={})
            fill(strategy["rollingUpdate"], maxUnavailable="25%", maxSurge="25%")

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        out = non_negative(spec.get("replicas"), "spec.replicas")
        out += validate_selected_template(spec)
        out += _rollout(spec.get("strategy") or {}, "spec.strategy")
        out += non_negative(spec.get("revisionHistoryLimit"), "spec.revisionHistoryLimit")
        ready, deadline = spec.get("minReadySeconds") or 0, spec.get("progressDeadlineSeconds")
        out += non_negative(ready, "spec.minReadySeconds")
        out += non_negative(deadline, "spec.progressDeadlineSeconds")
        if deadline is not None and deadline <= ready and deadline != MAX_INT32:
            out.append(invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec, status = spec_of(obj), status_of(obj)
        return [
            name_cell(obj), f"{status.get('readyReplicas') or 0}/{spec.get('replicas') or 0}",
            status.get("updatedReplicas") or 0, status.get("availableReplicas") or 0, age_cell(obj, now),
            *wide_cells(spec),
        ]  # fmt: skip


def _rollout(strategy: Tree, path: str) -> list[Cause]:
    rolling = strategy.get("rollingUpdate")
    match strategy.get("type"):
        case "Recreate":
            if rolling is None:
                return []
            text = "may not be specified when strategy `type` is 'Recreate'"
            return [forbidden(f"{path}.rollingUpdate", text)]
        case "RollingUpdate":
            if rolling is None:
                return [required(f"{path}.rollingUpdate", "this should be defaulted and never be nil")]
            at, unavailable, surge = f"{path}.rollingUpdate", rolling.get("maxUnavailable"), rolling.get("maxSurge")
            out = int_or_percent(unavailable, f"{at}.maxUnavailable") + int_or_percent(surge, f"{at}.maxSurge")
            if unavailable in (0, "0%") and surge in (0, "0%"):
                out.append(invalid(f"{at}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"))
            if (percent_of(unavailable) or 0) > 100:
                out.append(invalid(f"{at}.maxUnavailable", unavailable, "must not be greater than 100%"))
            return out
        case other:
            return [not_supported(f"{path}.type", other or "", ("Recreate", "RollingUpdate"))]


class ReplicaSetStrategy(Workload):
    kind = kind("apps/v1", "ReplicaSet")
    counts = ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas")
    selectable_fields = ("status.replicas",)
    columns = (
        NAME_COLUMN, Column("Desired", "integer"), Column("Current", "integer"), Column("Ready", "integer"), AGE_COLUMN,
        *WIDE,
    )  # fmt: skip

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        out = non_negative(spec.get("replicas"), "spec.replicas")
        out += non_negative(spec.get("minReadySeconds"), "spec.minReadySeconds")
        return out + validate_selected_template(spec)

    def fields(self, obj: Tree) -> dict[str, str]:
        return {"status.replicas": str(status_of(obj).get("replicas") or 0)}

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec, status = spec_of(obj), status_of(obj)
        return [
            name_cell(obj), spec.get("replicas") or 0, status.get("replicas") or 0, status.get("readyReplicas") or 0,
            age_cell(obj, now), *wide_cells(spec),
        ]  # fmt: skip
