"""Every experiment of deploy/experiments runs on virtual time, repeats in another process, and what it expects comes true; with
that switched off of which it is about, it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.experiments import file, sweep

FILES = sorted((Path(__file__).parents[3] / "deploy/experiments").glob("*.yaml"))
Runs = Callable[[Path], Path]

WITHOUT: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    # What is written instead (of the file as JSON), and the cells that are enough to see it.
    "anti-affinity-against-spread": ({'"maxSkew": 1': '"maxSkew": 20'}, {"rule": "spread-by-zone"}),
    "autoscaling-on-a-step": ({"maxReplicas: 12": "maxReplicas: 2"}, {"target": "40"}),
    "bad-image": ({"progressDeadlineSeconds: ${deadline}": "progressDeadlineSeconds: 60"}, {"deadline": "30"}),
    "blue-green": ({'{"selector": {"app": "green"}}': '{"selector": {"app": "blue"}}'}, {"way": "blue-green"}),
    "budget-against-drain": ({"minAvailable: ${budget.least}": "minAvailable: 0"}, {"budget": "most"}),
    "canary-by-hand": ({r'serves-after: \"3600\"': r'serves-after: \"0\"'}, {"way": "canary"}),
    "five-schedulers-on-one-trace": ({"type: MostAllocated": "type: LeastAllocated"}, {}),
    "node-autoscaler-on-a-step": ({'"max": 8': '"max": 1'}, {"spare": "none", "boot": "20s"}),
    "preemption-storm": ({"preemptionPolicy: ${policy}": "preemptionPolicy: Never"}, {"policy": "PreemptLowerPriority"}),
    "readiness-that-lies": ({'"ready": "0s", "serves": 8': '"ready": "0s", "serves": 0'}, {"probe": "lying"}),
    "rollout-while-a-node-dies": ({'{"power-off": "busiest-node"}': "{}"}, {"death": "power"}),
    "spread-against-binpack": ({"SwarmBinpack": "SwarmSpread", '"15m"': '"5m"', '"30m"': '"15m"'}, {}),
    "statefulset-with-a-broken-pod": (
        {"podManagementPolicy: ${management}": "podManagementPolicy: Parallel"}, {"management": "OrderedReady"}
    ),
    "surge-against-unavailability": (
        {"maxUnavailable: ${strategy.unavailable}": "maxUnavailable: 3"}, {"strategy": "surge"}
    ),
    "thundering-herd": ({"replicas: ${herd}": "replicas: 40"}, {}),
}  # fmt: skip

REPEATED = {  # a rolling update under load, preemption, decisions alone
    "surge-against-unavailability": {"strategy": "both"},
    "preemption-storm": {"policy": "PreemptLowerPriority"},
    "five-schedulers-on-one-trace": {"scheduler": "balanced"},
}
ELSEWHERE = """
import json, sys
from pathlib import Path
from lab.experiments import file, sweep
for path, only in json.loads(sys.argv[1]).items():
    sweep.sweep(file.load(Path(path)), Path(sys.argv[2]) / Path(path).stem, seeds=(1,), only=only)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Gives a folder in which all cells of a file have run with one seed; the same folder for the same file."""
    folders: dict[Path, Path] = {}

    def of(path: Path) -> Path:
        if path not in folders:
            folders[path] = tmp_path_factory.mktemp(path.stem)
            sweep.sweep(file.load(path), folders[path], seeds=(1,))
        return folders[path]

    return of


def test_every_experiment_has_a_section_in_the_gallery():
    page = (FILES[0].parents[2] / "docs/gallery.md").read_text()
    assert len(FILES) >= 14
    assert [p.name for p in FILES if f"deploy/experiments/{p.name}" not in page] == []
    assert [p.stem for p in FILES if f"images/gallery/{p.stem}.png" not in page] == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_expectations(path: Path, runs: Runs):
    listed = sweep.results(runs(path))
    assert [r.error for r in listed if r.error] == []
    judged = sweep.verdicts(file.load(path), listed)
    assert judged and [v for v in judged if not v.good] == []
    assert [r.timeouts for r in listed if r.timeouts] == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_without_what_it_is_about_an_expectation_fails(path: Path, tmp_path: Path):
    instead, only = WITHOUT[path.stem]
    text = json.dumps(file.load(path))
    for old, new in instead.items():
        assert old in text
        text = text.replace(old, new)
    tree: dict[str, Any] = json.loads(text)
    if "SwarmSpread" in instead.values():
        del tree["factors"]["policy"]["default"]  # two cells part, or they do not
    listed = sweep.sweep(tree, tmp_path, seeds=(1,), only=only)
    assert [r.error for r in listed if r.error] == []
    assert any(v.good is False for v in sweep.verdicts(tree, listed))


def test_another_process_gives_the_same_recordings(runs: Runs, tmp_path: Path):
    """One cell alone, with names hashed in another way; here it was one of all cells."""
    asked = {str(p): REPEATED[p.stem] for p in FILES if p.stem in REPEATED}
    command = [sys.executable, "-c", ELSEWHERE, json.dumps(asked), str(tmp_path)]
    done = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": "77"}, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    found = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.glob("*/runs/*.jsonl.gz")}
    assert len(found) == len(REPEATED)
    for name, content in found.items():
        here = next(path for path in FILES if path.stem == name.parts[0])
        assert (runs(here) / Path(*name.parts[1:])).read_bytes() == content, name
