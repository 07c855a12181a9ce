"""Reports and their plots: alone, repeatable, drawn again from their CSV, and honest about what they do not know."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lab.experiments import file, folder
from lab.experiments.expect import Verdict, judge
from lab.experiments.file import Expectation
from lab.experiments.model import FIGURES
from lab.experiments.schema import WrongFile
from lab.experiments.sweep import Result
from lab.reports import document, report
from lab.reports.answers import sentence
from lab.reports.cautions import warnings
from lab.reports.drawing.canvas import spread_out
from lab.reports.repeating import commands
from lab.reports.statistics import cliffs_delta, effect_word, front, summary
from tests.lab.reports.conftest import tree

Results = tuple[Path, list[Result]]


@pytest.fixture(scope="module")
def written(results: Results) -> Path:
    report.write(results[0])
    return results[0]


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".pyc"}


def test_a_report_stands_alone(written: Path) -> None:
    text = (written / "report.html").read_text()
    assert re.findall(r'(?:https?:|src=|@import|url\((?!#))[^"\')]*', text.replace("http://www.w3.org", "")) == []
    for words in ("Does surge keep pods?", "not true", "pairs of runs", "Cliff", "navarch experiment run"):
        assert words in text
    assert {p.name for p in written.iterdir()} >= {"report.html", "summary.csv", "table.md", "table.tex"}


def test_the_file_in_a_report_is_the_file_that_ran(written: Path) -> None:
    locked = json.loads((written / "experiment.lock").read_text())["file"]
    shown = yaml.safe_load(document.written(locked))
    assert folder.completed(shown) == locked and "''" not in document.written(locked)
    assert "- apply: |\n" in document.written(locked)


def test_equal_recordings_give_equal_reports(written: Path) -> None:
    first = files(written / "plots")
    assert {Path(n).suffix for n in first} == {".svg", ".csv", ".py"} and len(first) > 40
    report.write(written)
    assert files(written / "plots") == first


def test_every_kind_of_plot_is_drawn(written: Path) -> None:
    names = {p.stem.removeprefix("surge-1_seed-1_") for p in (written / "plots").glob("*.svg")}
    found = {kind for kind in FIGURES for name in names if name.startswith(kind.removesuffix("s"))}
    # No factor is crossed with another, no pod waits, and the file draws nothing of its own.
    assert set(FIGURES) - found == {"declared", "factors", "waits", "queue", "pending"}


def test_a_plot_is_drawn_again_from_its_csv_alone(written: Path, tmp_path: Path) -> None:
    plots = tmp_path / "plots"
    shutil.copytree(written / "plots", plots)
    for path in (plots / "drawing").glob("*.py"):
        assert not re.search(r"^\s*(from|import) (lab|navarch|cli)", path.read_text(), re.M), path
    for name in ("differences", "surge-1_seed-1_rollout-web"):
        drawn = (plots / f"{name}.svg").read_bytes()
        (plots / f"{name}.svg").unlink()
        done = subprocess.run([sys.executable, plots / f"{name}.py"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert (plots / f"{name}.svg").read_bytes() == drawn and (plots / f"{name}.pdf").stat().st_size > 1000


def test_the_rows_of_a_plot_tell_the_run(written: Path) -> None:
    with (written / "plots" / "surge-1_seed-1_rollout-web.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    bars = [r for r in rows if r["how"] == "bar"]
    assert {r["group"] for r in bars} == {"web:v1", "web:v2"}
    assert {"starting", "ready", "stopping"} <= {r["phase"] for r in bars}
    assert all(float(r["time"]) <= float(r["end"]) for r in bars)
    ready = [float(r["value"]) for r in rows if r["how"] == "line"]
    assert max(ready) >= 4 and min(ready) == 0
    told = [(r["series"], r["text"]) for r in rows if r["how"] == "flag"]
    assert ("step", "set-image deployment/web: web:v2") in told and ("fault", "power-off node-1, for 5s") in told


def test_a_file_chooses_its_plots() -> None:
    wrong = {"formats": ["svgg"], "plots": ["rollouts"], "pareto": {"rollot": "least"}}
    with pytest.raises(WrongFile) as raised:
        file.parse(file.cells(tree() | {"report": wrong})[0].tree)
    told = {p.path: p.text for p in raised.value.problems}
    assert "did you mean 'svg'?" in told["report.formats[0]"] and "did you mean 'rollout'?" in told["report.plots[0]"]
    assert "needs two measures" in told["report.pareto"] and "did you mean 'rollout'?" in told["report.pareto.rollot"]


def run(level: str, seed: int, **measures: float) -> Result:
    return Result({"p": level}, seed, measures, f"{level}{seed}", 1.0, ())


def test_warnings_say_what_is_not_shown() -> None:
    same = [run(p, s, a=float(s)) for p in "xy" for s in (1, 2)]
    assert "p changed no run: all its levels gave the same." in warnings(same)
    three = [*same, run("z", 1, a=9.0), run("z", 2, a=8.0)]
    assert "p: x and y gave the same in every run." in warnings(three)
    differing = [run(p, s, a=s + (p == "y")) for p in "xy" for s in (1, 2)]
    assert warnings(differing) == []
    decisions = {r.name: [(("web", 0), "node-1")] for r in differing}
    assert "made the same decisions in every run" in warnings(differing, decisions)[0]
    assert "Nothing in this experiment is random" in warnings([run(p, s, a=float(p == "y")) for p in "xy" for s in (1, 2)])[0]
    assert warnings(differing, {}, {"p-x_seed-1": "the machine was loaded"}) == ["p-x_seed-1: the machine was loaded"]
    assert any("one seed only" in w for w in warnings([run("x", 1, a=1.0)]))


def test_answers_are_sentences() -> None:
    rows = [({"p": p}, s, {"m": 1.0 * s + 5 * (p == "b")}) for p in "ab" for s in (1, 2, 3)]

    def said(one: str | Expectation) -> str:
        return sentence(one, judge(one, rows), rows)

    assert said("m > 0") == "Holds in all 6 runs: m is 1 to 8."
    assert said("m > 2").startswith("Does not hold, not in 2 of 6; first p=a, seed 1: m = 1; over all 6 runs: m is 1 to 8")
    assert said(Expectation(expr="m < 4", where={"p": "a"})) == "Holds in all 3 runs where p is a: m is 1 to 3."
    less = said(Expectation(compare="m", factor="p", less="a", than="b"))
    assert less == "m is 5 less on average with p=a than with b (95 % interval of the difference −5 to −5, 3 pairs of runs)."
    mixed = [({"p": p}, s, {"m": float((s - 2) * (p == "b"))}) for p in "ab" for s in (1, 2, 3)]
    chance = sentence(Expectation(compare="m", factor="p", less="a", than="b"), Verdict("", False, ""), mixed)
    assert "it may be chance" in chance
    assert sentence("m > 0", Verdict("", None, "runs were left out"), rows) == "Not judged: runs were left out."


def test_statistics() -> None:
    rows = summary([run(p, s, a=s + 3.0 * (p == "y")) for p in "xy" for s in (1, 2, 3)])
    assert (rows[1]["difference"], rows[1]["effect"], rows[1]["n"]) == (3.0, 1.0, 3) and "difference" not in rows[0]
    assert cliffs_delta([1, 2], [1, 2]) == 0 and cliffs_delta([1], [2, 3]) == -1 and effect_word(-1) == "large"
    points = {"a": (1.0, 9.0), "b": (2.0, 5.0), "c": (3.0, 6.0), "d": (9.0, 1.0)}
    assert front(points) == ["a", "b", "d"] and front(points, (False, True)) == ["a"]
    assert spread_out([0.5, 0.5, 0.9], 0.1) == pytest.approx([0.45, 0.55, 0.9])
    assert spread_out([1.0, 1.0], 0.2, 0.0, 1.0) == pytest.approx([0.8, 1.0])


def test_the_command_that_repeats_runs(tmp_path: Path) -> None:
    levels = {"p": ["x", "y"], "q": [1, 2]}
    locked = {"file": {"metadata": {"name": "n"}, "factors": levels, "seeds": 2}, "command": ["a b.yaml", "--set", "for=1s"]}

    def said(*runs: tuple[str, int, int]) -> list[str]:
        listed = [Result({"p": p, "q": str(q)}, seed, {}, "", 1.0, ()) for p, q, seed in runs]
        begin = "navarch experiment run 'a b.yaml' --set for=1s "
        return [line.removeprefix(begin) for line in commands(tmp_path, locked, listed)]

    every = [(p, q, s) for p in "xy" for q in (1, 2) for s in (1, 2)]
    assert said(*every) == ["--out again"]
    assert said(*(r for r in every if r[2] == 1)) == ["--seeds 1 --out again"]
    assert said(*(r for r in every if r[0] == "y")) == ["--only p=y --out again"]
    assert said(("x", 1, 2)) == ["--only p=x --only q=1 --only seed=2 --out again"]
    assert said(("x", 1, 7)) == ["--only p=x --only q=1 --only seed=7 --seeds 7 --out again"]
    assert said(("x", 1, 1), ("y", 2, 1)) == [
        "--only p=x --only q=1 --seeds 1 --out again", "--only p=y --only q=2 --seeds 1 --out again",
    ]  # fmt: skip
