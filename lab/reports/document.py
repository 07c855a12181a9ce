"""The page of a report, from its parts: question, answers, warnings, numbers, plots, and how to repeat it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from lab.experiments.expect import Verdict
from lab.experiments.sweep import Result
from lab.reports import texts
from lab.reports.choosing import Section
from lab.reports.figure import Figure
from lab.reports.statistics import cells_of
from lab.reports.style import escape, facts, figure, folded, page, table, warned

CLASSES = {True: "good", False: "bad", None: "open"}
WORDS = {True: "true", False: "not true", None: "not judged"}


@dataclass
class Parts:
    """All that a report shows. ``drawings``: SVG by the name of the figure."""

    tree: Mapping[str, Any]
    locked: Mapping[str, Any]
    results: Sequence[Result]
    verdicts: Sequence[Verdict]
    answers: Sequence[str]
    warnings: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    atleast: set[tuple[str, str]]
    figures: Sequence[Figure]
    sections: Sequence[Section]
    drawings: Mapping[str, str]
    beside: Sequence[Sequence[str]] = ()
    fidelity: str = ""
    beside_real: Sequence[Figure] = ()
    partings: Mapping[str, str] = field(default_factory=dict)
    parted_by: str = ""
    commands: Sequence[str] = ()


def document(parts: Parts) -> str:
    name = str(parts.tree["metadata"]["name"])
    listed = parts.results
    good = sum(v.good is True for v in parts.verdicts)
    seeds = len({r.seed for r in listed})
    counts = [
        (len(cells_of(listed)), "cells"), (seeds, "seed" if seeds == 1 else "seeds"), (len(listed), "runs"),
        (sum(bool(r.error) for r in listed), "failed"), (f"{good} of {len(parts.verdicts)}", "expectations true"),
    ]  # fmt: skip
    body = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="question">{escape(parts.tree.get("question") or "")}</p>',
        facts(counts),
        "<h2>Answers</h2>", _answers(parts), warned(parts.warnings),
        "<h2>Measures</h2>", _measures(parts),
        _plots(parts.figures, parts.drawings),
        _fidelity(parts), _beside(parts),
        *(_section(s, parts.drawings) for s in parts.sections),
        _partings(parts), "<h2>What was run</h2>", _what(parts),
    ]  # fmt: skip
    return page(name, "\n".join(b for b in body if b))


def _answers(parts: Parts) -> str:
    lines = [
        f'<li><span class="{CLASSES[v.good]}">{WORDS[v.good]}</span><span>{escape(said)}</span>'
        f'<code class="why">{escape(v.text)}</code></li>'
        for v, said in zip(parts.verdicts, parts.answers, strict=True)
    ]
    return f'<ul class="answers">{"".join(lines)}</ul>' if lines else "<p>The file expects nothing.</p>"


def _measures(parts: Parts) -> str:
    head, body = texts.overview(parts.rows, parts.atleast)
    several = any(row["n"] > 1 for row in parts.rows)
    said = "Mean over the seeds ± half of its 95 % bootstrap interval." if several else "One run a cell."
    more = [
        f"<h3>{escape(measure)}</h3>{table(texts.DETAILS, [[escape(c) for c in row] for row in rows])}"
        for measure, rows in texts.details(parts.rows, parts.atleast).items()
    ]
    note = (
        '<p class="soft">Intervals: bootstrap, percentiles of 1,000 draws from a fixed seed. Differences: to the first cell, '
        "paired by seed. Effect: Cliff's delta, the share of pairs of runs in which this cell has more, less the share in "
        "which it has less.</p>"
    )
    overview = table(head, [[escape(c) for c in row] for row in body])
    return f"<p>{said}</p>{overview}" + folded("Intervals, medians, paired differences, effect sizes", "".join(more) + note)


def _caption(text: str) -> str:
    return escape(text[:1].upper() + text[1:])


def _plots(figures: Sequence[Figure], drawings: Mapping[str, str]) -> str:
    shown = [figure(drawings[f.name], _caption(f.caption), f.wide) for f in figures]
    return f'<h2>Plots</h2><div class="plots">{"".join(shown)}</div>' if shown else ""


def _section(section: Section, drawings: Mapping[str, str]) -> str:
    shown = "".join(figure(drawings[f.name], _caption(f.caption), f.wide) for f in section.figures)
    return f'<h2>One run: {escape(section.title)}</h2><div class="plots">{shown}</div>'


def _fidelity(parts: Parts) -> str:
    if not parts.fidelity:
        return ""
    shown = "".join(figure(parts.drawings[f.name], _caption(f.caption), f.wide) for f in parts.beside_real)
    return f'<h2>Simulated against real</h2><div class="plots">{shown}</div>{parts.fidelity}'


def _beside(parts: Parts) -> str:
    if not parts.beside:
        return ""
    title = escape((parts.tree.get("reference") or {}).get("title", "Reference"))
    head = ["", "measure", "here", "reference", "difference"]
    rows = table(head, [[escape(c) for c in row] for row in parts.beside], text=[1])
    return f"<h2>Beside others' results</h2><p>{title}; mean ± standard deviation over the seeds.</p>{rows}"


def _partings(parts: Parts) -> str:
    if not parts.partings:
        return ""
    shown = "".join(f"<h3>{escape(title)}</h3>{rows}" for title, rows in parts.partings.items())
    return f"<h2>Where they part</h2><p>{escape(parts.parted_by)}</p>{shown}"


def _what(parts: Parts) -> str:
    locked = parts.locked
    versions = ", ".join(f"{k} {v}" for k, v in (locked.get("versions") or {}).items())
    commit = f"; commit {locked['commit'][:12]}" if locked.get("commit") else ""
    machine = locked.get("machine") or {}
    where = f"; {machine.get('system', '')}, {machine.get('cores', '?')} cores" if machine else ""
    lines = []
    for r in parts.results:
        end = r.digest[:16] if not r.error else r.error.splitlines()[0]
        lines.append([escape(r.name), f"{r.virtual:.0f}", f"<code>{escape(end)}</code>"])
    again = "\n".join(parts.commands)
    seeds = ", ".join(str(s) for s in sorted({r.seed for r in parts.results}))
    return (
        f"<p>Digest of the file {escape(str(locked['digest'])[:16])}; seeds {escape(seeds)}; {escape(versions)}"
        f"{escape(commit + where)}. To repeat it (equal files and seeds give equal hashes, on any machine):</p>"
        f"<pre>{escape(again)}</pre>"
        + folded(f"Hashes of {len(parts.results)} runs", table(["run", "virtual seconds", "hash"], lines, text=[2]))
        + folded("The file", f"<pre>{escape(written(parts.tree))}</pre>")
    )


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML has no types
    """Texts of several lines stand as they were written."""


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar(
    "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None))  # fmt: skip

WHOLE = ("factors", "apply", "template", "objects", "stages", "labels", "patch")  # an empty value says something there


def written(tree: Mapping[str, Any]) -> str:
    """The file with its defaults, but for fields that are empty; experiment.lock has these, too."""
    return str(yaml.dump(_lean(tree), Dumper=_Dumper, sort_keys=False, width=110))


def _lean(value: Any) -> Any:
    if isinstance(value, Mapping):
        pairs = {k: v if k in WHOLE else _lean(v) for k, v in value.items()}
        return {k: v for k, v in pairs.items() if v not in ("", None, {}, [])}
    return [_lean(v) for v in value] if isinstance(value, list) else value
