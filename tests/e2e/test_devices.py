"""A device plugin beside a real node: the recipe of docs/devices.md, with real containers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import TextIO

import pytest

from tests.e2e.conftest import REDIS
from tests.e2e.harness import ROOT, Lab, wait_for

NODE = "node-1"


def pod(name: str, count: int) -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  nodeName: {NODE}
  containers:
  - name: a
    image: {REDIS}
    command: [sh, -c, "echo gpus $FAKE_GPUS; echo x > /dev/fake-gpu0 && echo wrote; exec sleep 3600"]
    resources: {{limits: {{example.com/gpu: {count}}}}}
"""


@pytest.fixture
def gpus(lab: Lab) -> Iterator[TextIO]:
    """Two fake GPUs on the node; the plugin's output, a line each time that it has registered."""
    command = [sys.executable, "examples/05_fake_gpus.py", "--node", str(lab.directory / "nodes" / NODE), "--count", "2"]
    environment = lab.environment | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as plugin:
        assert plugin.stdout is not None
        try:
            assert plugin.stdout.readline().startswith("registered")
            wait_for(lambda: allocatable(lab) == "2", "the node shows its GPUs", 20)
            yield plugin.stdout
        finally:
            lab.kubectl("delete", "pods", "first", "second", "--ignore-not-found")
            plugin.kill()


def allocatable(lab: Lab) -> str:
    return lab.get("node", NODE)["status"]["allocatable"].get("example.com/gpu", "")


def test_pods_get_fake_gpus(patient: Lab, lab: Lab, gpus: TextIO) -> None:
    lab.apply(pod("first", 2))
    lab.kubectl("wait", "--for=condition=Ready", "pod/first", "--timeout=30s")
    wait_for(lambda: "gpus 0,1\nwrote" in lab.kubectl("logs", "first"), "the container has written to its device", 10)
    lab.kill(f"agent/{NODE}")  # the ledger, the plugin and the pod outlive it
    assert gpus.readline().startswith("registered")  # with the new agent
    lab.apply(pod("second", 1))
    wait_for(lambda: lab.get("pod", "second")["status"].get("reason") == "UnexpectedAdmissionError", "it is refused", 20)
    assert "Requested: 1, Available: 0" in lab.get("pod", "second")["status"]["message"]
    assert lab.get("pod", "first")["status"]["containerStatuses"][0]["restartCount"] == 0
    lab.kubectl("delete", "pods", "first", "second")
    lab.apply(pod("first", 1))
    lab.kubectl("wait", "--for=condition=Ready", "pod/first", "--timeout=30s")
