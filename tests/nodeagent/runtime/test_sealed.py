"""crun from sealed memory, and what is done without starting it: no containers here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nodeagent.runtime.conmon import Crun
from nodeagent.runtime.sealed import SealedProgram


def code(path: str) -> int:
    return subprocess.run([path, "/no-such-file"], check=False, capture_output=True).returncode


def installed(place: Path, source: str) -> Path:
    """A copy of a program, put in place as a package manager does it."""
    place.parent.mkdir(exist_ok=True)
    shutil.copy(shutil.which(source) or source, place.with_suffix(".new"))
    os.replace(place.with_suffix(".new"), place)
    return place


def test_a_program_runs_from_memory_that_nobody_can_write_to(tmp_path: Path) -> None:
    program = SealedProgram(str(installed(tmp_path / "sbin" / "tool", "ls")), tmp_path / "bin")
    path = program.path()
    assert path == str(tmp_path / "bin" / "tool") and "memfd:tool" in os.readlink(os.readlink(path)) and code(path) == 2
    with open(path, "r+b", buffering=0) as file, pytest.raises(PermissionError):
        file.write(b"#!")
    assert program.path() == path
    program.close()
    assert not os.path.exists(path)


def test_a_program_that_is_installed_anew_is_copied_anew(tmp_path: Path) -> None:
    place = installed(tmp_path / "sbin" / "tool", "ls")
    program = SealedProgram(str(place), tmp_path / "bin")
    assert code(program.path()) == 2
    installed(place, "true")
    assert code(program.path()) == 0
    place.unlink()
    with pytest.raises(FileNotFoundError, match="not installed"):
        program.path()


def test_a_program_that_does_not_run_from_memory_runs_as_it_is(tmp_path: Path) -> None:
    place = tmp_path / "tool"
    place.write_text('#!/bin/sh\ncase "$0" in */sbin/*) exit 0;; esac\nexit 3\n')
    place.chmod(0o755)
    place = installed(tmp_path / "sbin" / "tool", str(place))
    assert SealedProgram(str(place), tmp_path / "bin").path() == str(place)


def test_a_container_is_started_without_a_process(tmp_path: Path) -> None:
    tool = tmp_path / "crun"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n')
    tool.chmod(0o755)
    crun = Crun(tmp_path / "state", tmp_path / "bin", str(tool))
    waiting = tmp_path / "state" / "one" / "exec.fifo"
    waiting.parent.mkdir(parents=True)
    os.mkfifo(waiting)
    reader = os.open(waiting, os.O_RDONLY | os.O_NONBLOCK)
    crun.start("one")
    assert os.read(reader, 10) == b"\0" and not waiting.exists() and not (tmp_path / "said").exists()
    os.close(reader)
    os.mkfifo(waiting)  # nobody waits there: crun says why
    crun.start("one")
    crun.start("two")
    said = (tmp_path / "said").read_text().splitlines()
    assert [line.split()[-2:] for line in said if "--version" not in line] == [["start", "one"], ["start", "two"]]


def test_what_is_dead_is_removed_without_a_process(tmp_path: Path) -> None:
    crun = Crun(tmp_path / "state", tmp_path / "bin", "no-such-program")
    (tmp_path / "state" / "one").mkdir(parents=True)
    crun.delete("one", dead=True)
    assert not (tmp_path / "state" / "one").exists()
    crun.delete("one")
