"""Experiments from Python, for notebooks and tests: what the file can say, as a tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lab.experiments import file
from lab.experiments import sweep as sweeps
from lab.experiments.drivers.modes import run_of
from lab.experiments.recording import Recording
from lab.experiments.schema import Problem, WrongFile
from lab.experiments.sweep import Result


class Experiment:
    """A file, or the tree of one. Raises WrongFile with every mistake."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.tree = {"apiVersion": file.VERSION, "kind": file.KIND, **tree}
        self.cells = file.cells(self.tree)
        for cell in self.cells:
            file.parse(cell.tree)

    @classmethod
    def load(cls, path: str | Path, **overrides: Any) -> Experiment:
        return cls(file.load(Path(path), overrides))

    def run(self, seed: int = 1, **levels: str) -> Recording:
        """One run, of the cell with these levels (of the first that has them)."""
        for cell in self.cells:
            if all(cell.levels.get(k) == str(v) for k, v in levels.items()):
                return run_of(file.parse(cell.tree), seed).recorder.recording()
        raise WrongFile([Problem("", f"there is no cell with {levels}")])


def sweep(
    experiment: Experiment, folder: str | Path, *, seeds: Iterable[int] | None = None, jobs: int = 1
) -> list[Result]:
    """All runs; what is done in the folder already is kept."""
    return sweeps.sweep(experiment.tree, Path(folder), seeds=seeds, jobs=jobs)


def frame(results: Iterable[Result]) -> Any:
    """Results as a pandas DataFrame: a row a run, with its levels, seed and measures."""
    import pandas

    return pandas.DataFrame([{**r.levels, "seed": r.seed, **r.measures} for r in results])
