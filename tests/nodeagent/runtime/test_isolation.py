"""What containers may do to their volumes, and what comes of it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from navarch.linux import syscalls
from nodeagent.config import Config
from nodeagent.linux import trees
from nodeagent.pods.fieldrefs import ConfigError
from nodeagent.runtime.oci import OciRuntime
from nodeagent.runtime.runtime import Mount
from nodeagent.volumes import manager
from nodeagent.volumes.subpaths import SubPaths
from tests.nodeagent.flipper import flipping
from tests.nodeagent.runtime import harness
from tests.nodeagent.runtime.kinds import OCI

pytestmark = pytest.mark.node


def test_sub_paths_are_mounted_by_their_descriptors(image_root: Path, tmp_path: Path) -> None:
    async def body(oci: OciRuntime) -> None:
        volume = tmp_path / "v"
        (volume / "x").mkdir(parents=True)
        (volume / "x/inside").write_text("content")
        (volume / "y").symlink_to("/")
        sandbox = await oci.run_sandbox(harness.sandbox_config())
        paths = SubPaths(Path("/run/navarch/subpaths/uid"))
        made = refused = 0
        with flipping(volume / "x", volume / "y"):
            while min(made, refused) < 5:
                try:
                    source = paths.bind("c", 0, volume, "x")
                except ConfigError:
                    refused += 1
                    continue
                script = "cat /s/inside; ls /s"
                _, text = await harness.result(
                    oci, sandbox, "sh", "-c", script, mounts=(Mount(str(source), "/s"),), name=f"c{made}"
                )
                assert text == "contentinside\n"
                paths.release("c")
                made += 1
        assert trees.mounts_below("/run/navarch/subpaths") == [] and not list(paths.place.iterdir())
        # A file; and what an earlier agent left is taken away, never what is behind it.
        for index, relative in enumerate(("x/inside", "x", "new")):
            with contextlib.suppress(ConfigError):
                paths.bind("c", index, volume, relative if (volume / "x").is_dir() else relative.replace("x", "y"))
        SubPaths(paths.place).tear_down()
        assert not paths.place.exists() and (volume / "new").is_dir()
        assert [p.read_text() for p in volume.glob("*/inside")] == ["content"]

    harness.run(OCI, image_root, tmp_path, body)


def test_what_is_mounted_in_a_volume_is_not_emptied(image_root: Path, tmp_path: Path) -> None:
    config = Config(node_name="n", root_dir=tmp_path / "root", run_dir=Path("/run/navarch"))
    volume = config.pods_dir / "uid/volumes/kubernetes.io~empty-dir/e"
    (volume / "deep/place with space").mkdir(parents=True)
    precious = tmp_path / "precious"
    (precious / "d").mkdir(parents=True)
    (precious / "f").write_text("p")
    for place in (volume / "deep/place with space", volume / "deep/place with space/d"):
        syscalls.mount(precious, place, None, syscalls.MS_BIND)
    with contextlib.suppress(OSError):
        trees.remove(volume)  # does not cross a mount on its own
    assert (precious / "f").read_text() == "p"
    manager.tear_down(config, "uid")
    assert (precious / "f").read_text() == "p" and (precious / "d").is_dir() and not volume.exists()
    assert os.listdir(config.pods_dir / "uid") == []
