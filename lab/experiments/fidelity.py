"""Simulated against real: how well runs of one experiment on virtual time tell what real ones do. Pure but for reading folders.

Three questions are asked of each cell. *Measures*: is the simulated median where one more real run would be, with 95 %
confidence, judged from the spread of the real ones? *Counts*: did the same things happen equally often? *Order*: in which share
of all pairs of happenings was the same one first, compared with the share between any two real runs? Over the cells: do
simulated and real ones rank alike (Spearman)?

    read(folder)                      the runs of a folder of results, by cell
    of_folders(first, second)         -> Fidelity, if the folders are of two modes
    compare(simulated, real)          -> Fidelity, whose parts are tables for a report
    lines(fidelity)                   the same as text
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple

import numpy

from lab.experiments.folder import read_lock
from lab.experiments.recording import Recording
from lab.experiments.state import condition, is_ready
from lab.experiments.sweep import results
from lab.twin.learning import workload_of

MODES = ("cycle", "simulated", "hollow", "real")  # from the farthest from real clusters on
TIE = 0.25  # seconds: what is nearer in time has no order
MAX_HAPPENINGS = 2000  # of one run; the first of them are compared
T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110,
    2.101, 2.093, 2.086,
)  # fmt: skip
"""Student's t for 95 % on both sides, by degrees of freedom from 1 on; 1.96 beyond."""


class Runs(NamedTuple):
    """The runs of one cell: measures by name, and what happened."""

    measures: Sequence[Mapping[str, float]]
    happenings: Sequence[Sequence[Happening]]


class Happening(NamedTuple):
    """Something that happened to a pod or node; equal texts are the same, whichever pod it was. ``time`` in seconds from the
    mark "begin"."""

    time: float
    text: str


class Row(NamedTuple):
    """One measure of one cell. ``ratio`` of the medians, simulated over real; nan if there is none. ``low`` and ``high``: where
    one more real run would be (95 %). ``is_within`` is None if there is one real run only."""

    cell: str
    measure: str
    simulated: Sequence[float]
    real: Sequence[float]
    ratio: float
    low: float
    high: float
    is_within: bool | None


class Order(NamedTuple):
    """The happenings of one cell. ``counts``: by text, how often in each run (simulated, real). ``agreement``: the mean share
    of pairs in the same order, simulated against real; ``among_real``: the smallest between two real runs, nan if there is
    one."""

    cell: str
    counts: Mapping[str, tuple[Sequence[int], Sequence[int]]]
    same_counts: bool
    agreement: float
    among_real: float

    @property
    def differing(self) -> list[str]:
        """In words, the happenings of which there were more or fewer."""
        counts = self.counts.items()
        return [f"{text}: {spread_text(a)} times, really {spread_text(b)}" for text, (a, b) in counts if {*a} != {*b}]


class Fidelity(NamedTuple):
    """``correlations``: by measure, Spearman's rank correlation of the cells' medians; only of measures with three cells."""

    rows: Sequence[Row]
    orders: Sequence[Order]
    correlations: Mapping[str, float]


def read(folder: Path) -> dict[str, Runs]:
    """The runs of a folder of results, by cell; failed ones are left out. Raises OSError, ValueError."""
    out: dict[str, Runs] = {}
    for result in results(folder):
        if result.error:
            continue
        cell = ",".join(f"{k}={v}" for k, v in result.levels.items()) or "all"
        runs = out.setdefault(cell, Runs([], []))
        runs.measures.append(result.measures)  # type: ignore[attr-defined]
        recording = Recording.load(folder / "runs" / f"{result.name}.jsonl.gz")
        runs.happenings.append(list(happenings(recording)))  # type: ignore[attr-defined]
    return out


def happenings(recording: Recording) -> Iterator[Happening]:
    """Yields the happenings of pods and nodes since the mark "begin": created, bound, ready, ending, gone; ready, not ready."""
    begin = recording.mark("begin") or 0.0
    counted: set[tuple[str, str]] = set()
    nodes: dict[str, bool] = {}
    for time, type, key, _, tree in recording.changes:
        resource = key.split("/")[2]
        if resource == "nodes":
            ready = type != "DELETED" and condition(tree, "Ready") == "True"
            if nodes.get(key, ready) != ready and time >= begin:
                yield Happening(time - begin, f"a node is {'ready' if ready else 'not ready'}")
            nodes[key] = ready
        if resource != "pods":
            continue
        uid = tree["metadata"].get("uid", "")
        images = ",".join(c.get("image", "") for c in tree["spec"].get("containers", ()))
        of = f"a pod of {workload_of(tree)} with {images}"
        for what, is_so in (
            ("created", True), ("bound", bool(tree["spec"].get("nodeName"))), ("ready", is_ready(tree)),
            ("ending", "deletionTimestamp" in tree["metadata"]), ("gone", type == "DELETED"),
        ):  # fmt: skip
            if is_so and (uid, what) not in counted:
                counted.add((uid, what))
                if time >= begin:
                    yield Happening(time - begin, f"{of}: {what}")


def of_folders(first: Path, second: Path) -> tuple[Fidelity, Path, Path] | None:
    """The comparison of two folders of results, and which of them is the simulated one and which the real one; None if they
    are of one mode. Raises OSError, ValueError."""
    modes = [mode_of(folder) for folder in (first, second)]
    if modes[0] == modes[1]:
        return None
    simulated, real = (first, second) if MODES.index(modes[0]) < MODES.index(modes[1]) else (second, first)
    return compare(read(simulated), read(real)), simulated, real


def mode_of(folder: Path) -> str:
    """The mode in which the runs of a folder were made."""
    cluster = read_lock(folder)["file"].get("cluster") or {}
    return str(cluster.get("mode", "simulated"))


def compare(simulated: Mapping[str, Runs], real: Mapping[str, Runs]) -> Fidelity:
    """Of the cells that both have."""
    cells = [cell for cell in simulated if cell in real and simulated[cell].measures and real[cell].measures]
    rows, orders = [], []
    for cell in cells:
        for measure in simulated[cell].measures[0]:
            values = [[v for m in runs[cell].measures if (v := m.get(measure, math.nan)) == v] for runs in (simulated, real)]
            if all(values):
                rows.append(row(cell, measure, *values))
        orders.append(order(cell, simulated[cell].happenings, real[cell].happenings))
    correlations = {}
    for measure in dict.fromkeys(r.measure for r in rows):
        medians = [(statistics.median(r.simulated), statistics.median(r.real)) for r in rows if r.measure == measure]
        if len(medians) >= 3 and not math.isnan(value := spearman(medians)):
            correlations[measure] = value
    return Fidelity(rows, orders, correlations)


def row(cell: str, measure: str, simulated: Sequence[float], real: Sequence[float]) -> Row:
    """Both lists have values."""
    ours, theirs = statistics.median(simulated), statistics.median(real)
    ratio = ours / theirs if theirs else 1.0 if ours == theirs else math.nan
    if len(real) < 2:
        return Row(cell, measure, simulated, real, ratio, math.nan, math.nan, None)
    n, mean = len(real), statistics.fmean(real)
    t = T95[n - 2] if n - 2 < len(T95) else 1.96
    margin = t * statistics.stdev(real) * math.sqrt(1 + 1 / n)
    low, high = mean - margin, mean + margin
    rounding = 1e-9 * max(1.0, abs(mean))
    return Row(cell, measure, simulated, real, ratio, low, high, low - rounding <= ours <= high + rounding)


def order(cell: str, simulated: Sequence[Sequence[Happening]], real: Sequence[Sequence[Happening]]) -> Order:
    texts = dict.fromkeys(h.text for run in (*simulated, *real) for h in run)
    ours, theirs = ([Counter(h.text for h in run) for run in runs] for runs in (simulated, real))
    counts = {text: ([one[text] for one in ours], [one[text] for one in theirs]) for text in texts}
    between = [concordance(a, b) for a, b in product(simulated, real)]
    among = [concordance(a, b) for a, b in combinations(real, 2)]
    same = all({*a} == {*b} for a, b in counts.values())
    return Order(cell, counts, same, statistics.fmean(between), min(among, default=math.nan))


def concordance(a: Sequence[Happening], b: Sequence[Happening]) -> float:
    """The share of pairs of happenings that come in the same order in both runs; those of a tie in one of them count as the
    same. The n-th happening of a text in one run is the n-th in the other. nan if they have nothing in common."""
    times = []
    for run in (a[:MAX_HAPPENINGS], b[:MAX_HAPPENINGS]):
        numbered: dict[tuple[str, int], float] = {}
        counts: dict[str, int] = {}
        for happening in run:
            counts[happening.text] = counts.get(happening.text, 0) + 1
            numbered[happening.text, counts[happening.text]] = happening.time
        times.append(numbered)
    common = [item for item in times[0] if item in times[1]]
    if len(common) < 2:
        return math.nan
    signs = []
    for numbered in times:
        column = numpy.array([numbered[item] for item in common])
        gaps = column[:, None] - column[None, :]
        signs.append(numpy.where(numpy.abs(gaps) < TIE, 0, numpy.sign(gaps)))
    upper = numpy.triu_indices(len(common), 1)
    return float(numpy.mean((signs[0] * signs[1])[upper] >= 0))


def spearman(pairs: Sequence[tuple[float, float]]) -> float:
    """Rank correlation; nan if all values of one side are equal."""
    columns = [_ranks([pair[side] for pair in pairs]) for side in (0, 1)]
    if any(len(set(column)) < 2 for column in columns):
        return math.nan
    return statistics.correlation(*columns)


def _ranks(values: Sequence[float]) -> list[float]:
    """Equal values share the mean of their ranks."""
    ordered = sorted(values)
    return [ordered.index(v) + (ordered.count(v) - 1) / 2 for v in values]


def lines(fidelity: Fidelity) -> list[str]:
    """As text: a table of the measures, then what is to be said of counts and order, then the correlations."""
    table = [("cell", "measure", "simulated", "real", "ratio", "")]
    verdicts = {True: "", False: "outside of the real runs' spread", None: "one real run only"}
    for r in fidelity.rows:
        ratio = "-" if math.isnan(r.ratio) else f"{r.ratio:.2f}"
        table.append((r.cell, r.measure, spread_text(r.simulated), spread_text(r.real), ratio, verdicts[r.is_within]))
    widths = [max(len(line[n]) for line in table) for n in range(5)]
    out = ["  ".join([*(text.ljust(w) for text, w in zip(line, widths, strict=False)), line[5]]).rstrip() for line in table]
    for o in fidelity.orders:
        among = "" if math.isnan(o.among_real) else f", between real runs at least {o.among_real:.1%}"
        out.append(f"{o.cell}: {o.agreement:.1%} of all pairs of happenings in the same order{among}")
        out += [f"  {text}" for text in o.differing]
    out += [f"{measure}: rank correlation over the cells {value:.2f}" for measure, value in fidelity.correlations.items()]
    return out


def spread_text(values: Sequence[float]) -> str:
    """Median, and from where to where."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.4g}" if low == high else f"{middle:.4g} ({low:.4g} to {high:.4g})"
