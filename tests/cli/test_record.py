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
    assert ran.code == 1 and "/nowhere/x: there is no folder /nowhere" in ran.err


def test_replay_and_compare(navarch: Navarch, tmp_path: Path) -> None:
    day, again = tmp_path / "day.jsonl.gz", tmp_path / "again.jsonl.gz"
    navarch.ok("record", "--for", "1s", str(day), "--without", "leases,events")
    said = navarch.ok("replay", str(day), "--out", str(again), "--set", "controllers.node-monitor-grace-period=20s")
    assert "recorded" in said and "replayed" in said and "pods that arrived" in said and f"{again}: " in said
    assert list(Recording.load(again).of("nodes"))
    assert "fewest ready pods" in navarch.ok("experiment", "compare", str(day), str(again))
    for words, text in (
        (["--from", "9h"], "it cannot be replayed from 32400 s"),
        (["--set", "agent.x=1"], "agent.x: the twin's settings are controllers.*"),
        (["--plugin", "/nowhere.py:X"], "nowhere"),
    ):
        ran = navarch("replay", str(day), *words)
        assert ran.code == 2 and text in ran.err, ran


def test_calibrate(navarch: Navarch, tmp_path: Path) -> None:
    out = tmp_path / "times.json"
    said = navarch.ok("calibrate", "-n", navarch.namespace, "--image=web:v1", "--pods", "2", str(out))
    assert "start " in said and "of 2" in said and f"--calibration {out}" in said
    assert navarch.ok("get", "pods", "-n", navarch.namespace, "-o", "name") == ""
