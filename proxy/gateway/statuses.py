"""Statuses of GatewayClasses, Gateways and HTTPRoutes, as trees. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.gateway.api import CONTROLLER, Finding, Tree, conditions, spec_of
from proxy.gateway.listeners import Listener
from proxy.gateway.ports import address_wish
from proxy.gateway.site import Parent


def class_status(gateway_class: Tree, now: str) -> Tree:
    bad = spec_of(gateway_class).get("parametersRef")
    finding = (
        Finding("Accepted", False, "InvalidParameters", "spec.parametersRef is not supported") if bad
        else Finding("Accepted", True, "Accepted")
    )  # fmt: skip
    meta, status = gateway_class["metadata"], gateway_class.get("status") or {}
    return {"conditions": conditions(status.get("conditions"), [finding], meta.get("generation", 0), now)}


def refusal_of(gateway: Tree) -> tuple[str, str] | None:
    """Why a Gateway as a whole is not served."""
    if spec_of(gateway).get("infrastructure"):
        return "InvalidParameters", "spec.infrastructure is not supported"
    if problem := address_wish(gateway)[1]:
        return "UnsupportedAddress", problem
    return None


def gateway_status(gateway: Tree, listeners: Sequence[Listener], address: str, now: str) -> Tree:
    """``address``: of its load balancer, "" if there is none yet."""
    generation, old = gateway["metadata"].get("generation", 0), gateway.get("status") or {}
    findings = {one.name: one.findings() for one in listeners}
    valid = [name for name, some in findings.items() if _is(some, "Accepted") and _is(some, "Programmed")]
    refusal = refusal_of(gateway)
    if refusal is not None:
        accepted = Finding("Accepted", False, *refusal)
    elif len(valid) == len(listeners) or not any(one.refusal or one.conflict for one in listeners):
        accepted = Finding("Accepted", True, "Accepted")
    else:
        bad = [one.name for one in listeners if one.refusal or one.conflict]
        accepted = Finding("Accepted", len(bad) < len(listeners), "ListenersNotValid", f"listeners: {', '.join(bad)}")
    if not accepted.status:
        programmed = Finding("Programmed", False, "Invalid", accepted.text)
    elif not address:
        programmed = Finding("Programmed", False, "AddressNotAssigned", "the load balancer has no address yet")
    elif not valid:
        programmed = Finding("Programmed", False, "Invalid", "no listener is served")
    else:
        programmed = Finding("Programmed", True, "Programmed")
    before = {entry.get("name"): entry for entry in old.get("listeners") or ()}
    return {
        "addresses": [{"type": "IPAddress", "value": address}] if address and accepted.status else [],
        "conditions": conditions(old.get("conditions"), [accepted, programmed], generation, now),
        "listeners": [{
            "name": one.name, "supportedKinds": one.kinds(), "attachedRoutes": len(one.routes),
            "conditions": conditions(before.get(one.name, {}).get("conditions"), findings[one.name], generation, now),
        } for one in listeners],
    }  # fmt: skip


def _is(findings: Sequence[Finding], type_: str) -> bool:
    return any(finding.status for finding in findings if finding.type == type_)


def route_status(route: Tree, parents: Sequence[Parent], now: str) -> Tree:
    """Other controllers' entries stay."""
    old = (route.get("status") or {}).get("parents") or ()
    out = [entry for entry in old if entry.get("controllerName") != CONTROLLER]
    own = [entry for entry in old if entry.get("controllerName") == CONTROLLER]
    for parent in parents:
        before: Tree = next((entry for entry in own if entry.get("parentRef") == parent.reference), {})
        generation = route["metadata"].get("generation", 0)
        shown = conditions(before.get("conditions"), parent.findings, generation, now)
        out.append({"parentRef": parent.reference, "controllerName": CONTROLLER, "conditions": shown})
    return {"parents": out}
