"""The page of metrics of a pod, as its annotations name it, and what became of looking at it: pure.

    prometheus.io/scrape: "true"     without it the pod is left alone
    prometheus.io/port: "8080"       by default the first port that a container declares
    prometheus.io/path: /metrics
    prometheus.io/scheme: http       or https, whose certificate is not checked
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from navarch.api.addresses import in_networks
from navarch.api.types import core_v1

PREFIX = "prometheus.io/"
MAX_DELAY = 240.0
"""Seconds after which a page that fails is looked at again, at the latest."""
SECOND_LOOK = 5.0


class NoTarget(ValueError):
    """The pod has no page that could be read; the text says why."""


@dataclass(frozen=True)
class Target:
    scheme: str
    host: str
    port: int
    path: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


@dataclass
class Outcome:
    """The last look at a pod's page. ``failures`` in a row; ``fault`` of the last one; ``due``: monotonic time of the next."""

    looks: int = 0
    failures: int = 0
    fault: str = ""
    due: float = 0.0

    def delay(self, period: float) -> float:
        """Seconds to the next look: the period, twice as long with each failure. The second one comes soon, for rates."""
        if self.looks < 2 and not self.failures:
            return min(period, SECOND_LOOK)
        return min(max(MAX_DELAY, period), period * 2.0 ** min(self.failures, 30))


def target(pod: core_v1.Pod, networks: Sequence[str]) -> Target:
    """Raises NoTarget. ``networks``: pods elsewhere are not connected to; none means all are."""
    notes = pod.metadata.annotations or {}
    if notes.get(f"{PREFIX}scrape") != "true":
        raise NoTarget(f'has no annotation {PREFIX}scrape: "true"')
    scheme, path = notes.get(f"{PREFIX}scheme") or "http", notes.get(f"{PREFIX}path") or "/metrics"
    if scheme not in ("http", "https"):
        raise NoTarget(f"annotation {PREFIX}scheme: {scheme!r} is neither http nor https")
    if not path.startswith("/") or not path.isprintable():
        raise NoTarget(f"annotation {PREFIX}path: {path!r} is no path")
    declared = [p.container_port for c in pod.spec.containers for p in c.ports or () if (p.protocol or "TCP") == "TCP"]
    text = notes.get(f"{PREFIX}port") or (str(declared[0]) if declared else "")
    if not text:
        raise NoTarget(f"has no annotation {PREFIX}port, and no container declares a port")
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise NoTarget(f"annotation {PREFIX}port: {text!r} is no port")
    host = pod.status.pod_ip or ""
    if not host:
        raise NoTarget("has no address yet")
    try:
        inside = not networks or in_networks(host, networks)
    except ValueError:
        inside = False
    if not inside:
        raise NoTarget(f"nobody answers at {host}: it is a simulated pod, or elsewhere")
    return Target(scheme, host, int(text), path)
