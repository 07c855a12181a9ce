"""Where two runs part: the first decision of the scheduler that differs, with the points of every plugin on both sides.

Points are not recorded (docs/decisions.md, D82). A run repeats byte for byte, so it is made again until the decision is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from lab.experiments import folder, tables
from lab.experiments.cycles import CycleRun
from lab.experiments.drivers.virtual import Virtual, play, simulation_of
from lab.experiments.file import Experiment, cells, parse
from lab.experiments.recording import Recording
from lab.experiments.run import Run
from lab.experiments.sweep import RUNS, read
from scheduler.explain.explain import Recent, explain
from scheduler.framework.cycle import Decision
from scheduler.io.httpserver import pages

Tree = dict[str, Any]
BEST_SHOWN = 3


class Parting(NamedTuple):
    """The number-th decisions of two runs, which differ; None where a run made no more. ``whys``: the scheduler's answers
    (scheduler/explain), None if a run cannot be made again."""

    number: int
    decisions: tuple[tables.Row | None, tables.Row | None]
    whys: tuple[Tree | None, Tree | None]

    @property
    def nodes(self) -> list[str]:
        """Those that either side chose."""
        return [row["node"] for row in self.decisions if row is not None and row["node"]]


class Enough(Exception):
    """The decision was made: the rest of the run does not matter."""


def decision_that_differs(a: Recording, b: Recording) -> tuple[int, tables.Row | None, tables.Row | None] | None:
    """The first, by node (pods of other names may well stand for each other); else the first about another pod; None if there
    is none."""
    both = tables.decisions(a), tables.decisions(b)
    for keys in (("node", "message"), ("pod",)):
        for n in range(max(map(len, both))):
            one, other = (rows[n] if n < len(rows) else None for rows in both)
            if one is None or other is None or any(one[k] != other[k] for k in keys):
                return n, one, other
    return None


def first(one: Path, other: Path) -> Parting | None:
    """Of two files of recordings in folders of results. Raises OSError, ValueError."""
    parting = decision_that_differs(Recording.load(one), Recording.load(other))
    if parting is None:
        return None
    number, *rows = parting
    whys = [
        why_of(path, row["pod"], row["time"], other_row["node"] if other_row else "") if row else None
        for path, row, other_row in zip((one, other), rows, reversed(rows), strict=True)
    ]
    return Parting(number, (rows[0], rows[1]), (whys[0], whys[1]))


def why_of(path: Path, pod: str, time: float | None = None, node: str = "") -> Tree | None:
    """The scheduler's answer about a pod (``namespace/name``) in the run of a recording, at the time of the first decision that
    placed it, or of the one at ``time``; of ``node`` all there is, too. None if the recording lies in no folder of results, or
    its mode cannot be repeated."""
    results = path.parent.parent
    written = path.with_name(path.name.removesuffix(".jsonl.gz") + ".json")
    if path.parent.name != RUNS or not (results / folder.LOCK).exists() or not written.exists():
        return None
    result, _ = read(written)
    tree = next((c.tree for c in cells(folder.read_lock(results)["file"]) if c.levels == result.levels), None)
    if tree is None:
        return None
    experiment = parse(tree)
    if experiment.cluster.mode == "simulated":
        return _of_whole(experiment, result.seed, pod, time, node)
    return _of_cycle(experiment, result.seed, pod, node) if experiment.cluster.mode == "cycle" else None


class _Watched(Run):
    """A run that ends once a pod was decided upon."""

    def __init__(self, experiment: Experiment, seed: int, pod: str, time: float | None, node: str) -> None:
        super().__init__(experiment, seed)
        self.pod, self.key, self.time, self.node = pod, f"/registry/pods/{pod}", time, node
        self.answer: Tree | None = None

    def changed(self, time: float, type: str, key: str, revision: int, value: bytes) -> None:
        super().changed(time, type, key, revision, value)
        if key != self.key or type == "DELETED":
            return
        decided = (self.state.get(key) or {})["spec"].get("nodeName") if self.time is None else time >= self.time - 1e-6
        if decided:
            driver = self.driver
            assert isinstance(driver, Virtual)
            namespace, name = self.pod.split("/")
            query = urlencode({"namespace": namespace, "pod": name, "node": self.node})
            self.answer = json.loads(pages(driver.cluster.scheduler)["/explain"](query)[2])
            raise Enough


def _of_whole(experiment: Experiment, seed: int, pod: str, time: float | None, node: str) -> Tree | None:
    run = _Watched(experiment, seed, pod, time, node)
    try:
        play(run, simulation_of(experiment, seed))
    except* Enough:
        pass
    return run.answer


def _of_cycle(experiment: Experiment, seed: int, pod: str, node: str) -> Tree | None:
    answers: list[Tree] = []

    def watch(decision: Decision) -> None:
        if decision.pod.key == pod:
            recent = Recent()
            recent.add(decision, 0.0, "" if decision.node else decision.message())
            record = recent.get(pod)
            assert record is not None
            answers.append(explain(record, node))
            raise Enough

    try:
        CycleRun(experiment, seed, on_decision=watch).run()
    except Enough:
        pass
    return answers[0] if answers else None


def lines(parting: Parting, names: tuple[str, str]) -> list[str]:
    """In words: what was decided on each side, and the points of the nodes that either chose."""
    out = [f"decision {parting.number + 1} is the first that differs:"]
    width = max(map(len, names))
    for name, row in zip(names, parting.decisions, strict=True):
        out.append(f"  {name:{width}}  {decided(row)}")
    for name, why in zip(names, parting.whys, strict=True):
        if why is not None and why.get("best"):
            out += ["", f"points in {name} ({why['feasible']} of {why['nodes']} nodes could take {why['pod']}):"]
            out += _aligned(points(why, parting.nodes))
    return out


def decided(row: tables.Row | None) -> str:
    if row is None:
        return "made no more decisions"
    return f"{row['time']:10.3f} s  {row['pod']}  on {row['node']}" if row["node"] else (
        f"{row['time']:10.3f} s  {row['pod']}  fits nowhere: {row['message']}")  # fmt: skip


def points(why: Mapping[str, Any], nodes: Sequence[str]) -> list[list[str]]:
    """A head, then a row a node: the chosen ones and the best others; a column for each plugin that does not give all the same
    nothing."""
    rows = [best for n, best in enumerate(why["best"]) if n < BEST_SHOWN or best["node"] in nodes]
    if (asked_of := why.get("asked", {})).get("scores") and all(r["node"] != asked_of["node"] for r in rows):
        rows.append(asked_of)
    plugins = [p for p in rows[0]["scores"] if any(r["scores"][p]["score"] for r in rows)]
    heads = ["node", "total", *(f"{p} x{rows[0]['scores'][p]['weight']:g}" for p in plugins)]
    return [heads, *([r["node"], f"{r['total']:g}", *(f"{r['scores'][p]['score']}" for p in plugins)] for r in rows)]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(f"{text:{w}}" for text, w in zip(row, widths, strict=True)).rstrip() for row in rows]
