"""Mode hollow: the same file on the wall clock, with a real control plane; nothing is left of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.experiments.drivers.hand import Hand
from lab.experiments.drivers.modes import run_of
from lab.experiments.file import parse
from lab.experiments.measures import measure
from lab.paths import LabError, list_labs

pytestmark = pytest.mark.slow

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: "web:v1", readinessProbe: {periodSeconds: 1, tcpSocket: {port: 80}}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: alone}
spec: {containers: [{name: c, image: "web:v1"}]}
"""
RESTARTED = "cel(pod/alone, 'object.status.containerStatuses[0].restartCount == 1')"


def file(mode: str) -> dict[str, Any]:
    return {
        "apiVersion": "lab.navarch.dev/v1", "kind": "Experiment", "metadata": {"name": "hollow"},
        "cluster": {"mode": mode, "nodes": [{"count": 3, "zones": 3, "resources": {"example.com/x": "1"}}]},
        "behaviour": {"default": {"pull": "0s", "start": "0.2s", "ready": "0.2s", "stop": "0.1s"}},
        "workload": [{"apply": WEB}, {"load": {"service": "web", "rate": "20/s"}}],
        "steps": [
            {"until": "available(deployment/web)", "within": "60s", "on-timeout": "fail"},
            {"fault": {"crash": "scheduler", "for": "1s"}},
            {"mark": "start", "do": {"set-image": {"deployment/web": "web:v2"}}},
            {"until": "rolled_out(deployment/web)", "within": "60s", "mark": "end", "on-timeout": "fail"},
            {"fault": {"kill": "pod/alone"}},
            {"until": RESTARTED, "within": "30s", "mark": "killed"},
            {"fault": {"power-off": "node-of:deployment/web", "for": "1s"}, "wait": "1s", "mark": "lost"},
        ],
        "measure": {
            "low": "min(ready(deployment/web), start..end)", "sent": "sent(\"web\")", "ok": "ok(\"web\", start..end)",
            "nodes": "last(nodes_ready())", "v2": "last(running_image(deployment/web, \"web:v2\"))",
        },
    }  # fmt: skip


def test_the_file_of_a_simulation_runs_on_a_real_control_plane(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path))
    tree = file("hollow")
    outcome = run_of(parse(tree), 1)
    recording = outcome.recorder.recording()
    values = measure(recording, tree["measure"])
    assert outcome.timeouts == []
    assert recording.header["mode"] == "hollow"
    assert [m.name for m in recording.marks] == ["begin", "start", "end", "killed", "lost"]
    assert values["low"] == 3 and values["nodes"] == 3 and values["v2"] >= 2
    assert values["sent"] > 20 and values["ok"] > 0
    assert any(s.name == "machine" for s in recording.samples)
    assert list_labs() == []


ORPHAN = "experiment-99999999"  # no pid is as high


def test_a_lab_goes_with_its_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path))
    with Hand(ORPHAN) as hand:
        assert Path(hand.ask("up", nodes=[], settings={}, files={})["kubeconfig"]).is_file()
        with pytest.raises(LabError, match="no component 'nosuch'"):
            hand.ask("crash", component="nosuch")
        with pytest.raises(LabError, match="runs already"):
            hand.ask("start", component="scheduler")
        assert list_labs() == [ORPHAN]
        hand._process.kill()  # the worst that can happen to it
        with pytest.raises(LabError, match="navarch down --purge --lab experiment-"):
            hand.ask("inits")
    assert list_labs() == [ORPHAN]
    with Hand("other") as hand:  # the next one finds that nobody holds it
        with pytest.raises(LabError, match="there is no lab"):
            hand.ask("inits")
        assert list_labs() == []
