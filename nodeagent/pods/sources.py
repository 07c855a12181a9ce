"""Where a pod comes from: the API server, or a file of the node (a static pod, which the API server shows as a mirror)."""

from __future__ import annotations

from navarch.api import wellknown
from navarch.api.types import core_v1

CONFIG_SOURCE = "kubernetes.io/config.source"  # "file" or "api"
CONFIG_MIRROR = wellknown.MIRROR_POD  # of a mirror pod: the hash of what it mirrors
CONFIG_HASH = "kubernetes.io/config.hash"
CONFIG_SEEN = "kubernetes.io/config.seen"
NODE_CRITICAL = "system-node-critical"


def is_static(pod: core_v1.Pod) -> bool:
    """Whether the pod comes from elsewhere than the API server."""
    return (pod.metadata.annotations or {}).get(CONFIG_SOURCE, "api") != "api"


def is_mirror(pod: core_v1.Pod) -> bool:
    """Whether the API object only shows a static pod."""
    return CONFIG_MIRROR in (pod.metadata.annotations or {})


def is_critical(pod: core_v1.Pod) -> bool:
    """Whether the node spares the pod when it runs short of something."""
    return is_static(pod) or is_mirror(pod) or (pod.spec.priority or 0) >= wellknown.CRITICAL_PRIORITY
