"""In which order discovery lists groups and versions: pure.

Groups come by the highest groupPriorityMinimum of their APIServices, then by name; versions by versionPriority, then as
Kubernetes orders versions (v2, v1, v1beta1). The figures are those that kube-apiserver registers its own groups with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from navarch.api.kinds import version_order

Priorities = Mapping[tuple[str, str], tuple[int, int]]
"""(group, version) -> (groupPriorityMinimum, versionPriority)."""

REGISTRATION = "apiregistration.k8s.io"  # always first, and has no APIService
CUSTOM = (1000, 100)
BUILT_IN: dict[tuple[str, str], tuple[int, int]] = {
    ("", "v1"): (18000, 1),
    ("apps", "v1"): (17800, 15),
    ("events.k8s.io", "v1"): (17750, 15),
    ("authentication.k8s.io", "v1"): (17700, 15),
    ("authorization.k8s.io", "v1"): (17600, 15),
    ("autoscaling", "v1"): (17500, 15),
    ("autoscaling", "v2"): (17500, 30),
    ("batch", "v1"): (17400, 15),
    ("certificates.k8s.io", "v1"): (17300, 15),
    ("networking.k8s.io", "v1"): (17200, 15),
    ("policy", "v1"): (17100, 15),
    ("rbac.authorization.k8s.io", "v1"): (17000, 15),
    ("storage.k8s.io", "v1"): (16800, 15),
    ("apiextensions.k8s.io", "v1"): (16700, 15),
    ("admissionregistration.k8s.io", "v1"): (16700, 15),
    ("scheduling.k8s.io", "v1"): (16600, 15),
    ("coordination.k8s.io", "v1"): (16500, 15),
    ("node.k8s.io", "v1"): (16300, 15),
    ("discovery.k8s.io", "v1"): (16200, 15),
    ("flowcontrol.apiserver.k8s.io", "v1"): (16100, 21),
    ("resource.k8s.io", "v1"): (16200, 20),
    ("metrics.k8s.io", "v1beta1"): (100, 100),
}


def priority(priorities: Priorities, group: str, version: str) -> tuple[int, int]:
    """The priority that is registered, else the group's default."""
    key = group, version
    return priorities.get(key) or BUILT_IN.get(key, CUSTOM)


def ordered(versions: Iterable[tuple[str, str]], priorities: Priorities) -> dict[str, list[str]]:
    """Groups in order, each with its versions in order; the core group is ""."""
    groups: dict[str, list[str]] = {}
    for group, version in versions:
        groups.setdefault(group, []).append(version)

    def rank(group: str) -> tuple[bool, int, str]:
        return group != REGISTRATION, -max(priority(priorities, group, v)[0] for v in groups[group]), group

    def place(group: str, version: str) -> tuple[int, tuple[int, int, int, str]]:
        return -priority(priorities, group, version)[1], version_order(version)

    return {g: sorted(groups[g], key=lambda v, g=g: place(g, v)) for g in sorted(groups, key=rank)}  # type: ignore[misc]
