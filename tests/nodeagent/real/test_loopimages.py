"""Volumes that are files with a file system in them: as large as was asked for, and no larger."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from controllers.persistentvolume.localpath import make_image
from nodeagent.linux import trees
from nodeagent.pods.fieldrefs import ConfigError
from nodeagent.volumes import loopimages

pytestmark = pytest.mark.node
MEBI = 1 << 20


def test_a_volume_holds_its_size_and_grows(tmp_path: Path) -> None:
    image, target = str(tmp_path / "v.img"), tmp_path / "pods" / "v"
    make_image(image, 16 * MEBI)
    make_image(image, 1 * MEBI)  # once made, it stays
    assert not loopimages.mount(image, target, False) and not loopimages.mount(image, target, False)
    assert os.listdir(target) == [] and target.stat().st_mode & 0o777 == 0o777
    (target / "keep").write_text("precious")
    with pytest.raises(OSError) as failure, open(target / "big", "wb") as file:
        file.write(b"x" * 32 * MEBI)
    assert failure.value.errno == errno.ENOSPC
    other = tmp_path / "pods" / "w"  # another pod of the node: the same file system
    assert not loopimages.mount(image, other, True)
    assert (other / "keep").read_text() == "precious"
    with pytest.raises(OSError):
        trees.remove(tmp_path / "pods" / "v")  # what is mounted is no part of the tree
    assert (other / "keep").read_text() == "precious"
    trees.unmount_below(tmp_path / "pods")
    os.truncate(image, 64 * MEBI)
    assert loopimages.mount(image, target, True)
    assert sorted(os.listdir(target)) == ["big", "keep"] and (target / "keep").read_text() == "precious"
    (target / "big").write_bytes(b"x" * 32 * MEBI)
    trees.unmount_below(tmp_path / "pods")


def test_a_broken_image_is_refused_and_left_alone(tmp_path: Path) -> None:
    image = tmp_path / "v.img"
    image.write_bytes(b"x" * MEBI)
    with pytest.raises(ConfigError, match="e2fsck -p"):
        loopimages.mount(str(image), tmp_path / "v", False)
    assert image.read_bytes() == b"x" * MEBI
