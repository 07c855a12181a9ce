"""DaemonSets: one pod on every node that takes it."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.apps.workloads import WIDE, validate_endless_template, wide_cells
from apiserver.kinds.cells import age_cell, fill, kind, labels_text, meta_of, name_cell, spec_of, status_of
from apiserver.kinds.checks import immutable, int_or_percent, non_negative, selector_empty, validate_label_selector
from apiserver.kinds.core.pods.defaults import default_pod_spec
from apiserver.kinds.core.pods.warnings import template_warnings
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api.errors import Cause, invalid, not_supported, required
from navarch.api.intstr import percent_of
from navarch.api.selectors import selector_matches

# Where apps/v1 keeps what older versions had as spec.templateGeneration.
TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
COUNTS = (
    "currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady", "updatedNumberScheduled",
    "numberAvailable", "numberUnavailable", "observedGeneration", "collisionCount",
)  # fmt: skip


class DaemonSetStrategy(Strategy):
    kind = kind("apps/v1", "DaemonSet")
    has_status = True
    columns = (
        NAME_COLUMN, Column("Desired", "integer"), Column("Current", "integer"), Column("Ready", "integer"),
        Column("Up-to-date", "integer"), Column("Available", "integer"), Column("Node Selector"), AGE_COLUMN, *WIDE,
    )  # fmt: skip

    def default(self, obj: Tree) -> None:
        spec = obj.setdefault("spec", {})
        fill(spec, updateStrategy={}, revisionHistoryLimit=10)
        update = spec["updateStrategy"]
        if not update.get("type"):
            update["type"] = "RollingUpdate"
        if update["type"] == "RollingUpdate":
            fill(update, rollingUpdate={})
            fill(update["rollingUpdate"], maxUnavailable=1, maxSurge=0)
        if spec.get("template") is not None:
            default_pod_spec(spec["template"].setdefault("spec", {}))

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = self.zero_status()
        fill(obj["metadata"], annotations={})
        obj["metadata"]["annotations"].setdefault(TEMPLATE_GENERATION, "1")

    def prepare_update(self, context: Context, obj: Tree, old: Tree) -> None:
        before = _template_generation(old)
        if spec_of(obj).get("template") != spec_of(old).get("template"):
            before += 1
        fill(obj["metadata"], annotations={})
        obj["metadata"]["annotations"][TEMPLATE_GENERATION] = str(before)

    def warnings(self, obj: Tree, old: Tree | None) -> list[str]:
        was = spec_of(old).get("template") or {} if old is not None else None
        return template_warnings(spec_of(obj).get("template"), was, "spec.template")

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        selector, template = spec.get("selector"), spec.get("template") or {}
        labels = (template.get("metadata") or {}).get("labels") or {}
        out = wrong = validate_label_selector(selector, "spec.selector")
        if not wrong and not selector_matches(selector, labels):
            text = "`selector` does not match template `labels`"
            out = [*out, invalid("spec.template.metadata.labels", labels, text)]
        if selector is not None and selector_empty(selector):
            out = [*out, invalid("spec.selector", selector, "empty selector is invalid for daemonset")]
        out = out + validate_endless_template(template, "spec.template", "DaemonSet")
        out += non_negative(spec.get("minReadySeconds"), "spec.minReadySeconds")
        out += _update(spec.get("updateStrategy") or {})
        return out + non_negative(spec.get("revisionHistoryLimit"), "spec.revisionHistoryLimit")

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        same = immutable(spec_of(obj).get("selector"), spec_of(old).get("selector"), "spec.selector")
        return self.validate(obj) + same

    def validate_status(self, obj: Tree, old: Tree) -> list[Cause]:
        status = status_of(obj)
        return [c for field in COUNTS for c in non_negative(status.get(field), f"status.{field}")]

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec, status = spec_of(obj), status_of(obj)
        fields = (
            "desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable",
        )  # fmt: skip
        where = ((spec.get("template") or {}).get("spec") or {}).get("nodeSelector")
        counts = [status.get(f) or 0 for f in fields]
        return [name_cell(obj), *counts, labels_text(where), age_cell(obj, now), *wide_cells(spec)]


def _template_generation(obj: Tree) -> int:
    text = (meta_of(obj).get("annotations") or {}).get(TEMPLATE_GENERATION, "")
    return int(text) if text.isdecimal() else 1


def _update(update: Tree) -> list[Cause]:
    at, rolling = "spec.updateStrategy", update.get("rollingUpdate")
    match update.get("type"):
        case "OnDelete":
            return []
        case "RollingUpdate":
            if rolling is None:
                return [required(f"{at}.rollingUpdate")]
        case other:
            return [not_supported(f"{at}.type", other or "", ("OnDelete", "RollingUpdate"))]
    out: list[Cause] = []
    for field in ("maxUnavailable", "maxSurge"):
        value, here = rolling.get(field), f"{at}.rollingUpdate.{field}"
        out += int_or_percent(value, here)
        if (percent_of(value) or 0) > 100:
            out.append(invalid(here, value, "must not be greater than 100%"))
    surges, lacks = (rolling.get(f) not in (None, 0, "0%") for f in ("maxSurge", "maxUnavailable"))
    if surges and lacks:
        text = "may not be set when maxUnavailable is non-zero"
        out.append(invalid(f"{at}.rollingUpdate.maxSurge", rolling.get("maxSurge"), text))
    elif not surges and not lacks:
        out.append(required(f"{at}.rollingUpdate.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    return out
