"""One pod's contribution to one service: address, ports, conditions. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from navarch.api import wellknown
from navarch.api.pods import is_ready, is_sidecar, is_terminal, is_terminating
from navarch.api.times import format_time, parse_time
from navarch.api.types import core_v1, discovery_v1

Pod = core_v1.Pod
Service = core_v1.Service

HEADLESS = "service.kubernetes.io/headless"
LAST_CHANGE = "endpoints.kubernetes.io/last-change-trigger-time"
ZONE = wellknown.ZONE


class Port(NamedTuple):
    """A service port as a pod serves it. Sorts and compares; the server's defaults are filled in."""

    name: str
    protocol: str
    port: int
    app_protocol: str | None


Ports = tuple[Port, ...]


def is_headless(service: Service) -> bool:
    return service.spec.cluster_ip == "None"


def families(service: Service) -> list[str]:
    """Address types of the service's slices."""
    if service.spec.type == "ExternalName":
        return []
    named = service.spec.ip_families
    if not named:
        named = ["IPv6" if ":" in (service.spec.cluster_ip or "") else "IPv4"]
    return list(named)


def address(pod: Pod, family: str) -> str | None:
    """The pod's address of a family."""
    listed = [p.ip for p in pod.status.pod_ips or ()] or ([pod.status.pod_ip] if pod.status.pod_ip else [])
    return next((ip for ip in listed if (":" in ip) == (family == "IPv6")), None)


def facts(pod: Pod) -> tuple[Any, ...]:
    """All about a pod that endpoints depend on: if it is unchanged, so are they."""
    return (
        pod.metadata.uid,
        pod.metadata.labels,
        is_terminating(pod),
        is_terminal(pod),
        is_ready(pod),
        pod.status.pod_ip,
        pod.status.pod_ips,
        pod.spec.node_name,
        pod.spec.hostname,
        pod.spec.subdomain,
    )


def takes_part(pod: Pod, *, terminating: bool) -> bool:
    """Finished pods and pods without an address never do; ``terminating`` says whether those on their way out may."""
    if is_terminal(pod) or not (pod.status.pod_ip or pod.status.pod_ips):
        return False
    return terminating or not is_terminating(pod)


def target_port(pod: Pod, port: core_v1.ServicePort) -> int | None:
    """The container port behind a service port; named ports are looked up in the pod."""
    target = port.target_port
    if target is None or target in (0, ""):
        return port.port
    if isinstance(target, int):
        return target
    sidecars = [c for c in pod.spec.init_containers or () if is_sidecar(c)]
    for container in [*pod.spec.containers, *sidecars]:
        for container_port in container.ports or ():
            if container_port.name == target and (container_port.protocol or "TCP") == (port.protocol or "TCP"):
                return container_port.container_port
    return None


def ports(service: Service, pod: Pod) -> Ports:
    """The ports that this pod serves, sorted."""
    out = []
    for port in service.spec.ports or ():
        number = target_port(pod, port)
        if number is not None:
            out.append(Port(port.name or "", port.protocol or "TCP", number, port.app_protocol))
    return tuple(sorted(out, key=lambda p: (p.name, p.protocol, p.port)))


def hostname(service: Service, pod: Pod) -> str | None:
    """The name that DNS gives the pod under a headless service."""
    named = pod.spec.hostname and pod.spec.subdomain == service.metadata.name
    return pod.spec.hostname if named and pod.metadata.namespace == service.metadata.namespace else None


def reference(pod: Pod) -> core_v1.ObjectReference:
    meta = pod.metadata
    return core_v1.ObjectReference(kind="Pod", namespace=meta.namespace, name=meta.name, uid=meta.uid)


def endpoint(service: Service, pod: Pod, ip: str, zone: str | None) -> discovery_v1.Endpoint:
    serving, terminating = is_ready(pod), is_terminating(pod)
    ready = bool(service.spec.publish_not_ready_addresses) or (serving and not terminating)
    return discovery_v1.Endpoint(
        addresses=[ip],
        conditions=discovery_v1.EndpointConditions(ready=ready, serving=serving, terminating=terminating),
        hostname=hostname(service, pod),
        node_name=pod.spec.node_name,
        target_ref=reference(pod),
        zone=zone,
        hints=hints(service, pod, zone) if ready else None,
    )


def hints(service: Service, pod: Pod, zone: str | None) -> discovery_v1.EndpointHints | None:
    """For whom the endpoint is meant, if the service prefers traffic to stay close (spec.trafficDistribution)."""
    preference = service.spec.traffic_distribution
    zones = [discovery_v1.ForZone(name=zone)] if zone and preference else None
    node = pod.spec.node_name if preference == "PreferSameNode" else None
    nodes = [discovery_v1.ForNode(name=node)] if node else None
    return discovery_v1.EndpointHints(for_zones=zones, for_nodes=nodes) if zones or nodes else None


class ChangeTimes:
    """When the change that a write tells of took place: for measuring how long the network takes to follow.

    Per service, the time each pod last became ready or unready; the earliest one that is new since the last look
    is the trigger.
    """

    def __init__(self) -> None:
        self._times: dict[str, tuple[float, dict[str, float]]] = {}

    def trigger(self, key: str, service: Service, pods: list[Pod]) -> str | None:
        created = service.metadata.creation_timestamp
        made_at = parse_time(created) if created else 0.0
        last_times = self._times.get(key)
        times = {pod.metadata.name or "": _changed(pod) for pod in pods}
        self._times[key] = made_at, times
        last_made, last = last_times if last_times is not None else (0.0, {})
        new = [at for name, at in times.items() if at > last.get(name, 0.0)]
        if made_at > last_made:
            new.append(made_at)
        return format_time(min(new)) if new else None

    def forget(self, key: str) -> None:
        self._times.pop(key, None)


def _changed(pod: Pod) -> float:
    for condition in pod.status.conditions or ():
        if condition.type == "Ready" and condition.last_transition_time:
            return parse_time(condition.last_transition_time)
    return 0.0
