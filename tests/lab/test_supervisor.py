"""The supervisor's forks, without a lab around them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from lab.forking import Spec
from lab.paths import LabPaths
from lab.supervisor import Supervisor

WRITER = """
import os
import socket

def main(argv):
    ours, theirs = socket.socketpair()
    theirs.close()
    try:
        os.write(ours.fileno(), b"is anybody there?")
    except BrokenPipeError:
        return 3
    return 0
"""


def test_a_component_survives_a_client_that_hangs_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "writes_to_nobody.py").write_text(WRITER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path))
    paths = LabPaths("forks")
    paths.make()
    supervisor = Supervisor(paths)
    supervisor.do_start([asdict(Spec("writer", module="writes_to_nobody", log=str(tmp_path / "log")))])
    managed = supervisor.managed["writer"]
    assert managed.process is not None and managed.process.wait_gone(30)
    supervisor.forget(managed)
    assert managed.last_exit == "exit code 3", (tmp_path / "log").read_text()
