"""Leases: who leads, and which nodes are alive."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, kind, name_cell, spec_of
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from navarch.api.errors import Cause, invalid


class LeaseStrategy(Strategy):
    kind = kind("coordination.k8s.io/v1", "Lease")
    create_on_update = True
    unconditional_update = False
    generation = False
    columns = (NAME_COLUMN, Column("Holder"), AGE_COLUMN)

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        out: list[Cause] = []
        duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
        if duration is not None and duration <= 0:
            out.append(invalid("spec.leaseDurationSeconds", duration, "must be greater than 0"))
        if transitions is not None and transitions < 0:
            out.append(invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), spec_of(obj).get("holderIdentity") or "", age_cell(obj, now)]
