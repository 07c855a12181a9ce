"""Files that the lab's commands write: what cannot be written is one line and a code, and no traceback."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cli import outfiles
from cli.experimentwords import lacking
from cli.main import run
from lab.experiments.recording import Recorder

AWAY = {
    "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
}  # fmt: skip
"""A kubeconfig of a server that does not listen."""


def call(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        run([*words])
    return int(ended.value.code or 0), capfd.readouterr().err


def test_a_path_that_cannot_be_written_is_told_before_the_work(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    for out, said in ((tmp_path / "no" / "x", f"there is no folder {tmp_path / 'no'}"), (tmp_path, "Is a directory")):
        for code, words in (
            (2, ("replay", "day.jsonl.gz", "--out")), (2, ("rehearse", "drain", "n", "--report")), (1, ("record",)),
            (1, ("calibrate", "--from", "day.jsonl.gz")),
        ):  # fmt: skip
            assert call(capfd, *words, str(out)) == (code, f"error: {out}: {said}\n")


def test_a_recording_takes_the_place_of_no_pipe_or_device(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    os.mkfifo(pipe := tmp_path / "pipe")
    assert call(capfd, "record", str(pipe)) == (1, f"error: {pipe}: not a regular file\n") and pipe.is_fifo()


def test_a_full_disk_is_told(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        outfiles.write(Path("/dev/full"), "text", 3)
    assert ended.value.code == 3 and capfd.readouterr().err == "error: /dev/full: No space left on device\n"


def test_a_recording_that_is_not_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    none = str(tmp_path / "none.gz")
    assert call(capfd, "replay", none) == (2, f"error: {none}: No such file or directory\n")
    assert call(capfd, "calibrate", "--from", none, str(tmp_path / "x")) == (1, f"error: {none}: No such file or directory\n")
    assert call(capfd, "experiment", "compare", str(tmp_path), none)[0] == 2


def test_a_cluster_that_cannot_be_asked_is_another_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """1 would say that the change does not come to rest."""
    (tmp_path / "away").write_text(json.dumps(AWAY))
    for name in ("away", "none"):
        code, said = call(capfd, "rehearse", "--kubeconfig", str(tmp_path / name), "drain", "n")
        assert code == 2 and said and "Traceback" not in said, said


def test_record_leaves_an_earlier_recording_alone_when_it_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    out = tmp_path / "day.gz"
    out.write_bytes(b"earlier")
    (tmp_path / "away").write_text(json.dumps(AWAY))
    code, said = call(capfd, "record", "--kubeconfig", str(tmp_path / "away"), "--for", "1s", str(out))
    assert code == 1 and "Traceback" not in said and "Unable to connect" in said
    assert out.read_bytes() == b"earlier" and [p.name for p in tmp_path.glob(".*")] == []


def test_show_refuses_options_of_a_run_without_a_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    for option in ("--at", "--why", "--page"):
        code, said = call(capfd, "experiment", "show", str(tmp_path), option, "5s")
        assert code == 2 and f"error: {option} is of one run" in said
    code, said = call(capfd, "experiment", "show", str(tmp_path), "r", "--at", "5s", "--why", "p")
    assert code == 2 and "--at and --why: one of them at a time" in said


def test_a_recording_cut_short_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    recorder = Recorder({})
    recorder.mark(1.0, "x" * 1000)
    recorder.finish(2.0)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "r.jsonl.gz").write_bytes(recorder.content[:40])
    code, said = call(capfd, "experiment", "show", str(tmp_path), "r")
    assert code == 2 and said.startswith(f"error: {tmp_path / 'runs' / 'r.jsonl.gz'}: "), said


def test_an_extra_is_named_only_if_it_is_not_installed():
    assert lacking(ModuleNotFoundError("no", name="notinstalled.x")) == "notinstalled is missing; install navarch[lab]"
    said = lacking(ImportError("cannot import name 'gone' from 'lab.reports'", name="lab.reports"))
    assert "navarch[lab]" not in said and "cannot import name 'gone'" in said
    assert "navarch[lab]" not in lacking(ModuleNotFoundError("no lab.reports.none", name="lab.reports.none"))
