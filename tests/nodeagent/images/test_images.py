"""The image store: names, layers, archives, builds. Needs root, since layers have owners, devices and attributes."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.images import archive, layers
from nodeagent.images.build import build
from nodeagent.images.dockerfile import BuildError, parse, substitute
from nodeagent.images.reference import InvalidReference
from nodeagent.images.reference import parse as parse_reference
from nodeagent.images.store import ImageInUse, ImageStore
from tests.nodeagent.images.busybox import busybox_image


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.25", "docker.io/library/nginx:1.25"),
        ("library/nginx", "docker.io/library/nginx:latest"),
        ("user/app:v1", "docker.io/user/app:v1"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("localhost/guestbook", "localhost/guestbook:latest"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
        ("registry.example.com/a:b", "registry.example.com/a:b"),
        ("quay.io/a/b@sha256:" + "a" * 64, "quay.io/a/b@sha256:" + "a" * 64),
        ("a:b@sha256:" + "0" * 64, "docker.io/library/a:b@sha256:" + "0" * 64),
    ],
)
def test_names(text: str, full: str) -> None:
    assert str(parse_reference(text)) == full
    assert str(parse_reference(full)) == full


@pytest.mark.parametrize("text", ["", "Nginx", "a b", "a:", "a@", "a@sha256:12", "-a", "a//b", "a:-x", "../a", "f" * 64])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(InvalidReference, match="invalid reference format"):
        parse_reference(text)


@given(st.text(alphabet="aA0.:/@-_", max_size=20))
def test_a_full_name_stays(text: str) -> None:
    try:
        full = parse_reference(text)
    except InvalidReference:
        return
    assert parse_reference(str(full)) == full


def tar(*entries: tuple[str, object]) -> io.BytesIO:
    """A tar of files (bytes), directories (None), symlinks ("-> target"), hard links ("= target")."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for name, what in entries:
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            if what is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(what, str):
                member.type = tarfile.SYMTYPE if what.startswith("-> ") else tarfile.LNKTYPE
                member.linkname = what.split(" ", 1)[1]
            else:
                assert isinstance(what, bytes)
                member.size = len(what)
            out.addfile(member, io.BytesIO(what) if isinstance(what, bytes) else None)
    buffer.seek(0)
    return buffer


def test_layers_and_back(tmp_path: Path) -> None:
    target = tmp_path / "layer"
    target.mkdir()
    source = tar(
        ("./a/file", b"one"), ("a/link", "-> /etc/passwd"), ("a/hard", "= a/file"), ("b", None), ("b/.wh.gone", b""),
        ("c/.wh..wh..opq", b""), ("a/file2", b"x"), ("a/file2", b"yy"),
    )  # fmt: skip
    layers.extract(source, target)
    assert (target / "a/file").read_bytes() == b"one" and (target / "a/file2").read_bytes() == b"yy"
    assert os.readlink(target / "a/link") == "/etc/passwd"
    assert (target / "a/hard").stat().st_nlink == 2
    gone = (target / "b/gone").lstat()
    assert stat.S_ISCHR(gone.st_mode) and gone.st_rdev == 0
    assert os.getxattr(target / "c", layers.OPAQUE_ATTRIBUTE) == b"y"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as out:
        layers.pack(target, out)
    packed.seek(0)
    with tarfile.open(fileobj=packed) as again:
        names = again.getnames()
    assert sorted(names) == sorted(
        ["a", "a/file", "a/file2", "a/hard", "a/link", "b", "b/.wh.gone", "c", "c/.wh..wh..opq"]
    )


def test_layers_stay_inside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for entries in (
        [("x", f"-> {outside}"), ("x/evil", b"1")],
        [("x", "-> ../outside"), ("x/evil", b"1")],
        [("../outside/evil", b"1")],
        [("a/../../outside/evil", b"1")],
        [("x", f"-> {outside}/evil"), ("x", b"1")],
        [("x", f"-> {outside}"), ("x/.wh.keep", b"")],
    ):
        target = tmp_path / f"layer{len(list(tmp_path.iterdir()))}"
        target.mkdir()
        (outside / "keep").touch()
        try:
            layers.extract(tar(*entries), target)
        except (ValueError, OSError):
            pass
        assert [path.name for path in outside.iterdir()] == ["keep"]


def test_store_load_save_remove(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "one")
    record = busybox_image(store, "busybox:1")
    store.tag("localhost/tools", record.id)
    assert store.find("docker.io/library/busybox:1") == record == store.find(record.id) == store.find("localhost/tools")
    assert store.find("busybox") is None
    saved = tmp_path / "saved.tar"
    with open(saved, "wb") as file:
        archive.save(store, ["localhost/tools", "busybox:1"], file)
    with pytest.raises(KeyError), open(os.devnull, "wb") as nowhere:
        archive.save(store, ["other"], nowhere)
    # as an OCI layout, as a docker archive, and through another tool
    other = ImageStore(tmp_path / "two")
    assert {r.id for r in archive.load(other, saved)} == {record.id}
    assert other.names() == {record.id: ["docker.io/library/busybox:1", "localhost/tools:latest"]}
    layout = tmp_path / "layout"
    subprocess.run(["skopeo", "copy", "-q", f"docker-archive:{saved}:localhost/tools:latest", f"oci:{layout}:x"], check=True)
    third = ImageStore(tmp_path / "three")
    [copied] = archive.load(third, layout, ["named"])
    assert copied.layers == record.layers and third.find("named") == copied
    assert (third.layer(copied.layers[0]) / "bin/busybox").stat().st_mode & 0o111
    # use and removal
    nodes = [tmp_path / "node-1", tmp_path / "node-2"]
    for node in nodes:
        node.mkdir()
        store.use(node, "container", record.id)
    store.release_node(nodes[0], ["other"])
    with pytest.raises(ImageInUse):
        store.remove(record.id)
    nodes[1].rmdir()  # a node that is deleted uses nothing
    assert store.remove(record.id) and not store.remove(record.id)
    assert list((store.root / "layers").iterdir()) == [] == list((store.root / "blobs/sha256").iterdir())
    assert store.find("busybox:1") is None


def test_damage_is_noticed(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    with pytest.raises(ValueError, match="announced"):
        store.add_blob(io.BytesIO(b"x"), "sha256:" + "0" * 64)
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(ValueError, match="not an image archive"):
        archive.load(store, tmp_path / "junk")
    with pytest.raises(ValueError, match="digest"):
        store.blob("sha256:../../etc/passwd")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_dockerfile_reading() -> None:
    found = parse('# c\nFROM a AS b\nENV A=1 \\\n  # inside\n  B="x y"\nCMD ["a", "b c"]\nCOPY --chown=1:2 a b/\n')
    assert [(i.keyword, i.line) for i in found] == [("FROM", 2), ("ENV", 3), ("CMD", 6), ("COPY", 7)]
    assert found[1].pairs() == [("A", "1"), ("B", "x y")]
    assert found[2].json == ("a", "b c") and found[3].flags == {"chown": "1:2"} and found[3].words() == ["a", "b/"]
    assert substitute("$A ${A}b ${C:-d} ${A:+e} \\$A", {"A": "1"}) == "1 1b d e $A"
    for text, words in (("HEALTHCHECK x", "unsupported instruction"), ("RUN <<EOF", "here-documents")):
        with pytest.raises(BuildError, match=words):
            parse(text)


DOCKERFILE = """
ARG BASE=busybox
FROM $BASE AS first
ARG WORD=unset
ENV GREETING="hello $WORD" HOME=/home/web
WORKDIR /srv
COPY --chown=web:www site ./site/
COPY *.txt /texts/
ADD files.tar /unpacked
RUN echo "$GREETING" > made && rm /bin/wc && id -u > uid && ! ping -c 1 -w 1 192.0.2.9
USER web
EXPOSE 80 53/udp
LABEL a=b
STOPSIGNAL SIGQUIT
ENTRYPOINT ["cat"]

FROM scratch
COPY --from=first --exclude=made --exclude=**/deep /srv/ /data/
COPY --from=host /usr/bin/env /usr/bin/id /bin/
CMD ["/bin/env"]
"""


def test_build(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    base = busybox_image(store)
    context = tmp_path / "context"
    (context / "site/deep").mkdir(parents=True)
    (context / "site/index.html").write_text("page")
    (context / "site/secret").write_text("no")
    (context / ".dockerignore").write_text("**/secret\n")
    for name in ("a.txt", "b.txt"):
        (context / name).write_text(name)
    (context / "files.tar").write_bytes(tar(("inner/file", b"content")).getvalue())
    record = build(store, context, ["localhost/first"], text=DOCKERFILE, arguments={"WORD": "you"}, target="first")
    config = store.config(record.id).config
    assert config is not None
    assert (config.entrypoint, config.cmd, config.user, config.working_dir) == (["cat"], None, "web", "/srv")
    assert config.env == ["PATH=/bin", "GREETING=hello you", "HOME=/home/web"]
    assert (config.exposed_ports, config.stop_signal) == ({"80/tcp": {}, "53/udp": {}}, "SIGQUIT")
    assert record.layers[0] == base.layers[0] and len(record.layers) == 2
    top = store.layer(record.layers[1])
    assert (top / "srv/made").read_text() == "hello you\n" and (top / "srv/uid").read_text() == "0\n"
    assert (top / "srv/site/index.html").stat().st_uid == 101 and not (top / "srv/site/secret").exists()
    assert (top / "texts/b.txt").read_text() == "b.txt" and (top / "unpacked/inner/file").read_text() == "content"
    assert stat.S_ISCHR((top / "bin/wc").lstat().st_mode)
    second = build(store, context, ["localhost/second"], text=DOCKERFILE)
    [layer] = second.layers
    root = store.layer(layer)
    assert (root / "data/site/index.html").stat().st_uid == 101 and (root / "data/uid").exists()
    assert not (root / "data/made").exists() and not (root / "data/site/deep").exists()
    assert "uid=0" in subprocess.run(["chroot", str(root), "/bin/id"], capture_output=True, text=True).stdout
    for text, words in (
        ("FROM nothere", "not in the store"),
        ("FROM busybox\nRUN false", "line 2: RUN: the command 'false' returned a non-zero code: 1"),
        ("FROM busybox\nCOPY nothere /", "nothere: no such file or directory"),
        ("FROM busybox\nCOPY ../../etc/passwd /", "no such file"),
        ("RUN x", "no FROM"),
    ):
        with pytest.raises(BuildError, match=words):
            build(store, context, [], text=text)
    assert list((store.root / "tmp").iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
