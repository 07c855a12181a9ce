"""Sweeps: who does the work, what is kept, what stands in the folder, and how far it is."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas
import pytest
import yaml

from lab.experiments import file, folder, sweep
from lab.experiments.executors import ExecutorError, Pulse
from lab.experiments.live import Board, Live, clock
from lab.experiments.schema import WrongFile
from lab.experiments.varying import varied

TINY = """
apiVersion: lab.navarch.dev/v1
kind: Experiment
metadata: {name: tiny}
cluster: {heartbeats: elided, nodes: [{count: 2}]}
behaviour: {default: {start: "uniform(0.2s, 2s)"}}
factors: {replicas: [1, 2]}
seeds: 2
workload:
- apply: |
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: web}
    spec:
      replicas: ${replicas}
      selector: {matchLabels: {app: web}}
      template:
        metadata: {labels: {app: web}}
        spec: {containers: [{name: web, image: "web:v1", resources: {requests: {cpu: "1"}}}]}
steps: [{until: available(deployment/web), mark: up}]
measure: {up: up - begin}
"""
COMMAND = "import sys; sys.argv[0] = 'navarch'; from cli.main import main; main()"


def navarch(*words: str, hashseed: str = "random", **more: Any) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONHASHSEED": hashseed}
    words = (sys.executable, "-c", COMMAND, "experiment", *words)
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, **more)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("tiny") / "tiny.yaml"
    path.write_text(TINY)
    return file.load(path)


@pytest.fixture(scope="module")
def done(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results, made run by run in this process."""
    out = tmp_path_factory.mktemp("out")
    assert [r.error for r in sweep.sweep(tree, out)] == [""] * 4
    return out


SAME = ("runs.csv", "points.csv", "experiment.lock", "runs/*.gz", "runs/*.json", "*.parquet/*.parquet")


def content(out: Path, patterns: Sequence[str] = SAME) -> dict[str, bytes]:
    paths = [path for pattern in patterns for path in sorted(out.glob(pattern))]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def test_processes_give_the_same_files_in_any_order(tree: dict[str, Any], done: Path, tmp_path: Path):
    """And the sweep is made in two parts, the last cell first."""
    sweep.sweep(tree, tmp_path, only={"replicas": "2", "seed": "1"})
    assert len(sweep.results(tmp_path)) == 1
    sweep.sweep(tree, tmp_path, jobs=2)
    assert content(tmp_path) == content(done) and len(content(done)) == 3 + 4 * 5


def test_dask_gives_the_same_files(tree: dict[str, Any], done: Path, tmp_path: Path):
    from distributed import LocalCluster

    heard = Heard()
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, host="127.0.0.1", protocol="tcp", dashboard_address=None
    ) as cluster:  # fmt: skip
        address = cluster.scheduler_address.removeprefix("tcp://")
        sweep.sweep(tree, tmp_path, executor=f"dask://{address}", listener=heard)
    assert content(tmp_path) == content(done) and sorted(heard.names) == sorted(r.name for r in sweep.results(done))


class Heard(sweep.Listener):
    def __init__(self) -> None:
        self.names: list[str] = []

    def done(self, result: sweep.Result, seconds: float) -> None:
        self.names.append(result.name)


def test_an_executor_that_is_not_there(tree: dict[str, Any], tmp_path: Path):
    with pytest.raises(ExecutorError, match="processes, or dask"):
        sweep.sweep(tree, tmp_path, executor="threads")
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    ended = navarch("run", str(path), "--out", str(tmp_path / "o"), "--executor", "ray://x")
    assert ended.returncode == 2 and "there is no executor 'ray://x'" in ended.stderr


def test_the_folder_says_how_to_make_it_again(done: Path):
    locked = json.loads((done / "experiment.lock").read_text())
    assert locked["file"]["cluster"]["nodes"][0]["memory"] == "16Gi" and locked["file"]["for"] == "0s"  # defaults
    assert set(locked["hashes"].values()) == {r.digest for r in sweep.results(done)} and locked["machine"]["cores"] >= 1
    assert file.parse(file.cells(locked["file"])[0].tree).seeds == 2
    assert folder.completed(locked["file"]) == locked["file"]
    environment = os.environ | {"NAVARCH": f"{sys.executable} -m cli.main", "PYTHONHASHSEED": "5"}
    script = [str(done / "reproduce.sh"), "--only", "replicas=2", "--jobs", "1"]
    ended = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout) == (0, "2 of 2 runs gave the same recording, byte for byte\n"), ended.stderr


def test_a_hash_that_is_not_the_same_is_told(done: Path, tmp_path: Path):
    for path, value in content(done, ("experiment.lock", "runs/*.json")).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(value)
    locked = json.loads((done / "experiment.lock").read_text())
    locked["hashes"]["replicas-1_seed-2"] = "0" * 64
    locked["versions"]["numpy"], locked["inputs"] = "0.1", {"/no/such/trace.csv": "x"}
    (tmp_path / "experiment.lock").write_text(json.dumps(locked))
    ended = navarch("verify", str(tmp_path), "--only", "replicas=1", "--jobs", "1")
    assert ended.returncode == 1 and "DIFFERS  replicas-1_seed-2: 0000000000000000 then" in ended.stdout
    assert "1 of 2 runs gave the same" in ended.stdout
    assert "numpy was 0.1" in ended.stderr and "/no/such/trace.csv is not here any more" in ended.stderr


def test_tables_are_read_with_pandas(done: Path):
    pods = pandas.read_parquet(done / "pods.parquet")
    assert len(pods) == 2 * (1 + 2) and set(pods["replicas"]) == {"1", "2"} and (pods["ready"] > pods["bound"]).all()
    nodes = pandas.read_parquet(done / "nodes.parquet")
    assert len(nodes) == 4 * 2 and set(nodes["cpu"]) == {4.0} and (nodes["not_ready"] == 0).all()
    assert nodes.groupby("run")["pods"].sum().to_dict() == pods.groupby("run").size().to_dict()
    assert nodes["cpu_max"].max() == 0.25  # one pod of a core on a node of four
    decisions = pandas.read_parquet(done / "decisions.parquet")
    assert len(decisions) == len(pods) and (decisions["message"] == "").all()


def test_another_measure_runs_nothing_anew(tree: dict[str, Any], tmp_path: Path):
    heard = Heard()
    sweep.sweep(tree, tmp_path, seeds=[1], listener=heard)
    more = tree | {"measure": {"up": "up - begin", "pods": "last(total())"}, "question": "Another?"}
    listed = sweep.sweep(more, tmp_path, seeds=[1], listener=heard)
    assert len(heard.names) == 2 and [r.measures["pods"] for r in listed] == [1, 2]
    assert [r.measures["pods"] for r in sweep.results(tmp_path)] == [1, 2]
    assert "up,pods" in (tmp_path / "runs.csv").read_text()


def test_a_run_that_failed_is_told_and_made_again(tree: dict[str, Any], tmp_path: Path):
    wrong = tree | {"steps": [{"until": "ready() > 9", "within": "5s", "on-timeout": "fail", "mark": "up"}]}
    (failed,) = sweep.sweep(wrong, tmp_path, seeds=[1], only={"replicas": "1"})
    assert "not within 5" in failed.error and [r.error for r in sweep.results(tmp_path)] == [failed.error]
    heard = Heard()
    sweep.sweep(wrong, tmp_path, seeds=[1], only={"replicas": "1"}, listener=heard)
    assert heard.names == ["replicas-1_seed-1"]


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(tmp_path: Path):
    path, out = tmp_path / "tiny.yaml", tmp_path / "out"
    path.write_text(TINY)
    words = [sys.executable, "-c", COMMAND, "experiment", "run", str(path), "--out", str(out), "--no-report", "--jobs", "2"]
    process = subprocess.Popen([*words, "--seeds", "40"], stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    while (first := process.stderr.readline()).startswith("0/80 "):
        pass  # processes may take long to start
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the children, too
    text = process.stderr.read()
    assert process.wait(60) == 130 and first.startswith("1/80 "), first + text
    assert f"runs are done and kept in {out}. To go on, say the same again:\n  navarch experiment run" in text
    assert "Traceback" not in text
    kept = len(sweep.results(out))
    assert 1 <= kept < 80 and len((out / "runs.csv").read_text().splitlines()) == kept + 1
    ended = navarch("run", str(path), "--out", str(out), "--no-report", "--resume", "--only", "replicas=1,seed=1")
    assert "1 of 1 run is done already" in ended.stderr or "1/1 replicas-1_seed-1" in ended.stderr
    ended = navarch("run", str(path), "--out", str(out), "--resume", "--set", "for=7s")
    assert ended.returncode == 2 and "has no run of this file" in ended.stderr


# Other values for any field


def test_a_grid_over_any_field(tree: dict[str, Any]):
    grid = varied(tree, {"cluster.nodes[0].count": [3, 5], "behaviour.default.stop": ["1s", "2s"]})
    cells = file.cells(grid)
    assert len(cells) == 2 * 2 * 2 and cells[0].levels["cluster.nodes.0.count"] == "3"
    counts = [file.parse(c.tree).cluster.nodes[0].count for c in cells]
    assert sorted(set(counts)) == [3, 5] and {c.tree["behaviour"]["default"]["stop"] for c in cells} == {"1s", "2s"}
    assert tree["cluster"]["nodes"][0]["count"] == 2


def test_random_samples_are_equal_for_equal_seeds(tree: dict[str, Any]):
    fixed = {k: v for k, v in tree.items() if k != "factors"} | {"workload": []}
    fields = {"cluster.nodes[0].count": "choice(1, 2, 3)", "behaviour.default.ready": "uniform(1s, 9s)"}
    points = file.cells(varied(fixed, fields, samples=8))
    assert len(points) == 8 and points == file.cells(varied(fixed, fields, samples=8))
    assert points != file.cells(varied(fixed, fields, samples=8, seed="another"))
    assert all(1 <= float(p.levels["behaviour.default.ready"]) <= 9 for p in points)
    assert all(file.parse(p.tree).cluster.nodes[0].count in (1, 2, 3) for p in points)
    again = file.cells(json.loads(json.dumps(varied(fixed, fields, samples=8))))  # it is a file like any other
    assert again == points


@pytest.mark.parametrize(("fields", "samples", "said"), [
    ({"cluster.nodes[4].count": [1]}, 0, "there is no entry 4"),
    ({"seeds.more": [1]}, 0, "what is above it is no mapping"),
    ({"for": "uniform(1s, 2s)"}, 0, "a list of values is needed"),
    ({"for": "unifrom(1s, 2s)"}, 5, "there is no distribution 'unifrom'"),
    ({"for": "2s"}, 5, "neither a list nor a distribution"),
])  # fmt: skip
def test_a_field_that_cannot_vary(tree: dict[str, Any], fields: dict[str, Any], samples: int, said: str):
    with pytest.raises(WrongFile, match=said):
        varied({k: v for k, v in tree.items() if k != "factors"}, fields, samples)


def test_a_field_is_set_by_the_paths_that_vary(tmp_path: Path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY + "timing:\n")
    tree = file.load(path, {"steps[0].within": "3m", "cluster.nodes[0].count": 5, "timing.extra": 1})
    assert tree["steps"] == [{"until": "available(deployment/web)", "mark": "up", "within": "3m"}]
    assert tree["cluster"]["nodes"] == [{"count": 5}] and tree["timing"] == {"extra": 1}
    wrong = {"steps[1].wait": "1s", "steps.0.wait": "1s", "seeds.more": 1}
    with pytest.raises(WrongFile) as error:
        file.load(path, wrong)
    assert [problem.path for problem in error.value.problems] == list(wrong)


def test_samples_of_a_file_with_factors(tree: dict[str, Any]):
    with pytest.raises(WrongFile, match="vary these as fields, too"):
        varied(tree, {"for": "uniform(1s, 2s)"}, 5)


def test_the_command_varies(tmp_path: Path):
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(yaml.safe_load(TINY) | {"factors": {}}).replace("${replicas}", "1"))
    out = tmp_path / "out"
    ended = navarch("run", str(tmp_path / "t.yaml"), "--out", str(out), "--no-report", "--jobs", "1", "--seeds", "1",
                    "--vary", "behaviour.default.start=uniform(1s, 3s)", "--samples", "2")  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    points = pandas.read_csv(out / "points.csv")["behaviour.default.start"]
    runs = pandas.read_csv(out / "runs.csv")
    assert len(points) == 2 and list(runs["behaviour.default.start"]) == list(points)
    assert ((runs["up"] - points).abs() < 1.5).all()  # it took so long indeed


# How far it is


def result(name: str, **more: Any) -> sweep.Result:
    return sweep.Result({"p": name}, 1, {}, "", 100.0, (), **more)


def test_the_line_of_a_board():
    board = Board(total=10, earlier=2, jobs=2, now=1000.0)
    assert board.line(1000.0) == "2/10 done"
    board.pulse(Pulse("p-a_seed-1", 0.0), 1000.0)
    board.pulse(Pulse("p-a_seed-1", 210.0), 1002.0)
    board.pulse(Pulse("p-b_seed-1", 50.0), 1002.0)
    assert board.line(1002.0) == "2/10 done  p-a_seed-1 at 210 s, 105 times as fast as real (and 1 more)"
    board.done(result("a")._replace(timeouts=("steps[0]",)), 1009.0)
    board.done(result("b", error="ValueError: x"), 1010.0)
    assert board.line(1010.0) == "4/10 done  1 failed  1 timeout  0:30 left"
    board.pulse(Pulse("p-c_seed-1", 2.0, "until ready() == 3"), 1012.0)
    assert board.line(1012.0).endswith("p-c_seed-1 at 2 s  1 failed  1 timeout  0:28 left  until ready() == 3")
    assert [clock(s) for s in (7, 750, 11045)] == ["0:07", "12:30", "3:04:05"]


def test_live_progress_in_a_file_of_runs_that_take_long():
    """A run on the wall clock tells what happens; one on virtual time does not, but that it goes on."""
    now, out = [0.0], io.StringIO()
    live = Live(out, False, lambda: now[0])
    live.begin(2, 0, 1)
    for at, virtual, what in (
        (0.5, 0.0, "network"), (2.0, 0.0, "until available(x)"), (2.5, 0.5, "wait 5s"), (4.0, 2.0, "wait 5s"),
        (9.0, 7.0, "wait 5s"), (21.0, 19.0, "wait 5s"),
    ):  # fmt: skip
        now[0] = at
        live.pulse(Pulse("real", virtual, what, True))
    live.done(result("real"), 21.0)
    for at in range(1, 40):
        now[0] = 21.0 + at
        live.pulse(Pulse("simulated", 60.0 * at, f"step {at}"))
    lines = out.getvalue().splitlines()
    assert lines[:3] == [
        "0/2 done  real at 0 s  until available(x)", "0/2 done  real at 2 s  wait 5s", "0/2 done  real at 19 s  wait 5s"
    ]  # fmt: skip
    assert lines[3].startswith("1/2 p-real_seed-1: 100 s")
    assert [line.partition(" at ")[2].split(",")[0] for line in lines[4:]] == ["900 s", "1800 s"]


def test_live_progress_on_a_terminal_and_in_a_file():
    for moving in (True, False):
        now, out = [0.0], io.StringIO()
        live = Live(out, moving, lambda: now[0])  # noqa: B023
        live.begin(3, 1, 2)
        live.pulse(Pulse("p-a_seed-1", 1.0))
        now[0] = 4.0
        live.done(result("a"), 2.0)
        live.done(result("b", error="ValueError: x\nTraceback"), 2.0)
        live.end()
        lines = out.getvalue()
        assert "p-b_seed-1: FAILED: ValueError: x\n" in lines and ("\r\033[K" in lines) == moving
        if moving:
            assert "2/3 done  0:04 left" in lines and lines.endswith("\r\033[K")
        else:
            assert lines.splitlines()[:2] == [
                "1 of 3 run is done already; 2 to go", "2/3 p-a_seed-1: 100 s, 50 times as fast as real; 0:04 left"
            ]  # fmt: skip
