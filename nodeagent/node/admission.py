"""The node's last word on a pod before it runs: what the scheduler could not know, or what was bound past it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from navarch.api import affinity, quantity, resources
from navarch.api.types import core_v1


def reject(
    pod: core_v1.Pod,
    node: core_v1.Node | None,
    allocatable: Mapping[str, quantity.Quantity],
    active: Iterable[core_v1.Pod],
) -> tuple[str, str] | None:
    """(reason, message) if the node cannot take the pod, beside the ``active`` ones."""
    if node is not None and not affinity.pod_matches_node(
        pod.spec, node.metadata.name or "", node.metadata.labels or {}
    ):
        return (
            "NodeAffinity",
            "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        )
    if node is not None and (pod.spec.os is not None and pod.spec.os.name != "linux"):
        return (
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        )
    if _wants_apparmor(pod.spec):
        return "AppArmor", "Cannot enforce AppArmor: the node's runtime does not apply AppArmor profiles"
    used: resources.Amounts = {}
    count = 0
    for other in active:
        resources.add(used, resources.pod_requests(other))
        count += 1
    room = resources.amounts(allocatable)
    if "pods" in room and count + 1 > room["pods"]:
        return _out_of("pods", 1, count, room["pods"])
    for name, wanted in resources.pod_requests(pod).items():
        if wanted > 0 and name in room and used.get(name, 0) + wanted > room[name]:
            return _out_of(name, wanted, used.get(name, 0), room[name])
        if wanted > 0 and name not in room:
            return _out_of(name, wanted, 0, 0)
    ports = _host_ports(pod)
    for other in active:
        if ports & _host_ports(other):
            return (
                "NodePorts",
                "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
            )
    return None


def _wants_apparmor(spec: core_v1.PodSpec) -> bool:
    contexts = [spec.security_context, *(c.security_context for c in [*(spec.init_containers or ()), *spec.containers])]
    profiles = [c.app_armor_profile for c in contexts if c is not None and c.app_armor_profile is not None]
    return any(profile.type != "Unconfined" for profile in profiles)


def _out_of(name: str, requested: int, used: int, capacity: int) -> tuple[str, str]:
    amounts = f"{name}, requested: {requested}, used: {used}, capacity: {capacity}"
    return f"OutOf{name}", f"Pod was rejected: Node didn't have enough resource: {amounts}"


def _host_ports(pod: core_v1.Pod) -> frozenset[tuple[str, int]]:
    return frozenset(
        (port.protocol or "TCP", port.host_port)
        for container in pod.spec.containers
        for port in container.ports or ()
        if port.host_port
    )
