"""Checks of a Job's policies: which pods fail (podFailurePolicy) and when enough have succeeded (successPolicy)."""

from __future__ import annotations

import re

from apiserver.kinds.cells import Tree
from navarch.api import names
from navarch.api.errors import Cause, duplicate, invalid, not_supported, required, too_many

ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
OPERATORS = ("In", "NotIn")
MAX_RULES = 20
MAX_CODES = 255
MAX_PATTERNS = 20
_interval = re.compile(r"([0-9]+)(?:-([0-9]+))?", re.ASCII).fullmatch


def validate_failure_policy(policy: Tree | None, path: str, spec: Tree) -> list[Cause]:
    if policy is None:
        return []
    rules = policy.get("rules") or []
    if len(rules) > MAX_RULES:
        return [too_many(f"{path}.rules", len(rules), MAX_RULES)]
    pod = (spec.get("template") or {}).get("spec") or {}
    container_names = {c.get("name") for f in ("containers", "initContainers") for c in pod.get(f) or ()}
    out: list[Cause] = []
    for i, rule in enumerate(rules):
        here, action = f"{path}.rules[{i}]", rule.get("action") or ""
        if action == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
            text = "requires the backoffLimitPerIndex to be set"
            out.append(invalid(f"{here}.action", action, text))
        elif not action:
            out.append(required(f"{here}.action", f"valid values: {_listed(ACTIONS)}"))
        elif action not in ACTIONS:
            out.append(not_supported(f"{here}.action", action, ACTIONS))
        codes, patterns = rule.get("onExitCodes"), rule.get("onPodConditions") or []
        if codes is not None:
            out += _codes(codes, f"{here}.onExitCodes", container_names)
        if len(patterns) > MAX_PATTERNS:
            out.append(too_many(f"{here}.onPodConditions", len(patterns), MAX_PATTERNS))
        for j, pattern in enumerate(patterns):
            at = f"{here}.onPodConditions[{j}]"
            kind, status = pattern.get("type") or "", pattern.get("status") or ""
            out += [invalid(f"{at}.type", kind, m) for m in names.qualified_name(kind)] if kind else [required(f"{at}.type")]
            if status not in ("True", "False", "Unknown"):
                out.append(not_supported(f"{at}.status", status, ("False", "True", "Unknown")))
        if codes is not None and patterns:
            text = "specifying both OnExitCodes and OnPodConditions is not supported"
            out.append(invalid(here, rule, text))
        if codes is None and not patterns:
            text = "specifying one of OnExitCodes and OnPodConditions is required"
            out.append(invalid(here, rule, text))
    return out


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(f'"{w}"' for w in words)


def _codes(codes: Tree, path: str, container_names: set[str | None]) -> list[Cause]:
    operator, values, out = codes.get("operator") or "", codes.get("values") or [], []
    if not operator:
        out.append(required(f"{path}.operator", f"valid values: {_listed(OPERATORS)}"))
    elif operator not in OPERATORS:
        out.append(not_supported(f"{path}.operator", operator, OPERATORS))
    container = codes.get("containerName")
    if container is not None and container not in container_names:
        text = "must be one of the container or initContainer names in the pod template"
        out.append(invalid(f"{path}.containerName", container, text))
    if not values:
        out.append(invalid(f"{path}.values", values, "at least one value is required"))
    elif len(values) > MAX_CODES:
        out.append(too_many(f"{path}.values", len(values), MAX_CODES))
    for i, value in enumerate(values):
        if operator == "In" and value == 0:
            out.append(invalid(f"{path}.values[{i}]", value, "must not be 0 for the In operator"))
        elif value in values[:i]:
            out.append(duplicate(f"{path}.values[{i}]", value))
        elif i and value < values[i - 1]:
            out.append(invalid(f"{path}.values", values, "must be ordered"))
    return out


def parse_indexes(text: str, completions: int) -> list[tuple[int, int]]:
    """``1,3-5`` as pairs of first and last. Raises ValueError with the reason."""
    out: list[tuple[int, int]] = []
    for part in text.split(",") if text else ():
        match = _interval(part)
        if not match:
            raise ValueError(f'cannot convert string to integer for index: "{part}"')
        first, last = int(match[1]), int(match[2] or match[1])
        if match[2] and last <= first:
            raise ValueError(f'non-increasing order, previous: {first}, current: {last}')
        if out and first <= out[-1][1]:
            raise ValueError(f'non-increasing order, previous: {out[-1][1]}, current: {first}')
        if last >= completions:
            raise ValueError(f'too large index: "{last}"')
        out.append((first, last))
    return out


def validate_success_policy(policy: Tree | None, path: str, completions: int | None) -> list[Cause]:
    if policy is None:
        return []
    rules = policy.get("rules") or []
    if not rules:
        return [required(f"{path}.rules", "at least one rules must be specified when the successPolicy is specified")]
    out = [too_many(f"{path}.rules", len(rules), MAX_RULES)] if len(rules) > MAX_RULES else []
    for i, rule in enumerate(rules):
        here, count, indexes = f"{path}.rules[{i}]", rule.get("succeededCount"), rule.get("succeededIndexes")
        if count is None and indexes is None:
            out.append(required(here, "at least one of succeededCount or succeededIndexes must be specified"))
        total = completions or 0
        if indexes is not None:
            try:
                total = sum(last - first + 1 for first, last in parse_indexes(indexes, completions or 0))
            except ValueError as error:
                out.append(invalid(f"{here}.succeededIndexes", indexes, f"error parsing succeededIndexes: {error}"))
        if count is not None and count < 0:
            out.append(invalid(f"{here}.succeededCount", count, "must be greater than or equal to 0"))
        elif count is not None and count > total:
            what = "the number of the succeeded indexes" if indexes is not None else "the number of the completions"
            text = f"must be less than or equal to {total} ({what})"
            out.append(invalid(f"{here}.succeededCount", count, text))
    return out
