"""ReplicaSets: a number of pods of one template."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.apps.workloads import WIDE, Workload, validate_selected_template, wide_cells
from apiserver.kinds.cells import age_cell, kind, name_cell, spec_of, status_of
from apiserver.kinds.checks import (
    non_negative,
)
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Tree
from navarch.api.errors import Cause


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
