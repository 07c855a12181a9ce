"""What scheduling needs to know of a pod, worked out once when it is first seen."""

from __future__ import annotations

from functools import cached_property

import msgspec

from navarch.api import resources
from navarch.api.pods import all_containers
from navarch.api.types import core_v1

HostPort = tuple[str, int, str]
"""(protocol, port, host address); the address "0.0.0.0" stands for all."""

_encode = msgspec.json.Encoder().encode


class PodInfo:
    """A pod and its derived facts. ``requests`` in millicores and base units, ``pods`` (always 1) included."""

    __slots__ = ("__dict__", "host_ports", "nonzero", "pod", "requests")

    def __init__(self, pod: core_v1.Pod) -> None:
        self.pod = pod
        self.requests = resources.pod_requests(pod) | {"pods": 1}
        self.nonzero = resources.nonzero_requests(pod)
        self.host_ports = host_ports(pod)

    @property
    def uid(self) -> str:
        return self.pod.metadata.uid or ""

    @property
    def key(self) -> str:
        return f"{self.pod.metadata.namespace}/{self.pod.metadata.name}"

    @property
    def priority(self) -> int:
        return self.pod.spec.priority or 0

    @cached_property
    def shape(self) -> bytes:
        """Equal for pods that every static filter and score treats alike."""
        spec = self.pod.spec
        affinity = spec.affinity.node_affinity if spec.affinity else None
        return _encode([spec.node_selector, affinity, spec.tolerations])


def host_ports(pod: core_v1.Pod) -> tuple[HostPort, ...]:
    return tuple(
        (p.protocol or "TCP", p.host_port, p.host_ip or "0.0.0.0")
        for c in all_containers(pod)
        for p in c.ports or ()
        if p.host_port
    )
