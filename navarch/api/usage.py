"""Usage, where agents and the metrics API meet: a header, and what simulated pods declare in annotations.

    hollow.navarch.dev/cpu: 250m          every container of the pod uses a quarter of a core
    hollow.navarch.dev/web.memory: 64Mi   container "web" uses 64 MiB
    hollow.navarch.dev/disk: 1Gi          every container has written 1 GiB into its writable layer
    hollow.navarch.dev/metric.NAME: "12"  the pod's custom metric NAME is 12 (see controllers/custommetrics)

What is not declared is not used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from navarch.api import quantity

WINDOW_HEADER = "Navarch-Window"
"""In an agent's answer: over how many seconds the rates in it were measured. Kubelet's own summary does not tell."""
PREFIX = "hollow.navarch.dev/"
METRIC = f"{PREFIX}metric."


def declared(annotations: Mapping[str, str] | None, container: str) -> tuple[int, int]:
    """Nanocores and bytes that a container uses. What is no quantity counts as nothing."""
    nanos, size = (_amount(annotations, container, name) for name in ("cpu", "memory"))
    return nanos, size


def declared_disk(annotations: Mapping[str, str] | None, container: str) -> int:
    """Bytes that a container has written."""
    return _amount(annotations, container, "disk")


def declared_metrics(annotations: Mapping[str, str] | None) -> dict[str, str]:
    """Custom metrics of a pod by name, as canonical quantities."""
    out = {}
    for key, text in (annotations or {}).items():
        if key.startswith(METRIC) and len(key) > len(METRIC):
            with contextlib.suppress(quantity.QuantityError):
                out[key.removeprefix(METRIC)] = quantity.canonical_milli(text)
    return out


def _amount(annotations: Mapping[str, str] | None, container: str, name: str) -> int:
    """Nanos of cpu; bytes of anything else."""
    text = (annotations or {}).get(f"{PREFIX}{container}.{name}") or (annotations or {}).get(PREFIX + name) or "0"
    try:
        return max(0, quantity.nanos(text) if name == "cpu" else quantity.value(text))
    except quantity.QuantityError:
        return 0
