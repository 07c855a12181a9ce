"""navarch image: load, save, push, pull, rm and prune as a user types them, with a registry and without."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from lab import images
from lab.paths import LabError
from nodeagent.images import archive
from nodeagent.images.store import ImageStore, Record
from tests.nodeagent.images.busybox import busybox_image
from tests.nodeagent.images.realregistry import Faults, docker_registry, front

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    """The store of a home of the test's own, with busybox in it."""
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    own = images.store()
    busybox_image(own, "localhost/bb:1")
    return own


def navarch(*words: str, **options: object) -> str:
    done = subprocess.run([sys.executable, "-m", "cli", "image", *words], capture_output=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr.decode()
    return str(done.stdout.decode())


def layer_of(store: ImageStore, record: Record) -> list[str]:
    return sorted(path.name for path in store.layer(record.layers[0]).iterdir())


def test_archives(store: ImageStore, tmp_path: Path) -> None:
    [before] = store.records()
    saved = tmp_path / "bb.tar"
    navarch("save", "localhost/bb:1", "-o", str(saved))
    piped = subprocess.check_output([sys.executable, "-m", "cli", "image", "save", before.id])
    with tarfile.open(fileobj=io.BytesIO(piped)) as archived:
        assert "manifest.json" in archived.getnames()
    navarch("rm", "localhost/bb:1")
    assert store.records() == [] and navarch("list", "-o", "name").strip() == ""
    assert navarch("load", str(saved)) == "loaded localhost/bb:1\n"
    navarch("rm", before.id)
    with saved.open("rb") as stdin:
        assert navarch("load", "-", "-t", "other", stdin=stdin) == "loaded docker.io/library/other:latest\n"
    [again] = store.records()
    assert again.layers == before.layers and "bin" in layer_of(store, again) and not again.pulled
    with pytest.raises(LabError, match='there is no image "nothing"; see: navarch image list'):
        images.save(["nothing"], io.BytesIO())
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(LabError, match="standard input"):
        images.load_anything("-", [], io.BytesIO(b"junk"))


def test_an_archive_into_a_pipe(store: ImageStore, tmp_path: Path) -> None:
    """A file would take the place of the pipe, or of /dev/stdout."""
    os.mkfifo(pipe := tmp_path / "pipe")
    with (copy := tmp_path / "copy").open("wb") as out:
        reader = subprocess.Popen(["timeout", "60", "cat", pipe], stdout=out)
    navarch("save", "localhost/bb:1", "-o", str(pipe))
    assert reader.wait() == 0
    with tarfile.open(copy) as archived:
        assert "manifest.json" in archived.getnames() and pipe.is_fifo()


def test_an_archive_of_the_old_docker(store: ImageStore, tmp_path: Path) -> None:
    """docker save before 25: layers in folders, one that came before as a symlink."""
    [record] = store.records()
    layer = store.blob(json.loads(store.blob(record.manifest).read_bytes())["layers"][0]["digest"]).read_bytes()
    config = {"rootfs": {"type": "layers", "diff_ids": [record.layers[0]] * 2}}
    manifest = [{"Config": "c.json", "RepoTags": ["old:1", "old:2"], "Layers": ["a/layer.tar", "b/layer.tar"]}]
    path = tmp_path / "old.tar"
    with tarfile.open(path, "w") as out:
        for name, data in (("c.json", json.dumps(config)), ("manifest.json", json.dumps(manifest)), ("a/layer.tar", layer)):
            content = data.encode() if isinstance(data, str) else data
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("b/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../a/layer.tar"
        out.addfile(link)
    [old] = images.load(path, [])
    assert old.layers == record.layers * 2
    assert store.names()[old.id] == ["docker.io/library/old:1", "docker.io/library/old:2"]


def test_an_image_of_docker_or_podman(store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "saved.tar", "wb") as file:
        archive.save(store, ["localhost/bb:1"], file)
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    if not any((Path(folder) / "docker").exists() for folder in ("/usr/bin", "/bin")):
        with pytest.raises(LabError, match=r"web:v1 is no file.*neither docker nor podman is installed.*navarch image pull"):
            images.load_anything("web:v1", [], io.BytesIO())
    (programs / "docker").write_text("#!/bin/sh\necho 'No such image: web:v1' >&2\nexit 1\n")
    (programs / "podman").write_text(f'#!/bin/sh\n[ "$1 $2" = "save web:v1" ] && exec cat {tmp_path}/saved.tar\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    [record] = images.load_anything("web:v1", ["web:v1"], io.BytesIO())
    assert store.find("web:v1") == record
    (programs / "podman").unlink()
    with pytest.raises(LabError, match="docker: No such image: web:v1"):
        images.load_anything("web:v1", [], io.BytesIO())
    assert list((store.root / "tmp").iterdir()) == []


def test_there_and_back(store: ImageStore, tmp_path: Path) -> None:
    faults = Faults("user", "hunter2")
    with docker_registry(tmp_path / "registry") as registry, front(registry, faults) as address:
        with pytest.raises(LabError, match=r"failed to push image .*incorrect username or password \(401\)"):
            images.push("localhost/bb:1", f"{address}/team/bb:1", "default", lambda progress: None)
        with pytest.raises(LabError, match=r"names no registry; .*: navarch image push localhost/bb:1 localhost:5000/bb"):
            images.push("localhost/bb:1", "localhost/bb:1", "default", lambda progress: None)
        (tmp_path / "docker").mkdir()
        auth = {"auth": base64.b64encode(b"user:hunter2").decode()}
        (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {address: auth}}))
        digest = navarch("push", "-q", "localhost/bb:1", f"{address}/team/bb:1").strip()
        puts = sum(method == "PUT" for method, _ in faults.asked)
        navarch("push", "localhost/bb:1", f"{address}/team/bb:2")
        assert sum(method == "PUT" for method, _ in faults.asked) == puts + 1, "blobs that are there are not sent again"
        [before] = store.records()
        navarch("rm", "localhost/bb:1")
        assert navarch("pull", "-q", f"{address}/team/bb@{digest}").strip() == before.id
        shown = navarch("pull", f"{address}/team/bb:2")
        assert shown.startswith(f"pulled {address}/team/bb:2 (sha256:")
        line = ["skopeo", "inspect", "--tls-verify=false", f"docker://{registry}/team/bb:1"]
        assert json.loads(subprocess.check_output(line))["Digest"] == digest, "another client reads it"
        [record] = store.records()
        assert record.pulled and record.layers == before.layers


def test_prune(store: ImageStore, tmp_path: Path) -> None:
    named = busybox_image(store, "localhost/named", Env=["A=1"])
    store.untag("localhost/bb:1")
    nameless = next(r for r in store.records() if r.id != named.id)
    (store.root / "partial" / ("a" * 64)).write_bytes(b"x" * 5000)
    (store.root / "tmp/left").mkdir()
    (store.root / "tmp/left/file").write_bytes(b"x")
    node = tmp_path / "node"
    node.mkdir()
    store.use(node, "container", nameless.id)
    assert images.prune(False, time.time())[0] == [], "it is in use"
    store.release(node, "container")
    gone, freed = images.prune(False, time.time() + 7200)
    assert gone == [nameless.id] and freed > 0 and list((store.root / "partial").iterdir()) == []
    assert list((store.root / "tmp").iterdir()) == [] and store.is_whole(named), "the layer that both have stays"
    assert "removed localhost/named:latest" in navarch("prune", "--all")
    assert list((store.root / "layers").iterdir()) == [] == list((store.root / "blobs/sha256").iterdir())
