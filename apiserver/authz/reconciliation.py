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


def agrees(present: Tree, default: Tree) -> bool:
    """Whether there is nothing to do about a role or binding. Both are the caller's to give away."""
    if protected(present):
        return True
    if "roleRef" in default:
        return bool(present["roleRef"] == default["roleRef"]) and not mend_binding(present, default)
    return not mend_role(present, default)


def mend_role(old: Tree, default: Tree) -> bool:
    """Gives a role, in place, the rules, the selectors of an aggregated role, labels and annotations that it lacks; whether
    it lacked any. ``default`` is the caller's to give away: ``old`` may keep parts of it."""
    mended = _mend_metadata(old, default)
    rules = old.get("rules") or []
    if uncovered(compile_rules(rules), default.get("rules", ())):
        old["rules"] = [*default["rules"], *(r for r in rules if r not in default["rules"])]
        mended = True
    selectors = (old.get("aggregationRule") or {}).get("clusterRoleSelectors") or []
    missing = [s for s in default.get("aggregationRule", {}).get("clusterRoleSelectors", ()) if s not in selectors]
    if missing:
        old["aggregationRule"] = {"clusterRoleSelectors": [*selectors, *missing]}
    return mended or bool(missing)


def mend_binding(old: Tree, default: Tree) -> bool:
    """Gives a binding to the same role, in place, the subjects, labels and annotations that it lacks; whether it lacked any.
    ``default`` is the caller's to give away."""
    mended = _mend_metadata(old, default)
    subjects = old.get("subjects") or []
    missing = [s for s in default.get("subjects", ()) if s not in subjects]
    if missing:
        old["subjects"] = [*subjects, *missing]
    return mended or bool(missing)


def _mend_metadata(old: Tree, default: Tree) -> bool:
    """A label or annotation that has another value keeps it."""
    mended = False
    for field in ("labels", "annotations"):
        has = old["metadata"].get(field) or {}
        if any(key not in has for key in default["metadata"][field]):
            old["metadata"][field] = default["metadata"][field] | has
            mended = True
    return mended
