"""Nodes: cluster-scoped, born by their agents, tainted and drained by many."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, bool_text, condition, kind, meta_of, name_cell, spec_of, status_of
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names, wellknown
from navarch.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required

ROLE_PREFIX = "node-role.kubernetes.io/"
TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
# What PUT and PATCH of a node may change in spec (upstream's ValidateNodeUpdate).
MUTABLE = ("unschedulable", "taints", "configSource")


class NodeStrategy(Strategy):
    kind = kind("v1", "Node")
    has_status = True
    generation = False
    selectable_fields = ("spec.unschedulable",)
    columns = (
        NAME_COLUMN, Column("Status"), Column("Roles"), AGE_COLUMN, Column("Version"),
        Column("Internal-IP", priority=1), Column("External-IP", priority=1), Column("OS-Image", priority=1),
        Column("Kernel-Version", priority=1), Column("Container-Runtime", priority=1),
    )  # fmt: skip

    def default(self, obj: Tree) -> None:
        status = obj.setdefault("status", {})
        if status.get("allocatable") is None and status.get("capacity"):
            status["allocatable"] = dict(status["capacity"])
        spec = obj.setdefault("spec", {})
        if spec.get("unschedulable") is False:
            del spec["unschedulable"]  # upstream writes the field only where it is true
        # podCIDR and podCIDRs[0] are one value in two spellings.
        if spec.get("podCIDR") and not spec.get("podCIDRs"):
            spec["podCIDRs"] = [spec["podCIDR"]]
        elif spec.get("podCIDRs") and not spec.get("podCIDR"):
            spec["podCIDR"] = spec["podCIDRs"][0]

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        out = validate_taints(spec.get("taints"), "spec.taints")
        cidrs = spec.get("podCIDRs") or ()
        for i, cidr in enumerate(cidrs):
            out += [invalid(f"spec.podCIDRs[{i}]", cidr, m) for m in names.cidr(cidr)]
        if spec.get("podCIDR") and cidrs and spec["podCIDR"] != cidrs[0]:
            out.append(invalid("spec.podCIDRs[0]", cidrs[0], "must match `podCIDR`"))
        return out

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        out = self.validate(obj)
        new_spec, old_spec = dict(spec_of(obj)), spec_of(old)
        for field in ("podCIDR", "podCIDRs"):
            if not old_spec.get("podCIDRs"):
                new_spec.pop(field, None)  # may be set once
            elif new_spec.get(field) != old_spec.get(field):
                out.append(forbidden(f"spec.{field}", 'node updates may not change podCIDR except from "" to valid'))
                new_spec.pop(field, None)
        if old_spec.get("providerID") and new_spec.get("providerID") != old_spec["providerID"]:
            out.append(forbidden("spec.providerID", 'node updates may not change providerID except from "" to valid'))
        skip = (*MUTABLE, "podCIDR", "podCIDRs", "providerID")
        if {k: v for k, v in new_spec.items() if k not in skip} != {k: v for k, v in old_spec.items() if k not in skip}:
            out.append(forbidden("spec", "node updates may only change labels, taints, or capacity (or configSource, "
                                         "if the DynamicKubeletConfig feature gate is enabled)"))  # fmt: skip
        return out

    def validate_status(self, obj: Tree, old: Tree) -> list[Cause]:
        out: list[Cause] = []
        addresses: set[tuple[str, str]] = set()
        for i, address in enumerate(status_of(obj).get("addresses") or ()):
            key = (address.get("type", ""), address.get("address", ""))
            if key in addresses:
                out.append(duplicate(f"status.addresses[{i}]", {"type": key[0], "address": key[1]}))
            addresses.add(key)
        return out

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj.setdefault("spec", {})
        obj.setdefault("status", {})  # unlike most kinds, a new node keeps the status that its agent sends

    def fields(self, obj: Tree) -> dict[str, str]:
        return {"spec.unschedulable": bool_text(spec_of(obj).get("unschedulable"))}

    def cells(self, obj: Tree, now: float) -> list[Any]:
        info = status_of(obj).get("nodeInfo") or {}
        ready = condition(obj, "Ready")
        states = ["Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"]
        if spec_of(obj).get("unschedulable"):
            states.append("SchedulingDisabled")
        return [
            name_cell(obj), ",".join(states), ",".join(node_roles(obj)) or "<none>", age_cell(obj, now),
            info.get("kubeletVersion", ""), _address(obj, "InternalIP"), _address(obj, "ExternalIP"),
            info.get("osImage") or "<unknown>", info.get("kernelVersion") or "<unknown>",
            info.get("containerRuntimeVersion") or "<unknown>",
        ]  # fmt: skip


def node_roles(obj: Tree) -> list[str]:
    """Roles from the node-role labels, sorted."""
    roles: list[str] = []
    for key, value in (meta_of(obj).get("labels") or {}).items():
        if key.startswith(ROLE_PREFIX) and len(key) > len(ROLE_PREFIX):
            roles.append(key[len(ROLE_PREFIX) :])
        elif key == wellknown.NODE_ROLE and value:
            roles.append(value)
    return sorted(set(roles))


def _address(obj: Tree, type_: str) -> str:
    for address in status_of(obj).get("addresses") or ():
        if address.get("type") == type_:
            return str(address.get("address", ""))
    return "<none>"


def validate_taints(taints: list[Tree] | None, path: str) -> list[Cause]:
    """Taints need a key and a known effect, and are unique by key and effect."""
    out: list[Cause] = []
    taint_keys: set[tuple[str, str]] = set()
    for i, taint in enumerate(taints or ()):
        at, key, value, effect = f"{path}[{i}]", taint.get("key", ""), taint.get("value", ""), taint.get("effect", "")
        out += [invalid(f"{at}.key", key, m) for m in names.qualified_name(key)]
        out += [invalid(f"{at}.value", value, m) for m in names.label_value(value)]
        if not effect:
            out.append(required(f"{at}.effect"))
        elif effect not in TAINT_EFFECTS:
            out.append(not_supported(f"{at}.effect", effect, TAINT_EFFECTS))
        if (key, effect) in taint_keys:
            out.append(duplicate(at, taint))
        taint_keys.add((key, effect))
    return out
