"""The file, the runs and what is read from them."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas
import pytest
import yaml

from cli.verbs.experiment import group
from lab.experiments import file, sweep, tables
from lab.experiments import folder as folders
from lab.experiments.expect import Published, interval, judge, paired
from lab.experiments.file import Expectation
from lab.experiments.measures import Measures, measure
from lab.experiments.recording import Recording
from lab.experiments.schema import WrongFile
from lab.reports.cautions import warnings
from lab.reports.comparing import compare

SMALL = """
apiVersion: lab.navarch.dev/v1
kind: Experiment
metadata: {name: small}
cluster: {heartbeats: elided, nodes: [{count: 3, zones: 2}]}
behaviour: {default: {start: "uniform(0.2s, 2s)"}}
factors: {replicas: [2, 4]}
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
        spec: {containers: [{name: web, image: "web:v1", resources: {requests: {cpu: 500m}}}]}
- arrivals:
    poisson: 20/min
    for: 1m
    draw: {cpu: "choice(1, 2)"}
    template: |
      apiVersion: v1
      kind: Pod
      metadata: {name: "job-${n}", annotations: {hollow.navarch.dev/run: 20s}}
      spec: {restartPolicy: Never, containers: [{name: c, image: "c:1", resources: {requests: {cpu: "${draw.cpu}"}}}]}
steps:
- {until: available(deployment/web), within: 1m, mark: up}
- {at: up+40s, fault: {power-off: "node-of:deployment/web", for: 20s}}
- {wait: 30s, mark: over}
measure:
  up: up - begin
  low: min(ready(deployment/web), up..over)
  used: mean(requested("cpu"), up..over)
  jobs: bound() + never_bound() - bound(deployment/web) - never_bound(deployment/web)
  zero: never_bound(deployment/web)
expect: [low >= 0, {compare: used, factor: replicas, less: 2, than: 4}]
"""


def written(folder: Path, text: str = SMALL) -> Path:
    path = folder / "small.yaml"
    path.write_text(text)
    return path


class Runs(sweep.Listener):
    """The names of the runs that are made."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def done(self, result: sweep.Result, seconds: float) -> None:
        self.names.append(result.name)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, list[sweep.Result]]:
    folder = tmp_path_factory.mktemp("small")
    tree = file.load(written(folder))
    return tree, folder / "out", sweep.sweep(tree, folder / "out")


def test_runs_are_recorded_and_measured(small: tuple[dict[str, Any], Path, list[sweep.Result]]):
    tree, folder, listed = small
    assert [r.error for r in listed] == [""] * 4
    assert [(r.levels["replicas"], r.seed) for r in listed] == [("2", 1), ("2", 2), ("4", 1), ("4", 2)]
    assert all(r.measures["zero"] == 0 and 0.2 < r.measures["up"] < 10 for r in listed)
    assert all(v.good for v in sweep.verdicts(tree, listed))
    rows = (folder / "runs.csv").read_text().splitlines()
    assert rows[0] == "replicas,seed,up,low,used,jobs,zero,virtual_seconds,timeouts,hash,error" and len(rows) == 5
    assert listed[0].measures["jobs"] == listed[2].measures["jobs"]  # common random numbers: the same arrivals


def test_a_recording_is_a_file_that_others_can_read(small: tuple[dict[str, Any], Path, list[sweep.Result]]):
    _, folder, listed = small
    path = folder / "runs" / f"{listed[0].name}.jsonl.gz"
    recording = Recording.load(path)
    assert recording.mark("up") == pytest.approx(recording.mark("begin") + listed[0].measures["up"])
    assert any("power-off" in s.what for s in recording.steps)
    assert measure(recording, {"low": "min(ready(deployment/web), up..over)"})["low"] == listed[0].measures["low"]
    frame = pandas.read_json(path, lines=True)
    assert {"t", "type", "key", "object"} <= set(frame.columns) and len(frame) > 100
    assert len(tables.frame(recording, "changes")) == len(recording.changes)
    (folder / "broken.gz").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="broken"):
        Recording.load(folder / "broken.gz")


def test_equal_seeds_give_equal_bytes_in_any_process(small: tuple[dict[str, Any], Path, list[sweep.Result]], tmp_path: Path):
    """With other PYTHONHASHSEEDs, alone and in a sweep on two cores; other seeds differ."""
    _, folder, listed = small
    assert len({r.digest for r in listed}) == 4
    code = "import sys; from pathlib import Path; from cli.main import main; sys.argv[0] = 'navarch'; main()"
    path = written(tmp_path)
    for hashseed, more in (("1", ["--only", "replicas=4,seed=2", "--jobs", "1"]), ("77", ["--jobs", "2"])):
        out = tmp_path / f"out{hashseed}"
        command = [sys.executable, "-c", code, "experiment", "run", str(path), "--out", str(out), "--no-report", *more]
        env = os.environ | {"PYTHONHASHSEED": hashseed}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
        assert done.returncode in (0, 1), done.stderr
        for name in [listed[3].name] if hashseed == "1" else [r.name for r in listed]:
            name = f"runs/{name}.jsonl.gz"
            assert (out / name).read_bytes() == (folder / name).read_bytes()


def test_what_is_done_is_kept(small: tuple[dict[str, Any], Path, list[sweep.Result]]):
    tree, folder, listed = small
    path = folder / "runs" / f"{listed[1].name}.json"
    path.unlink()
    runs = Runs()
    again = sweep.sweep(tree, folder, listener=runs)
    assert runs.names == [listed[1].name] and [r.digest for r in again] == [r.digest for r in listed]
    changed = json.loads(json.dumps(tree).replace("20s", "25s"))
    runs.names.clear()
    sweep.sweep(changed, folder, seeds=[1], only={"replicas": "2"}, listener=runs)
    assert runs.names == ["replicas-2_seed-1"]  # another file: nothing of it is done
    assert [r.name for r in sweep.results(folder)] == runs.names  # nor are its runs taken for this one's
    sweep.sweep(tree, folder)


def test_words_about_results(small: tuple[dict[str, Any], Path, list[sweep.Result]]):
    _, _, listed = small
    assert any("all 2 seeds gave the same" in w for w in warnings([r._replace(measures={"a": 1.0}) for r in listed]))
    assert any("changed no run" in w for w in warnings([r._replace(measures={"a": float(r.seed)}) for r in listed]))
    assert any("runs failed" in w for w in warnings([listed[0]._replace(error="ValueError: x")]))
    assert all("does not differ" in line for line in compare(listed, listed))
    more = [r._replace(measures={k: v + 5 for k, v in r.measures.items()}) for r in listed]
    assert any("up is 5 more in the second" in line for line in compare(listed, more))


def test_the_command(
    small: tuple[dict[str, Any], Path, list[sweep.Result]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    _, folder, listed = small

    def call(*words: str) -> tuple[int, str]:
        code = 0
        try:
            group.run(list(words), "navarch experiment")
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, "".join(capsys.readouterr())

    assert call("check", str(written(tmp_path)))[1].startswith("small: 2 cells, 2 seeds, 4 runs of 3 nodes")
    assert f"{folder}  4/4 " in call("list", str(folder))[1]
    assert "To get some: navarch experiment run FILE" in call("list", str(tmp_path))[1]
    runs = folder / "runs"
    a, b = (str(runs / f"{r.name}.jsonl.gz") for r in listed[:2])
    assert call("diff", a, a) == (0, "they are the same\n")
    code, text = call("diff", a, b)
    assert code == 1 and "first change that differs" in text
    assert "-- up --" in call("show", str(folder), listed[0].name)[1]
    assert "node node-1" in call("show", str(folder), listed[0].name, "--at", "30s")[1]
    assert "does not differ" in call("compare", str(folder), str(folder))[1]
    code, text = call("run", str(written(tmp_path)), "--set", "expect=['low > 100']", "--only", "replicas=2,seed=1",
                      "--out", str(tmp_path / "o"), "--no-report")  # fmt: skip
    assert code == 1 and "NOT TRUE" in text
    code, text = call("run", str(written(tmp_path)), "--set", "expect=['low > 100']", "--only", "replicas=2,seed=1", "--json",
                      "--out", str(tmp_path / "o"), "--no-report", "--junit", str(tmp_path / "j.xml"))  # fmt: skip
    told, _ = json.JSONDecoder().raw_decode(text)  # progress comes after it, from the other stream
    assert code == 1 and told["runs"][0]["seed"] == 1 and told["expectations"][0]["true"] is False
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert suite.get("tests") == "2" and suite.get("failures") == "1" and suite.find("testcase/failure") is not None
    assert call("run", str(written(tmp_path)), "--mode", "real")[0] == 2
    assert call("run", str(written(tmp_path)), "--only", "replicas=9")[0] == 2


WRONG = [
    ("seeds: 2", "seeds: two", "seeds", "'two' is not a whole number"),
    ("seeds: 2", "seed: 2", "seed", "did you mean 'seeds'?"),
    ("heartbeats: elided", "heartbeats: elide", "cluster.heartbeats", "none of full, elided; did you mean 'elided'?"),
    ("count: 3", "cuont: 3", "cluster.nodes[0].cuont", "did you mean 'count'?"),
    ("zones: 2", "labels: [a]", "cluster.nodes[0].labels", "['a'] is not a mapping"),
    ("uniform(0.2s, 2s)", "unifrom(0.2s, 2s)", "behaviour.default.start", "there is no distribution 'unifrom'"),
    ("{start:", "{strat:", "behaviour.default.strat", "did you mean 'start'?"),
    ("${replicas}", "${replica}", "workload[0].apply", "there is no factor 'replica'; did you mean 'replicas'?"),
    ("poisson: 20/min", "poisson: 20/week", "workload[1].arrivals.poisson", "is no rate"),
    ("poisson: 20/min", "rate: 20/min", "workload[1].arrivals.rate", "there is no such field"),
    ("until: available", "until: avialable", "steps[0].until", "did you mean 'available'?"),
    ("power-off:", "poweroff:", "steps[1].fault.poweroff", "did you mean 'power-off'?"),
    ("at: up+40s", "at: upp+40s", "steps[1].at", "did you mean 'up'?"),
    ("at: up+40s", "at: up+fast", "steps[1].at", "no time"),
    ("wait: 30s", "wait: half an hour", "steps[2].wait", "no time"),
    ("up - begin", "upp - begin", "measure.up", "there is no 'upp'; did you mean 'up'?"),
    ("zero: never_bound(", "zero: neverbound(", "measure.zero", "did you mean 'never_bound'?"),
    ("low >= 0", "lo >= 0", "expect[0]", "did you mean 'low'?"),
    ("compare: used", "compare: usde", "expect[1].compare", "did you mean 'used'?"),
    ("kind: Experiment", "kind: Experiments", "apiVersion", "is not lab.navarch.dev/v1 Experiment"),
    ("replicas: [2, 4]", "replicas: []", "factors.replicas", "at least one level"),
    ("seeds: 2", "design: ful", "design", "did you mean 'full'?"),
    ("nodes: [{count: 3, zones: 2}]", "nodes: []", "cluster.nodes", "is required"),
    ("nodes: [", "scheduler: {plugins: [no_such.py:X]}, nodes: [", "cluster.scheduler.plugins[0]", "no_such.py"),
    ("nodes: [", "mode: reel, nodes: [", "cluster.mode", "did you mean 'real'"),
    ("nodes: [", "mode: cycle, nodes: [", "workload[0]", "pods come from a trace"),
    ("- apply: |", "- trace: {file: none.csv}\n- apply: |", "workload[0].trace.file", "there is no file none.csv"),
    ("seeds: 2", "series: {a: 1 + redy()}", "series.a", "did you mean 'ready'?"),
    ("seeds: 2", "plots: [{name: a, y: begin, x-range: [3, 1]}]", "plots[0].x-range", "the smaller one first"),
    ("seeds: 2", "design: [{replicas: 3}]", "design[0].replicas", "there is no level '3'"),
    ("compare: used", "reference: used", "expect[1].reference", "there is no reference in this file"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "path", "said"), WRONG)
def test_a_mistake_is_told_with_its_path_and_what_was_meant(tmp_path: Path, old: str, new: str, path: str, said: str):
    assert old in SMALL
    with pytest.raises(WrongFile) as raised:
        for cell in file.cells(file.load(written(tmp_path, SMALL.replace(old, new, 1)))):
            file.parse(cell.tree)
    assert [p for p in raised.value.problems if p.path == path and said in p.text], raised.value


def test_all_mistakes_are_told_at_once(tmp_path: Path):
    text = SMALL
    for old, new in (("count: 3", "cuont: 3"), ("seeds: 2", "seeds: two"), ("{wait:", "{wiat:")):
        text = text.replace(old, new, 1)
    with pytest.raises(WrongFile) as raised:
        file.parse(file.cells(file.load(written(tmp_path, text)))[0].tree)
    assert {p.path for p in raised.value.problems} == {"cluster.nodes[0].cuont", "seeds", "steps[2].wiat"}
    with pytest.raises(SystemExit) as ended:
        group.run(["check", str(written(tmp_path, text))], "navarch experiment")
    assert ended.value.code == 2


def test_designs(tmp_path: Path):
    tree = yaml.safe_load(SMALL) | {"factors": {"replicas": [2, 4], "b": {"x": {"patch": {"seeds": 7}}, "y": {"n": 1}}}}
    assert [c.name for c in file.cells(tree)] == ["replicas=2,b=x", "replicas=2,b=y", "replicas=4,b=x", "replicas=4,b=y"]
    assert file.cells(tree)[0].tree["seeds"] == 7 and file.cells(tree)[1].tree["seeds"] == 2
    one = file.cells(tree | {"design": "one-at-a-time"})
    assert [c.name for c in one] == ["replicas=2,b=x", "replicas=4,b=x", "replicas=2,b=y"]


def test_expectations_and_intervals():
    rows = [({"p": p}, s, {"m": 1.0 * s + (p == "b")}) for p in "ab" for s in (1, 2, 3)]
    assert paired(rows, "m", "p", "b", "a") == [1, 1, 1]
    assert judge(Expectation(compare="m", factor="p", less="a", than="b"), rows).good
    assert not judge(Expectation(compare="m", factor="p", less="b", than="a"), rows).good
    assert not judge(Expectation(compare="m", factor="p", less="a", than="c"), rows).good
    assert judge("m > 0", rows).good and not judge("m > 1", rows).good
    assert judge(Expectation(expr="m > 1", of="mean"), rows).good
    assert not judge(Expectation(expr="m > 0", where={"p": "z"}), rows).good
    mean, low, high = interval([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5 and 1 <= low < 2.5 < high <= 4 and interval([2.0]) == (2.0, 2.0, 2.0)


def test_what_was_left_out_is_not_judged():
    """Neither true nor false; a level that the file does not have is still false."""
    rows = [({"p": "a", "q": "x"}, s, {"m": 1.0 * s}) for s in (1, 2)]
    left_out = [{"p": "b", "q": "x"}]
    compared = judge(Expectation(compare="m", factor="p", less="a", than="b"), rows, (), left_out)
    assert compared.good is None and compared.word == "not judged" and compared.why == "p=b was not run"
    told = judge(Expectation(expr="m > 0", where={"p": "b"}), rows, (), left_out)
    assert told.good is None and told.why == "p=b, q=x was not run"
    assert judge(Expectation(expr="m > 0", where={"p": "z"}), rows, (), left_out).good is False
    assert judge(Expectation(compare="m", factor="p", less="a", than="z"), rows, (), left_out).good is False
    published = [Published({"p": "b"}, "m", 1.0, 1.0)]
    assert judge(Expectation(reference="m"), rows, published, left_out).good is None
    assert judge(Expectation(reference="m"), rows, published).good is False


def test_measures_on_a_recording_by_hand():
    def pod(name: str, ready: bool, node: str = "n", **meta: Any) -> dict[str, Any]:
        return {
            "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}, **meta},
            "spec": {"nodeName": node, "containers": [{"image": "i", "resources": {"requests": {"cpu": "500m"}}}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]},
        }  # fmt: skip

    def line(t: float, type: str, name: str, tree: dict[str, Any]) -> dict[str, Any]:
        return {"t": t, "type": type, "key": f"/registry/pods/default/{name}", "revision": 1, "object": tree}

    recording = Recording({"marks": ["never"]}, [
        line(1, "ADDED", "a", pod("a", False, "")), line(2, "MODIFIED", "a", pod("a", False)),
        line(4, "MODIFIED", "a", pod("a", True)), line(4, "ADDED", "b", pod("b", True)),
        line(7, "MODIFIED", "a", pod("a", True, deletionTimestamp="x")), line(8, "DELETED", "a", pod("a", True)),
        {"t": 9, "sample": "load/s", "values": {"sent": 4, "ok": 3, "failed": 1, "le_0.1": 2, "le_0.5": 1}},
        {"t": 10, "end": True},
    ])  # fmt: skip
    found = measure(recording, {
        "max": "max(ready(app=web))", "mean": "mean(ready(), 4..8)", "area": "integral(ready(pod/b))",
        "wait": "max(waits())", "start": "max(starts(pod/a))", "life": "sum(lifetimes())", "cores": 'max(requested("cpu"))',
        "left": "last(ready())", "failed": 'failed("s")', "p50": 'latency("s", 0.5)', "none": "never - begin",
        "twice": "max * 2", "for": "seconds(ready() > 1)",
    })  # fmt: skip
    assert found["max"] == 2 and found["mean"] == pytest.approx((3 * 2 + 1) / 4) and found["area"] == 6
    assert found["wait"] == 1 and found["start"] == 2 and found["life"] == 7 and found["cores"] == 1
    assert found["left"] == 1 and found["failed"] == 1 and found["p50"] == 0.1 and math.isnan(found["none"])
    assert found["twice"] == 4 and found["for"] == 3
    assert [p.name for p in Measures(recording).lives()] == ["a", "b"]


ROOT = Path(__file__).parents[3]


def test_the_page_tells_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = (ROOT / "docs/experiments.md").read_text()
    (tmp_path / "page.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    found = file.cells(file.load(tmp_path / "page.yaml"))
    assert len(found) == 4 and all(file.parse(c.tree).seeds == 2 for c in found)
    monkeypatch.chdir(ROOT)
    exec(compile(text.split("```python\n")[1].split("```")[0], "docs/experiments.md", "exec"), {"__name__": "page"})


def test_from_python(tmp_path: Path):
    from lab import Experiment, Simulation
    from lab import sweep as all_runs
    tree = yaml.safe_load(SMALL) | {"steps": [{"wait": "5s"}], "measure": {"n": "last(total(deployment/web))"}, "expect": []}
    results = all_runs(Experiment(tree), tmp_path, seeds=[3])
    assert [(r.levels["replicas"], r.measures["n"]) for r in results] == [("2", 2), ("4", 4)]
    assert list(results.frame().columns) == ["replicas", "seed", "n"] and Simulation.__name__ == "Simulation"
    with pytest.raises(WrongFile):
        Experiment({})


def test_a_folder_without_runs_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tree = file.load(written(tmp_path))
    folders.write(tmp_path, tree, file.cells(tree), [])
    for verb in ("report", "verify", "show"):
        with pytest.raises(SystemExit) as ended:
            group.run([verb, str(tmp_path)], "navarch experiment")
        assert ended.value.code == 2 and "has no runs that are done" in capsys.readouterr().err
