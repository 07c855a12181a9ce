"""The node's last word on a pod before it runs: what the scheduler could not know, or what was bound past it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from navarch.api import affinity, quantity, resources
from navarch.api.pods import is_sidecar
from navarch.api.types import core_v1
from nodeagent.node import sysctls


def reject(
    pod: core_v1.Pod,
    node: core_v1.Node | None,
    allocatable: Mapping[str, quantity.Quantity],
    active: Iterable[core_v1.Pod],
    allowed_sysctls: Sequence[str] = (),
) -> tuple[str, str] | None:
    """(reason, message) if the node cannot take the pod, beside the ``active`` ones.

    ``allocatable`` has the node's own resources, and such extended ones as somebody gave its Node object. Others are not
    the node's business: whoever counts them (a scheduler's extender, say) has found them enough. ``allowed_sysctls``: the
    unsafe ones that pods may set here.
    """
    if node is not None and not affinity.pod_matches_node(
        pod.spec, node.metadata.name or "", node.metadata.labels or {}
    ):
        return (
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        )
    if node is not None and (pod.spec.os is not None and pod.spec.os.name != "linux"):
        return (
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        )
    if _wants_apparmor(pod.spec):
        return "AppArmor", "Cannot enforce AppArmor: the node's runtime does not apply AppArmor profiles"
    if why := sysctls.forbidden(pod.spec, allowed_sysctls):
        return "SysctlForbidden", why
    used: resources.Amounts = {}
    count = 0
    active = list(active)
    for other in active:
        resources.add(used, resources.pod_requests(other))
        count += 1
    room = resources.amounts(allocatable)
    if "pods" in room and count + 1 > room["pods"]:
        return _out_of("pods", 1, count, room["pods"])
    for name, request in resources.pod_requests(pod).items():
        if request > 0 and name in room and used.get(name, 0) + request > room[name]:
            return _out_of(name, request, used.get(name, 0), room[name])
        if request > 0 and name not in room and not resources.is_extended(name):
            return _out_of(name, request, 0, 0)
    ports = _host_ports(pod)
    if any(_conflict(one, two) for other in active for two in _host_ports(other) for one in ports):
        return (
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        )
    return None


def _wants_apparmor(spec: core_v1.PodSpec) -> bool:
    contexts = [spec.security_context, *(c.security_context for c in [*(spec.init_containers or ()), *spec.containers])]
    profiles = [c.app_armor_profile for c in contexts if c is not None and c.app_armor_profile is not None]
    return any(profile.type != "Unconfined" for profile in profiles)


def _out_of(name: str, requested: int, used: int, capacity: int) -> tuple[str, str]:
    amounts = f"{name}, requested: {requested}, used: {used}, capacity: {capacity}"
    return f"OutOf{name}", f"Node didn't have enough resource: {amounts}"


HostPort = tuple[str, str, int]  # address ("" for all of the node's), protocol, port


def _host_ports(pod: core_v1.Pod) -> frozenset[HostPort]:
    """The node's ports that a pod holds for as long as it runs: those of its containers and sidecars."""
    sidecars = [c for c in pod.spec.init_containers or () if is_sidecar(c)]
    return frozenset(
        ("" if port.host_ip in ("0.0.0.0", "::") else port.host_ip or "", port.protocol or "TCP", port.host_port)
        for container in [*sidecars, *pod.spec.containers]
        for port in container.ports or ()
        if port.host_port
    )


def _conflict(one: HostPort, other: HostPort) -> bool:
    return one[1:] == other[1:] and (one[0] == other[0] or not one[0] or not other[0])
