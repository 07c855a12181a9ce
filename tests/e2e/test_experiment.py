"""Experiments on real containers: one file runs simulated and really, with the same order of events and counts; faults by the
lab's own means; nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import Cluster
from lab.experiments.fidelity import compare, lines, read
from lab.experiments.schema import WrongFile
from tests.e2e.conftest import FRONTEND
from tests.e2e.harness import ROOT, Lab, traces, wait_for

pytestmark = pytest.mark.slow

WEB = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: web}}}}
  strategy: {{rollingUpdate: {{maxSurge: 1, maxUnavailable: 0}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - name: web
        image: {FRONTEND}:v1
        lifecycle: {{preStop: {{sleep: {{seconds: 1}}}}}}
        readinessProbe: {{periodSeconds: 1, httpGet: {{path: /version, port: 8080}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
"""
ROLLOUT = [
    {"until": "available(deployment/web)", "within": "60s", "on-timeout": "fail"},
    {"wait": "2s"},
    {"mark": "start", "do": {"set-image": {"deployment/web": f"{FRONTEND}:v2"}}},
    {"until": "rolled_out(deployment/web)", "within": "60s", "mark": "end", "on-timeout": "fail"},
]
RESTARTED = "cel(pod/{}, 'object.status.containerStatuses[0].restartCount == 1')"


def pod(name: str, node: str) -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "image": f"{FRONTEND}:v1"}], "nodeName": node}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def file(path: Path, *parts: list[dict[str, Any]], manifests: list[Any]) -> Path:
    tree = {
        "apiVersion": "lab.navarch.dev/v1", "kind": "Experiment", "metadata": {"name": path.stem},
        "cluster": {"nodes": [{"count": 2, "cpu": "1", "memory": "1Gi", "zones": 2, "resources": {"example.com/x": "2"}}]},
        "behaviour": {"default": {"pull": "0s", "start": "0.5s", "ready": "0.2s", "stop": "0s"}},
        "workload": [*({"apply": m} for m in manifests), {"load": {"service": "web", "rate": "20/s", "path": "/version"}}],
        "steps": [step for part in parts for step in part], "for": "6s",
        "measure": {
            "low": "min(ready(deployment/web), start..end)", "peak": "max(total(deployment/web), start..end)",
            "failed": "failed(\"web\", start..end)", "sent": "sent(\"web\")", "x": "last(allocatable(\"example.com/x\"))",
        },
        "expect": ["low == 3", "peak == 4", "sent > 20", "x == 4"],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(tree))
    return path


def run(lab: Lab, path: Path, mode: str, *words: str) -> Path:
    """The folder of results, of runs that ended as the file expects."""
    out = path.with_name(f"{path.stem}-{mode}")
    lab.navarch("experiment", "run", str(path), "--mode", mode, "--out", str(out), "--no-report", *words, timeout=170)
    return out


@pytest.fixture
def own(home: Path) -> Lab:
    """The home with the images, and no lab."""
    return Lab(home, "none")


def test_a_rolling_update_runs_really_as_it_is_simulated(own: Lab, tmp_path: Path) -> None:
    path = file(tmp_path / "rollout.yaml", ROLLOUT, manifests=[WEB])
    fidelity = compare(read(run(own, path, "simulated")), read(run(own, path, "real")))
    text = "\n".join(lines(fidelity))
    print(text)
    rows = {r.measure: r for r in fidelity.rows}
    assert {*rows["low"].real} == {*rows["low"].simulated} == {3}, text
    assert {*rows["peak"].real} == {*rows["peak"].simulated} == {4}, text
    (order,) = fidelity.orders
    assert order.same_counts, text
    assert order.agreement > 0.9, text
    assert min(rows["sent"].real) > 20, text
    assert "experiment-" not in own.navarch("labs")


def test_a_cluster_from_python_is_a_real_lab_and_has_its_faults(own: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVARCH_HOME", str(own.home))
    lab = Lab(own.home, f"experiment-{os.getpid()}")
    with Cluster([{"count": 2, "cpu": "1", "zones": 2}], mode="real") as cluster:
        index = lab.index
        cluster.apply([yaml.safe_load(WEB.partition("---")[0]), pod("alone", "node-1"), pod("beside", "node-2")])
        cluster.wait("available(deployment/web)", timeout=120)
        names = lab.run("kubectl", "--kubeconfig", str(cluster.kubeconfig), "get", "pods", "-o", "name").stdout.split()
        assert len(names) == len(cluster.state.pods()) == 5
        why = cluster.why(next(name for name in names if "/web" in name))
        assert why.node in ("node-1", "node-2") and "of 2 nodes could take it" in str(why)
        with pytest.raises(WrongFile, match=r"fault\.cut: is not possible in mode real"):
            cluster.fault(cut="scheduler")
        cluster.fault(kill="pod/alone")
        cluster.wait(RESTARTED.format("alone"))
        cluster.fault(crash="scheduler", for_="1s")
        cluster.fault(partition="node-1", for_="1s")
        cluster.run(2)
        cluster.scale("deployment/web", 4)
        cluster.wait("available(deployment/web)", timeout=120)
        cluster.fault(power_off="node-2", for_="1s")
        cluster.wait(RESTARTED.format("beside"), timeout=120)
    recording = cluster.recording()
    steps = [s.what.split()[0] for s in recording.steps]
    assert steps == ["kill", "crash", "partition", "scale", "power-off"]
    # Times of changes are whole microseconds, and one of them may be the end.
    assert recording.header["mode"] == "real" and recording.end == pytest.approx(cluster.now, abs=1e-6)
    assert not lab.directory.exists() and traces(lab, index) == []
    with pytest.raises(RuntimeError, match="the cluster has ended"):
        cluster.run(1)


def test_nothing_is_left_of_a_run_that_is_interrupted(own: Lab, tmp_path: Path) -> None:
    path = file(tmp_path / "endless.yaml", ROLLOUT, [{"wait": "10m"}], manifests=[WEB])
    words = [sys.executable, "-m", "cli", "experiment", "run", str(path), "--mode", "real", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(words, cwd=ROOT, env=own.environment, stderr=subprocess.PIPE)
    lab = Lab(own.home, f"experiment-{process.pid}")
    try:
        record = lab.directory / "lab.json"
        wait_for(lambda: record.exists() and json.loads(record.read_text())["nodes"], "the lab comes up", 60)
        index = lab.index
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert not lab.directory.exists()
    assert traces(lab, index) == []
