"""Experiments from Python, for notebooks and tests: all that a file can say, as data, and results as DataFrames and figures.

    experiment = Experiment.load("web.yaml")                    # or Experiment(cluster={...}, workload=[...], steps=[...])
    runs = sweep(experiment, vary={"cluster.nodes[0].count": [3, 6]}, seeds=range(1, 6))
    runs.frame().groupby("cluster.nodes.0.count").mean()
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import yaml

from lab.experiments import file, folder, tables
from lab.experiments import sweep as sweeps
from lab.experiments.drivers.modes import run_of
from lab.experiments.executors import PROCESSES, apart
from lab.experiments.expect import Verdict
from lab.experiments.live import Live
from lab.experiments.recording import Recording
from lab.experiments.schema import Problem, WrongFile
from lab.experiments.sweep import RUNS, Result
from lab.experiments.varying import varied
from lab.experiments.wholechecks import check_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Experiment:
    """The tree of a file: as a mapping, or field by field (``for_`` stands for ``for``; ``name`` for ``metadata.name``).
    Names of files are looked up from ``beside``. Raises WrongFile with every mistake."""

    def __init__(
        self,
        tree: Mapping[str, Any] | None = None,
        /,
        *,
        name: str = "",
        beside: str | Path = ".",
        allow_commands: bool = False,
        **fields: Any,
    ) -> None:
        whole = {"apiVersion": file.VERSION, "kind": file.KIND, **(tree or {})}
        whole |= {field.rstrip("_"): value for field, value in fields.items()}
        if name or "metadata" not in whole:
            whole["metadata"] = {"name": name or "experiment"}
        self._take(file.inlined(_plain(whole), Path(beside), commands=allow_commands))

    def _take(self, tree: dict[str, Any]) -> None:
        self.tree = tree
        check_whole(self.tree)
        self.cells = file.cells(self.tree)

    @classmethod
    def load(cls, path: str | Path, *, allow_commands: bool = False, **overrides: Any) -> Experiment:
        """From a file; ``overrides``: other values of its fields; ``allow_commands``: its steps may run programs."""
        one = cls.__new__(cls)
        one._take(file.load(Path(path), overrides, commands=allow_commands))
        return one

    def save(self, path: str | Path) -> None:
        """Writes the file that says the same."""
        Path(path).write_text(yaml.safe_dump(self.tree, sort_keys=False))

    def run(self, seed: int = 1, **levels: Any) -> Recording:
        """One run, of the cell with these levels (of the first that has them)."""
        fitting = [c for c in self.cells if all(c.levels.get(k) == str(v) for k, v in levels.items())]
        if not fitting:
            raise WrongFile([Problem("", f"there is no cell with {levels}")])
        chosen = file.parse(fitting[0].tree)
        return apart(lambda: run_of(chosen, seed).recorder.recording())


def _plain(tree: Any) -> Any:
    """As YAML would have it."""
    if isinstance(tree, Mapping):
        return {str(k): _plain(v) for k, v in tree.items()}
    if isinstance(tree, list | tuple | range):
        return [_plain(one) for one in tree]
    return str(tree) if isinstance(tree, Path) else tree


def sweep(
    experiment: Experiment,
    into: str | Path | None = None,
    *,
    vary: Mapping[str, Sequence[Any] | str] | None = None,
    samples: int = 0,
    seeds: Iterable[int] | None = None,
    only: Mapping[str, Any] | None = None,
    jobs: int = 1,
    executor: str = PROCESSES,
    progress: bool = False,
) -> Runs:
    """All runs; what is done in the folder already is kept. Without a folder they are forgotten with the result.

    ``vary``, ``samples``: other values for any fields (lab/experiments/varying.py). ``jobs``: processes; scripts that use more
    than one need ``if __name__ == "__main__"``. Raises WrongFile, ExecutorError.
    """
    tree = varied(experiment.tree, vary, samples) if vary else experiment.tree
    temporary = tempfile.TemporaryDirectory(prefix="sweep-") if into is None else None
    out = Path(temporary.name if temporary is not None else into or ".")
    live = None
    if progress:
        import sys

        live = Live(sys.stderr, sys.stderr.isatty())
    chosen = {k: str(v) for k, v in (only or {}).items()}
    listed = sweeps.sweep(
        tree, out, seeds=seeds, only=chosen, jobs=jobs, executor=executor, listener=live, with_tables=into is not None
    )
    if live is not None:
        live.end()
    return Runs(out, listed, temporary)


class Runs(Sequence[Result]):
    """The runs of a sweep, in the order of cells and seeds."""

    def __init__(self, folder: Path, listed: Sequence[Result], guard: object = None) -> None:
        """``guard`` lives as long as this: a temporary folder goes with it."""
        self.folder, self._listed, self._guard = folder, list(listed), guard

    @classmethod
    def load(cls, path: str | Path) -> Runs:
        """Those in a folder of results."""
        return cls(Path(path), sweeps.results(Path(path)))

    @overload
    def __getitem__(self, place: int) -> Result: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Result]: ...
    def __getitem__(self, place: int | slice) -> Result | Sequence[Result]:
        return self._listed[place]

    def __len__(self) -> int:
        return len(self._listed)

    def frame(self) -> Any:
        """A pandas DataFrame: a row a run, with its levels, seed and measures."""
        import pandas

        return pandas.DataFrame([{**r.levels, "seed": r.seed, **r.measures} for r in self])

    def table(self, name: str = "pods") -> Any:
        """A pandas DataFrame of all runs: pods, nodes, decisions, changes or events, with run, levels and seed in front."""
        import pandas

        rows = [
            {"run": r.name, **r.levels, "seed": r.seed, **row}
            for r in self if not r.error
            for row in tables.KINDS[name](Recording.load(self.folder / RUNS / f"{r.name}.jsonl.gz"))
        ]  # fmt: skip
        return pandas.DataFrame(rows)

    def recording(self, seed: int = 1, **levels: Any) -> Recording:
        """That of the run with this seed and these levels. Raises KeyError."""
        for r in self:
            if r.seed == seed and all(r.levels.get(k) == str(v) for k, v in levels.items()):
                return Recording.load(self.folder / RUNS / f"{r.name}.jsonl.gz")
        raise KeyError(f"there is no run with seed {seed} and {levels}")

    def verdicts(self) -> list[Verdict]:
        """The outcomes of the file's expectations."""
        return sweeps.verdicts(folder.read_lock(self.folder)["file"], self._listed)

    def plot(self, measure: str, by: str, **more: Any) -> Figure:
        """A measure by the levels of a factor: a point a run, a bar at the mean of each level."""
        from lab.experiments.figures import levels

        return levels(self._listed, measure, by, **more)
