"""Paths below a volume: none leads out of it, whatever containers do to the volume meanwhile."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from navarch.linux import syscalls
from nodeagent.linux import trees
from nodeagent.pods.fieldrefs import ConfigError
from nodeagent.volumes import atomic, persistent, subpaths
from nodeagent.volumes.payload import File
from tests.nodeagent.flipper import flipping


def opened(volume: Path, relative: str) -> str:
    fd = subpaths.open_below(volume, relative)
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    made = tmp_path / "v"
    (made / "real").mkdir(parents=True)
    (made / "file").write_text("f")
    (tmp_path / "outside").mkdir()
    return made


def test_what_is_there_and_what_is_made(volume: Path) -> None:
    volume.chmod(0o777)
    assert opened(volume, "a/b/c") == str(volume / "a/b/c")
    assert all(stat.S_IMODE((volume / p).stat().st_mode) == 0o777 for p in ("a", "a/b", "a/b/c"))
    assert opened(volume, "file") == str(volume / "file")
    assert opened(volume, "./a//b/") == str(volume / "a/b") and opened(volume, "") == str(volume)
    (volume / "link").symlink_to("real")
    (volume / "a/up").symlink_to("../real")
    assert opened(volume, "link") == str(volume / "real") == opened(volume, "a/up")
    assert opened(volume, "link/new") == str(volume / "real/new")


LINKS: dict[str, Callable[[Path], str]] = {
    "to the root": lambda v: "/",
    "absolute": lambda v: str(v.parent / "outside"),
    "absolute, and back into the volume": lambda v: str(v / "real"),
    "up": lambda v: "../outside",
    "to itself": lambda v: "evil",
    "to nothing": lambda v: "nothing",
    "by way of proc": lambda v: "/proc/self/root",
}


@pytest.mark.parametrize("aim", LINKS.values(), ids=list(LINKS))
@pytest.mark.parametrize("path", ["evil", "evil/etc", "evil/new/deep"])
def test_links_that_lead_out_are_refused(volume: Path, aim: Callable[[Path], str], path: str) -> None:
    (volume / "evil").symlink_to(aim(volume))
    with pytest.raises(ConfigError, match="subPath"):
        opened(volume, path)
    assert list((volume.parent / "outside").iterdir()) == []


@pytest.mark.parametrize("path", ["../x", "/etc", "real/../../x", "..", "file/x"])
def test_paths_that_lead_out_are_refused(volume: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="subPath"):
        opened(volume, path)


@pytest.mark.parametrize("relative", ["x", "x/inside", "x/new"])
def test_a_folder_that_is_swapped_for_a_link_meanwhile(volume: Path, relative: str) -> None:
    outside = volume.parent / "outside"
    (outside / "inside").mkdir()
    (volume / "x/inside").mkdir(parents=True)
    (volume / "y").symlink_to(outside)
    inside = {(volume / "x").stat().st_ino, (volume / "x/inside").stat().st_ino}
    escapes = answers = refusals = 0
    with flipping(volume / "x", volume / "y"):
        while min(escapes, answers, refusals) < 20:
            with contextlib.suppress(OSError):  # what one meets who looks twice
                escapes += os.stat(volume / "x").st_ino == outside.stat().st_ino
            try:
                fd = subpaths.open_below(volume, relative)
            except ConfigError:
                refusals += 1
                continue
            answers += 1
            where = os.readlink(f"/proc/self/fd/{fd}")
            assert os.fstat(fd).st_ino in inside or where.startswith(f"{volume}/"), where
            os.close(fd)
            if relative == "x/new":
                with contextlib.suppress(OSError):
                    os.rmdir(where)
    assert [p.name for p in outside.iterdir()] == ["inside"]


def test_files_of_a_volume_never_lead_out(tmp_path: Path) -> None:
    folder, outside = tmp_path / "v", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("p")
    for bad in ("../x", "/x", "a/../../x", "..data", "..x/y", "", "."):
        with pytest.raises(ConfigError, match="invalid path"):
            atomic.write(folder, {bad: File(b"", 0o644)}, 1.0)
    files = {"a//b/./c": File(b"1", 0o640), "d": File(b"2", 0o600)}
    assert atomic.write(folder, files, 1.0) and (folder / "a/b/c").read_bytes() == b"1"
    assert not atomic.write(folder, files, 2.0)
    # A container with CAP_SYS_ADMIN makes the mount writable for itself, and puts links where we shall write and remove.
    (folder / "..data").unlink()
    (folder / "..data").symlink_to(outside)
    (folder / "d").unlink()
    (folder / "d").symlink_to(outside / "precious")
    (folder / "..data_tmp").symlink_to(outside / "precious")
    (folder / "zz").symlink_to(outside)
    assert atomic.write(folder, files, 3.0)
    assert (outside / "precious").read_text() == "p" and sorted(os.listdir(folder))[-2:] == ["a", "d"]
    assert (folder / "d").read_bytes() == b"2"
    current = folder / os.readlink(folder / "..data")
    (current / "d").unlink()
    (current / "d").symlink_to(outside / "precious")
    assert atomic.write(folder, files, 4.0) and (folder / "d").read_bytes() == b"2"
    assert (outside / "precious").read_text() == "p"


def test_trees_are_removed_whatever_is_in_them(tmp_path: Path) -> None:
    top, outside = tmp_path / "pod/tree", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("p")
    top.mkdir(parents=True)
    (top / "link").symlink_to(outside)
    os.mkfifo(top / "fifo")
    (top / "locked").mkdir()
    (top / "locked/f").write_text("x")
    (top / "locked").chmod(0)
    fd = os.open(top, os.O_RDONLY)
    for _ in range(5000):  # deeper than Python recurses, and than there are descriptors; its path is longer than allowed
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    trees.remove(top)
    assert list((tmp_path / "pod").iterdir()) == [] and (outside / "precious").exists()
    trees.remove(top)
    trees.remove(tmp_path / "never/was")
    link = tmp_path / "l"
    link.symlink_to(outside)
    trees.remove(link)
    assert not link.is_symlink() and (outside / "precious").exists()
    for name in ("", ".", "..", "a/b"):
        with pytest.raises(ValueError, match="not the name"):
            trees.remove_at(0, name)


def test_only_plain_files_are_opened_where_others_may_write(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("f")
    (tmp_path / "l").symlink_to("d")
    (tmp_path / "d/l").symlink_to("f")
    os.close(syscalls.open_plain(tmp_path, "d/f"))
    for path in ("l/f", "d/l", "../x", "d/../d/f/../../.."):
        with pytest.raises(OSError, match="openat2"):
            syscalls.open_plain(tmp_path, path)
    assert syscalls.path_in_root(tmp_path, "/l/l") == tmp_path / "d/f"
    (tmp_path / "abs").symlink_to("/d/f")
    assert syscalls.path_in_root(tmp_path, "abs") == tmp_path / "d/f"
    with pytest.raises(FileNotFoundError):
        syscalls.path_in_root(tmp_path, "/etc/passwd")


def test_a_volume_is_given_to_a_group_however_deep_it_is_and_no_link_is_followed(tmp_path: Path) -> None:
    """A pod that nested 3,000 folders in a claim kept every other pod from starting on it."""
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    volume.mkdir(mode=0o755)
    outside.mkdir(mode=0o700)
    (volume / "link").symlink_to(outside)
    deepest = os.open(volume, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", 0o755, dir_fd=deepest)
        below = os.open("d", os.O_RDONLY, dir_fd=deepest)
        os.close(deepest)
        deepest = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=deepest))
    descriptors = len(os.listdir("/proc/self/fd"))
    persistent.give_to_group(str(volume), os.getgid(), None)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert stat.S_IMODE(os.fstat(deepest).st_mode) == 0o2775
    assert stat.S_IMODE(os.stat("file", dir_fd=deepest).st_mode) == 0o660
    assert stat.S_IMODE(outside.stat().st_mode) == 0o700
    os.close(deepest)
    trees.remove(volume)
