"""The scheduler's settings, and its default profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scheduler.plugin import Plugin, Profile, Weighted
from scheduler.plugins.gates import SchedulingGates
from scheduler.plugins.node_affinity import NodeAffinity
from scheduler.plugins.node_name import NodeName
from scheduler.plugins.node_ports import NodePorts
from scheduler.plugins.node_resources import NodeResourcesBalancedAllocation, NodeResourcesFit
from scheduler.plugins.node_unschedulable import NodeUnschedulable
from scheduler.plugins.taint_toleration import TaintToleration
from scheduler.plugins.unsupported import Unsupported

DEFAULT_SCHEDULER = "default-scheduler"


def _seconds(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise ValueError("must be above 0")
    return value


FLAGS: Mapping[str, Callable[[str], float]] = {
    "pod-initial-backoff-seconds": _seconds,
    "pod-max-backoff-seconds": _seconds,
}


@dataclass
class SchedulerConfig:
    """Seconds, as in KubeSchedulerConfiguration (podInitialBackoffSeconds, podMaxBackoffSeconds)."""

    pod_initial_backoff_seconds: float = 1.0
    pod_max_backoff_seconds: float = 10.0

    def set(self, text: str) -> None:
        """Takes a ``flag=value``. Raises ValueError."""
        flag, _, value = text.partition("=")
        if flag not in FLAGS:
            raise ValueError(f'unknown setting "{flag}"; known: {", ".join(FLAGS)}')
        try:
            setattr(self, flag.replace("-", "_"), FLAGS[flag](value))
        except ValueError as error:
            raise ValueError(f'invalid value "{value}" of {flag}: {error}') from error


def default_profile(name: str = DEFAULT_SCHEDULER) -> Profile:
    """The plugins in Kubernetes' order, with its weights."""
    taints, affinity = TaintToleration(), NodeAffinity()
    fit, balanced = NodeResourcesFit(), NodeResourcesBalancedAllocation()
    plugins: list[Plugin] = [
        SchedulingGates(), Unsupported(), NodeUnschedulable(), NodeName(), taints, affinity, NodePorts(), fit, balanced,
    ]  # fmt: skip
    return Profile(name, plugins, [Weighted(taints, 3), Weighted(affinity, 2), Weighted(fit, 1), Weighted(balanced, 1)])
