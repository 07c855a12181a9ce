"""pods/resize: cpu and memory of containers that run, changed in place."""

from __future__ import annotations

from typing import Any

import msgspec

from apiserver.kinds.cells import Tree, status_of
from apiserver.kinds.core.pods.resources import validate_resources
from apiserver.kinds.core.pods.update import difference
from navarch.api import qos, quantity, wellknown
from navarch.api.errors import Cause, forbidden, invalid
from navarch.api.pods import is_sidecar
from navarch.api.types import core_v1

RESIZABLE = ("cpu", "memory")
_SIDES = (("limits", "limits"), ("requests", "requests"))


def only_resources(obj: Tree, old: Tree) -> Tree:
    """Reduces a write through the subresource: the new spec on the old pod; :func:`validate_resize` looks at it."""
    return {**old, "spec": obj.get("spec") or {}}


def validate_resize(obj: Tree, old: Tree) -> list[Cause]:
    new, was = obj["spec"], old["spec"]
    if wellknown.MIRROR_POD in (old["metadata"].get("annotations") or {}):
        return [forbidden("", "static pods cannot be resized")]
    if new.get("resources") or was.get("resources"):
        return [forbidden("", "pods with pod-level resources cannot be resized")]
    out: list[Cause] = []
    out += _supported(old)
    munged = dict(new)
    for field in ("containers", "initContainers"):
        listed, before = new.get(field) or [], was.get(field) or []
        if len(listed) != len(before):
            continue
        munged_list: list[Any] = []
        for i, (one, had) in enumerate(zip(listed, before, strict=True)):
            movable = field == "containers" or is_sidecar(had)
            out += _container(one, had, f"spec.{field}[{i}]") if movable else []
            munged_list.append(_put_back(one, had) if movable else one)
        if listed:
            munged[field] = munged_list
    if out:
        return out
    if munged != was:
        text = "only cpu and memory resources are mutable"
        return [forbidden("spec", f"{text}\n{difference(was, munged)}")]
    if new != was and _qos(new) != (old.get("status") or {}).get("qosClass", _qos(was)):
        out.append(invalid("spec", _qos(new), "Pod QOS Class may not change as a result of resizing"))
    return out


def _supported(old: Tree) -> list[Cause]:
    """The agent of the node has to say what its containers run with."""
    for status in status_of(old).get("containerStatuses") or ():
        if "running" in (status.get("state") or {}) and "resources" not in status:
            return [forbidden("", "Pod running on node without support for resize")]
    return []


def _container(new: Tree, old: Tree, at: str) -> list[Cause]:
    out = validate_resources(new.get("resources"), f"{at}.resources")
    for side, word in _SIDES:
        has, had = ((t.get("resources") or {}).get(side) or {} for t in (new, old))
        if any(name in had and name not in has for name in RESIZABLE):
            out.append(forbidden(f"{at}.resources.{side}", f"resource {word} cannot be removed"))
    return out


def _put_back(new: Tree, old: Tree) -> Tree:
    """The container with its old cpu and memory."""
    own, had = dict(new.get("resources") or {}), old.get("resources") or {}
    for side, _ in _SIDES:
        values = {k: v for k, v in (own.get(side) or {}).items() if k not in RESIZABLE}
        values |= {k: v for k, v in (had.get(side) or {}).items() if k in RESIZABLE}
        order = had.get(side) or {}
        if values:
            own[side] = {k: values[k] for k in [*order, *(k for k in values if k not in order)] if k in values}
        else:
            own.pop(side, None)
    out = {k: v for k, v in new.items() if k != "resources"}
    if own or "resources" in old:
        out["resources"] = own
    return out


def _qos(spec: Tree) -> str:
    try:
        return qos.qos_class(msgspec.convert(spec, core_v1.PodSpec))
    except (msgspec.ValidationError, quantity.QuantityError):
        return ""
