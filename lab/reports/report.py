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
from lab.experiments.fidelity import Fidelity, of_folders
from lab.experiments.file import Experiment, cells, parse
from lab.experiments.limits import all_notes
from lab.experiments.sweep import LOCK, Result, results, verdicts
from lab.reports import partings, texts
from lab.reports.answers import sentence
from lab.reports.cautions import warnings
from lab.reports.choosing import beside_each_other, chosen, over_all, over_time
from lab.reports.document import Parts, document
from lab.reports.drawing.canvas import draw
from lab.reports.facts import read_all
from lab.reports.fidelity import plot, section
from lab.reports.figure import Figure
from lab.reports.repeating import commands
from lab.reports.statistics import late, summary

DRAWING = Path(__file__).parent / "drawing"


def write(folder: Path, images: bool = False, against: Path | None = None, scores: bool = False) -> Path:
    """Writes all files from what lies in a folder of results; gives the report's path. With ``images`` also PNG files. With
    ``against``, a folder of another mode, simulated against real. With ``scores`` the points of the decisions in which cells
    part. Raises OSError if there are none, ValueError."""
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
    figures += beside_each_other(experiment, kinds, good, folder)
    sections = over_time(kinds, good, folder)
    compared = None if against is None else _compared(folder, against)
    beside_real = [plot(compared[0])] if compared else []
    every = [*figures, *(f for s in sections for f in s.figures), *beside_real]
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
        fidelity=section(compared[0], compared[1].name, compared[2].name) if compared else "", beside_real=beside_real,
        partings=partings.with_points(folder, good) if scores else partings.by_pods(by_run, good),
        parted_by=partings.POINTS if scores else partings.PODS, commands=commands(folder, locked, listed),
    )  # fmt: skip
    path = folder / "report.html"
    path.write_text(document(parts))
    return path


def _compared(folder: Path, against: Path) -> tuple[Fidelity, Path, Path]:
    """The comparison with runs of another mode. Raises ValueError if they are of the same, or of other cells and measures."""
    compared = of_folders(folder, against)
    if compared is None:
        raise ValueError(f"{folder} and {against} are of the same mode; to compare them: navarch experiment compare")
    if not compared[0].rows:
        raise ValueError(f"{folder} and {against} have no measure of a cell in common")
    return compared


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
