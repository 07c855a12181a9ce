"""Adds what a default role or binding that stands lacks. Only what is missing is added; what people added stays."""

from __future__ import annotations

from typing import Any

from apiserver.authz.rules import compile_rules, uncovered
from navarch.api import wellknown

Tree = dict[str, Any]
AUTOUPDATE = wellknown.RBAC_AUTOUPDATE


def protected(obj: Tree) -> bool:
    """Whether somebody asked that the object be left as it is."""
    return bool((obj["metadata"].get("annotations") or {}).get(AUTOUPDATE) == "false")


def agrees(found: Tree, wanted: Tree) -> bool:
    """Whether there is nothing to do about a role or binding. Both are the caller's to give away."""
    if protected(found):
        return True
    if "roleRef" in wanted:
        return bool(found["roleRef"] == wanted["roleRef"]) and not mend_binding(found, wanted)
    return not mend_role(found, wanted)


def mend_role(old: Tree, wanted: Tree) -> bool:
    """Gives a role, in place, the rules, the selectors of an aggregated role, labels and annotations that it lacks; whether
    it lacked any. ``wanted`` is the caller's to give away: ``old`` may keep parts of it."""
    mended = _mend_metadata(old, wanted)
    rules = old.get("rules") or []
    if uncovered(compile_rules(rules), wanted.get("rules", ())):
        old["rules"] = [*wanted["rules"], *(r for r in rules if r not in wanted["rules"])]
        mended = True
    selectors = (old.get("aggregationRule") or {}).get("clusterRoleSelectors") or []
    missing = [s for s in wanted.get("aggregationRule", {}).get("clusterRoleSelectors", ()) if s not in selectors]
    if missing:
        old["aggregationRule"] = {"clusterRoleSelectors": [*selectors, *missing]}
    return mended or bool(missing)


def mend_binding(old: Tree, wanted: Tree) -> bool:
    """Gives a binding to the same role, in place, the subjects, labels and annotations that it lacks; whether it lacked any.
    ``wanted`` is the caller's to give away."""
    mended = _mend_metadata(old, wanted)
    subjects = old.get("subjects") or []
    missing = [s for s in wanted.get("subjects", ()) if s not in subjects]
    if missing:
        old["subjects"] = [*subjects, *missing]
    return mended or bool(missing)


def _mend_metadata(old: Tree, wanted: Tree) -> bool:
    """A label or annotation that has another value keeps it."""
    mended = False
    for field in ("labels", "annotations"):
        has = old["metadata"].get(field) or {}
        if any(key not in has for key in wanted["metadata"][field]):
            old["metadata"][field] = wanted["metadata"][field] | has
            mended = True
    return mended
