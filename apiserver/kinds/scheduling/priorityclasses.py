"""PriorityClasses: names for the numbers by which pods are scheduled and preempted."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, fill, kind, meta_of, name_cell
from apiserver.kinds.checks import immutable
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api.errors import Cause, Forbidden, forbidden, not_supported, resource_forbidden

SYSTEM_PREFIX = "system-"
HIGHEST_USER_PRIORITY = 1_000_000_000
SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
PREEMPTION = ("Never", "PreemptLowerPriority")


class PriorityClassStrategy(Strategy):
    kind = kind("scheduling.k8s.io/v1", "PriorityClass")
    columns = (
        NAME_COLUMN, Column("Value", "integer"), Column("Global-Default", "boolean"), AGE_COLUMN,
        Column("PreemptionPolicy"),
    )  # fmt: skip

    def default(self, obj: Tree) -> None:
        fill(obj, preemptionPolicy="PreemptLowerPriority")

    def prepare_create(self, context: Context, obj: Tree) -> None:
        fill(obj["metadata"], generation=1)

    def validate(self, obj: Tree) -> list[Cause]:
        out: list[Cause] = []
        name, value = meta_of(obj).get("name") or "", obj.get("value") or 0
        if name.startswith(SYSTEM_PREFIX):
            if SYSTEM_PRIORITIES.get(name) != value:
                why = "priority class names with 'system-' prefix are reserved for system use only. "
                if name in SYSTEM_PRIORITIES:
                    why += f"error: value of {name} PriorityClass must be {SYSTEM_PRIORITIES[name]}"
                else:
                    why += f"error: {name} is not a known system priority class"
                out.append(forbidden("metadata.name", why))
        elif value > HIGHEST_USER_PRIORITY:
            text = f"maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"
            out.append(forbidden("value", text))
        if obj.get("preemptionPolicy") not in PREEMPTION:
            out.append(not_supported("preemptionPolicy", obj.get("preemptionPolicy") or "", PREEMPTION))
        return out

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        out = []
        if obj.get("value", 0) != old.get("value", 0):
            out.append(forbidden("value", "may not be changed in an update."))
        return out + immutable(obj.get("preemptionPolicy"), old.get("preemptionPolicy"), "preemptionPolicy")

    def check_delete(self, context: Context, obj: Tree) -> None:
        name = name_cell(obj)
        if name in SYSTEM_PRIORITIES:
            error: Forbidden = resource_forbidden(
                "priorityclasses", "scheduling.k8s.io", name, "this is a system priority class and cannot be deleted"
            )
            raise error

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [
            name_cell(obj), obj.get("value") or 0, bool(obj.get("globalDefault")), age_cell(obj, now),
            obj.get("preemptionPolicy") or "",
        ]  # fmt: skip
