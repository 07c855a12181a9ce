"""The modes of an experiment: which stage plays it."""

from __future__ import annotations

from lab.experiments.cycles import CycleStage
from lab.experiments.drivers.labs import LabStage
from lab.experiments.drivers.stage import Outcome, Stage
from lab.experiments.drivers.virtual import VirtualStage
from lab.experiments.file import Experiment


def stage_of(mode: str) -> Stage:
    """The stage of a mode, to be entered. Raises ValueError for a mode that there is not."""
    if mode == "cycle":
        return CycleStage()
    if mode == "simulated":
        return VirtualStage()
    if mode in ("hollow", "real"):
        return LabStage(mode)
    raise ValueError(f"there is no mode {mode!r}")


def run_of(experiment: Experiment, seed: int) -> Outcome:
    """One run, in the file's mode, on a stage of its own. Raises StepFailed, ValueError."""
    with stage_of(experiment.cluster.mode) as stage:
        return stage.run(experiment, seed)
