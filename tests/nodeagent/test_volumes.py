"""Volume contents on disk: atomic updates, modes, sub-paths, host paths."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.api.types import core_v1
from nodeagent.pods.environment import Reference
from nodeagent.pods.fieldrefs import ConfigError
from nodeagent.volumes import atomic, local, payload
from nodeagent.volumes.payload import File
from tests.nodeagent.life import pod

NAMES = st.sampled_from(["a", "b", "dir/a", "dir/b", "dir/sub/c"])
FILES = st.dictionaries(NAMES, st.builds(File, st.binary(max_size=8), st.sampled_from([0o644, 0o400])))


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.glob("**/*"))
        if p.is_file() and not str(p.relative_to(folder)).startswith("..")
    } | {
        f"{top.name}/{p.relative_to(top)}": p.read_bytes()
        for top in sorted(folder.iterdir())
        if top.is_dir() and not top.name.startswith("..")
        for p in sorted(top.glob("**/*"))
        if p.is_file()
    }


@settings(max_examples=40, deadline=None)
@given(st.lists(FILES, min_size=1, max_size=4))
def test_atomic_writes(tmp_path_factory: pytest.TempPathFactory, versions: list[dict[str, File]]) -> None:
    """After every write exactly the files wanted are there, and one folder of data."""
    folder = tmp_path_factory.mktemp("v") / "volume"
    for i, files in enumerate(versions):
        atomic.write(folder, files, 1e9 + i)
        assert content(folder) == {name: file.data for name, file in files.items()}
        hidden = [n for n in os.listdir(folder) if n.startswith("..")]
        assert len(hidden) == 2 and os.readlink(folder / "..data") in hidden
        for name, file in files.items():
            assert (folder / name).stat().st_mode & 0o777 == file.mode
        assert not atomic.write(folder, files, 1e9 + i)  # the same again is no change


def test_payload() -> None:
    volume = msgspec.convert(
        {
            "name": "v",
            "projected": {
                "defaultMode": 0o440,
                "sources": [
                    {"configMap": {"name": "cm", "items": [{"key": "x", "path": "to/x", "mode": 0o600}]}},
                    {"secret": {"name": "gone", "optional": True}},
                    {"serviceAccountToken": {"path": "token", "audience": "vault"}},
                ],
            },
        },
        core_v1.Volume,
    )
    p = pod({"containers": [{"name": "a"}]})
    assert list(payload.references(volume)) == [Reference("ConfigMap", "cm"), Reference("Secret", "gone")]
    (wish,) = payload.wishes(volume)
    assert wish == ("vault", 3600)
    held = {Reference("ConfigMap", "cm"): core_v1.ConfigMap(data={"x": "1", "y": "2"})}
    files = payload.files(p, volume, payload.Sources(held, {wish: "t"}))
    assert files == {"to/x": File(b"1", 0o600), "token": File(b"t", 0o440)}
    missing = msgspec.convert({"name": "v", "configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}, core_v1.Volume)
    with pytest.raises(ConfigError, match="references non-existent configmap key: z"):
        payload.files(p, missing, payload.Sources(held))


def test_host_path(tmp_path: Path) -> None:
    made = local.host_path(core_v1.HostPathVolumeSource(path=str(tmp_path / "d"), type="DirectoryOrCreate"))
    assert made.is_dir()
    with pytest.raises(ConfigError, match="is not a file"):
        local.host_path(core_v1.HostPathVolumeSource(path=str(made), type="File"))
    with pytest.raises(ConfigError, match="is not a directory"):
        local.host_path(core_v1.HostPathVolumeSource(path=str(tmp_path / "no"), type="Directory"))


def test_empty_dir(tmp_path: Path) -> None:
    local.empty_dir(tmp_path / "e", core_v1.EmptyDirVolumeSource(), None)
    assert (tmp_path / "e").stat().st_mode & 0o777 == 0o777
    local.empty_dir(tmp_path / "g", core_v1.EmptyDirVolumeSource(), os.getgid())
    assert (tmp_path / "g").stat().st_mode & 0o7777 == 0o2777
