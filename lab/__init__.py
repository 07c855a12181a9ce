"""Clusters made of the other rooms: real nodes in namespaces of one machine, and simulated ones on virtual time.

    from lab import Cycle, Experiment, Recording, Simulation, measure, node_specs, only, sweep
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.experiments.measures import measure
    from lab.experiments.python import Experiment, sweep
    from lab.experiments.recording import Recording
    from lab.simulation import Cycle, Simulation, node_specs, only

__all__ = ["Cycle", "Experiment", "Recording", "Simulation", "measure", "node_specs", "only", "sweep"]

_WHERE = {
    "Cycle": "lab.simulation", "Simulation": "lab.simulation", "node_specs": "lab.simulation", "only": "lab.simulation",
    "Experiment": "lab.experiments.python", "sweep": "lab.experiments.python", "Recording": "lab.experiments.recording",
    "measure": "lab.experiments.measures",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Loaded when it is asked for: most who import this package want a lab, and no laboratory."""
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
