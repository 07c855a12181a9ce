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
from lab.experiments.expect import interval, number, paired
from lab.experiments.measures import Measures
from lab.experiments.recording import Recording
from lab.experiments.sweep import LOCK, Result, results, verdicts

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0.2rem; }
h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 0.9em; }
td, th { padding: 0.25rem 0.7rem; text-align: right; border-bottom: 1px solid #e5e5e5; }
td:first-child, th:first-child { text-align: left; }
code, pre { font: 0.85em ui-monospace, monospace; }
pre { background: #f6f6f4; padding: 0.8rem; overflow-x: auto; }
.good { color: #2d7a2d; }
.bad { color: #b3261e; font-weight: 600; }
.warning { background: #fff5dd; border-left: 4px solid #d9a400; padding: 0.4rem 0.8rem; margin: 0.5rem 0; }
.question { font-size: 1.1rem; color: #444; }
figure { margin: 1rem 0; }
figcaption { color: #666; font-size: 0.85em; }
svg { max-width: 100%; height: auto; }
@media print { body { margin: 0; max-width: none; } figure, table { break-inside: avoid; } }
"""


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
        out.append(f"{len(slow)} runs had a step that did not end in time; what they measure of it is \"at least\" or missing.")
    for name, found in cells_of(good).items():
        if len(found) > 1 and len({_values(r) for r in found}) == 1:
            out.append(f"{name}: all {len(found)} seeds gave the same. Nothing in this cell is random.")
        elif len(found) == 1:
            out.append(f"{name}: one seed only, so nothing is known of the spread.")
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
        for name, found in cells.items():
            values = [v for r in found if not math.isnan(v := r.measures.get(measure, math.nan))]
            row: dict[str, Any] = {"measure": measure, "cell": name, "n": len(values)}
            if values:
                mean, low, high = interval(values)
                row |= {"mean": mean, "low": low, "high": high, "median": statistics.median(values)}
                row |= {"min": min(values), "max": max(values)}
            differences = [r.measures[measure] - base[r.seed] for r in found if r.seed in base and measure in r.measures]
            differences = [d for d in differences if not math.isnan(d)]
            if found is not first and differences:
                mean, low, high = interval(differences)
                row |= {"difference": mean, "difference_low": low, "difference_high": high}
            rows.append(row)
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table>"


def _summary_tables(rows: Sequence[Mapping[str, Any]]) -> str:
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
            body.append([
                html.escape(r["cell"]), str(r["n"]), number(r.get("mean", math.nan)), between,
                number(r.get("median", math.nan)), number(r.get("min", math.nan)), number(r.get("max", math.nan)), more,
            ])  # fmt: skip
        head = ["cell", "n", "mean", "95 % interval", "median", "least", "most", "paired difference to the first"]
        out.append(f"<h3>{html.escape(measure)}</h3>{_table(head, body)}")
    return "\n".join(out)


def write(folder: Path) -> Path:
    """Writes ``report.html``, ``summary.csv`` and ``plots/`` from what lies in a folder of results; gives the report's path.
    Raises OSError if there are none."""
    locked = json.loads((folder / LOCK).read_text())
    tree, listed = locked["file"], results(folder)
    shown = folder / "plots"
    shown.mkdir(exist_ok=True)
    rows = summary(listed)
    with (folder / "summary.csv").open("w", newline="") as file:
        names = list(dict.fromkeys(k for r in rows for k in r)) or ["measure"]
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    figures: list[tuple[str, str, str]] = []
    good = [r for r in listed if not r.error]
    cells = cells_of(good)
    for measure in good[0].measures if good and len(good) > 1 else ():
        groups = {name: [r.measures.get(measure, math.nan) for r in found] for name, found in cells.items()}
        if any(not math.isnan(v) for found in groups.values() for v in found):
            figures.append((f"level-{measure}", plots.by_level(measure, groups), f"{measure}: every run, by cell"))
    ecdf: dict[str, list[float]] = {}
    for name, found in cells.items():
        recording = Recording.load(folder / "runs" / f"{found[0].name}.jsonl.gz")
        ecdf[name] = Measures(recording).waits()
        figures.append((f"time-{found[0].name}", plots.timeline(recording), f"{name}, seed {found[0].seed}: over time"))
        figures.append((f"gantt-{found[0].name}", plots.gantt(recording), f"{name}, seed {found[0].seed}: pods on nodes"))
    if any(ecdf.values()):
        drawn = plots.waits({k: v for k, v in ecdf.items() if v})
        figures.append(("waits", drawn, "how long pods waited for a node (first seed)"))
    for name, svg, _ in figures:
        (shown / f"{name}.svg").write_text(svg)
    path = folder / "report.html"
    path.write_text(_page(tree, locked, listed, rows, figures))
    return path


def _page(
    tree: Mapping[str, Any], locked: Mapping[str, Any], listed: Sequence[Result], rows: Sequence[Mapping[str, Any]],
    figures: Sequence[tuple[str, str, str]],
) -> str:  # fmt: skip
    name = str(tree["metadata"]["name"])
    judged = verdicts(dict(tree), listed)
    said = "\n".join(
        f'<li><span class="{"good" if v.good else "bad"}">{"true" if v.good else "NOT TRUE"}</span> '
        f"<code>{html.escape(v.text)}</code> ({html.escape(v.why)})</li>"
        for v in judged
    )
    warned = "\n".join(f'<p class="warning">{html.escape(w)}</p>' for w in warnings(listed))
    drawn = "\n".join(f"<figure>{svg}<figcaption>{html.escape(title)}</figcaption></figure>" for _, svg, title in figures)
    ends = [html.escape(r.digest[:16] or r.error.splitlines()[0]) for r in listed]
    lines = [[html.escape(r.name), number(r.virtual), f"<code>{e}</code>"] for r, e in zip(listed, ends, strict=True)]
    runs = _table(["run", "virtual seconds", "hash"], lines)
    seeds = len({r.seed for r in listed})
    versions = ", ".join(f"{k} {v}" for k, v in locked["versions"].items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(name)}</title><style>{STYLE}</style></head><body>
<h1>{html.escape(name)}</h1>
<p class="question">{html.escape(str(tree.get("question", "")))}</p>
<p>{len(cells_of(listed))} cells, {seeds} seeds, {len(listed)} runs, {sum(bool(r.error) for r in listed)} failed.</p>
{warned}
<h2>Expectations</h2>
<ul>{said or "<li>none</li>"}</ul>
<h2>Measures</h2>
{_summary_tables(rows)}
<h2>Plots</h2>
{drawn}
<h2>What was run</h2>
<p>Digest of the file {html.escape(locked["digest"][:16])}; {html.escape(versions)}. To repeat it:
<code>navarch experiment run FILE --out DIR</code>; equal files and seeds give equal hashes.</p>
{runs}
<pre>{html.escape(_yaml(tree))}</pre>
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
            rows = [({"side": s}, r.seed, r.measures) for s, found in (("a", left[name]), ("b", right[name])) for r in found]
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
