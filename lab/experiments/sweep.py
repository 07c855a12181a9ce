"""All runs of an experiment: what is done is kept, and nothing depends on order, cores or who does the work.

lab/experiments/folder.py tells what lies in the folder of results.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import math
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from lab.experiments import executors, origin, tables
from lab.experiments import folder as folders
from lab.experiments.drivers.modes import stage_of
from lab.experiments.drivers.stage import Stage
from lab.experiments.executors import PROCESSES, Done, Pulse, Task
from lab.experiments.expect import Verdict, judge, published
from lab.experiments.file import Cell, Experiment, cells, parse
from lab.experiments.folder import LOCK as LOCK
from lab.experiments.folder import completed, digest_of
from lab.experiments.measures import curve, measure
from lab.experiments.recording import Recording
from lab.experiments.result import Result as Result
from lab.experiments.result import run_name as run_name

RUNS = "runs"
ONE_AT_A_TIME = ("hollow", "real")
"""Modes in which runs share a machine's clock, and would disturb each other."""


class RunFiles(NamedTuple):
    """A run and its files: paths below the folder of results, and their content."""

    result: Result
    files: Mapping[str, bytes]


def one(task: Task, stage: Stage | None = None) -> RunFiles:
    """Makes one run, on a stage that is entered already or on one of its own; also in processes of its own. What goes wrong is
    in the result."""
    logging.disable(logging.WARNING)
    files: dict[str, bytes] = {}
    try:
        experiment = parse(task.tree)
        with nullcontext(stage) if stage is not None else stage_of(experiment.cluster.mode) as entered:
            outcome = entered.run(experiment, task.seed)
        recording = outcome.recorder.recording()
        run = Result(task.levels, task.seed, {}, outcome.recorder.digest, outcome.virtual, outcome.timeouts)
        result = _measured(run, experiment, recording)
        files[f"{RUNS}/{task.name}.jsonl.gz"] = outcome.recorder.content
        if task.tables:
            files |= _parquet(recording, result)
    except Exception as error:  # the others go on
        where = "" if isinstance(error, ValueError) else traceback.format_exc(limit=-3)
        text = f"{type(error).__name__}: {_cause(error)}{where and chr(10) + where}"
        result = Result(task.levels, task.seed, {}, "", 0.0, (), text)
    files[f"{RUNS}/{task.name}.json"] = _written(result, task.tree, origin.made_by())  # last: with it the run is done
    return RunFiles(result, files)


def _measured(result: Result, experiment: Experiment, recording: Recording) -> Result:
    measures = measure(recording, experiment.measure, experiment.series)
    curves = {p.name: curve(recording, p.y, p.x, p.step, experiment.series) for p in experiment.plots}
    return result._replace(measures=measures, curves=curves)


def _written(result: Result, tree: Mapping[str, Any], by: str) -> bytes:
    out = result._asdict() | {"measures": {k: None if math.isnan(v) else v for k, v in result.measures.items()}}
    out |= origin_of(tree, by)._asdict()
    return orjson.dumps(out, option=orjson.OPT_INDENT_2)


def _parquet(recording: Recording, result: Result) -> dict[str, bytes]:
    """The tables of a run, each with the run's name, levels and seed in front."""
    import pyarrow
    from pyarrow import parquet

    out: dict[str, bytes] = {}
    for name, rows in tables.TABLES.items():
        listed = rows(recording)
        columns: dict[str, list[Any]] = {"run": [result.name] * len(listed)}
        columns |= {k: [v] * len(listed) for k, v in result.levels.items()} | {"seed": [result.seed] * len(listed)}
        for key in listed[0] if listed else ():
            columns.setdefault(key, [row[key] for row in listed])
        if listed:
            buffer = io.BytesIO()
            parquet.write_table(pyarrow.table(columns), buffer, compression="zstd")
            out[f"{name}.parquet/{result.name}.parquet"] = buffer.getvalue()
    return out


def _cause(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return str(error)


TELLS_ONLY = ("question", "expect", "reference", "design", "seeds", "report")
MEASURES = ("measure", "series", "plots")


def of_run(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a cell on which its recording depends, defaults and all: another expectation makes no run anew, nor does
    another measure, which is taken from the recording."""
    return {k: v for k, v in completed(tree).items() if k not in (*TELLS_ONLY, *MEASURES)}


def of_measures(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in completed(tree).items() if k in MEASURES}


class Origin(NamedTuple):
    """Digests of what was run and of what was measured, by which version of navarch; and the hashes of the files that a run
    and its measures need: plugins, traces, functions of a user's own."""

    of: str = ""
    measured: str = ""
    by: str = ""
    files: Mapping[str, str] = {}
    measure_files: Mapping[str, str] = {}


def origin_of(tree: Mapping[str, Any], by: str) -> Origin:
    """That of a run of a cell that is made now."""
    ran, measures = of_run(tree), of_measures(tree)
    return Origin(digest_of(ran), digest_of(measures), by, folders.inputs(ran), folders.inputs(measures))


def read(path: Path) -> tuple[Result, Origin]:
    """A result that was written, and where it comes from."""
    tree = json.loads(path.read_text())
    source = Origin(**{key: tree.pop(key) for key in Origin._fields if key in tree})
    tree["measures"] = {k: math.nan if v is None else float(v) for k, v in tree["measures"].items()}
    return Result(**tree), source


def results(folder: Path) -> list[Result]:
    """The runs in a folder of results, in the order of cells and seeds; not those of another file that were there before.
    Raises OSError, ValueError."""
    return [result for result, _ in _listed(folder)]


def foreign(folder: Path) -> dict[str, str]:
    """The runs that another version of navarch made, and which: by name."""
    return {r.name: source.by for r, source in _listed(folder) if source.by and source.by != origin.made_by()}


def _listed(folder: Path) -> list[tuple[Result, Origin]]:
    locked = folders.read_lock(folder)
    listed, hashes = cells(locked["file"]), locked.get("inputs", {})
    digests = {
        tuple(c.levels.items()): (n, digest_of(of_run(c.tree)), digest_of(of_measures(c.tree))) for n, c in enumerate(listed)
    }
    out: list[tuple[int, Result, Origin]] = []
    for path in sorted((folder / RUNS).glob("*.json")):
        result, source = read(path)
        place, of, measured = digests.get(tuple(result.levels.items()), (0, "", ""))
        same = all(hashes.get(p) == h for p, h in (source.files | source.measure_files).items())  # type: ignore[operator]
        if same and (source.of, source.measured) == (of, measured):
            out.append((place, result, source))
    return [(r, source) for _, r, source in sorted(out, key=lambda entry: (entry[0], entry[1].seed))]


class Listener:
    """Is told how a sweep goes; this one does nothing."""

    def begin(self, total: int, earlier: int, jobs: int) -> None:
        """So many runs, of which some are done already; ``jobs`` at a time."""

    def pulse(self, pulse: Pulse) -> None:
        """A run goes on."""

    def done(self, result: Result, seconds: float) -> None:
        """A run is over; in seconds of real time."""


def plan_of(tree: dict[str, Any], seeds: Iterable[int] | None = None, only: Mapping[str, str] = {}) -> list[tuple[Cell, int]]:
    """Cells and seeds to run. Raises WrongFile."""
    listed = None if seeds is None else list(seeds)
    out: list[tuple[Cell, int]] = []
    for cell in cells(tree):
        if all(cell.levels.get(k) == v for k, v in only.items() if k != "seed"):
            count = parse(cell.tree).seeds
            chosen = listed if listed is not None else range(1, count + 1)
            out += [(cell, seed) for seed in chosen if only.get("seed", str(seed)) == str(seed)]
    return out


def earlier_result(folder: Path, cell: Cell, seed: int) -> Result | None:
    """The result of an earlier call, if it is of the same file and did not fail; measured again if the measures are others."""
    name = run_name(cell.levels, seed)
    path = folder / RUNS / f"{name}.json"
    if not path.exists():
        return None
    result, source = read(path)
    now = origin_of(cell.tree, source.by)
    if (source.of, source.files) != (now.of, now.files) or result.error:
        return None
    if source != now:
        recording = Recording.load(folder / RUNS / f"{name}.jsonl.gz")
        result = _measured(result, parse(cell.tree), recording)
        folders.replace(path, _written(result, cell.tree, source.by))
    return result


def has_runs(folder: Path, tree: dict[str, Any]) -> bool:
    """Whether a folder has a run of this file with these settings, whatever its cell and seed."""
    by_levels = {tuple(sorted(c.levels.items())): c for c in cells(tree)}
    for result in results(folder):
        cell = by_levels.get(tuple(sorted(result.levels.items())))
        if cell is not None and earlier_result(folder, cell, result.seed) is not None:
            return True
    return False


def not_taken(folder: Path, plan: Iterable[tuple[Cell, int]]) -> list[str]:
    """Says which results of earlier calls will be made anew, and why: a line for each reason."""
    reasons: dict[str, int] = {}
    for cell, seed in plan:
        path = folder / RUNS / f"{run_name(cell.levels, seed)}.json"
        if not path.exists():
            continue
        result, source = read(path)
        now = origin_of(cell.tree, source.by)
        if result.error:
            why = "they failed"
        elif source.of != now.of:
            other = f", or they were made by another version ({source.by})" if source.by not in ("", origin.made_by()) else ""
            why = f"the file says something else now{other}"
        elif source.files != now.files:
            names = sorted({Path(p).name for p, _ in set(source.files.items()) ^ set(now.files.items())})
            why = f"{', '.join(names)} changed"
        else:
            continue
        reasons[why] = reasons.get(why, 0) + 1
    return [f"{n} of the runs in {folder} {'is' if n == 1 else 'are'} made anew: {why}" for why, n in reasons.items()]


def sweep(
    tree: dict[str, Any],
    folder: Path,
    *,
    seeds: Iterable[int] | None = None,
    only: Mapping[str, str] = {},
    jobs: int = 1,
    executor: str = PROCESSES,
    resume: bool = True,
    with_tables: bool = True,
    listener: Listener | None = None,
    command: Sequence[str] = (),
) -> list[Result]:
    """Runs every cell with every seed; gives the results in the order of cells and seeds. What is done already, by the same
    file, is taken as it is. ``with_tables``: writes them if pyarrow is here. ``command``: the file and the options that made
    this tree of it, for whoever wants to repeat it. Raises WrongFile before anything starts."""
    plan, heard = plan_of(tree, seeds, only), listener or Listener()
    (folder / RUNS).mkdir(parents=True, exist_ok=True)
    earlier = {run_name(c.levels, s): earlier_result(folder, c, s) if resume else None for c, s in plan}
    outcomes: dict[str, Result] = {name: result for name, result in earlier.items() if result is not None}
    write_tables = with_tables and importlib.util.find_spec("pyarrow") is not None
    tasks = [
        Task(name, c.tree, c.levels, s, write_tables) for c, s in plan if (name := run_name(c.levels, s)) not in outcomes
    ]
    folders.write(folder, tree, cells(tree), list(outcomes.values()), command)
    heard.begin(len(plan), len(outcomes), min(jobs, max(1, len(tasks))))

    def hear(event: Pulse | Done) -> None:
        if isinstance(event, Pulse):
            heard.pulse(event)
            return
        run: RunFiles = event.output
        for path, content in run.files.items():
            (folder / path).parent.mkdir(exist_ok=True)
            folders.replace(folder / path, content)
        outcomes[event.name] = run.result
        heard.done(run.result, event.seconds)

    try:
        _run_all(tasks, hear, executor, jobs)
    finally:
        folders.write(folder, tree, cells(tree), results(folder), command)
        _forget(folder)
    return [outcomes[run_name(cell.levels, seed)] for cell, seed in plan]


def _run_all(tasks: Sequence[Task], hear: executors.Heard, executor: str, jobs: int) -> None:
    """By mode: what shares a machine's clock goes one by one on one stage, here; all else wherever the executor has it done."""
    by_mode: dict[str, list[Task]] = {}
    for task in tasks:
        by_mode.setdefault(parse(task.tree).cluster.mode, []).append(task)
    for mode, of_mode in by_mode.items():
        if mode in ONE_AT_A_TIME:
            # Seed by seed, not cell by cell: what becomes slower or faster meanwhile must not look like an effect of a factor.
            blocks = sorted(of_mode, key=lambda task: task.seed)
            with stage_of(mode) as stage:
                executors.run_all(blocks, partial(one, stage=stage), hear)
        else:
            executors.run_all(of_mode, one, hear, executor=executor, jobs=jobs)


def _forget(folder: Path) -> None:
    """Removes tables of runs that are not of this file: whoever reads ``pods.parquet`` reads all of its parts."""
    names = {r.name for r in results(folder) if not r.error}
    for table in tables.TABLES:
        for part in (folder / f"{table}.parquet").glob("*.parquet"):
            if part.stem not in names:
                part.unlink()


def verdicts(tree: dict[str, Any], listed: Sequence[Result]) -> list[Verdict]:
    """The outcomes of the file's expectations; what speaks of cells that have no run in ``listed`` is not judged."""
    every = cells(tree)
    experiment = parse(every[0].tree)
    references = published(experiment.reference, list(tree.get("factors") or ()))
    rows = [(r.levels, r.seed, r.measures) for r in listed if not r.error]
    left_out = [c.levels for c in every if not any(r.levels == c.levels for r in listed)]
    return [judge(one, rows, references, left_out) for one in experiment.expect]
