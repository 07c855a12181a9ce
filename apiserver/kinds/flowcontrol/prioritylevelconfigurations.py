"""PriorityLevelConfigurations: the share of the server that a level has, and its queues."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, fill, fill_empty, kind, name_cell, spec_of
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api.errors import Cause, forbidden, invalid, not_supported, required

GROUP = "flowcontrol.apiserver.k8s.io/v1"
MAX_QUEUES = 10_000_000


class PriorityLevelConfigurationStrategy(Strategy):
    kind = kind(GROUP, "PriorityLevelConfiguration")
    has_status = True
    columns = (
        NAME_COLUMN, Column("Type"), Column("NominalConcurrencyShares", "integer"), Column("Queues", "integer"),
        Column("HandSize", "integer"), Column("QueueLengthLimit", "integer"), AGE_COLUMN,
    )  # fmt: skip

    def default(self, obj: Tree) -> None:
        spec = obj.setdefault("spec", {})
        limited = spec.get("limited")
        if spec.get("exempt") is not None:
            fill(spec["exempt"], nominalConcurrencyShares=0, lendablePercent=0)
        if limited is not None:
            fill(limited, nominalConcurrencyShares=30, lendablePercent=0)
            queuing = (limited.get("limitResponse") or {}).get("queuing")
            if queuing is not None:
                fill_empty(queuing, queues=64, handSize=8, queueLengthLimit=50)

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = {}

    def validate(self, obj: Tree) -> list[Cause]:
        spec, out = spec_of(obj), []
        type_, limited = spec.get("type") or "", spec.get("limited")
        if type_ not in ("Exempt", "Limited"):
            out.append(not_supported("spec.type", type_, ("Exempt", "Limited")))
        if type_ == "Exempt" and limited is not None:
            out.append(forbidden("spec.limited", "must be nil if the type is not Limited"))
        if type_ == "Limited":
            if limited is None:
                return [*out, required("spec.limited", "must not be empty when type is Limited")]
            if spec.get("exempt") is not None:
                out.append(forbidden("spec.exempt", "must be nil if the type is Limited"))
            return out + _limited(limited, "spec.limited")
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec = spec_of(obj)
        limited = spec.get("limited") or {}
        queuing = (limited.get("limitResponse") or {}).get("queuing") or {}
        shares = (spec.get("limited") or spec.get("exempt") or {}).get("nominalConcurrencyShares", "<none>")
        parts = [queuing.get(f, "<none>") for f in ("queues", "handSize", "queueLengthLimit")]
        return [name_cell(obj), spec.get("type") or "", shares, *parts, age_cell(obj, now)]


def _limited(limited: Tree, path: str) -> list[Cause]:
    out: list[Cause] = []
    shares, lend, borrow = (
        limited.get(f) for f in ("nominalConcurrencyShares", "lendablePercent", "borrowingLimitPercent")
    )  # fmt: skip
    if shares is not None and shares < 0:
        out.append(invalid(f"{path}.nominalConcurrencyShares", shares, "must be a non-negative integer"))
    if lend is not None and not 0 <= lend <= 100:
        out.append(invalid(f"{path}.lendablePercent", lend, "must be between 0 and 100, inclusive"))
    if borrow is not None and borrow < 0:
        out.append(invalid(f"{path}.borrowingLimitPercent", borrow, "if specified, must be a non-negative integer"))
    response, at = limited.get("limitResponse") or {}, f"{path}.limitResponse"
    type_, queuing = response.get("type") or "", response.get("queuing")
    if type_ == "Reject":
        text = "must be nil if limited.limitResponse.type is not Limited"
        return [*out, forbidden(f"{at}.queuing", text)] if queuing else out
    if type_ != "Queue":
        return [*out, not_supported(f"{at}.type", type_, ("Queue", "Reject"))]
    if queuing is None:
        text = "must not be empty if limited.limitResponse.type is Limited"
        return [*out, required(f"{at}.queuing", text)]
    at = f"{at}.queuing"
    queues, hand, limit = (queuing.get(f) or 0 for f in ("queues", "handSize", "queueLengthLimit"))
    if queues <= 0:
        out.append(invalid(f"{at}.queues", queues, "must be positive"))
    elif queues > MAX_QUEUES:
        out.append(invalid(f"{at}.queues", queues, f"must not be greater than {MAX_QUEUES}"))
    if hand <= 0:
        out.append(invalid(f"{at}.handSize", hand, "must be positive"))
    if hand > queues:
        out.append(invalid(f"{at}.handSize", hand, f"should not be greater than queues ({queues})"))
    if limit <= 0:
        out.append(invalid(f"{at}.queueLengthLimit", limit, "must be positive"))
    return out
