"""The openb experiment on a made-up trace of its shape: policies, modes that agree, the published table, the report."""

from __future__ import annotations

import copy
import csv
import inspect
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.experiments import file, sweep
from lab.experiments.drivers.modes import run_of
from lab.experiments.expect import published
from lab.experiments.recording import Recording
from lab.reports import report
from scheduler.framework.profiles import load_plugin

SOURCE = Path(__file__).parents[3] / "deploy/experiments/openb"
POLICIES = ("Random", "DotProd", "GpuClustering", "GpuPacking", "BestFit", "FGD")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment's folder with a made-up trace, whether somebody has put the real one into ours or not."""
    folder = tmp_path_factory.mktemp("openb")
    for path in [*SOURCE.glob("*.py"), *SOURCE.glob("*.yaml"), SOURCE / "published.csv"]:
        shutil.copy(path, folder)
    subprocess.run([sys.executable, folder / "made_up.py"], check=True)
    return folder


@pytest.fixture(scope="module")
def tree(place: Path) -> dict[str, Any]:
    return file.load(place / "openb.yaml")


def test_all_policies_and_their_report(tree: dict[str, Any], tmp_path: Path):
    listed = sweep.sweep(tree, tmp_path, seeds=(1, 2))
    assert [r.error for r in listed if r.error] == []
    assert len({r.digest for r in listed}) == 12
    mean = {p: sum(r.measures["at_110"] for r in listed if r.levels["policy"] == p) for p in POLICIES}
    assert min(mean["FGD"], mean["BestFit"]) > mean["Random"]
    (less,) = [v for v in sweep.verdicts(tree, listed) if "BestFit is less than Random" in v.text]
    assert less.good
    assert all(0 < y <= x + 1.5 for r in listed for x, y in r.curves["allocation"] if x > 3)
    page = report.write(tmp_path, images=True).read_text()
    assert "Beside others" in page and "http://" not in page.replace("http://www.w3.org", "").replace("https://", "http://")
    assert (tmp_path / "plots/allocation.png").read_bytes()[:4] == b"\x89PNG"
    rows = list(csv.DictReader((tmp_path / "plots/fragmentation.csv").open()))
    assert {r["cell"] for r in rows} == set(POLICIES) and float(rows[0]["least"]) <= float(rows[0]["mean"])
    assert r"\begin{tabular}" in (tmp_path / "table.tex").read_text()


def test_policies_are_short(place: Path):
    for policy in POLICIES:
        assert len(inspect.getsource(load_plugin(f"{place}/policies.py:{policy}")).splitlines()) <= 60


def placements(recording: Recording) -> dict[str, str]:
    out: dict[str, str] = {}
    for change in recording.of("pods"):
        if change.object["spec"].get("nodeName") or change.object["metadata"]["name"] not in out:
            out[change.object["metadata"]["name"]] = change.object["spec"].get("nodeName", "")
    return out


@pytest.mark.parametrize("policy", ["FGD", "GpuClustering", "Random"])
def test_the_cycle_alone_and_the_whole_system_agree_pod_by_pod(tree: dict[str, Any], place: Path, policy: str):
    one = copy.deepcopy(tree)
    one["workload"][0]["trace"]["demand"] = {"openb/gpu-milli": "110%"}
    one["cluster"]["scheduler"] = {"plugins": [f"{place}/policies.py:{policy}"], "tie-break": "name"}
    del one["factors"], one["reference"], one["expect"]
    found = []
    for mode in ("cycle", "simulated"):
        one["cluster"]["mode"] = mode
        found.append(run_of(file.parse(one), 3).recorder.recording())
    alone, whole = map(placements, found)
    assert alone == whole and len(set(alone.values())) > 20 and "" in alone.values()
    gauges = [[s.values for s in r.samples if s.name == "gauges"] for r in found]
    assert gauges[0] == gauges[1] and len(gauges[0]) == len(alone)


def test_the_published_table_is_whole(place: Path):
    reference = file.parse(file.cells(file.load(place / "openb.yaml"))[0].tree).reference
    rows = published(reference, ["policy"])
    assert len(rows) == 42 and {r.levels["policy"] for r in rows} == set(POLICIES)
