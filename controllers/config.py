"""The knobs, named as kube-controller-manager's flags and read from ``--set name=value`` with Go's durations."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any

from navarch.settings import BOOLEAN, COUNT, DURATION, FILE, FRACTION, NUMBER, TEXT, Kind, Settings

OFF_BY_DEFAULT = ("bootstrap-signer-controller", "token-cleaner-controller")
"""Controllers that run only if they are named, as in Kubernetes."""


def _duration(default: float, description: str) -> Any:
    return field(default=default, metadata={"duration": True, "description": description})


def _knob(default: Any, description: str) -> Any:
    return field(default=default, metadata={"description": description})


@dataclass(frozen=True)
class Config:
    """Defaults are Kubernetes'. Durations are in seconds."""

    controllers: str = _knob("*", "controllers to run: '*' for all, 'name' one, '-name' not this one; comma-separated")
    concurrent_syncs: int = _knob(10, "objects of a kind that one controller works on at the same time")
    leader_elect: bool = _knob(False, "run only while holding the Lease kube-system/kube-controller-manager")
    leader_elect_lease_duration: float = _duration(15, "how long others wait after the leader's last sign of life")
    leader_elect_renew_deadline: float = _duration(10, "how long the leader tries to renew before it gives up")
    leader_elect_retry_period: float = _duration(2, "time between attempts to become leader or to renew")

    node_monitor_grace_period: float = _duration(40, "silence after which a node counts as unhealthy")
    node_startup_grace_period: float = _duration(60, "the same for a node that has never reported")
    node_eviction_rate: float = _knob(0.1, "nodes a second, in each zone, whose pods may start to be evicted")
    secondary_node_eviction_rate: float = _knob(0.01, "the same in a zone that is partly down")
    unhealthy_zone_threshold: float = _knob(0.55, "fraction of NotReady nodes from which a zone is partly down")
    large_cluster_size_threshold: int = _knob(50, "zones up to this size stop evicting when partly down")

    terminated_pod_gc_threshold: int = _knob(12500, "finished pods that are kept before the oldest are deleted; 0: all")
    pod_gc_quarantine: float = _duration(40, "how long a node must be gone before pods bound to it are deleted")

    allocate_node_cidrs: bool = _knob(True, "give every node a pod CIDR")
    cluster_cidr: str = _knob("10.244.0.0/16", "range of pod addresses; two ranges, comma-separated, for dual stack")
    service_cluster_ip_range: str = _knob("", "range of service addresses, kept out of pod CIDRs")
    node_cidr_mask_size: int = _knob(0, "prefix length of a node's pod CIDR (0: 24 for IPv4, 64 for IPv6)")
    node_cidr_mask_size_ipv4: int = _knob(0, "the same for IPv4 in dual stack")
    node_cidr_mask_size_ipv6: int = _knob(0, "the same for IPv6 in dual stack")

    root_ca_file: str = _knob("", "CA published as kube-root-ca.crt; default: the kubeconfig's CA")
    cluster_signing_cert_file: str = _knob("", "PEM certificate of the CA that signs CertificateSigningRequests")
    cluster_signing_key_file: str = _knob("", "PEM key of that CA; without both nobody signs")
    cluster_signing_duration: float = _duration(8760 * 3600, "how long signed certificates are good, at most")
    service_account_private_key_file: str = _knob("", "PEM key that signs tokens in Secrets; without it none are made")
    legacy_service_account_token_clean_up_period: float = _duration(8760 * 3600, "how long an old token is kept unused")
    local_path_root: str = _knob("", "folder for the volumes of classes local-path and lab-shared; without it none are made")
    load_balancer_range: str = _knob("", "addresses for Services of type LoadBalancer; without it they get none")
    max_endpoints_per_slice: int = _knob(100, "most endpoints in one EndpointSlice")
    mirroring_max_endpoints_per_subset: int = _knob(1000, "most addresses of a subset of Endpoints that are mirrored")
    horizontal_pod_autoscaler_sync_period: float = _duration(15, "time between two looks at an autoscaler's metrics")
    horizontal_pod_autoscaler_tolerance: float = _knob(0.1, "deviation from the target that scales nothing: 0.1 is 10 %")
    horizontal_pod_autoscaler_downscale_stabilization: float = _duration(
        300, "a lower count waits this long for a higher recommendation"
    )
    horizontal_pod_autoscaler_cpu_initialization_period: float = _duration(
        300, "CPU of pods that are younger counts only once they are ready"
    )
    horizontal_pod_autoscaler_initial_readiness_delay: float = _duration(
        30, "a pod that became unready this soon after its start counts as never ready"
    )

    enable_garbage_collector: bool = _knob(True, "delete objects whose owners are gone")

    def with_settings(self, settings: Iterable[str]) -> Config:
        """A copy with ``name=value`` settings applied. Raises ValueError for unknown names and malformed values."""
        values = SETTINGS.read_all(settings)
        return replace(self, **{name.replace("-", "_"): value for name, value in values.items()})

    @property
    def named(self) -> set[str]:
        """Controllers that ``controllers`` names, to run them or not."""
        return {w.strip().removeprefix("-") for w in self.controllers.split(",")} - {"", "*"}

    def enabled(self, name: str) -> bool:
        """Whether a controller is to run. What is named wins over ``*``, which leaves some out."""
        words = [w.strip() for w in self.controllers.split(",") if w.strip()]
        if name in words:
            return True
        return f"-{name}" not in words and "*" in words and name not in OFF_BY_DEFAULT


def _network(text: str) -> str:
    return str(ipaddress.IPv4Network(text)) if text else ""


def _kind(knob: Field[Any]) -> Kind:
    if knob.metadata.get("duration"):
        return DURATION
    if knob.name == "unhealthy_zone_threshold":
        return FRACTION
    if knob.name == "load_balancer_range":
        return Kind("an IPv4 network such as 192.168.7.0/24, or nothing", _network)
    if knob.name.endswith("_file"):
        return FILE
    return {bool: BOOLEAN, int: COUNT, float: NUMBER}.get(type(knob.default), TEXT)


SETTINGS = Settings("controllers", {f.name.replace("_", "-"): _kind(f) for f in fields(Config)})


def check(settings: Sequence[str]) -> None:
    """Whether the controllers can be told this by ``--set``. Raises ValueError."""
    Config().with_settings(settings)


def describe() -> str:
    """All knobs with their defaults, for --help."""
    lines = []
    for knob in fields(Config):
        shown = f"{knob.default:g}s" if knob.metadata.get("duration") else knob.default
        lines.append(f"  {knob.name.replace('_', '-')}={shown}\n      {knob.metadata['description']}")
    return "\n".join(lines)
