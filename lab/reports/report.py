"""The report of a folder of results: ``report.html``, tables for papers, and every plot with its data and its script.

    report.html          one page without any address outside it
    summary.csv          a row for each measure and cell; table.md and table.tex: the overview
    plots/NAME.svg       also .png and .pdf, if asked for
    plots/NAME.csv       the data of the plot
    plots/NAME.py        draws the one from the other, with matplotlib alone; plots/drawing is what it needs
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.experiments.expect import published
from lab.experiments.fidelity import of_folders
from lab.experiments.file import Experiment, cells, parse
from lab.experiments.limits import all_notes
from lab.experiments.sweep import LOCK, Result, results, verdicts
from lab.reports import texts
from lab.reports.answers import sentence
from lab.reports.cautions import warnings
from lab.reports.choosing import chosen, over_all, over_time
from lab.reports.document import Parts, document
from lab.reports.drawing.canvas import draw
from lab.reports.facts import Facts, partings, read_all
from lab.reports.fidelity import section
from lab.reports.figure import Figure
from lab.reports.statistics import cells_of, late, summary
from lab.reports.style import escape, table

DRAWING = Path(__file__).parent / "drawing"
MAX_PARTINGS = 3


def write(folder: Path, images: bool = False, against: Path | None = None) -> Path:
    """Writes all files from what lies in a folder of results; gives the report's path. With ``images`` also PNG files. With
    ``against``, a folder of another mode, simulated against real. Raises OSError if there are none, ValueError."""
    locked = json.loads((folder / LOCK).read_text())
    tree = locked["file"]
    order = [cell.levels for cell in cells(tree)]
    listed = sorted(results(folder), key=lambda r: (order.index(r.levels) if r.levels in order else len(order), r.seed))
    experiment = parse(cells(tree)[0].tree)
    good = [r for r in listed if not r.error]
    rows = summary(listed)
    by_run = read_all(folder, good)
    formats = [*experiment.report.formats, *(["png"] if images else ())]
    kinds = chosen(experiment.report.plots, experiment)
    factors = list(tree.get("factors") or ())
    figures = over_all(experiment, kinds, good, rows, by_run, factors, experiment.report.pareto)
    sections = over_time(kinds, good, folder)
    every = [*figures, *(f for s in sections for f in s.figures)]
    drawings = save(folder / "plots", every, [f for f in formats if f in ("svg", "png", "pdf")])
    atleast = late(tree, listed)
    _tables(folder, rows, atleast, formats)
    judged = verdicts(dict(tree), listed)
    measured = [(r.levels, r.seed, r.measures) for r in good]
    machine = {name: f.machine for name, f in by_run.items() if f.machine}
    parts = Parts(
        tree, locked, listed, judged,
        [sentence(one, v, measured) for one, v in zip(experiment.expect, judged, strict=True)],
        [
            *warnings(listed, {n: f.decisions for n, f in by_run.items()}, machine),
            *all_notes(parse(cell.tree) for cell in cells(tree)),
        ],
        rows, atleast, figures, sections, drawings, beside=beside(experiment, factors, good),
        fidelity=_fidelity(folder, against), partings=parted(by_run, good), commands=commands(folder, tree, listed),
    )  # fmt: skip
    path = folder / "report.html"
    path.write_text(document(parts))
    return path


def _fidelity(folder: Path, against: Path | None) -> str:
    """The comparison with runs of another mode. Raises ValueError if they are of the same."""
    if against is None:
        return ""
    compared = of_folders(folder, against)
    if compared is None:
        raise ValueError(f"{folder} and {against} are of the same mode; to compare them: navarch experiment compare")
    fidelity, simulated, real = compared
    return section(fidelity, simulated.name, real.name)


def save(folder: Path, figures: Sequence[Figure], formats: Sequence[str]) -> dict[str, str]:
    """Writes each figure's data, script and drawings; gives the SVG texts by name."""
    if folder.exists():
        shutil.rmtree(folder)  # what an earlier report drew
    folder.mkdir(parents=True)
    out = {}
    for one in figures:
        files = draw(one.kind, one.table(), one.options, dict.fromkeys(("svg", *formats)))
        out[one.name] = files["svg"].decode()
        for form in formats:
            (folder / f"{one.name}.{form}").write_bytes(files[form])
        (folder / f"{one.name}.csv").write_text(one.csv())
        (folder / f"{one.name}.py").write_text(one.script())
    if figures:
        shutil.copytree(DRAWING, folder / "drawing", ignore=shutil.ignore_patterns("__pycache__"))
    return out


def _tables(folder: Path, rows: Sequence[Mapping[str, Any]], atleast: set[tuple[str, str]], formats: Sequence[str]) -> None:
    with (folder / "summary.csv").open("w", newline="") as file:
        names = list(dict.fromkeys(k for r in rows for k in r)) or ["measure"]
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    head, body = texts.overview(rows, atleast)
    for name, form, text in (("table.md", "md", texts.markdown), ("table.tex", "latex", texts.latex)):
        if form in formats:
            (folder / name).write_text(text(head, body))


def beside(experiment: Experiment, factors: Sequence[str], good: Sequence[Result]) -> list[list[str]]:
    """Ours beside the reference, a row for each of its results that we have: cell, measure, ours, theirs, difference."""
    out = []
    for ref in published(experiment.reference, factors):
        of = [r for r in good if all(r.levels.get(k) == v for k, v in ref.levels.items())]
        values = [v for r in of if not math.isnan(v := r.measures.get(ref.measure, math.nan))]
        if values:
            mean, spread = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
            name = ", ".join(ref.levels.values()) or "all runs"
            ours, theirs = f"{mean:.2f} ± {spread:.2f}", f"{ref.mean:.2f} ± {ref.deviation:.2f}"
            out.append([name, ref.measure, ours, theirs, f"{mean - ref.mean:+.2f}"])
    return out


def parted(by_run: Mapping[str, Facts], good: Sequence[Result]) -> dict[str, str]:
    """Tables of the first pods that went elsewhere, for the first cell against others, with the first seed that both have."""
    by_cell = cells_of(good)
    if not by_cell:
        return {}
    first, *others = by_cell.items()
    out: dict[str, str] = {}
    for name, runs in others:
        pairs = [(a, b) for a in first[1] for b in runs if a.seed == b.seed and a.name in by_run and b.name in by_run]
        first_pods = partings(by_run[pairs[0][0].name], by_run[pairs[0][1].name]) if pairs else []
        if first_pods and len(out) < MAX_PARTINGS:
            rows = [[escape(who), f"{at:.2f} s", escape(a), escape(b)] for who, at, a, b in first_pods]
            title = f"{first[0]} and {name} (seed {pairs[0][0].seed})"
            out[title] = table(["pod", "when", first[0], name], rows, text=[2, 3])
    return out


def commands(folder: Path, tree: Mapping[str, Any], listed: Sequence[Result]) -> list[str]:
    """The lines that run everything again."""
    out = ["sh reproduce.sh   # in this folder: runs all and compares the hashes"] if (folder / "reproduce.sh").exists() else []
    seeds = sorted({r.seed for r in listed})
    whole = seeds == list(range(1, len(seeds) + 1))
    chosen_seeds = f" --seeds {len(seeds)}" if whole and len(seeds) != tree.get("seeds", 1) else ""
    return [*out, f"navarch experiment run {tree['metadata']['name']}.yaml{chosen_seeds} --out again"]
