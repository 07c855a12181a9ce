"""Chooses the figures of a report: those that a file names, or those that its runs have something to show in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lab.experiments.model import FIGURES, Experiment
from lab.experiments.recording import Recording
from lab.experiments.sweep import Result
from lab.reports import fullness, overtime, placements, sweeps
from lab.reports.facts import Facts
from lab.reports.figure import Figure
from lab.reports.statistics import cells_of, short_names

OF_A_RUN = {
    "replicas": overtime.replicas, "rollout": placements.swimlanes, "requests": overtime.requests,
    "gantt-nodes": placements.by_node, "gantt-owners": placements.by_owner, "utilisation": fullness.utilisation,
    "pending": overtime.pending, "events": overtime.events,
}  # fmt: skip
OF_A_SWEEP = ("declared", "differences", "levels", "factors", "pareto", "waits", "queue", "used", "nodes")
assert (*OF_A_SWEEP, *OF_A_RUN) == tuple(FIGURES)
ONLY_NAMED = ("gantt-owners", "events", "nodes")  # the others say more; ``plots: all`` has them, too
MAX_CELLS = 4  # cells whose first run is drawn over time; a sweep of hundreds would make a page that no browser opens
MAX_PANELS = 12


class Section(NamedTuple):
    """A headline, and figures below it. Of a run: its name is the head of the files' names."""

    title: str
    figures: list[Figure]


def chosen(plots: str | Sequence[str], experiment: Experiment) -> set[str]:
    """The kinds of figures that may be drawn."""
    if not isinstance(plots, str):
        return set(plots)
    if plots == "all":
        return set(FIGURES)
    if plots == "none":
        return set()
    kinds = set(FIGURES) - set(ONLY_NAMED)
    if experiment.plots:  # the file says what is drawn over time
        kinds -= {*OF_A_RUN, "queue", "used", "waits"}
    elif experiment.cluster.mode == "cycle":  # of decisions alone nothing happens over time
        kinds -= {*OF_A_RUN, "queue", "waits"}
    return kinds


def over_all(
    experiment: Experiment, kinds: set[str], good: Sequence[Result], rows: Sequence[Mapping[str, Any]],
    by_run: Mapping[str, Facts], factors: Sequence[str], goals: Mapping[str, str],
) -> list[Figure]:  # fmt: skip
    """The figures of a sweep. Those of ``rows`` (the summary) need no recordings."""
    out = []
    if "declared" in kinds:
        out += sweeps.declared(experiment.plots, good)
    if "differences" in kinds:
        out += sweeps.differences(rows)
    if "factors" in kinds:
        out += sweeps.factors(good, factors)
    if "pareto" in kinds:
        out += sweeps.pareto(good, goals)
    if "levels" in kinds:
        out += sweeps.levels(good)
    if "waits" in kinds:
        out += sweeps.waits(by_run, good, overtime.SHORT)
    if by_run:
        out += [f for f in sweeps.over_time(by_run, good) if f.name in kinds]
    return out


def beside_each_other(experiment: Experiment, kinds: set[str], good: Sequence[Result], folder: Path) -> list[Figure]:
    """How full the nodes are in the first run of each cell."""
    if "nodes" not in kinds:
        return []
    firsts = {name: runs[0] for name, runs in list(cells_of(good).items())[:MAX_PANELS]}
    names = short_names({name: [run] for name, run in firsts.items()})
    paths = {names[name]: folder / "runs" / f"{run.name}.jsonl.gz" for name, run in firsts.items()}
    one_by_one = any(work.trace is not None and work.trace.one_by_one for work in experiment.workload)
    x_label = "pods that have arrived" if one_by_one and experiment.cluster.mode == "cycle" else ""
    return fullness.side_by_side({name: Recording.load(path) for name, path in paths.items() if path.exists()}, x_label)


def over_time(kinds: set[str], good: Sequence[Result], folder: Path) -> list[Section]:
    """A section for the first run of each of the first cells."""
    wished = [kind for kind in OF_A_RUN if kind in kinds]
    out = []
    for cell, runs in list(cells_of(good).items())[:MAX_CELLS] if wished else ():
        path = folder / "runs" / f"{runs[0].name}.jsonl.gz"
        if path.exists():
            recording = Recording.load(path)
            figures = [f for kind in wished for f in OF_A_RUN[kind](recording)]
            figures = [f._replace(name=f"{runs[0].name}_{f.name}") for f in figures]
            if figures:
                out.append(Section(f"{cell}, seed {runs[0].seed}", figures))
    return out
