"""Checks of resource requests and limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apiserver.kinds.cells import Tree
from navarch.api import names, quantity
from navarch.api.errors import Cause, duplicate, invalid, not_supported, required

STANDARD = ("cpu", "memory", "ephemeral-storage")


def _overcommits(name: str) -> bool:
    """Native resources may be promised more than once; extended ones and huge pages may not."""
    return not name.startswith("hugepages-") and ("/" not in name or "kubernetes.io/" in name)


def _name(name: str, at: str) -> list[Cause]:
    wrong = [invalid(at, name, m) for m in names.qualified_name(name)]
    if wrong:
        return wrong
    if "/" not in name:
        if name in STANDARD or name.startswith("hugepages-"):
            return []
        return [invalid(at, name, "must be a standard resource for containers")]
    return []


def _quantity(name: str, value: Any, at: str) -> list[Cause]:
    if quantity.parse(value) < 0:
        return [invalid(at, str(value), "must be greater than or equal to 0")]
    if not _overcommits(name) and quantity.milli(value) % 1000:
        return [invalid(at, str(value), "must be an integer")]
    return []


def validate_resources(resources: Tree | None, path: str) -> list[Cause]:
    """A container's ResourceRequirements: known names, no negatives, requests within limits."""
    out: list[Cause] = []
    limits, requests = (resources or {}).get("limits") or {}, (resources or {}).get("requests") or {}
    for field, listed in (("limits", limits), ("requests", requests)):
        for name, value in sorted(listed.items()):
            at = f"{path}.{field}[{name}]"
            out += _name(name, at) + _quantity(name, value, at)
    for name, value in sorted(requests.items()):
        limit = limits.get(name)
        if limit is None:
            if not _overcommits(name):
                out.append(required(f"{path}.limits", "Limit must be set for non overcommitable resources"))
        elif not _overcommits(name) and quantity.compare(value, limit):
            out.append(invalid(f"{path}.requests", str(value), f"must be equal to {name} limit of {limit}"))
        elif quantity.compare(value, limit) > 0:
            out.append(
                invalid(f"{path}.requests", str(value), f"must be less than or equal to {name} limit of {limit}")
            )
    return out


def validate_resize_policy(policies: Sequence[Tree], at: str, restart_policy: str) -> list[Cause]:
    """Validates what happens to a container when its resources change: named resources, each once."""
    out: list[Cause] = []
    earlier: list[str] = []
    for one in policies:
        name, policy = one.get("resourceName") or "", one.get("restartPolicy") or ""
        if name in earlier:
            out.append(duplicate(at, name))
        earlier.append(name)
        if not name:
            out.append(required(at))
        elif name not in ("cpu", "memory"):
            out.append(not_supported(at, name, ["cpu", "memory"]))
        if not policy:
            out.append(required(at))
        elif policy not in ("NotRequired", "RestartContainer"):
            out.append(not_supported(at, policy, ["NotRequired", "RestartContainer"]))
        elif policy == "RestartContainer" and restart_policy == "Never":
            text = "must be 'NotRequired' when `restartPolicy` is 'Never'"
            out.append(invalid(at, policy, text))
    return out
