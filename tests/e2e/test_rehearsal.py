"""Fidelity: what a rehearsal says of a rollout, a drain and the loss of a node is what then happens in the real lab."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.experiments.recording import Mark, Recording
from lab.twin.findings import CHANGE, REST, Findings, findings, rested
from lab.twin.snapshot import started
from navarch.world import RealWorld
from tests.e2e.conftest import REDIS
from tests.e2e.harness import ROOT, Lab, wait_for

NAME = "Deployment default/rehearsed"
# Ready two seconds after its start, gone at once when it is told to.
PROGRAM = 'trap "exit 0" TERM; sleep 2; touch /ready; while :; do sleep 0.1; done'
WORKLOAD = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: rehearsed}}
spec:
  replicas: 4
  selector: {{matchLabels: {{app: rehearsed}}}}
  template:
    metadata: {{labels: {{app: rehearsed}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: c
        image: {REDIS}
        imagePullPolicy: IfNotPresent
        command: [/bin/sh, -c, '{PROGRAM}']
        readinessProbe: {{exec: {{command: [/bin/test, -f, /ready]}}, periodSeconds: 1}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: rehearsed}}
spec: {{minAvailable: 3, selector: {{matchLabels: {{app: rehearsed}}}}}}
"""


def ready(lab: Lab) -> bool:
    status = lab.get("deployment", "rehearsed")["status"]
    return status.get("availableReplicas") == status.get("replicas") == status.get("updatedReplicas") == 4


def rehearse(lab: Lab, *words: str) -> list[dict[str, Any]]:
    """The findings of three seeds."""
    said = lab.run(sys.executable, "-m", "cli", "rehearse", *words, "--seeds", "3", "-o", "json", "--for", "5m").stdout
    answer = json.loads(said)
    assert [r["error"] for r in answer["runs"]] == [""] * 3
    return [r["findings"] for r in answer["runs"]]


def really(
    lab: Lab, out: Path, deed: Callable[[], object], over: Callable[[], object],
    drained: tuple[str, ...] = (), lost: tuple[str, ...] = (),
) -> Findings:  # fmt: skip
    """Does it, records it, and reads the recording as a rehearsal's is read."""
    command = [sys.executable, "-m", "cli", "record", "--without", "leases,events", str(out)]
    recorder = subprocess.Popen(command, cwd=ROOT, env=lab.environment, stderr=subprocess.PIPE)
    try:
        assert recorder.stderr is not None and b"recording" in recorder.stderr.readline()
        began = RealWorld().now()
        deed()
        wait_for(over, "it is done", 90)
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.communicate(timeout=30)
    recording = Recording.load(out)
    change = began - started(recording)
    recording.marks.append(Mark(change, CHANGE))
    rest = rested(recording, change, drained, lost)
    assert rest is not None
    recording.marks.append(Mark(rest, REST))
    return findings(recording, drained, lost)


def compare(what: str, twins: list[dict[str, Any]], real: Findings) -> None:
    lows = [t["workloads"][NAME]["fewest"] for t in twins]
    times = [t["seconds"] for t in twins]
    low = real.workloads[NAME].fewest
    told = f"{what}: fewest {lows} and {low}, seconds {times} and {real.seconds}"
    for kind, own in (("evicted", real.evicted), ("tainted", real.tainted)):
        told += f", {kind} {[sorted(t[kind].values()) for t in twins]} and {sorted(own.values())}"
    print(told)
    assert min(lows) <= low <= max(lows), told
    assert {len(t["evicted"]) for t in twins} == {len(real.evicted)}, told
    assert {len(t["tainted"]) for t in twins} == {len(real.tainted)}, told
    assert real.seconds is not None
    # The machine may be busy with other tests, and each program that starts then takes seconds.
    assert 0.5 * min(times) - 1 <= real.seconds <= 3 * max(times) + 10, told


def test_a_rehearsal_foretells_what_happens(lab: Lab, tmp_path: Path) -> None:
    lab.apply(WORKLOAD)
    wait_for(lambda: ready(lab), "the workload is ready")
    victim = ""
    try:
        twins = rehearse(lab, "rollout", "restart", "deploy/rehearsed")
        restart = ("rollout", "restart", "deployment/rehearsed")
        real = really(lab, tmp_path / "a", lambda: lab.kubectl(*restart), lambda: restarted(lab) and ready(lab))
        compare("rollout", twins, real)

        twins = rehearse(lab, "drain", "node-2")
        drain = ("drain", "node-2", "--ignore-daemonsets", "--delete-emptydir-data", "--force")
        real = really(lab, tmp_path / "b", lambda: lab.navarch(*drain), lambda: ready(lab), drained=("node-2",))
        compare("drain", twins, real)
        lab.kubectl("uncordon", "node-2")

        victim = next(p["spec"]["nodeName"] for p in lab.get("pods", "-l", "app=rehearsed")["items"])
        twins = rehearse(lab, "--lose", victim)
        real = really(
            lab, tmp_path / "c", lambda: lab.navarch("node", "stop", victim),
            lambda: noticed(lab, victim) and ready(lab), lost=(victim,),
        )  # fmt: skip
        compare("loss", twins, real)
    finally:
        if victim:  # the lab is shared
            lab.navarch("node", "start", victim)
        lab.kubectl("uncordon", "node-1", "node-2", "node-3", check=False)
        lab.kubectl("delete", "deployment,poddisruptionbudget", "rehearsed", "--wait=false")
    wait_for(lambda: all(is_ready(n) for n in lab.get("nodes")["items"]), "all nodes are back")


def restarted(lab: Lab) -> bool:
    template = lab.get("deployment", "rehearsed")["spec"]["template"]
    return "kubectl.kubernetes.io/restartedAt" in template["metadata"].get("annotations", {})


def is_ready(node: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])


def noticed(lab: Lab, node: str) -> bool:
    """The node is NotReady, and none of its pods of the workload are left to be replaced."""
    pods = lab.get("pods", "-l", "app=rehearsed")["items"]
    there = [p for p in pods if p["spec"].get("nodeName") == node and "deletionTimestamp" not in p["metadata"]]
    return not is_ready(lab.get("node", node)) and not there
