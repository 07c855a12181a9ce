"""``navarch experiment``: runs experiments on virtual time, and reads what came of them. Exit codes: 0 all expectations
came true, 1 some did not, 2 the file is wrong, 3 runs failed.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from cli import outfiles
from cli.experimentwords import as_json, as_junit, command_of, lacking
from cli.options import App, Argument, Option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab.experiments.sweep import Result

app = App()
group = App(help="Run experiments on virtual time, and read what came of them.")
app.add_group(group, "experiment")

File = Annotated[Path, Argument("FILE", help="YAML, kind: Experiment.")]
Folder = Annotated[Path, Argument("DIR", help="A folder of results.")]
Sets = Annotated[list[str] | None, Option("--set", metavar="PATH=VALUE", help="Another value for a field of the file.")]
Varies = Annotated[
    list[str] | None,
    Option("--vary", metavar="PATH=VALUES", help="A field that varies: PATH=[1, 2]; with --samples also PATH=uniform(1s, 9s)."),
]
Samples = Annotated[int, Option("--samples", metavar="N", help="So many random points of what varies, instead of a grid.")]
Executor = Annotated[
    str, Option("--executor", metavar="WHICH", help="processes, or dask://HOST:PORT (a scheduler of dask.distributed).")
]
Commands = Annotated[bool, Option("--allow-commands", help="Let steps of the file run programs on this machine.")]
NOT_TRUE, WRONG, FAILED = 1, 2, 3


def stop(text: str, code: int) -> NoReturn:
    print(text, file=sys.stderr)
    raise SystemExit(code)


def _load(
    file: Path, sets: Sequence[str] | None, vary: Sequence[str] | None = None, samples: int = 0, commands: bool = False
) -> dict[str, Any]:
    import yaml

    from lab.experiments import file as files
    from lab.experiments.limits import missing_images
    from lab.experiments.schema import WrongFile
    from lab.experiments.varying import varied
    from lab.experiments.wholechecks import check_whole

    def pairs(option: str, texts: Sequence[str] | None, example: str) -> dict[str, Any]:
        out = {}
        for text in texts or ():
            where, equals, value = text.partition("=")
            if not equals:
                stop(f"error: {option} {text}: expected {example}", WRONG)
            try:
                out[where] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                stop(f"error: {option} {text}: is no YAML: {' '.join(str(error).split())}", WRONG)
        return out

    if samples < 0:
        stop(f"error: --samples {samples}: must be at least 1", WRONG)
    overrides = pairs("--set", sets, "PATH=VALUE, such as seeds=3")
    fields = pairs("--vary", vary, "PATH=VALUES, such as cluster.nodes[0].count=[3, 6]")
    if samples and not fields:
        stop("error: --samples: say what varies with --vary", WRONG)
    try:
        tree = files.load(file, overrides, commands=commands)
        if fields:
            tree = varied(tree, fields, samples)
        if missing := list(dict.fromkeys(p for e in check_whole(tree) for p in missing_images(e))):
            raise WrongFile(missing)
        return tree
    except OSError as error:
        stop(f"error: {file}: {error.strerror}", WRONG)
    except WrongFile as error:
        listed = "\n".join(f"  {problem}" for problem in error.problems)
        stop(f"error: {file} is wrong:\n{listed}", WRONG)


@group.command()
def run(
    file: File,
    out: Annotated[Path | None, Option("--out", metavar="DIR", help="Default: results/NAME.")] = None,
    mode: Annotated[str, Option("--mode", help="simulated, hollow, real, cycle; default: the file's.")] = "",
    seeds: Annotated[int, Option("--seeds", metavar="N", help="Seeds 1 to N; default: what the file says.")] = 0,
    only: Annotated[list[str] | None, Option("--only", metavar="FACTOR=LEVEL", help="Some cells only; also seed=N.")] = None,
    sets: Sets = None,
    vary: Varies = None,
    samples: Samples = 0,
    jobs: Annotated[int, Option("--jobs", metavar="N", help="Processes; default: all cores.")] = 0,
    executor: Executor = "processes",
    allow_commands: Commands = False,
    resume: Annotated[bool, Option("--resume", help="Only go on: an error unless DIR has runs of this very file.")] = False,
    again: Annotated[bool, Option("--again", help="Runs what is done already, too.")] = False,
    report_: Annotated[bool, Option("--report/--no-report", help="Write report.html (needs the extra lab).")] = True,
    images: Annotated[bool, Option("--images", help="Write the plots as PNG files, too.")] = False,
    junit: Annotated[Path | None, Option("--junit", metavar="FILE", help="Write expectations and runs as JUnit XML.")] = None,
    json_: Annotated[bool, Option("--json", help="Print runs and expectations as JSON, and nothing else.")] = False,
) -> None:
    """Run all cells with all seeds; what an earlier call has done is kept, and the same command goes on."""
    tree = _load(file, [*(sets or ()), *([f"cluster.mode={mode}"] if mode else ())], vary, samples, allow_commands)
    from lab.experiments import sweep
    from lab.experiments.file import cells
    from lab.experiments.sweep import plan_of, verdicts

    chosen = _chosen(only, [c.levels for c in cells(tree)])
    folder = out or Path("results") / str(tree["metadata"]["name"])
    for name, number in (("--seeds", seeds), ("--jobs", jobs)):
        if number < 0:
            stop(f"error: {name} {number}: must be at least 1", WRONG)
    numbers = range(1, seeds + 1) if seeds else None
    if not sweep.plan_of(tree, numbers, chosen):
        stop(f"error: no run is of {', '.join(only or ())}: seeds are 1 to {seeds or tree.get('seeds', 1)}", WRONG)
    outfiles.check(junit, WRONG)
    if resume and not sweep.has_runs(folder, tree):
        stop(f"error: --resume: {folder} has no run of this file with these settings", WRONG)
    for line in [] if again else sweep.not_taken(folder, plan_of(tree, numbers, chosen)):
        print(line, file=sys.stderr)
    command = command_of(file, mode, sets, vary, samples, allow_commands)
    listed = _sweep(tree, folder, seeds=numbers, only=chosen, jobs=jobs or os.cpu_count() or 1, executor=executor,
                    resume=not again, command=command)  # fmt: skip
    judged = verdicts(tree, listed)
    if junit:
        outfiles.write(junit, as_junit(tree, listed, judged), FAILED)
    if json_:
        print(as_json(tree, listed, judged))
    else:
        _tell(tree, listed)
    if others := sweep.foreign(folder):
        name, by = next(iter(others.items()))
        text = f"{len(others)} of the runs in {folder} were made by another version ({name}: {by}); --again makes them anew"
        print(f"warning: {text}", file=sys.stderr)
    if report_:
        try:
            from lab.reports import report as reports

            print(f"report: {reports.write(folder, images)}", file=sys.stderr if json_ else sys.stdout)
        except ImportError as error:
            print(f"no report: {lacking(error)}", file=sys.stderr)
        except OSError as error:  # a full disk, say; the runs are kept
            stop(f"error: no report: {outfiles.words(error, folder)}", FAILED)
    _end(tree, listed)


def _chosen(only: Sequence[str] | None, levels: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """``--only`` as a mapping."""
    chosen = {}
    for part in [part for text in only or () for part in text.split(",")]:
        factor, _, level = part.partition("=")
        if factor != "seed" and not any(one.get(factor) == level for one in levels):
            present = list(dict.fromkeys(f"{factor}={one[factor]}" for one in levels if factor in one))
            has = f"; there are {', '.join(present)}" if present else f"; factors are {', '.join(levels[0]) or 'none'}"
            stop(f"error: --only {part}: there is no such level{has}", WRONG)
        chosen[factor] = level
    return chosen


def _sweep(tree: dict[str, Any], folder: Path, **how: Any) -> list[Result]:
    """Runs, with progress; ends the program if it cannot, or on Ctrl-C."""
    from lab.experiments import sweep
    from lab.experiments.executors import ExecutorError
    from lab.experiments.live import Live

    live = Live(sys.stderr, sys.stderr.isatty())
    try:
        return sweep.sweep(tree, folder, listener=live, **how)
    except ExecutorError as error:
        stop(f"error: {error}", WRONG)
    except OSError as error:  # a full disk: what is done is kept
        live.end()
        stop(f"error: {outfiles.words(error, folder)}", FAILED)
    except KeyboardInterrupt:
        live.end()
        done, total = live.board.earlier + live.board.over, live.board.total
        again = shlex.join(["navarch", *sys.argv[1:]])
        stop(f"stopped: {done} of {total} runs are done and kept in {folder}. To go on, say the same again:\n  {again}", 130)
    finally:
        live.end()


@group.command()
def verify(
    folder: Folder,
    only: Annotated[list[str] | None, Option("--only", metavar="FACTOR=LEVEL", help="Some cells only; also seed=N.")] = None,
    jobs: Annotated[int, Option("--jobs", metavar="N", help="Processes; default: all cores.")] = 0,
    executor: Executor = "processes",
    allow_commands: Commands = False,
) -> None:
    """Make the runs of a folder again and compare the hashes of their recordings; reproduce.sh calls this. Exit code 0: all are
    the same, 1: some are not."""
    import tempfile

    listed = _results(folder)
    from lab.experiments.folder import differences, read_lock

    lock = read_lock(folder)
    for line in differences(lock):
        print(line, file=sys.stderr)
    chosen = _chosen(only, [r.levels for r in listed])
    tree, hashes = lock["file"], lock["hashes"]
    if not allow_commands:  # the folder may be another's
        tree.pop("allow-commands", None)
    old = [r for r in listed if r.name in hashes and all(
        str(r.seed) == v if k == "seed" else r.levels.get(k) == v for k, v in chosen.items()
    )]  # fmt: skip
    if not old:
        stop(f"error: {folder} has no such run", WRONG)
    with tempfile.TemporaryDirectory() as temporary:
        new = _sweep(tree, Path(temporary), seeds=sorted({r.seed for r in old}), only=chosen,
                     jobs=jobs or os.cpu_count() or 1, executor=executor, with_tables=False)  # fmt: skip
    digests = {r.name: r.digest or r.error.splitlines()[0] for r in new}
    wrong = [r.name for r in old if digests.get(r.name) != hashes[r.name]]
    for name in wrong:
        print(f"DIFFERS  {name}: {hashes[name][:16]} then, {digests.get(name, 'not run')[:60]} now")
    print(f"{len(old) - len(wrong)} of {len(old)} runs gave the same recording, byte for byte")
    raise SystemExit(NOT_TRUE if wrong else 0)


def _tell(tree: dict[str, Any], listed: Sequence[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    from lab.experiments.expect import interval, within
    from lab.experiments.file import cells, parse
    from lab.experiments.limits import all_notes
    from lab.experiments.sweep import verdicts
    from lab.reports.cautions import warnings
    from lab.reports.statistics import cells_of

    good = [r for r in listed if not r.error]
    names = list(good[0].measures) if good else []
    by_cell = cells_of(good)
    rows = {}
    for name, of_cell in by_cell.items():
        values = [[v for r in of_cell if (v := r.measures[m]) == v] for m in names]
        rows[name] = [within(interval(v)) if v else "-" for v in values]
    if len(names) > len(by_cell):  # the longer side goes down the page
        table = Table("measure", *by_cell, box=None, header_style="bold")
        for n, measure in enumerate(names):
            table.add_row(measure, *(row[n] for row in rows.values()))
    else:
        table = Table("cell", *names, box=None, header_style="bold")
        for name, row in rows.items():
            table.add_row(name, *row)
    console = Console(highlight=False, soft_wrap=True)
    _print(table)
    for warning in [*warnings(listed), *all_notes(parse(c.tree) for c in cells(tree))]:
        console.print(f"warning: {warning}", style="yellow", markup=False)
    styles = {True: "green", False: "red", None: "yellow"}
    for verdict in verdicts(tree, listed):
        line = f"{verdict.word:10}  {verdict.text}  ({verdict.why})"
        console.print(line, style=styles[verdict.good], markup=False)


def _end(tree: dict[str, Any], listed: Sequence[Result]) -> NoReturn:
    from lab.experiments.sweep import verdicts

    if failed := [r for r in listed if r.error]:
        stop(f"error: {len(failed)} runs failed; the first: {failed[0].name}: {failed[0].error}", FAILED)
    raise SystemExit(NOT_TRUE if any(v.good is False for v in verdicts(tree, listed)) else 0)


@group.command()
def check(
    file: File,
    sets: Sets = None,
    vary: Varies = None,
    samples: Samples = 0,
    allow_commands: Commands = False,
    try_: Annotated[bool, Option("--try/--no-try", help="Run one cell, for 10 s of CPU at most, to tell the cost.")] = True,
) -> None:
    """Say every mistake in a file; or its cells, factors that change nothing, and what all runs will cost."""
    tree = _load(file, sets, vary, samples, allow_commands)
    from lab.experiments.estimate import idle_factors
    from lab.experiments.file import cells, parse
    from lab.experiments.inputs import nodes_of
    from lab.experiments.sweep import plan_of

    all_cells = cells(tree)
    one, runs = parse(all_cells[0].tree), len(plan_of(tree))
    nodes = len(nodes_of(one))
    print(f"{one.metadata.name}: {len(all_cells)} cells, {one.seeds} seeds, {runs} runs of {nodes} nodes")
    for cell in all_cells:
        print(f"  {cell.name}")
    for factor in idle_factors(all_cells):
        print(f"warning: factors.{factor} changes nothing: ${{{factor}}} stands nowhere, and its levels patch nothing")
    if not one.measure:
        print("warning: nothing is measured")
    if try_:
        _estimate(all_cells[0], runs)


def _estimate(cell: Any, runs: int) -> None:
    from lab.experiments.estimate import BUDGET, cost_of

    try:
        cost = cost_of(cell)
    except Exception as error:  # what a run of it would say
        stop(f"error: {cell.name}, seed 1: {type(error).__name__}: {error}", FAILED)
    if cost is None:
        print("not tried: runs of this mode take as long as their steps say")
        return
    cores = os.cpu_count() or 1
    if not cost.ended:
        print(f"one run takes more than {BUDGET:.0f} s of CPU: it was at {cost.virtual:.0f} s then; all {runs}: more than "
              f"{_span(cost.cpu * runs)} of CPU, {_span(cost.cpu * runs / min(cores, runs))} on {cores} cores")  # fmt: skip
        return
    print(f"one run: {cost.virtual:.0f} s of virtual time in {cost.cpu:.1f} s of CPU, {_bytes(cost.size)}; all {runs}: "
          f"{_span(cost.cpu * runs)} of CPU, {_span(cost.cpu * runs / min(cores, runs))} on {cores} cores, "
          f"{_bytes(cost.size * runs)}")  # fmt: skip


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _bytes(count: float) -> str:
    return f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


@group.command("list")
def list_(folder: Folder = Path("results")) -> None:
    """List the results below a folder: runs, failures, expectations, and the question."""
    from rich.table import Table

    from lab.experiments.folder import LOCK, read_lock
    from lab.experiments.sweep import plan_of, results, verdicts

    locks = sorted([*folder.glob(LOCK), *folder.glob(f"*/{LOCK}"), *folder.glob(f"*/*/{LOCK}")])
    if not locks:
        print(f"No results below {folder}. To get some: navarch experiment run FILE", file=sys.stderr)
        return
    table = Table("RESULTS", "RUNS", "FAILED", "TRUE", "QUESTION", box=None, header_style="bold", pad_edge=False)
    for lock in locks:
        try:
            tree = read_lock(lock.parent)["file"]
            runs = results(lock.parent)
            judged = verdicts(tree, runs)
        except (OSError, ValueError, KeyError) as error:  # of an older version, say
            table.add_row(str(lock.parent), "?", "", "", f"cannot be read: {' '.join(str(error).split())[:80]}")
            continue
        done, failed = sum(not r.error for r in runs), sum(bool(r.error) for r in runs)
        true = f"{sum(v.good is True for v in judged)}/{len(judged)}" if judged else ""
        planned = max(len(plan_of(tree)), len(runs))
        name = str(lock.parent)
        table.add_row(name, f"{done}/{planned}", str(failed or ""), true, str(tree.get("question") or tree["metadata"]["name"]))
    _print(table)


def _print(table: Any) -> None:
    """As wide as its content: what is squeezed into the 80 columns of a pipe breaks paths and numbers apart."""
    from rich.console import Console

    Console(highlight=False, soft_wrap=True, width=10_000).print(table)


def _results(folder: Path) -> list[Result]:
    from lab.experiments.sweep import LOCK, results

    if not (folder / LOCK).exists():
        stop(f"error: {folder} is no folder of results: it has no {LOCK}", WRONG)
    if not (listed := results(folder)):
        stop(f"error: {folder} has no runs that are done; to make them: navarch experiment run FILE --out {folder}", WRONG)
    return listed


@group.command()
def report(
    folder: Folder, images: Annotated[bool, Option("--images", help="Write the plots as PNG files, too.")] = False,
    against: Annotated[
        Path | None, Option("--against", metavar="DIR", help="Runs of another mode: simulated against real.")
    ] = None,
    scores: Annotated[
        bool, Option("--scores", help="Where cells part, show the points of each plugin: runs are made again up to there.")
    ] = False,
) -> None:  # fmt: skip
    """Write report.html, summary.csv and plots from the recordings of a folder."""
    _results(folder)
    try:
        from lab.reports import report as reports

        print(reports.write(folder, images, against, scores))
    except ValueError as error:
        stop(f"error: {error}", WRONG)
    except OSError as error:
        stop(f"error: {outfiles.words(error, folder)}", WRONG)
    except ImportError as error:
        stop(f"error: {lacking(error)}", WRONG)


def _fidelity(first: Path, second: Path) -> str:
    """Simulated against real, as text; "" if both folders are of one mode."""
    from lab.experiments import fidelity

    compared = fidelity.of_folders(first, second)
    return "\n".join(fidelity.lines(compared[0])) if compared else ""


@group.command()
def compare(
    first: Folder, second: Folder,
    page: Annotated[Path | None, Option("--page", metavar="FILE", help="Write it as HTML, too (folders of results).")] = None,
) -> None:  # fmt: skip
    """Say in words what differs between two folders of results beyond the spread, or between two recordings."""
    if first.is_file() and second.is_file():
        if page:
            stop("error: --page is of folders of results, and these are recordings", WRONG)
        from lab.experiments.recording import Recording
        from lab.recording.comparing import compare as of_recordings

        try:
            print("\n".join(of_recordings(Recording.load(first), Recording.load(second))))
        except (OSError, ValueError) as error:
            stop(f"error: {outfiles.words(error)}", WRONG)
        return
    from lab.reports import comparing

    runs = _results(first), _results(second)
    if compared := _fidelity(first, second):
        print(compared)
        if not page:
            return
    print("\n".join(comparing.compare(*runs)))
    if page:
        names = first.resolve().name, second.resolve().name
        names = names if names[0] != names[1] else (str(first), str(second))
        try:
            outfiles.write(page, comparing.comparison(*runs, names), WRONG)
        except ImportError as error:
            stop(f"error: {lacking(error)}", WRONG)
        print(f"page: {page}")


def _recording(text: Path) -> Path:
    """The file of a recording: as it is, ``DIR/RUN``, or ``DIR/runs/RUN``."""
    tries = (text, text.parent / "runs" / f"{text.name}.jsonl.gz", text.with_name(f"{text.name}.jsonl.gz"))
    for path in tries:
        if path.is_file():
            return path
    stop(f"error: there is no recording {text}; say its file, or DIR/RUN with a RUN of: navarch experiment show DIR", WRONG)


@group.command()
def show(
    folder: Folder,
    name: Annotated[str, Argument("RUN", help="As runs/RUN.json is called; without it, all runs.")] = "",
    at: Annotated[str, Option("--at", metavar="TIME", help="How the cluster looked then, such as 90s.")] = "",
    why: Annotated[str, Option("--why", metavar="POD", help="Why the scheduler put a pod there: the run is made again.")] = "",
    page: Annotated[Path | None, Option("--page", metavar="FILE", help="Write HTML with a slider over time.")] = None,
) -> None:
    """Tell a run: its steps and marks; with --at, its pods and nodes at a time; with --why, how the scheduler saw a pod.

    With --page all of it is written as a page."""
    from lab.experiments import telling
    from lab.experiments.recording import Recording

    options = [option for option, value in (("--at", at), ("--why", why), ("--page", page)) if value]
    if len(options) > 1:
        stop(f"error: {' and '.join(options)}: one of them at a time", WRONG)
    if options and not name:
        stop(f"error: {options[0]} is of one run: navarch experiment show {folder} RUN {options[0]} ...; RUN as of: "
             f"navarch experiment show {folder}", WRONG)  # fmt: skip
    outfiles.check(page, WRONG)
    if not name:
        for r in _results(folder):
            measures = "  ".join(f"{k}={v:.4g}" for k, v in r.measures.items())
            print(f"{r.name}  {f'FAILED: {r.error.splitlines()[0]}' if r.error else measures}")
        return
    path = folder / "runs" / f"{name}.jsonl.gz"
    if not path.exists():
        names = ", ".join(r.name for r in _results(folder)[:20])
        stop(f"error: {folder} has no run {name}; it has {names}", WRONG)
    if why:
        from cli.verbs.why import lines
        from lab.experiments.parting import why_of

        answer = why_of(path, why if "/" in why else f"default/{why}")
        if answer is None or "error" in answer:
            text = "its mode cannot be repeated" if answer is None else f"no pod {why} was decided upon"
            stop(f"error: {name}: {text}", WRONG)
        print("\n".join(lines(answer)))
        return
    try:
        recording = Recording.load(path)
    except (OSError, ValueError) as error:
        stop(f"error: {outfiles.words(error, path)}", WRONG)
    if page:
        try:
            from lab.reports.runpage import run_page
        except ImportError as error:
            stop(f"error: {lacking(error)}", WRONG)
        outfiles.write(page, run_page(recording, f"{folder.resolve().name}: {name}"), WRONG)
        print(f"page: {page}")
        return
    try:
        print("\n".join(telling.at(recording, telling.seconds(at)) if at else telling.story(recording)))
    except ValueError as error:
        stop(f"error: --at: {error}", WRONG)


@group.command()
def diff(
    first: Annotated[Path, Argument("RUN", help="A recording, or DIR/RUN.")], second: Annotated[Path, Argument("RUN")]
) -> None:
    """Say where two runs part first: the change, and the scheduler's decision with its points (runs in folders of results are
    made again for it). Exit code 0: nowhere, 1: somewhere."""
    from lab.experiments import parting, telling
    from lab.experiments.recording import Recording

    one, other = _recording(first), _recording(second)
    try:
        lines = telling.parting(Recording.load(one), Recording.load(other))
        apart = parting.first(one, other) if lines else None
    except (OSError, ValueError) as error:
        stop(f"error: {outfiles.words(error)}", WRONG)
    if apart is not None:
        lines += parting.lines(apart, (str(first), str(second)))
    print("\n".join(lines) if lines else "they are the same")
    raise SystemExit(1 if lines else 0)
