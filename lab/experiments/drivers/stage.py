"""Stages make clusters for runs; an outcome is what a run leaves. See the package's docstring."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from lab.experiments.file import Experiment
from lab.experiments.recording import Recorder


class Outcome(NamedTuple):
    """A run that is over. ``timeouts``: steps whose ``until`` did not come true; ``virtual`` in seconds, of the run's own
    time."""

    recorder: Recorder
    virtual: float
    timeouts: list[str]


class StepFailed(Exception):
    """A step did not end in time, and says on-timeout: fail."""


class Stage(Protocol):
    """Makes clusters and runs on them. A context manager: leaving it puts everything away."""

    def __enter__(self) -> Stage: ...

    def __exit__(self, *error: object) -> None: ...

    def run(self, experiment: Experiment, seed: int) -> Outcome:
        """One run. Raises StepFailed, ValueError, LabError."""
        ...
