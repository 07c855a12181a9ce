"""Checks of changes to an existing pod: next to nothing may change, since a node may be running it already."""

from __future__ import annotations

import json
from typing import Any

from apiserver.kinds.cells import Tree, condition
from navarch.api import names, wellknown
from navarch.api.errors import Cause, duplicate, forbidden, invalid

UPDATABLE = (
    "`spec.containers[*].image`",
    "`spec.initContainers[*].image`",
    "`spec.activeDeadlineSeconds`",
    "`spec.tolerations` (only additions to existing tolerations)",
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
)


def mirror_causes(obj: Tree, old: Tree) -> list[Cause]:
    """Whether a pod is the mirror of a static one is settled at its creation: admission and agents treat it otherwise."""
    was, now = ((tree["metadata"].get("annotations") or {}).get(wellknown.MIRROR_POD) for tree in (old, obj))
    if was == now:
        return []
    what = "add" if was is None else "remove or update"
    return [forbidden(f"metadata.annotations[{wellknown.MIRROR_POD}]", f"may not {what} mirror pod annotation")]


def validate_pod_update(obj: Tree, old: Tree) -> list[Cause]:
    new_spec, old_spec = obj.get("spec") or {}, old.get("spec") or {}
    out = mirror_causes(obj, old)
    if new_spec == old_spec:
        return out
    munged = dict(new_spec)
    for field, word in (("containers", "containers"), ("initContainers", "initContainers")):
        new_list, old_list = new_spec.get(field) or [], old_spec.get(field) or []
        if len(new_list) != len(old_list):
            out.append(forbidden(f"spec.{field}", f"pod updates may not add or remove {_spaced(word)}"))
            return out
        for i, container in enumerate(new_list):
            image = container.get("image") or ""
            if not image:
                out.append(Cause("FieldValueRequired", "Required value", f"spec.{field}[{i}].image"))
            elif image != image.strip():
                text = "must not have leading or trailing whitespace"
                out.append(invalid(f"spec.{field}[{i}].image", image, text))
        if new_list:
            munged[field] = [c | {"image": o.get("image")} for c, o in zip(new_list, old_list, strict=True)]
    out += _deadline(new_spec, old_spec, munged)
    if old_spec.get("terminationGracePeriodSeconds", 0) < 0 and new_spec.get("terminationGracePeriodSeconds") == 1:
        munged["terminationGracePeriodSeconds"] = old_spec["terminationGracePeriodSeconds"]
    out += _tolerations(new_spec, old_spec, munged)
    out += _gates(new_spec, old_spec, munged)
    # Only the binding endpoint writes spec and status at once: whoever else changes spec keeps the old status.
    if not old_spec.get("nodeName") and _scheduled(obj) and not _scheduled(old):
        munged.pop("nodeName", None)
    if out:
        return out
    if munged != old_spec:
        text = "pod updates may not change fields other than " + ",".join(UPDATABLE)
        return [forbidden("spec", f"{text}\n{difference(old_spec, munged)}")]
    return []


def _scheduled(obj: Tree) -> bool:
    return (condition(obj, "PodScheduled") or {}).get("status") == "True"


def _spaced(word: str) -> str:
    return "init containers" if word == "initContainers" else word


def _put_back(field: str, old: Tree, munged: Tree) -> None:
    if field in old:
        munged[field] = old[field]
    else:
        munged.pop(field, None)


def _deadline(new: Tree, old: Tree, munged: Tree) -> list[Cause]:
    now, before = new.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds")
    _put_back("activeDeadlineSeconds", old, munged)
    at = "spec.activeDeadlineSeconds"
    if now is not None:
        if not 0 <= now <= 2**31 - 1:
            return [invalid(at, now, names.in_range(0, 2**31 - 1))]
        if before is not None and before < now:
            return [invalid(at, now, "must be less than or equal to previous value")]
    elif before is not None:
        return [invalid(at, None, "must not update from a positive integer to nil value")]
    return []


def _tolerations(new: Tree, old: Tree, munged: Tree) -> list[Cause]:
    """Existing ones stay, but for their tolerationSeconds; more may come."""
    now, before = new.get("tolerations") or [], old.get("tolerations") or []
    _put_back("tolerations", old, munged)

    def essence(toleration: Tree) -> Tree:
        return {k: v for k, v in toleration.items() if k != "tolerationSeconds"}

    essences = [essence(t) for t in now]
    if all(essence(t) in essences for t in before):
        return []
    return [forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")]


def _gates(new: Tree, old: Tree, munged: Tree) -> list[Cause]:
    """Scheduling gates may only go; while one is left, the node selector may be narrowed."""
    before = [g.get("name") for g in old.get("schedulingGates") or ()]
    _put_back("schedulingGates", old, munged)
    for i, gate in enumerate(new.get("schedulingGates") or ()):
        if gate.get("name") not in before:
            text = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            return [forbidden(f"spec.schedulingGates[{i}].name", text)]
    if before:
        now, was = new.get("nodeSelector") or {}, old.get("nodeSelector") or {}
        if all(now.get(k) == v for k, v in was.items()):
            _put_back("nodeSelector", old, munged)
    return []


def validate_pod_status(obj: Tree, old: Tree) -> list[Cause]:
    """Status must stay believable: no container comes back to life in a pod that does not restart."""
    new_status, old_status = obj.get("status") or {}, old.get("status") or {}
    out = mirror_causes(obj, old)
    policy = (old.get("spec") or {}).get("restartPolicy")
    types: set[str] = set()
    for i, entry in enumerate(new_status.get("conditions") or ()):
        if entry.get("type") in types:
            out.append(duplicate(f"status.conditions[{i}].type", entry.get("type")))
        types.add(entry.get("type") or "")
    for i, address in enumerate(new_status.get("podIPs") or ()):
        text = address.get("ip") or ""
        out += [invalid(f"status.podIPs[{i}]", text, m) for m in names.ip_address(text)]
    if policy == "Always":
        return out
    new_by_name = {c.get("name"): (i, c) for i, c in enumerate(new_status.get("containerStatuses") or ())}
    for container in old_status.get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated")
        if ended is None or (policy == "OnFailure" and ended.get("exitCode")):
            continue
        i, now = new_by_name.get(container.get("name"), (0, None))
        if now is not None and (now.get("state") or {}).get("terminated") is None:
            text = "may not be transitioned to non-terminated state"
            out.append(forbidden(f"status.containerStatuses[{i}].state", text))
    return out


def difference(old: Any, new: Any) -> str:
    """Lines that tell the fields apart, ``-`` for what was and ``+`` for what was asked."""
    lines: list[str] = []

    def walk(path: str, a: Any, b: Any) -> None:
        if a == b:
            return
        if isinstance(a, dict) and isinstance(b, dict):
            for key in [*a, *(k for k in b if k not in a)]:
                walk(f"{path}.{key}" if path else key, a.get(key), b.get(key))
        elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                walk(f"{path}[{i}]", x, y)
        else:
            if a is not None:
                lines.append(f"- {path}: {json.dumps(a)}")
            if b is not None:
                lines.append(f"+ {path}: {json.dumps(b)}")

    walk("", old, new)
    return "\n".join(lines)
