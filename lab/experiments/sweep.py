"""All runs of an experiment, on all cores: what is done is kept, and nothing depends on order or cores.

The folder of results has ``experiment.lock`` (the file with everything inlined, and versions), ``runs/NAME.json`` (levels,
seed, measures, hash) and ``runs/NAME.jsonl.gz`` (the recording) for each run, ``runs.csv``, and the report.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import math
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from lab.experiments.drivers.modes import run_of
from lab.experiments.expect import Verdict, judge, published
from lab.experiments.file import Cell, cells, parse
from lab.experiments.measures import curve, measure

LOCK = "experiment.lock"


class Result(NamedTuple):
    """One run. ``error`` says why there is nothing else; a measure that has no value is nan."""

    levels: Mapping[str, str]
    seed: int
    measures: Mapping[str, float]
    digest: str
    virtual: float
    timeouts: Sequence[str]
    error: str = ""
    curves: Mapping[str, Sequence[tuple[float, float]]] = {}
    """By the name of the plot: its points."""

    @property
    def name(self) -> str:
        return run_name(self.levels, self.seed)


def run_name(levels: Mapping[str, str], seed: int) -> str:
    """A file's name: readable if it is short, and never that of another run."""
    text = "_".join([*(f"{k}-{v}" for k, v in levels.items()), f"seed-{seed}"])
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
    if plain == text and len(text) <= 120:
        return text
    return f"{plain[:100]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def one(tree: dict[str, Any], levels: Mapping[str, str], seed: int, folder: str) -> Result:
    """Runs one cell with one seed, and writes its files. Also in processes of their own. What goes wrong is in the result."""
    logging.disable(logging.WARNING)
    try:
        experiment = parse(tree)
        outcome = run_of(experiment, seed)
        recording = outcome.recorder.recording()
        measures = measure(recording, experiment.measure, experiment.series)
        curves = {p.name: curve(recording, p.y, p.x, p.step, experiment.series) for p in experiment.plots}
        result = Result(levels, seed, measures, outcome.recorder.digest, outcome.virtual, outcome.timeouts, curves=curves)
    except Exception as error:  # the others go on
        where = "" if isinstance(error, ValueError) else traceback.format_exc(limit=-3)
        return Result(levels, seed, {}, "", 0.0, (), f"{type(error).__name__}: {_cause(error)}{where and chr(10) + where}")
    runs = Path(folder) / "runs"
    outcome.recorder.save(runs / f"{result.name}.jsonl.gz")
    written = result._asdict() | {"measures": {k: None if math.isnan(v) else v for k, v in measures.items()}}
    partial = runs / f".{result.name}.{os.getpid()}"
    partial.write_bytes(orjson.dumps(written | {"of": digest_of(of_run(tree))}, option=orjson.OPT_INDENT_2))
    partial.rename(runs / f"{result.name}.json")
    return result


def _cause(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return str(error)


TELLS_ONLY = ("question", "expect", "reference", "design", "seeds")


def of_run(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a cell that a run's result depends on: an expectation that changes makes no run anew."""
    return {k: v for k, v in tree.items() if k not in TELLS_ONLY}


def digest_of(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()


def read(path: Path) -> tuple[Result, str]:
    """A result that was written, and the digest of what it is a result of."""
    tree = json.loads(path.read_text())
    of = tree.pop("of", "")
    tree["measures"] = {k: math.nan if v is None else float(v) for k, v in tree["measures"].items()}
    return Result(**tree), of


def results(folder: Path) -> list[Result]:
    """All results of a folder, by name."""
    return [read(path)[0] for path in sorted((folder / "runs").glob("*.json"))]


def sweep(
    tree: dict[str, Any],
    folder: Path,
    *,
    seeds: Iterable[int] | None = None,
    only: Mapping[str, str] = {},
    jobs: int = 1,
    resume: bool = True,
    progress: Callable[[int, int, Result], None] = lambda done, total, result: None,
) -> list[Result]:
    """Runs every cell with every seed; gives the results in the order of cells and seeds. What is done already, by the same
    file, is taken as it is. Raises WrongFile before anything starts."""
    chosen_cells = [c for c in cells(tree) if all(c.levels.get(k) == v for k, v in only.items() if k != "seed")]
    experiments = [parse(c.tree) for c in chosen_cells]
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    (folder / LOCK).write_text(json.dumps(lock(tree), indent=1, default=str) + "\n")
    plan: list[tuple[Cell, int]] = []
    for cell, experiment in zip(chosen_cells, experiments, strict=True):
        chosen = list(seeds) if seeds is not None else list(range(1, experiment.seeds + 1))
        plan += [(cell, seed) for seed in chosen if only.get("seed", str(seed)) == str(seed)]
    done: dict[str, Result] = {}
    todo: list[tuple[Cell, int]] = []
    for cell, seed in plan:
        path = folder / "runs" / f"{run_name(cell.levels, seed)}.json"
        if resume and path.exists() and (earlier := read(path))[1] == digest_of(of_run(cell.tree)):
            done[earlier[0].name] = earlier[0]
        else:
            todo.append((cell, seed))

    def finished(result: Result) -> None:
        done[result.name] = result
        progress(len(done), len(plan), result)

    if jobs <= 1 or len(todo) <= 1:
        for cell, seed in todo:
            finished(one(cell.tree, cell.levels, seed, str(folder)))
    else:
        _in_processes(todo, folder, jobs, finished)
    ordered = [done[run_name(cell.levels, seed)] for cell, seed in plan]
    write_csv(folder / "runs.csv", ordered)
    return ordered


def _in_processes(
    todo: Sequence[tuple[Cell, int]], folder: Path, jobs: int, finished: Callable[[Result], None]
) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(todo)), mp_context=context) as pool:
        waiting: set[Future[Result]] = {pool.submit(one, c.tree, c.levels, s, str(folder)) for c, s in todo}
        try:
            while waiting:
                over, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in over:
                    finished(future.result())
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def lock(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that a run depends on: the file, and versions."""
    import msgspec
    import numpy

    versions = {"python": sys.version.split()[0], "numpy": numpy.__version__, "msgspec": msgspec.__version__}
    return {"file": dict(tree), "digest": digest_of(tree), "versions": versions}


def write_csv(path: Path, listed: Sequence[Result]) -> None:
    """A row a run: levels, seed, measures, hash."""
    factors = list(dict.fromkeys(k for r in listed for k in r.levels))
    names = list(dict.fromkeys(k for r in listed for k in r.measures))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*factors, "seed", *names, "virtual_seconds", "timeouts", "hash", "error"])
        for r in listed:
            writer.writerow(
                [*(r.levels.get(f, "") for f in factors), r.seed, *(r.measures.get(n, "") for n in names),
                 round(r.virtual, 6), len(r.timeouts), r.digest, r.error.split("\n")[0]]
            )  # fmt: skip


def verdicts(tree: dict[str, Any], listed: Sequence[Result]) -> list[Verdict]:
    """The outcomes of the file's expectations; what speaks of cells that have no run in ``listed`` is not judged."""
    every = cells(tree)
    experiment = parse(every[0].tree)
    references = published(experiment.reference, list(tree.get("factors") or ()))
    rows = [(r.levels, r.seed, r.measures) for r in listed if not r.error]
    left_out = [c.levels for c in every if not any(r.levels == c.levels for r in listed)]
    return [judge(one, rows, references, left_out) for one in experiment.expect]
