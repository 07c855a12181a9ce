"""Conditions: the lists of ``type, status, reason, message`` in every status.

They work on any condition struct (PodCondition, NodeCondition, DeploymentCondition ...). Lists given are never
changed, since they may belong to a cached object: a new list comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import msgspec


class Condition(Protocol):
    type: str
    status: str


C = TypeVar("C", bound=Condition)


def get_condition(conditions: Sequence[C] | None, type_: str) -> C | None:
    """The condition of a type, None if there is none."""
    for condition in conditions or ():
        if condition.type == type_:
            return condition
    return None


def is_true(conditions: Sequence[Condition] | None, type_: str) -> bool:
    condition = get_condition(conditions, type_)
    return condition is not None and condition.status == "True"


def set_condition(conditions: Sequence[C] | None, new: C, now: str) -> tuple[list[C], bool]:
    """The list with ``new`` in the place of the condition of its type (at the end if there was none), and whether
    anything changed.

    ``last_transition_time`` moves to ``now`` only when ``status`` changes; probe, heartbeat and update times alone are
    no change.
    """
    out = list(conditions or ())
    for i, old in enumerate(out):
        if old.type != new.type:
            continue
        if old.status == new.status and (since := getattr(old, "last_transition_time", None)):
            new = _with(new, last_transition_time=since)
        else:
            new = _with(new, last_transition_time=getattr(new, "last_transition_time", None) or now)
        changed = _essence(old) != _essence(new)
        out[i] = new
        return out, changed
    out.append(_with(new, last_transition_time=getattr(new, "last_transition_time", None) or now))
    return out, True


def remove_condition(conditions: Sequence[C] | None, type_: str) -> list[C]:
    return [c for c in conditions or () if c.type != type_]


def _with(condition: Any, **values: Any) -> Any:
    return msgspec.structs.replace(condition, **values) if hasattr(condition, "last_transition_time") else condition


def _essence(condition: Any) -> tuple[Any, ...]:
    return tuple(
        getattr(condition, name, None)
        for name in ("status", "reason", "message", "observed_generation", "last_transition_time")
    )
