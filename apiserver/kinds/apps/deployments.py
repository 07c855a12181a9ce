"""Deployments: a template, and how to roll it out over replica sets."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.apps.workloads import WIDE, Workload, validate_selected_template, wide_cells
from apiserver.kinds.cells import age_cell, fill, kind, name_cell, spec_of, status_of
from apiserver.kinds.checks import (
    MAX_INT32,
    int_or_percent,
    non_negative,
)
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Tree
from navarch.api.errors import Cause, forbidden, invalid, not_supported, required
from navarch.api.intstr import percent_of


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
