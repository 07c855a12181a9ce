"""Clusters on virtual time: a whole one (Simulation), and the scheduler's decisions alone (Cycle)."""

from lab.simulation.cluster import Record, Simulation, node_specs
from lab.simulation.cycle import Cycle, Placement, only

__all__ = ["Cycle", "Placement", "Record", "Simulation", "node_specs", "only"]
