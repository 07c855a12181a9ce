"""Which names a definition gets, and the conditions that tell: pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from apiserver.crd.conversion import bundle_problem
from navarch.api.kinds import Kind

Tree = dict[str, Any]
NAMES_ACCEPTED, ESTABLISHED, TERMINATING = "NamesAccepted", "Established", "Terminating"
APPROVED = "KubernetesAPIApprovalPolicyConformant"
APPROVAL = "api-approved.kubernetes.io"


def condition(definition: Tree, kind: str) -> Tree | None:
    """A condition of a definition, None if it has none of that type."""
    for one in (definition.get("status") or {}).get("conditions") or ():
        if one.get("type") == kind:
            return one  # type: ignore[no-any-return]
    return None


def is_true(definition: Tree, kind: str) -> bool:
    entry = condition(definition, kind)
    return entry is not None and entry.get("status") == "True"


def set_condition(status: Tree, kind: str, value: str, reason: str, message: str, now: str) -> None:
    """Sets a condition; its time moves only with its value."""
    conditions = status["conditions"] = list(status.get("conditions") or ())
    new = {"type": kind, "status": value, "reason": reason, "message": message, "lastTransitionTime": now}
    for i, old in enumerate(conditions):
        if old.get("type") == kind:
            if old.get("status") == value:
                new["lastTransitionTime"] = old.get("lastTransitionTime") or now
            conditions[i] = new
            return
    conditions.append(new)


def is_protected(group: str) -> bool:
    """Groups that belong to Kubernetes itself."""
    return any(group == g or group.endswith("." + g) for g in ("k8s.io", "kubernetes.io"))


def naming(definition: Tree, others: Iterable[Tree], built_in: Iterable[Kind], now: str) -> Tree:
    """The status that a definition should have: accepted names and conditions. ``others``: the other definitions of the
    group; ``built_in``: the kinds of the group that are served anyway."""
    resources: dict[str, None] = {}
    kinds: dict[str, None] = {}
    for other in others:
        used_names = (other.get("status") or {}).get("acceptedNames") or {}
        for name in (used_names.get("plural"), used_names.get("singular"), *(used_names.get("shortNames") or ())):
            resources[name or ""] = None
        kinds[used_names.get("kind") or ""] = kinds[used_names.get("listKind") or ""] = None
    for kind in built_in:
        resources[kind.resource] = resources[kind.singular_name] = kinds[kind.kind] = kinds[kind.list_kind] = None
    spec_names = definition["spec"]["names"]
    status: Tree = dict(definition.get("status") or {})
    before = status.get("acceptedNames") or {}
    names = {k: v for k, v in before.items() if v}
    problem: tuple[str, str] | None = None
    for field, reason, used_names in (
        ("plural", "PluralConflict", resources),
        ("singular", "SingularConflict", resources),
        ("shortNames", "ShortNamesConflict", resources),
        ("kind", "KindConflict", kinds),
        ("listKind", "ListKindConflict", kinds),
    ):
        value = spec_names.get(field)
        listed = value if isinstance(value, list) else [value] if value else []
        had = before.get(field) or ()
        clash = [n for n in listed if n in used_names and n != had and n not in (had if isinstance(had, list) else ())]
        if clash:
            text = ", ".join(f'"{n}" is already in use' for n in clash)
            problem = (reason, f"[{text}]" if len(clash) > 1 else text)
        elif value:
            names[field] = value
        else:
            names.pop(field, None)
    names.pop("categories", None)
    if spec_names.get("categories"):
        names["categories"] = spec_names["categories"]
    status["acceptedNames"] = {"plural": "", "kind": ""} | names
    if problem:
        set_condition(status, NAMES_ACCEPTED, "False", *problem, now)
    else:
        set_condition(status, NAMES_ACCEPTED, "True", "NoConflicts", "no conflicts found", now)
    established = condition(definition, ESTABLISHED)
    if established is None or established.get("status") != "True":
        if problem:
            if established is None:
                set_condition(status, ESTABLISHED, "False", "NotAccepted", "not all names are accepted", now)
        else:
            text = "the initial names have been accepted"
            if bundle_problem(definition["spec"].get("conversion") or {}):
                set_condition(status, ESTABLISHED, "False", "Installing", text, now)
            else:
                set_condition(status, ESTABLISHED, "True", "InitialNamesAccepted", text, now)
    _approval(definition, status, now)
    return status


def _approval(definition: Tree, status: Tree, now: str) -> None:
    if not is_protected(definition["spec"]["group"]):
        return
    value = (definition["metadata"].get("annotations") or {}).get(APPROVAL, "")
    if value.startswith("unapproved"):
        text = f'not approved: "{value}"'
        set_condition(status, APPROVED, "False", "UnapprovedAnnotation", text, now)
    elif value:
        set_condition(status, APPROVED, "True", "ApprovedAnnotation", f"approved in {value}", now)
