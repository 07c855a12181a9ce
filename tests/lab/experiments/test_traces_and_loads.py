"""Traces of others, shapes of load, designs, series over series, and what files name."""

from __future__ import annotations

import itertools
import os
import random
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from lab.experiments import file, traces
from lab.experiments.drivers.modes import run_of
from lab.experiments.load import rate, shape_of
from lab.experiments.measures import Measures
from lab.experiments.reference import PARTS, reference
from lab.experiments.schema import WrongFile
from lab.experiments.series import Series, Span, along
from lab.experiments.sweep import Result
from lab.reports.cautions import warnings
from lab.reports.statistics import late
from nodeagent.runtime.spread import spread

HEAD = {"apiVersion": file.VERSION, "kind": file.KIND, "metadata": {"name": "t"}, "cluster": {"nodes": [{"count": 2}]}}
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "c:1"}]}}


def loaded(folder: Path, **more: Any) -> dict[str, Any]:
    (folder / "e.yaml").write_text(yaml.safe_dump(HEAD | more))
    return file.load(folder / "e.yaml")


def test_the_reference_is_made_from_the_schema():
    path = Path(__file__).parents[3] / "docs/experiment-file.md"
    text = reference()
    assert path.read_text() == text, f"python -m lab.experiments.reference > {path}"
    assert "| `one-by-one` | true/false | `false` |" in text and "`lognormal(median, sigma)`" in text

    def parts(kind: type, found: set[type]) -> set[type]:
        """All parts that a part of the file may hold."""
        for one in typing.get_args(kind) or (kind,):
            if one is not kind:
                parts(one, found)
            elif isinstance(one, type) and issubclass(one, msgspec.Struct) and one not in found:
                found.add(one)
                for field in msgspec.structs.fields(one):
                    parts(field.type, found)
        return found

    assert parts(file.Experiment, set()) - {kind for _, kind in PARTS} == set()


def test_csv_traces(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("name,arrival,cpu,memory,gpu,duration,labels,acme.com/x\na,5s,500m,1Gi,0,60,app=w;t=1,3\nb,1,2,2Gi,1,,,\n")
    a, b = traces.pods(path, "csv")
    assert a == ("a", 5.0, 60.0, {"cpu": "500m", "memory": "1Gi", "acme.com/x": "3"}, {"app": "w", "t": "1"}, 0)
    assert b.requests == {"cpu": "2", "memory": "2Gi", "nvidia.com/gpu": "1"} and b.duration == 0
    tree = a.manifest()
    assert tree["metadata"]["annotations"] == {"hollow.navarch.dev/run": "60s"}
    assert tree["spec"]["containers"][0]["resources"]["limits"] == {"acme.com/x": "3"}
    path.write_text("name,cpu,memory,count\nn,4,8Gi,2\n")
    assert [n.name for n in traces.nodes(path, "csv")] == ["n-1", "n-2"]
    path.write_text("name,arrival\na,soon\n")
    with pytest.raises(ValueError, match=r"t\.csv: after row 0: 'soon' is no time"):
        traces.pods(path, "csv")
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="a row has no num_gpu, which the format openb needs"):
        traces.pods(path, "openb")


def test_google_traces(tmp_path: Path):
    path = tmp_path / "instance_events.json"
    request = '"resource_request": {"cpus": 0.25, "memory": 0.5}'
    path.write_text(
        '{"time": "2000000", "type": "SUBMIT", "collection_id": "7", "instance_index": "1", "priority": "200", %s}\n'
        '{"time": "3000000", "type": "SCHEDULE", "collection_id": "7", "instance_index": "1", %s}\n'
        '{"time": "9000000", "type": "FINISH", "collection_id": "7", "instance_index": "1", %s}\n' % ((request,) * 3)
    )
    (pod,) = traces.pods(path, "google2019")
    assert (pod.name, pod.arrival, pod.duration, pod.priority) == ("i-7-1", 2.0, 6.0, 200)
    assert pod.requests == {"cpu": "16000m", "memory": "131072Mi"}
    machines = tmp_path / "machine_events.csv"
    machines.write_text("time,machine_id,type,capacity.cpus,capacity.memory\n0,5,1,0.5,0.25\n9,5,2,,\n")
    assert traces.nodes(machines, "google2019") == [("m-5", "32000m", "65536Mi", {}, {})]


def test_arrivals():
    pods = [traces.TracePod(f"p{n}", 10.0 * n, 5.0, {"cpu": "1"}) for n in range(100)]
    own = random.Random
    window = traces.arrivals(pods, own(1), window=(100.0, 200.0), speed=10.0)
    assert [p.name for p in window] == [f"p{n}" for n in range(10, 20)] and window[1].arrival == 1.0
    assert window[0].duration == 0.5
    assert 5 < len(traces.arrivals(pods, own(1), sample=0.1)) < 20
    mixed = traces.arrivals(pods, own(1), shuffled=True)
    assert sorted(p.name for p in mixed) == sorted(p.name for p in pods)
    assert mixed != traces.arrivals(pods, own(2), shuffled=True)
    more = traces.arrivals(pods, own(1), demand={"cpu": 130.0})
    assert len(more) == 130 == len({p.name for p in more})
    assert len(traces.arrivals(pods, own(1), demand={"cpu": 40.0})) == 40


def test_a_trace_with_departures_in_both_modes(tmp_path: Path):
    """What ends makes room for what comes."""
    (tmp_path / "t.csv").write_text("arrival,cpu,duration\n" + "".join(f"{10 * n},3,15\n" for n in range(8)))
    nodes = [{"count": 2, "cpu": "4"}]
    work = [{"trace": {"file": "t.csv"}}]
    for mode in ("cycle", "simulated"):
        tree = loaded(tmp_path, cluster={"mode": mode, "nodes": nodes}, workload=work, **{"for": "20s"})
        recording = run_of(file.parse(tree), 1).recorder.recording()
        found = Measures(recording)
        assert found.never_bound() == 0 and found.bound() == 8
        assert max(found.requested("cpu").values) == 6
        assert found.arrived("cpu").values[-1] == 24


def test_shapes_of_load(tmp_path: Path):
    assert rate("120/min")[0] == 2.0
    step = rate("step(20/s, 60s, 100/s, 2m, 0/s)")
    assert [step.at(t) for t in (0, 59, 60, 119, 121)] == [20, 20, 100, 100, 0] and step.peak == 100
    ramp = rate("ramp(10/s, 100/s, 60s)")
    assert [ramp.at(t) for t in (0, 30, 90)] == [10, 55, 100]
    sine = rate("sine(50/s, 30/s, 40s)")
    assert [round(sine.at(t)) for t in (0, 10, 30)] == [50, 80, 20] and sine.peak == 80
    (tmp_path / "l.csv").write_text("time,rate\n5,10/s\n10,20/s\n")
    traced = rate(shape_of(tmp_path / "l.csv"))
    assert [traced.at(t) for t in (0, 5, 12)] == [0, 10, 20]
    for wrong in ("sine(1/s, 2/s, 1s)", "step(1/s, 2s)", "step(1/s, 9s, 2/s, 3s, 1/s)", "saw(1/s)", "0/s", "x"):
        with pytest.raises(ValueError):
            rate(wrong)
    load = {"service": "web", "rate": "trace(l.csv)"}
    assert loaded(tmp_path, workload=[{"load": load}])["workload"][0]["load"]["rate"] == "step(0, 5s, 10, 10s, 20)"


def test_times_from_a_file(tmp_path: Path):
    (tmp_path / "pulls.txt").write_text("1.5s\n2s 4s\n")
    tree = loaded(tmp_path, behaviour={"default": {"pull": "empirical(pulls.txt)"}})
    text = tree["behaviour"]["default"]["pull"]
    assert text == "choice(1.5s, 2s, 4s)" and spread(text).draw(random.Random(1)) in (1.5, 2.0, 4.0)  # type: ignore[union-attr]
    with pytest.raises(WrongFile, match=r"behaviour\.default\.pull: none\.txt"):
        loaded(tmp_path, behaviour={"default": {"pull": "empirical(none.txt)"}})


def test_charts_and_kustomizations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Through programs of their own, which are made up here."""
    for name in ("helm", "kustomize"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        script = f'[ -d "$3" ] || {{ echo no such chart >&2; exit 1; }}\necho "# {name} $*"; cat\n'
        program.write_text(f"#!/bin/sh\n{script}")
        program.chmod(0o755)
    (tmp_path / "chart").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    apply = {"helm": "chart", "name": "web", "values": {"replicas": 3}}
    text = loaded(tmp_path, workload=[{"apply": apply}])["workload"][0]["apply"]
    assert text.startswith(f"# helm template web {tmp_path}/chart --values -") and "replicas: 3" in text
    with pytest.raises(WrongFile, match=r"workload\[0\].apply: helm template: no such chart"):
        loaded(tmp_path, workload=[{"apply": {"helm": "none"}}])
    with pytest.raises(WrongFile, match=r"workload\[0\].apply.nam: there is no such field; did you mean 'name'"):
        loaded(tmp_path, workload=[{"apply": apply | {"nam": "x"}}])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WrongFile, match="there is no program 'helm' here"):
        loaded(tmp_path, workload=[{"apply": apply}])


def test_steps_wait_for_cel(tmp_path: Path):
    steps = [{"until": 'cel(pod/p, "object.status.phase == \'Running\'")', "within": "1m", "mark": "runs"}]
    tree = loaded(tmp_path, workload=[{"apply": POD}], steps=steps, measure={"runs": "runs - begin"})
    outcome = run_of(file.parse(tree), 1)
    assert outcome.timeouts == [] and outcome.recorder.recording().mark("runs")
    with pytest.raises(WrongFile, match=r"steps\[0\].until: .*undeclared reference to 'obj'"):
        file.parse(loaded(tmp_path, steps=[{"until": 'cel(pod/p, "obj.x == 1")'}]))


def test_designs_of_few_cells(tmp_path: Path):
    factors = {"a": [1, 2, 3], "b": ["x", "y", "z"], "c": [True, False]}
    cells = file.cells(loaded(tmp_path, factors=factors, design="pairs"))
    assert 9 <= len(cells) < 18
    for (one, ones), (two, twos) in itertools.combinations(factors.items(), 2):
        met = {(c.levels[one], c.levels[two]) for c in cells}
        assert met == {(str(x), str(y)) for x in ones for y in twos}  # type: ignore[attr-defined]
    (tmp_path / "points.csv").write_text("a,b,c\n1,x,True\n3,z,False\n")
    names = [c.name for c in file.cells(loaded(tmp_path, factors=factors, design="points.csv"))]
    assert names == ["a=1,b=x,c=True", "a=3,b=z,c=False"]


def test_one_series_along_another():
    x, y = Series([0, 1, 2, 3], [1.0, 1.2, 2.0, 4.0]), Series([0, 1, 3], [10.0, 20.0, 40.0])
    assert along(y, x, Span(0, 4)) == [(1.0, 15.0), (2.0, 20.0), (4.0, 40.0)]
    assert (100 * x / 2).values[0] == 50.0 and (1 - x).values == [0.0, 1 - 1.2, -1.0, -3.0] and (2 + x).at(0) == 3.0


def test_what_timed_out_is_at_least():
    tree = {"steps": [{"mark": "a"}, {"mark": "b"}, {"mark": "c"}], "measure": {"x": "b - a", "y": "a - begin", "z": "2 * x"}}
    result = Result({}, 1, {"x": 9.0, "y": 1.0, "z": 18.0}, "d", 9.0, ["steps[1]: not within 9s: never"])
    assert late(tree, [result]) == {("all runs", "x"), ("all runs", "z")}
    assert any("at least" in w and "steps[1]" in w for w in warnings([result]))
