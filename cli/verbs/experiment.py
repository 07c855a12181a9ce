"""``navarch experiment``: runs experiments on virtual time, and reads what came of them. Exit codes: 0 all expectations
came true, 1 some did not, 2 the file is wrong, 3 runs failed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from cli.options import App, Argument, Option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.experiments.sweep import Result

app = App()
group = App(help="Run experiments on virtual time, and read what came of them.")
app.add_group(group, "experiment")

File = Annotated[Path, Argument("FILE", help="YAML, kind: Experiment.")]
Folder = Annotated[Path, Argument("DIR", help="A folder of results.")]
Sets = Annotated[list[str] | None, Option("--set", metavar="PATH=VALUE", help="Another value for a field of the file.")]
NOT_TRUE, WRONG, FAILED = 1, 2, 3


def stop(text: str, code: int) -> NoReturn:
    print(text, file=sys.stderr)
    raise SystemExit(code)


def _load(file: Path, sets: Sequence[str] | None) -> dict[str, Any]:
    import yaml

    from lab.experiments import file as files
    from lab.experiments.schema import WrongFile

    overrides = {}
    for text in sets or ():
        where, equals, value = text.partition("=")
        if not equals:
            stop(f"error: --set {text}: expected PATH=VALUE, such as seeds=3", WRONG)
        overrides[where] = yaml.safe_load(value)
    try:
        tree = files.load(file, overrides)
        for cell in files.cells(tree):
            files.parse(cell.tree)
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
    mode: Annotated[str, Option("--mode", help="simulated, or cycle (decisions alone); default: the file's.")] = "",
    seeds: Annotated[int, Option("--seeds", metavar="N", help="Seeds 1 to N; default: what the file says.")] = 0,
    only: Annotated[list[str] | None, Option("--only", metavar="FACTOR=LEVEL", help="Some cells only; also seed=N.")] = None,
    sets: Sets = None,
    jobs: Annotated[int, Option("--jobs", metavar="N", help="Processes; default: all cores.")] = 0,
    again: Annotated[bool, Option("--again", help="Runs what is done already, too.")] = False,
    report_: Annotated[bool, Option("--report/--no-report", help="Write report.html (needs the extra lab).")] = True,
    images: Annotated[bool, Option("--images", help="Write the plots as PNG files, too.")] = False,
    junit: Annotated[Path | None, Option("--junit", metavar="FILE", help="Write expectations and runs as JUnit XML.")] = None,
    json_: Annotated[bool, Option("--json", help="Print runs and expectations as JSON, and nothing else.")] = False,
) -> None:
    """Run all cells with all seeds; what an earlier call has done is kept."""
    tree = _load(file, [*(sets or ()), *([f"cluster.mode={mode}"] if mode else ())])
    from lab.experiments import sweep
    from lab.experiments.file import cells

    chosen = {}
    for text in only or ():
        for part in text.split(","):
            factor, _, level = part.partition("=")
            if factor != "seed" and not any(c.levels.get(factor) == level for c in cells(tree)):
                stop(f"error: --only {part}: there is no such level", WRONG)
            chosen[factor] = level
    folder = out or Path("results") / str(tree["metadata"]["name"])
    shown = sys.stderr.isatty()

    def progress(done: int, total: int, result: Result) -> None:
        state = f"FAILED: {result.error.splitlines()[0]}" if result.error else f"{result.virtual:.0f} s of virtual time"
        late = f", {len(result.timeouts)} timeouts" if result.timeouts else ""
        text = f"{done}/{total} {result.name}: {state}{late}"
        end = "" if shown and done < total else "\n"
        print(f"\r\033[K{text}" if shown and not result.error else text, end=end, file=sys.stderr, flush=True)

    try:
        listed = sweep.sweep(
            tree, folder, seeds=range(1, seeds + 1) if seeds else None, only=chosen, jobs=jobs or os.cpu_count() or 1,
            resume=not again, progress=progress,
        )  # fmt: skip
    except KeyboardInterrupt:
        stop(f"\nstopped; what is done is kept in {folder}, and the same command goes on from there", 130)
    if junit:
        junit.write_text(_junit(tree, listed))
    if json_:
        print(_json(tree, listed))
    else:
        _tell(tree, listed)
    if report_:
        try:
            from lab.experiments import report as reports

            print(f"report: {reports.write(folder, images)}", file=sys.stderr if json_ else sys.stdout)
        except ImportError as error:
            print(f"no report: {error.name} is missing; install navarch[lab]", file=sys.stderr)
    _end(tree, listed)


def _json(tree: dict[str, Any], listed: Sequence[Result]) -> str:
    import json

    from lab.experiments.sweep import verdicts

    runs = [
        {"levels": dict(r.levels), "seed": r.seed, "measures": {k: v if v == v else None for k, v in r.measures.items()},
         "hash": r.digest, "virtual_seconds": r.virtual, "timeouts": list(r.timeouts), "error": r.error}
        for r in listed
    ]  # fmt: skip
    judged = [{"expectation": v.text, "true": v.good, "why": v.why} for v in verdicts(tree, listed)]
    return json.dumps({"name": tree["metadata"]["name"], "runs": runs, "expectations": judged}, indent=1)


def _junit(tree: dict[str, Any], listed: Sequence[Result]) -> str:
    """A test case for each run and each expectation, as CI servers read them."""
    from xml.etree import ElementTree

    from lab.experiments.sweep import verdicts

    name = str(tree["metadata"]["name"])
    suite = ElementTree.Element("testsuite", name=name)
    for r in listed:
        case = ElementTree.SubElement(suite, "testcase", classname=f"{name}.runs", name=r.name)
        if r.error:
            ElementTree.SubElement(case, "error", message=r.error.splitlines()[0]).text = r.error
    judged = verdicts(tree, listed)
    for v in judged:
        case = ElementTree.SubElement(suite, "testcase", classname=f"{name}.expectations", name=v.text)
        if v.good is None:
            ElementTree.SubElement(case, "skipped", message=v.why)
        elif not v.good:
            ElementTree.SubElement(case, "failure", message=v.why)
    suite.set("tests", str(len(listed) + len(judged)))
    suite.set("errors", str(sum(bool(r.error) for r in listed)))
    suite.set("failures", str(sum(v.good is False for v in judged)))
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _tell(tree: dict[str, Any], listed: Sequence[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    from lab.experiments.expect import interval, within
    from lab.experiments.report import cells_of, warnings
    from lab.experiments.sweep import verdicts

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
    console.print(table)
    for warning in warnings(listed):
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
def check(file: File, sets: Sets = None) -> None:
    """Say every mistake in a file, or how many runs it makes."""
    tree = _load(file, sets)
    from lab.experiments.file import cells, parse
    from lab.experiments.inputs import nodes_of

    all_cells = cells(tree)
    one = parse(all_cells[0].tree)
    nodes = len(nodes_of(one))
    print(f"{one.metadata.name}: {len(all_cells)} cells, {one.seeds} seeds, {len(all_cells) * one.seeds} runs of {nodes} nodes")
    for cell in all_cells:
        print(f"  {cell.name}")


@group.command("list")
def list_(folder: Folder = Path("results")) -> None:
    """List the results below a folder."""
    from lab.experiments.sweep import LOCK, results

    locks = sorted([*folder.glob(LOCK), *folder.glob(f"*/{LOCK}")])
    if not locks:
        print(f"No results below {folder}. To get some: navarch experiment run FILE", file=sys.stderr)
    for lock in locks:
        runs = results(lock.parent)
        print(f"{lock.parent}  {len(runs)} runs")


def _results(folder: Path) -> list[Result]:
    from lab.experiments.sweep import LOCK, results

    if not (folder / LOCK).exists():
        stop(f"error: {folder} is no folder of results: it has no {LOCK}", WRONG)
    return results(folder)


@group.command()
def report(
    folder: Folder, images: Annotated[bool, Option("--images", help="Write the plots as PNG files, too.")] = False
) -> None:
    """Write report.html, summary.csv and plots from the recordings of a folder."""
    _results(folder)
    try:
        from lab.experiments import report as reports

        print(reports.write(folder, images))
    except ImportError as error:
        stop(f"error: {error.name} is missing; install navarch[lab]", WRONG)


@group.command()
def compare(first: Folder, second: Folder) -> None:
    """Say in words what differs between two folders of results beyond the spread, or between two recordings."""
    if first.is_file() and second.is_file():
        from lab.experiments.recording import Recording
        from lab.recording.comparing import compare as of_recordings

        try:
            print("\n".join(of_recordings(Recording.load(first), Recording.load(second))))
        except (OSError, ValueError) as error:
            stop(f"error: {error}", WRONG)
        return
    from lab.experiments.report import compare as compared

    print("\n".join(compared(_results(first), _results(second))))


@group.command()
def show(
    folder: Folder,
    name: Annotated[str, Argument("RUN", help="As runs/RUN.json is called.")],
    at: Annotated[str, Option("--at", metavar="TIME", help="How the cluster looked then, such as 90s.")] = "",
) -> None:
    """Tell a run: its steps and marks; with --at, its pods and nodes at a time."""
    from lab.experiments import telling
    from lab.experiments.recording import Recording

    path = folder / "runs" / f"{name}.jsonl.gz"
    if not path.exists():
        names = ", ".join(r.name for r in _results(folder)[:20])
        stop(f"error: {folder} has no run {name}; it has {names}", WRONG)
    recording = Recording.load(path)
    print("\n".join(telling.at(recording, telling.seconds(at)) if at else telling.story(recording)))


@group.command()
def diff(
    first: Annotated[Path, Argument("RECORDING")], second: Annotated[Path, Argument("RECORDING")]
) -> None:
    """Say where two recordings part first. Exit code 0: nowhere, 1: somewhere."""
    from lab.experiments import telling
    from lab.experiments.recording import Recording

    try:
        lines = telling.parting(Recording.load(first), Recording.load(second))
    except (OSError, ValueError) as error:
        stop(f"error: {error}", WRONG)
    print("\n".join(lines) if lines else "they are the same")
    raise SystemExit(1 if lines else 0)
