"""PodDisruptionBudgets: how many pods of a kind may be taken away at once. The eviction that asks them is in
:mod:`.eviction`."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, kind, name_cell, spec_of, status_of
from apiserver.kinds.checks import int_or_percent, non_negative, validate_label_selector
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api.errors import Cause, invalid, not_supported
from navarch.api.intstr import percent_of

COUNTS = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
UNHEALTHY = ("AlwaysAllow", "IfHealthyBudget")


class PodDisruptionBudgetStrategy(Strategy):
    kind = kind("policy/v1", "PodDisruptionBudget")
    unconditional_update = False
    has_status = True
    columns = (
        NAME_COLUMN, Column("Min Available"), Column("Max Unavailable"), Column("Allowed Disruptions", "integer"),
        AGE_COLUMN,
    )  # fmt: skip

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = self.zero_status()

    def validate(self, obj: Tree) -> list[Cause]:
        spec, out = spec_of(obj), []
        if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
            out.append(invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
        for field in ("minAvailable", "maxUnavailable"):
            value = spec.get(field)
            if value is not None:
                out += int_or_percent(value, f"spec.{field}")
                if (percent_of(value) or 0) > 100:
                    out.append(invalid(f"spec.{field}", value, "must not be greater than 100%"))
        out += validate_label_selector(spec.get("selector"), "spec.selector")
        policy = spec.get("unhealthyPodEvictionPolicy")
        if policy is not None and policy not in UNHEALTHY:
            out.append(not_supported("spec.unhealthyPodEvictionPolicy", policy, UNHEALTHY))
        return out

    def validate_status(self, obj: Tree, old: Tree) -> list[Cause]:
        status = status_of(obj)
        return [c for field in COUNTS for c in non_negative(status.get(field), f"status.{field}")]

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec = spec_of(obj)
        low, high = spec.get("minAvailable"), spec.get("maxUnavailable")
        return [
            name_cell(obj), "N/A" if low is None else str(low), "N/A" if high is None else str(high),
            status_of(obj).get("disruptionsAllowed") or 0, age_cell(obj, now),
        ]  # fmt: skip
