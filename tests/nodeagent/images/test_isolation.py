"""Images and build contexts of strangers: nothing outside of them is read, written or removed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from navarch.linux import syscalls
from navarch.world import RealWorld
from nodeagent.images import archive, copying, layers, pull
from nodeagent.images.build import build
from nodeagent.images.copying import Ignore
from nodeagent.images.dockerfile import BuildError
from nodeagent.images.registries import Registries
from nodeagent.images.store import ImageStore
from tests.nodeagent.images.test_images import tar


@pytest.mark.parametrize(
    "entries",
    [
        [(".wh...", b"")],
        [(".wh..", b"")],
        [(".wh.", b"")],
        [("a/.wh...", b"")],
        [("a/b/.wh...", b"")],
        [("a", None), ("a/.wh..", b"")],
        [("..", None)],
        [("a/..", None)],
        [("a", None), ("b", "= a/..")],
        [("b", "= ../precious")],
        [("b", "= /etc/passwd")],
        [("a", "-> .."), ("a/precious", b"overwritten")],
        [("a", "-> /"), ("a/.wh.precious", b"")],
        [("a", "-> b"), ("b", "-> a"), ("a/x", b"")],
        [("d", None), ("d/x", b""), ("d", "-> .."), ("d/precious", b"overwritten")],
    ],
    ids=str,
)
def test_a_layer_touches_nothing_around_it(tmp_path: Path, entries: list[tuple[str, object]]) -> None:
    target = tmp_path / "layer"
    target.mkdir()
    (tmp_path / "precious").write_text("p")
    try:
        layers.extract(tar(("kept", b"k"), *entries), target)
    except (ValueError, OSError):
        pass
    assert sorted(os.listdir(tmp_path)) == ["layer", "precious"] and (tmp_path / "precious").read_text() == "p"
    assert (tmp_path / "precious").stat().st_nlink == 1 and (target / "kept").read_text() == "k"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "machine/context"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "machine/secret").write_text("of the machine")
    (folder / "file").write_text("f")
    (folder / "sub/file").write_text("g")
    return folder


LINKS = {
    "absolute": lambda c: str(c.parent / "secret"),
    "up": lambda c: "../secret",
    "up and up": lambda c: "../" * 30 + str(c.parent / "secret").lstrip("/"),
    "a folder": lambda c: str(c.parent),
    "the root": lambda c: "/",
    "proc": lambda c: f"/proc/self/root{c.parent}/secret",
}


@pytest.mark.parametrize("aim", LINKS.values(), ids=list(LINKS))
@pytest.mark.parametrize("source", ["link", "link/secret", "l*", "l*/secret", "*/secret", "./link", "sub/../link/"])
def test_a_context_has_no_way_out(context: Path, aim, source: str) -> None:  # type: ignore[no-untyped-def]
    (context / "link").symlink_to(aim(context))
    for follow in (True, False):
        try:
            found = copying.matches(context, source, Ignore(), follow=follow)
        except FileNotFoundError:
            continue
        for path, _ in found:
            assert path == context or context in path.parents, path
            read = [path, *(p for p, _ in copying.tree(path, "/t", context, Ignore(), Ignore()))]
            assert not any(p.is_file() and not p.is_symlink() and p.read_text() == "of the machine" for p in read)


def test_links_inside_of_a_context_count(context: Path) -> None:
    (context / "link").symlink_to("sub")
    (context / "absolute").symlink_to("/sub/file")  # the context is the root
    (context / ".hidden").write_text("h")

    def names(source: str) -> list[tuple[str, str]]:
        return [(str(p.relative_to(context)), n) for p, n in copying.matches(context, source, Ignore())]

    assert names("link/file") == [("sub/file", "file")] and names("absolute") == [("sub/file", "absolute")]
    assert names("*/f?le") == [("sub/file", "file"), ("sub/file", "file")]
    assert names("../../file") == [("file", "file")] and names("f[a-i]le") == [("file", "file")]
    assert names(".h*") == [(".hidden", ".hidden")] and ".hidden" not in str(names("*"))
    with pytest.raises(FileNotFoundError):
        names("nothing*")


def test_a_build_copies_no_file_of_the_machine(context: Path, tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    (context / "link").symlink_to(context.parent / "secret")
    (context / "folder").symlink_to(context.parent)
    for text in ("COPY link /x", "COPY folder /x", "COPY folder/secret /x", "ADD link /x", "COPY ../secret /x"):
        with pytest.raises(BuildError, match="no such file"):
            build(store, context, ["localhost/x"], text=f"FROM scratch\n{text}\n")
    # A stage's own links are about the stage's files.
    (context / "evil.tar").write_bytes(
        tar(("l", f"-> {context.parent}"), ("f", f"-> {context.parent}/secret")).getvalue()
    )
    staged = "FROM scratch AS one\nADD evil.tar /\nFROM scratch\n"
    with pytest.raises(BuildError, match="no such file"):
        build(store, context, ["localhost/x"], text=f"{staged}COPY --from=one /l/secret /x\n")
    copied = build(store, context, ["localhost/x"], text=f"{staged}COPY --from=one /f /x\n")
    assert (store.layer(copied.layers[0]) / "x").is_symlink()
    # And what is copied to a link of the image's stays in the image.
    text = "FROM scratch\nADD evil.tar /\nCOPY file /l/secret\n"
    with pytest.raises(BuildError, match="No such file"):  # the image has no such folder, whatever the machine has
        build(store, context, ["localhost/y"], text=text)
    assert (context.parent / "secret").read_text() == "of the machine"


def test_an_archives_manifests_name_no_file_outside(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    (tmp_path / "secret").write_bytes(tar(("f", b"secret")).getvalue())
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / "config").write_text(json.dumps({"rootfs": {"diff_ids": []}}))
    (folder / "link").symlink_to(tmp_path / "secret")
    for name in ("../secret", str(tmp_path / "secret"), "link", "x/../../secret"):
        (folder / "manifest.json").write_text(json.dumps([{"Config": "config", "Layers": [name]}]))
        with pytest.raises(ValueError, match="archive has no"):
            archive.load(store, folder, ["localhost/x"])
    assert not any(b"secret" in path.read_bytes() for path in (tmp_path / "store/blobs/sha256").iterdir())


@pytest.mark.parametrize(
    "content",
    [b"\x1f\x8b\x08\x00garbage", b"\x1f\x8b", b"not a tar" * 100, b"\0" * 100, b"\x28\xb5\x2f\xfd\0"],
    ids=["gzip", "short gzip", "text", "zeros", "zstd"],
)
def test_a_layer_that_cannot_be_read_is_a_pull_that_failed(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever tar, gzip and JSON raise: it is no exception that the agent has not foreseen."""
    import hashlib

    store = ImageStore(tmp_path / "store")
    layer = hashlib.sha256(content).hexdigest()
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [f"sha256:{'0' * 64}"]}}).encode()
    digest = hashlib.sha256(config).hexdigest()
    manifest = {
        "config": {"digest": f"sha256:{digest}", "size": len(config)},
        "layers": [{"digest": f"sha256:{layer}", "size": len(content)}],
    }
    blobs = {f"sha256:{layer}": content, f"sha256:{digest}": config}
    with pytest.raises(pull.PullFailed, match="failed to pull image"):
        pull_from(monkeypatch, store, json.dumps(manifest).encode(), blobs)
    assert not list((tmp_path / "store/layers").iterdir())


def pull_from(monkeypatch: pytest.MonkeyPatch, store: ImageStore, manifest: bytes, blobs: dict[str, bytes]) -> None:
    """Pulls from a registry that gives these bytes for any question."""

    class Lying:
        host = "registry.test"

        def __init__(self, *_: object) -> None:
            pass

        async def digest(self, reference: str) -> str:
            return ""

        async def manifest(self, reference: str) -> tuple[bytes, str]:
            return manifest, ""

        async def blob(self, digest: str, offset: int = 0) -> AsyncIterator[bytes | int]:
            yield 0
            yield blobs[digest]

    monkeypatch.setattr(pull, "Repository", Lying)
    world = RealWorld(brief=True)
    puller = pull.Puller(world, store, None, Registries)  # type: ignore[arg-type]
    world.run(lambda: puller.pull("registry.test/x:1"))


def bomb(kind: str) -> bytes:
    """A layer's blob that is small, and claims to be large."""
    if kind == "zeros":  # one file of 64 MiB, compressed
        head = tarfile.TarInfo("zeros")
        head.size = 64 << 20
        return gzip_of(head.tobuf(), 64 << 20)
    if kind == "sparse":  # GNU's sparse file, all of it a hole
        head = tarfile.TarInfo("sparse")
        head.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "sparse",
                            "GNU.sparse.realsize": str(1 << 50)}  # fmt: skip
        data = b"1\n0\n0\n".ljust(512, b"\0")
        head.size = len(data)
        return head.tobuf(tarfile.PAX_FORMAT) + data + b"\0" * 1024
    if kind == "header":  # extended attributes of 64 MiB
        head = tarfile.TarInfo("header")
        head.type, head.size = tarfile.XHDTYPE, 64 << 20
        return gzip_of(head.tobuf(), 64 << 20)
    return gzip_of(tarfile.TarInfo("x").tobuf() * 6000, 0)


def gzip_of(head: bytes, zeros: int) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    out = [packer.compress(head)]
    block = bytes(1 << 20)
    for _ in range(zeros >> 20):
        out.append(packer.compress(block))
    return b"".join([*out, packer.flush()])


@pytest.mark.parametrize("kind", ["zeros", "sparse", "header", "entries"])
def test_a_small_layer_does_not_fill_the_disk(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MIN_LIMIT", 8 << 20)
    monkeypatch.setattr(layers, "MAX_RATIO", 2)
    monkeypatch.setattr(layers, "MAX_ENTRIES", 5000)
    store = ImageStore(tmp_path / "store")
    digest, size = store.add_blob(io.BytesIO(bomb(kind)))
    tracemalloc.start()
    with pytest.raises(layers.TooLarge, match="layer"):
        store.add_layer("sha256:" + "0" * 64, digest)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 16 << 20 and size < 4 << 20
    assert not list((store.root / "layers").iterdir()) and not list((store.root / "tmp").iterdir())


def test_many_small_layers_do_not_fill_the_disk_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each keeps to its own limit; and what is free stays so, but for what a look every so often misses."""
    monkeypatch.setattr(layers, "MIN_LIMIT", 8 << 20)
    monkeypatch.setattr(layers, "LOOK", 1 << 20)
    store = ImageStore(tmp_path / "store")

    def layer(name: str) -> tuple[str, str]:
        plain = tar((name, bytes(3 << 20))).getvalue()
        blob = zlib.compress(plain, 9, wbits=31)
        return "sha256:" + hashlib.sha256(plain).hexdigest(), store.add_blob(io.BytesIO(blob))[0]

    budget = store.budget([0])
    for name in ("a", "b"):
        store.add_layer(*layer(name), budget)
    store.add_layer(*layer("a"), budget)  # is here: costs nothing
    with pytest.raises(layers.TooLarge, match="8388608 bytes together"):
        store.add_layer(*layer("c"), budget)
    monkeypatch.setattr(layers, "ROOM", 1 << 60)
    with pytest.raises(OSError, match=r"No space left on device, but for .* navarch image prune"):
        store.add_layer(*layer("d"), store.budget([0]))
    assert len(list((store.root / "layers").iterdir())) == 2 and not list((store.root / "tmp").iterdir())


def test_path_in_root_is_about_the_root(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/")
    assert syscalls.path_in_root(tmp_path, "a/a/a/..") == tmp_path
