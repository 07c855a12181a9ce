"""Ansible's kubernetes.core collection: its modules in one playbook."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.clients.conftest import FOREVER, IMAGE, Kubectl, tool
from tests.clients.widgets import GROUP, Widgets
from tests.e2e.harness import wait_for


def test_playbook(kubectl: Kubectl, widgets: Widgets, tmp_path: Path) -> None:
    values = {"place": kubectl.namespace, "image": IMAGE, "group": GROUP, "script": FOREVER}
    environment = kubectl.lab.environment | {
        "K8S_AUTH_KUBECONFIG": kubectl.lab.environment["KUBECONFIG"],
        "ANSIBLE_COLLECTIONS_PATH": str(Path(tool("ansible_collections")).parent),
        "ANSIBLE_HOME": str(tmp_path / "ansible"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_GATHERING": "explicit",
        "LC_ALL": "C.UTF-8",
    }
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local"]
    command += ["-e", json.dumps(values), str(Path(__file__).with_name("playbook.yaml"))]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wait_for(lambda: not kubectl.get("pods")["items"], "the pods are gone")
    assert kubectl.get("widget", "w")["spec"] == {"size": 2}
    assert not json.loads(kubectl("get", "node", "node-3", "-o", "json"))["spec"].get("unschedulable")
