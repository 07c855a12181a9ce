"""The report of an experiment: one HTML file without any address outside it, the plots as SVG files, and the data as CSV."""

from __future__ import annotations

import csv
import html
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.experiments import plots
from lab.experiments.expect import interval, number, paired, published, within
from lab.experiments.expressions import Expression
from lab.experiments.file import cells, parse
from lab.experiments.measures import Measures
from lab.experiments.recording import Recording
from lab.experiments.sweep import LOCK, Result, results, verdicts

STYLE = """
:root { --ink: #1f2328; --soft: #656d76; --line: #e3e5e8; --paper: #fff; --tint: #f6f7f9; --blue: #2f5d92; }
* { box-sizing: border-box; }
body { font: 15px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 66rem; padding: 2.2rem 1.4rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .8rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
.question { font-size: 1.12rem; color: var(--soft); margin: 0 0 1rem; max-width: 50rem; }
.facts { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0 0; padding: 0; list-style: none; }
.facts li { background: var(--tint); border-radius: 8px; padding: .45rem .9rem; }
.facts b { font-size: 1.15rem; margin-right: .3rem; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; font-size: .9em; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
td, th { padding: .32rem .75rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); }
td:first-child, th:first-child { text-align: left; }
tbody tr:hover { background: var(--tint); }
code, pre { font: .86em ui-monospace, "SFMono-Regular", Menlo, monospace; }
pre { background: var(--tint); padding: .9rem; overflow-x: auto; border-radius: 8px; }
.expectations { list-style: none; padding: 0; margin: 0; }
.expectations li { padding: .35rem 0; border-bottom: 1px solid var(--line); }
.good, .bad { display: inline-block; min-width: 5.2rem; text-align: center; border-radius: 999px; font-size: .78rem;
  font-weight: 700; padding: .08rem .6rem; margin-right: .6rem; }
.good { color: #1a6334; background: #dff3e4; }
.bad { color: #fff; background: #b3261e; }
.why { color: var(--soft); }
.warning { background: #fff6dd; border-left: 4px solid #d9a400; padding: .45rem .9rem; margin: .5rem 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(30rem, 1fr)); gap: 1.2rem; }
figure { margin: 0; padding: .8rem; border: 1px solid var(--line); border-radius: 10px; background: #fff; break-inside: avoid; }
figcaption { color: var(--soft); font-size: .86em; margin-top: .3rem; }
svg { width: 100%; height: auto; display: block; }
details { margin: 1rem 0; }
summary { cursor: pointer; color: var(--blue); }
@media (max-width: 34rem) { .plots { grid-template-columns: 1fr; } }
@media print { body { max-width: none; padding: 0; } .plots { grid-template-columns: 1fr 1fr; } h2 { break-after: avoid; } }
"""
PLOTTED_CELLS = 8  # cells whose first run is drawn over time; a sweep of hundreds would make a page that no browser opens


def cells_of(listed: Sequence[Result]) -> dict[str, list[Result]]:
    """Results by cell, in order."""
    out: dict[str, list[Result]] = {}
    for r in listed:
        out.setdefault(", ".join(f"{k}={v}" for k, v in r.levels.items()) or "all runs", []).append(r)
    return out


def warnings(listed: Sequence[Result]) -> list[str]:
    """Warnings that keep a reader from believing too much."""
    out = []
    failed = [r for r in listed if r.error]
    good = [r for r in listed if not r.error]
    if failed:
        first = f"{failed[0].name}: {failed[0].error.splitlines()[0]}"
        out.append(f"{len(failed)} of {len(listed)} runs failed; the first: {first}")
    slow = [r for r in good if r.timeouts]
    if slow:
        text = "had a step that did not end in time; what they measure from there on is \"at least\" (≥)"
        out.append(f"{len(slow)} of {len(listed)} runs {text}. The first: {slow[0].name}: {slow[0].timeouts[0]}")
    for name, runs in cells_of(good).items():
        if len(runs) > 1 and len({_values(r) for r in runs}) == 1:
            out.append(f"{name}: all {len(runs)} seeds gave the same. Nothing in this cell is random.")
    alone = [name for name, of_cell in cells_of(good).items() if len(of_cell) == 1]
    if alone:
        more = f" and {len(alone) - 1} more cells" if len(alone) > 1 else ""
        out.append(f"{alone[0]}{more}: one seed only, so nothing is known of the spread.")
    factors = list(dict.fromkeys(k for r in good for k in r.levels))
    for factor in factors:
        levels = list(dict.fromkeys(r.levels[factor] for r in good))
        by: dict[Any, dict[str, tuple[float, ...]]] = {}
        for r in good:
            rest = tuple((k, v) for k, v in r.levels.items() if k != factor)
            by.setdefault((rest, r.seed), {})[r.levels[factor]] = _values(r)
        for n, b in enumerate(levels):
            for a in levels[:n]:
                pairs = [p for p in by.values() if a in p and b in p]
                if pairs and all(p[a] == p[b] for p in pairs):
                    out.append(f"{factor}: {a} and {b} gave the same in every run.")
    return out


def _values(r: Result) -> tuple[float, ...]:
    return tuple(-1.0 if math.isnan(v) else v for v in r.measures.values())


def summary(listed: Sequence[Result]) -> list[dict[str, Any]]:
    """A row for each cell and measure: n, mean with its interval, median, and the paired difference to the first cell."""
    cells = cells_of([r for r in listed if not r.error])
    rows: list[dict[str, Any]] = []
    first = next(iter(cells.values()), [])
    for measure in first[0].measures if first else ():
        base = {r.seed: r.measures.get(measure, math.nan) for r in first}
        for name, runs in cells.items():
            values = [v for r in runs if not math.isnan(v := r.measures.get(measure, math.nan))]
            row: dict[str, Any] = {"measure": measure, "cell": name, "n": len(values)}
            if values:
                mean, low, high = interval(values)
                row |= {"mean": mean, "low": low, "high": high, "median": statistics.median(values)}
                row |= {"min": min(values), "max": max(values)}
            differences = [r.measures[measure] - base[r.seed] for r in runs if r.seed in base and measure in r.measures]
            differences = [d for d in differences if not math.isnan(d)]
            if runs is not first and differences:
                mean, low, high = interval(differences)
                row |= {"difference": mean, "difference_low": low, "difference_high": high}
            rows.append(row)
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table>"


def late(tree: Mapping[str, Any], listed: Sequence[Result]) -> set[tuple[str, str]]:
    """(cell, measure) of which some run tells "at least" only: the measure uses a mark of a step that timed out, or of a later
    one."""
    out = set()
    for name, runs in cells_of(listed).items():
        for r in runs:
            steps = [int(text[6 : text.index("]")]) for text in r.timeouts if text.startswith("steps[")]
            if not steps:
                continue
            marks = {s.get("mark") for s in (tree.get("steps") or ())[min(steps) :]} | {"finish"}
            for measure, text in (tree.get("measure") or {}).items():
                if Expression(str(text)).names & marks:
                    marks.add(measure)
                    out.add((name, measure))
    return out


def _overview(rows: Sequence[Mapping[str, Any]], atleast: set[tuple[str, str]]) -> tuple[list[str], list[list[str]]]:
    """Mean and half of its interval, by cell and measure: the head, and the rows."""
    measures = list(dict.fromkeys(r["measure"] for r in rows))
    single = all(r["cell"].count("=") == 1 for r in rows)  # there is but one factor: its name adds nothing
    body: dict[str, list[str]] = {}
    for r in rows:
        text = "-"
        if "mean" in r:
            sign = "≥ " if (r["cell"], r["measure"]) in atleast else ""
            text = sign + within((r["mean"], r["low"], r["high"]))
        body.setdefault(r["cell"], [r["cell"].partition("=")[2] if single else r["cell"]]).append(text)
    if len(measures) > len(body):  # the longer side goes down the page
        turned = list(zip(*body.values(), strict=True))
        return ["", *turned[0]], [[m, *row] for m, row in zip(measures, turned[1:], strict=True)]
    return ["", *measures], list(body.values())


def _details(rows: Sequence[Mapping[str, Any]], atleast: set[tuple[str, str]]) -> str:
    out = []
    for measure in dict.fromkeys(r["measure"] for r in rows):
        body = []
        for r in rows:
            if r["measure"] != measure:
                continue
            between = f"{number(r['low'])} – {number(r['high'])}" if "mean" in r else "-"
            more = ""
            if "difference" in r:
                more = f"{r['difference']:+.4g} [{number(r['difference_low'])}, {number(r['difference_high'])}]"
            sign = "≥ " if (r["cell"], measure) in atleast else ""
            body.append([
                html.escape(r["cell"]), str(r["n"]), sign + number(r.get("mean", math.nan)), between,
                number(r.get("median", math.nan)), number(r.get("min", math.nan)), number(r.get("max", math.nan)), more,
            ])  # fmt: skip
        head = ["cell", "n", "mean", "95 % interval", "median", "least", "most", "paired difference to the first"]
        out.append(f"<h3>{html.escape(measure)}</h3>{_table(head, body)}")
    return "\n".join(out)


def beside(tree: Mapping[str, Any], listed: Sequence[Result]) -> list[list[str]]:
    """Ours beside the reference, a row for each of its results that we have: cell, measure, ours, theirs, difference."""
    experiment = parse(cells(dict(tree))[0].tree)
    out = []
    for ref in published(experiment.reference, list(tree.get("factors") or ())):
        of = [r for r in listed if not r.error and all(r.levels.get(k) == v for k, v in ref.levels.items())]
        values = [v for r in of if not math.isnan(v := r.measures.get(ref.measure, math.nan))]
        if values:
            mean, spread = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
            name = ", ".join(ref.levels.values()) or "all runs"
            ours, theirs = f"{mean:.2f} ± {spread:.2f}", f"{ref.mean:.2f} ± {ref.deviation:.2f}"
            out.append([name, ref.measure, ours, theirs, f"{mean - ref.mean:+.2f}"])
    return out


def write(folder: Path, images: bool = False) -> Path:
    """Writes ``report.html``, ``summary.csv``, ``table.md``, ``table.tex`` and ``plots/`` (SVG and CSV; with ``images`` PNG)
    from what lies in a folder of results; gives the report's path. Raises OSError if there are none."""
    locked = json.loads((folder / LOCK).read_text())
    tree = locked["file"]
    order = [cell.levels for cell in cells(tree)]
    listed = sorted(results(folder), key=lambda r: (order.index(r.levels) if r.levels in order else len(order), r.seed))
    shown = folder / "plots"
    shown.mkdir(exist_ok=True)
    rows = summary(listed)
    with (folder / "summary.csv").open("w", newline="") as file:
        names = list(dict.fromkeys(k for r in rows for k in r)) or ["measure"]
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    head, body = _overview(rows, late(tree, listed))
    (folder / "table.md").write_text(_markdown(head, body))
    (folder / "table.tex").write_text(_latex(head, body))
    with plots.images(images) as drawn:
        figures = _figures(tree, listed, folder)
    for name, svg, _ in figures:
        (shown / f"{name}.svg").write_text(svg)
    for (name, _, _), image in zip(figures, drawn, strict=False):
        (shown / f"{name}.png").write_bytes(image)
    path = folder / "report.html"
    path.write_text(_page(tree, locked, listed, rows, figures))
    return path


def _figures(tree: Mapping[str, Any], listed: Sequence[Result], folder: Path) -> list[tuple[str, str, str]]:
    """Name, SVG and caption of each plot; their data are written as CSV."""
    out: list[tuple[str, str, str]] = []
    good = [r for r in listed if not r.error]
    by_cell = cells_of(good)
    experiment = parse(cells(dict(tree))[0].tree)
    factor = next(iter(tree.get("factors") or {}), "")
    short = {name: (runs[0].levels[factor] if len(runs[0].levels) == 1 else name) for name, runs in by_cell.items()}
    seeds = len({r.seed for r in good})
    for plot in experiment.plots:
        groups = {short[name]: [r.curves[plot.name] for r in runs if r.curves] for name, runs in by_cell.items()}
        groups = {name: curves for name, curves in groups.items() if curves}
        if not groups:
            continue
        with (folder / "plots" / f"{plot.name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["cell", plot.x or "seconds", "mean", "least", "most"])
            for name, curves in groups.items():
                writer.writerows([name, *(f"{v:.6g}" for v in point)] for point in plots.band(curves))
        spread = f": mean of {seeds} seeds, and the band from the least to the most" if seeds > 1 else ""
        out.append((plot.name, plots.lines(plot, groups), (plot.title or plot.name) + spread))
    declared = bool(out)
    for measure in good[0].measures if good and len(good) > 1 else ():
        values = {short[name]: [r.measures.get(measure, math.nan) for r in runs] for name, runs in by_cell.items()}
        if any(not math.isnan(v) for values_ in values.values() for v in values_):
            out.append((f"level-{measure}", plots.by_level(measure, values), f"{measure}: every run, by cell"))
    if declared or experiment.cluster.mode == "cycle":
        return out  # the file says what is to be drawn; of a cycle alone nothing happens over time
    ecdf: dict[str, list[float]] = {}
    for name, runs in list(by_cell.items())[:PLOTTED_CELLS]:
        recording = Recording.load(folder / "runs" / f"{runs[0].name}.jsonl.gz")
        ecdf[name] = Measures(recording).waits()
        out.append((f"time-{runs[0].name}", plots.timeline(recording), f"{name}, seed {runs[0].seed}: over time"))
        out.append((f"gantt-{runs[0].name}", plots.gantt(recording), f"{name}, seed {runs[0].seed}: pods on nodes"))
    if any(ecdf.values()):
        drawn = plots.waits({k: v for k, v in ecdf.items() if v})
        out.append(("waits", drawn, "how long pods waited for a node (first seed)"))
    return out


def _markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)]) + "\n"


def _latex(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    def cell(text: str) -> str:
        for old, new in (("_", r"\_"), ("%", r"\%"), ("&", r"\&"), ("±", r"$\pm$"), ("≥", r"$\geq$")):
            text = text.replace(old, new)
        return text

    lines = [" & ".join(map(cell, row)) + r" \\" for row in (head, *body)]
    return "\n".join([
        r"\begin{tabular}{l" + "r" * (len(head) - 1) + "}", r"\hline", lines[0], r"\hline", *lines[1:], r"\hline",
        r"\end{tabular}",
    ]) + "\n"  # fmt: skip


def _page(
    tree: Mapping[str, Any], locked: Mapping[str, Any], listed: Sequence[Result], rows: Sequence[Mapping[str, Any]],
    figures: Sequence[tuple[str, str, str]],
) -> str:  # fmt: skip
    name = str(tree["metadata"]["name"])
    judged = verdicts(dict(tree), listed)
    said = "\n".join(
        f'<li><span class="{"why" if v.good is None else "good" if v.good else "bad"}">{v.word}</span> '
        f'<code>{html.escape(v.text)}</code> <span class="why">{html.escape(v.why)}</span></li>'
        for v in judged
    )
    warned = "\n".join(f'<p class="warning">{html.escape(w)}</p>' for w in warnings(listed))
    drawn = "\n".join(f"<figure>{svg}<figcaption>{html.escape(title)}</figcaption></figure>" for _, svg, title in figures)
    ends = [html.escape(r.digest[:16] or r.error.splitlines()[0]) for r in listed]
    lines = [[html.escape(r.name), number(r.virtual), f"<code>{e}</code>"] for r, e in zip(listed, ends, strict=True)]
    runs = _table(["run", "virtual seconds", "hash"], lines)
    seeds = len({r.seed for r in listed})
    versions = ", ".join(f"{k} {v}" for k, v in locked["versions"].items())
    atleast = late(tree, listed)
    head, body = _overview(rows, atleast)
    overview = _table(head, [[html.escape(c) for c in row] for row in body])
    ours = beside(tree, listed)
    reference = ""
    if ours:
        title = html.escape(str((tree["reference"] or {}).get("title", "Reference")))
        table = _table(["", "measure", "here", "reference", "difference"], [[html.escape(c) for c in row] for row in ours])
        reference = f"<h2>Beside others' results</h2><p>{title}; mean ± standard deviation over the seeds.</p>{table}"
    facts = [
        (len(cells_of(listed)), "cells"), (seeds, "seed" if seeds == 1 else "seeds"), (len(listed), "runs"),
        (sum(bool(r.error) for r in listed), "failed"),
        (f"{sum(v.good is True for v in judged)} of {len(judged)}", "expectations true"),
    ]  # fmt: skip
    counts = "".join(f"<li><b>{value}</b>{what}</li>" for value, what in facts)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(name)}</title><style>{STYLE}</style></head><body>
<h1>{html.escape(name)}</h1>
<p class="question">{html.escape(str(tree.get("question", "")))}</p>
<ul class="facts">{counts}</ul>
{warned}
<h2>Expectations</h2>
<ul class="expectations">{said or "<li>none</li>"}</ul>
<h2>Measures</h2>
<p>Mean over the seeds, and half of its 95 % bootstrap interval.</p>
<div class="wide">{overview}</div>
<details><summary>Intervals, medians, extremes, paired differences</summary>
{_details(rows, atleast)}
</details>
<h2>Plots</h2>
<div class="plots">
{drawn}
</div>
{reference}
<h2>What was run</h2>
<p>Digest of the file {html.escape(locked["digest"][:16])}; {html.escape(versions)}. To repeat it:
<code>navarch experiment run FILE --out DIR</code>; equal files and seeds give equal hashes.</p>
<details><summary>Hashes of {len(listed)} runs</summary>{runs}</details>
<details><summary>The file</summary><pre>{html.escape(_yaml(tree))}</pre></details>
</body></html>
"""


def _yaml(tree: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(dict(tree), sort_keys=False, width=110))


def compare(a: Sequence[Result], b: Sequence[Result]) -> list[str]:
    """In words: how cells of two folders differ, measure by measure, beyond the spread (paired by seed)."""
    out = []
    left, right = cells_of([r for r in a if not r.error]), cells_of([r for r in b if not r.error])
    for name in left:
        if name not in right:
            out.append(f"{name}: only in the first")
            continue
        for measure in left[name][0].measures:
            rows = [({"side": s}, r.seed, r.measures) for s, runs in (("a", left[name]), ("b", right[name])) for r in runs]
            differences = paired(rows, measure, "side", "b", "a")
            if not differences:
                continue
            mean, low, high = interval(differences)
            if low > 0 or high < 0:
                word = "more" if mean > 0 else "less"
                out.append(f"{name}: {measure} is {number(abs(mean))} {word} in the second [{number(low)}, {number(high)}]")
            else:
                out.append(f"{name}: {measure} does not differ beyond the spread [{number(low)}, {number(high)}]")
    out += [f"{name}: only in the second" for name in right if name not in left]
    return out
