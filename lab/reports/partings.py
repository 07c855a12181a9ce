"""Where the runs of two cells part, for a report: by the first pods that went elsewhere, or by a decision with its points.

The former needs nothing but recordings. For the latter runs are made again up to the decision, so it is done if asked for only,
of a few pairs, and until a budget of CPU is spent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lab.experiments import parting
from lab.experiments.estimate import cpu_spent
from lab.experiments.sweep import Result
from lab.reports.facts import Facts, partings
from lab.reports.statistics import cells_of
from lab.reports.style import escape, table

MAX_PARTINGS = 3
BUDGET = 60.0  # seconds of CPU, after which no more decisions are made again
PODS = (
    "The first pods that went to different nodes. The points of each plugin: navarch experiment diff, or navarch experiment "
    "report --scores."
)
POINTS = "The first decision that differs, with the points of each plugin on both sides."


def _pairs(good: Sequence[Result]) -> Iterator[tuple[str, str, Result, Result]]:
    """The first cell and each other, with the first seed that both have."""
    by_cell = cells_of(good)
    first, *others = by_cell.items() or [("", [])]
    for name, runs in others:
        both = next(((a, b) for a in first[1] for b in runs if a.seed == b.seed), None)
        if both is not None:
            yield first[0], name, *both


def by_pods(by_run: Mapping[str, Facts], good: Sequence[Result]) -> dict[str, str]:
    """Tables by title: of the first pods that went elsewhere."""
    out: dict[str, str] = {}
    for first, other, a, b in _pairs([r for r in good if r.name in by_run]):
        pods = partings(by_run[a.name], by_run[b.name])
        if pods and len(out) < MAX_PARTINGS:
            rows = [[escape(who), f"{at:.2f} s", escape(x), escape(y)] for who, at, x, y in pods]
            out[f"{first} and {other} (seed {a.seed})"] = table(["pod", "when", first, other], rows, text=[2, 3])
    return out


def with_points(folder: Path, good: Sequence[Result], budget: float = BUDGET) -> dict[str, str]:
    """HTML by title: of the first decision that differs, and the points of nodes on either side."""
    out: dict[str, str] = {}
    began = cpu_spent()
    for first, other, a, b in _pairs(good):
        title = f"{first} and {other} (seed {a.seed})"
        if len(out) == MAX_PARTINGS:
            break
        if cpu_spent() - began > budget:
            out[title] = f"<p>Not looked at: {budget:.0f} s of CPU were spent. navarch experiment diff tells it.</p>"
            break
        apart = parting.first(*(folder / "runs" / f"{r.name}.jsonl.gz" for r in (a, b)))
        if apart is not None:
            out[title] = _decision(apart, (first, other))
    return out


def _decision(apart: parting.Parting, names: tuple[str, str]) -> str:
    said = [
        f"<li>{escape(name)}: {escape(' '.join(parting.decided(row).split()))}</li>"
        for name, row in zip(names, apart.decisions, strict=True)
    ]
    out = [f"<p>Decision {apart.number + 1}:</p><ul>{''.join(said)}</ul>"]
    for name, why in zip(names, apart.whys, strict=True):
        if why is not None and why.get("best"):
            head, *rows = parting.points(why, apart.nodes)
            text = f"{name}: {why['feasible']} of {why['nodes']} nodes could take {why['pod']}"
            out.append(f"<p>{escape(text)}</p>" + table(head, [[escape(c) for c in row] for row in rows]))
        elif why is None:
            out.append(f"<p>{escape(name)}: a run of its mode cannot be made again.</p>")
    return "".join(out)
