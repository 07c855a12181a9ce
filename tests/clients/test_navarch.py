"""The ``navarch`` verbs that need real containers, where kubectl does the same."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.clients.conftest import Kubectl
from tests.e2e.harness import wait_for


def test_cp(kubectl: Kubectl, tmp_path: Path) -> None:
    lab, n = kubectl.lab, ("-n", kubectl.namespace)
    kubectl.pod("web")
    data = os.urandom(300_000)
    folder = tmp_path / "folder" / "deep"
    folder.mkdir(parents=True)
    (folder / "data").write_bytes(data)
    (folder.parent / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (folder.parent / "run.sh").chmod(0o755)
    lab.navarch("cp", str(folder.parent), "web:/tmp", *n)
    assert kubectl("exec", "web", "--", "/tmp/folder/run.sh") == "ran\n"
    lab.navarch("cp", str(folder / "data"), f"{kubectl.namespace}/web:/tmp/other", "-c", "web")
    for program in ("navarch", "kubectl"):
        back = tmp_path / program
        words = ("cp", "web:/tmp/folder", str(back), *n)
        lab.navarch(*words) if program == "navarch" else lab.kubectl(*words)
        assert (back / "deep" / "data").read_bytes() == data
        assert program == "kubectl" or (back / "run.sh").stat().st_mode & 0o777 == 0o755  # kubectl drops the mode
    lab.navarch("cp", "web:/tmp/other", str(tmp_path / "single"), *n)
    assert (tmp_path / "single").read_bytes() == data
    words = (sys.executable, "-m", "cli", "cp", *n)
    assert lab.run(*words, "web:/none", str(tmp_path / "x"), check=False).returncode == 1
    nowhere = lab.run(*words, "/nowhere", "web:/tmp", check=False)
    assert (nowhere.returncode, nowhere.stderr) == (1, "error: /nowhere doesn't exist in local filesystem\n")


def test_top(kubectl: Kubectl) -> None:
    lab = kubectl.lab
    kubectl.pod("web")
    wait_for(lambda: kubectl.run("top", "pod", "web", check=False).returncode == 0, "metrics of the pod")

    def same() -> bool:
        words = ("pods", "-n", kubectl.namespace, "--containers", "--sum")
        before, ours, after = lab.kubectl("top", *words), lab.navarch("top", *words), lab.kubectl("top", *words)
        return before == ours == after

    wait_for(same, "navarch prints what kubectl prints")
    assert json.loads(lab.navarch("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"))["items"]
