"""Clusters made of the other rooms: real nodes in namespaces of one machine, and simulated ones on virtual time.

    from lab import Cluster, Cycle, Experiment, Recording, Runs, Simulation, measure, node_specs, only, sweep
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.experiments.measures import measure
    from lab.experiments.python import Experiment, Runs, sweep
    from lab.experiments.recording import Recording
    from lab.interactive.cluster import Cluster
    from lab.simulation import Cycle, Simulation, node_specs, only

__all__ = [
    "Cluster", "Cycle", "Experiment", "Recording", "Runs", "Simulation", "measure", "node_specs", "only", "sweep",
]  # fmt: skip

_WHERE = {
    "Cycle": "lab.simulation", "Simulation": "lab.simulation", "node_specs": "lab.simulation", "only": "lab.simulation",
    "Experiment": "lab.experiments.python", "sweep": "lab.experiments.python", "Runs": "lab.experiments.python",
    "Recording": "lab.experiments.recording", "measure": "lab.experiments.measures", "Cluster": "lab.interactive.cluster",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Loaded when it is asked for: most who import this package want a lab, and no laboratory."""
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
