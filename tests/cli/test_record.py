"""``navarch record`` against a real server: what it writes, what it says, how it ends."""

from __future__ import annotations

import gzip
import signal
import subprocess
import sys
from pathlib import Path

from lab.experiments.recording import Recording
from tests.cli.conftest import ROOT, Navarch

SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}\n"


def test_record(navarch: Navarch, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SECRET)
    navarch.ok("apply", "-n", navarch.namespace, "-f", str(tmp_path / "s.yaml"))
    out = tmp_path / "day.jsonl.gz"
    ran = navarch("record", "--for", "1s", str(out), "--without", "leases,events")
    assert ran.code == 0 and f"{out}: " in ran.out and "resources in" in ran.out, ran
    recording = Recording.load(out)
    assert recording.header["source"].startswith("https://") and recording.mark("begin") is not None
    assert f"/registry/secrets/{navarch.namespace}/s" in {c.key for c in recording.changes}
    assert not list(recording.of("leases")) and list(recording.of("nodes"))
    assert b"hunter2" not in gzip.decompress(out.read_bytes())
    assert b"aHVudGVyMg==" not in gzip.decompress(out.read_bytes())
    assert [*tmp_path.glob(".*")] == []


def test_ctrl_c_keeps_what_was_recorded(kubeconfig: str, tmp_path: Path) -> None:
    out = tmp_path / "day.jsonl.gz"
    command = [sys.executable, "-m", "cli", "record", "--kubeconfig", kubeconfig, "--only", "nodes", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stderr is not None
    assert b"Ctrl-C ends it" in process.stderr.readline()
    partial = tmp_path / ".day.jsonl.gz.partial"
    while not partial.exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert Recording.load(out).end >= 0 and b"changes of" in said and not partial.exists()


def test_mistakes(navarch: Navarch, tmp_path: Path) -> None:
    ran = navarch("record", "--for", "never", str(tmp_path / "x"))
    assert ran.code == 1 and "--for never" in ran.err
    ran = navarch("record", "--for", "1s", "/nowhere/x")
    assert ran.code == 1 and "/nowhere/x: No such file or directory" in ran.err
