"""The API objects of a simulated node: its Node, as a healthy kubelet describes itself, and its Lease."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from navarch.api import wellknown
from navarch.api.conditions import get_condition
from navarch.api.times import format_time
from navarch.api.types import core_v1, meta_v1
from nodeagent.runtime.stages import NORMAL, Stages

ZONE = wellknown.ZONE
VERSION = "v1.34.0+navarch"


@dataclass(frozen=True)
class NodeSpec:
    """One simulated node. ``pod_cidr``: registered with it; empty: the node IPAM controller gives one. ``boot``: how
    often it was switched on before; what ran is still there only if that has not changed."""

    name: str
    cpu: str = "4"
    memory: str = "16Gi"
    pods: int = 110
    address: str = "10.0.0.1"
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[core_v1.Taint, ...] = ()
    stages: Stages = NORMAL
    annotations: Mapping[str, str] = field(default_factory=dict)
    pod_cidr: str = ""
    boot: int = 0
    resources: Mapping[str, str] = field(default_factory=dict)
    """Any others, such as nvidia.com/gpu, or ephemeral-storage instead of 100Gi."""
    zone: str = ""
    """The label topology.kubernetes.io/zone."""


@dataclass(frozen=True)
class Endpoint:
    """Where the fleet's HTTPS server answers for all of its nodes: a name of this machine, and the port."""

    host: str
    port: int


# type, status, reason, message: what a healthy kubelet says
_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


def node(spec: NodeSpec, boots: int, endpoint: Endpoint | None, now: float) -> core_v1.Node:
    """The Node to register. ``now`` in Unix seconds."""
    metadata = meta_v1.ObjectMeta(
        name=spec.name,
        labels={
            wellknown.BETA_ARCH: "amd64",
            wellknown.BETA_OS: "linux",
            wellknown.ARCH: "amd64",
            wellknown.OS: "linux",
            wellknown.HOSTNAME: spec.name,
            "type": "hollow",
            **({ZONE: spec.zone} if spec.zone else {}),
            **spec.labels,
        },
        annotations=dict(spec.annotations) or None,
    )
    cidrs = [spec.pod_cidr] if spec.pod_cidr else None
    own = core_v1.NodeSpec(taints=list(spec.taints) or None, pod_cidr=spec.pod_cidr or None, pod_cidrs=cidrs)
    return core_v1.Node(metadata=metadata, spec=own, status=status(spec, boots, endpoint, None, now))


def boot_id(spec: NodeSpec, boots: int) -> str:
    return f"{spec.name}-{boots}"


def status(
    spec: NodeSpec, boots: int, endpoint: Endpoint | None, old: core_v1.Node | None, now: float
) -> core_v1.NodeStatus:
    """The node's status; conditions keep the time of their last transition from ``old``."""
    stamp = format_time(now)
    conditions = []
    for kind, state, reason, message in _CONDITIONS:
        before = get_condition(old.status.conditions, kind) if old else None
        since = before.last_transition_time if before is not None and before.status == state else stamp
        conditions.append(
            core_v1.NodeCondition(
                type=kind,
                status=state,
                reason=reason,
                message=message,
                last_heartbeat_time=stamp,
                last_transition_time=since,
            )
        )
    amounts: dict[str, str | int | float] = {
        "cpu": spec.cpu,
        "memory": spec.memory,
        "pods": str(spec.pods),
        "ephemeral-storage": "100Gi",
        **spec.resources,
    }
    addresses = [
        core_v1.NodeAddress(type="InternalIP", address=spec.address),
        core_v1.NodeAddress(type="Hostname", address=spec.name),
    ]
    endpoints = None
    if endpoint is not None:
        addresses.append(core_v1.NodeAddress(type="InternalDNS", address=endpoint.host))
        endpoints = core_v1.NodeDaemonEndpoints(kubelet_endpoint=core_v1.DaemonEndpoint(port=endpoint.port))
    return core_v1.NodeStatus(
        capacity=amounts,
        allocatable=amounts,
        conditions=conditions,
        addresses=addresses,
        daemon_endpoints=endpoints,
        node_info=core_v1.NodeSystemInfo(
            architecture="amd64",
            boot_id=boot_id(spec, boots),
            container_runtime_version="hollow://1",
            kernel_version="simulated",
            kube_proxy_version="",
            kubelet_version=VERSION,
            machine_id=spec.name,
            operating_system="linux",
            os_image="navarch hollow node",
            system_uuid=spec.name,
        ),
    )
