"""A disk that is full: said in words, and taken down all the same. Who may read a lab's folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.common import reported
from lab.cluster import Cluster
from lab.paths import LabError, LabPaths, LabRecord, write_private
from lab.supervisor import Supervisor

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC


def navarch(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NAVARCH_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-m", "cli", *words], env=environment, capture_output=True, text=True, cwd=ROOT, timeout=120
    )


@pytest.mark.root
def test_a_lab_is_not_begun_where_there_is_no_room(small: Path) -> None:
    ran = navarch(small / "home", "up", "--nodes", "0")
    assert ran.returncode == 1 and "is on a disk that is full (" in ran.stderr and "Traceback" not in ran.stderr
    assert not list((small / "home/labs").iterdir()), "nothing stays"


@pytest.mark.root
def test_a_full_disk_is_told_and_the_lab_goes_and_frees(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVARCH_HOME", str(small / "home"))
    paths = LabPaths("default")
    monkeypatch.setattr("lab.paths.MIN_ROOM", 1)
    paths.make()
    LabRecord("default", 0, 6443, "sqlite").save(paths.config)
    (paths.root / "navarch.db").write_bytes(b"x" * 100_000)
    fill(small)
    ran = navarch(small / "home", "up", "-q")
    assert ran.returncode == 1 and "disk that is full" in ran.stderr and "Traceback" not in ran.stderr
    assert "full: 0 MiB are left" in navarch(small / "home", "status").stdout
    ran = navarch(small / "home", "down", "-q")
    assert (ran.returncode, ran.stderr) == (0, "")
    ran = navarch(small / "home", "down", "--purge", "-q")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert not paths.root.exists()
    (small / "again").write_bytes(b"x" * 90_000)


@pytest.mark.root
def test_a_supervisor_outlives_a_full_disk(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVARCH_HOME", str(small / "home"))
    monkeypatch.setattr("lab.paths.MIN_ROOM", 1)
    paths = LabPaths("default")
    paths.make()
    fill(small)
    supervisor = Supervisor(paths)
    supervisor.save()
    assert supervisor.do_list() == []


@pytest.mark.root
def test_what_could_not_be_written_leaves_the_old_text(small: Path) -> None:
    (small / "file").write_text("old")
    fill(small)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_private(small / "file", "new" * 10_000)
    assert caught.value.filename == str(small / "file")
    assert (small / "file").read_text() == "old"
    assert sorted(p.name for p in small.iterdir()) == ["file", "filler"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "x: No space left on device; make room"),
        (errno.EACCES, "x: Permission denied\n"),
        (errno.EROFS, "x: Read-only file system\n"),
    ],
)
def test_what_the_system_refuses_is_one_line(number: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), reported():
        raise OSError(number, os.strerror(number), "x")
    err = capsys.readouterr().err
    assert text in err and err.count("\n") == 1


def test_only_the_owner_may_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path / "deep/home"))
    paths = LabPaths("default")
    paths.make()
    made = [tmp_path / "deep", tmp_path / "deep/home", paths.root.parent, paths.root, paths.pki, paths.images]
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700}


def test_a_home_that_others_use_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "labs").mkdir(mode=0o755)
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path))
    LabPaths("default").make()
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "labs").stat().st_mode & 0o777 == 0o700


def test_a_lab_that_is_not_there_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path / "home"))
    assert Cluster("nolab").down() is False
    assert Cluster("nolab").down(purge=True) is False
    with pytest.raises(LabError, match="there is no lab"):
        Cluster("nolab").stop_node("node-1")
    with pytest.raises(LabError):
        Cluster("nolab").partition_node("node-1")
    assert not (tmp_path / "home").exists()
