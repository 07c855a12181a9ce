"""Pulls from Debian's docker-registry on loopback, straight and through a front with faults. Needs root, as layers do."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from navarch.egress import Egress
from navarch.world import RealWorld
from nodeagent.images import archive, layers, registries
from nodeagent.images.credentials import Login
from nodeagent.images.distribution import Repository, Transport
from nodeagent.images.pull import Progress, Puller, PullFailed
from nodeagent.images.puller import PullServer, RemotePuller
from nodeagent.images.store import ImageStore, Record
from nodeagent.runtime.runtime import RuntimeError_
from tests.nodeagent.images.busybox import busybox_image
from tests.nodeagent.images.realregistry import Faults, docker_registry, free_port, front

CLOSED = Egress("egress is off")  # whatever a test does, nothing leaves the machine


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with busybox as library/bb:1, in schema 2 and OCI, an index of it, and an image of three layers."""
    folder = tmp_path_factory.mktemp("registry")
    store = ImageStore(folder / "origin")
    busybox_image(store, "localhost/bb:1")
    three = [store.add_blob(io.BytesIO(gzip.compress(_tar(f"file{i}", bytes([i]) * 300_000)))) for i in range(2)]
    zstd = subprocess.run(["zstd", "-c"], input=_tar("file2", b"z" * 5000), capture_output=True, check=True).stdout
    three.append(store.add_blob(io.BytesIO(zstd)))
    _image(store, three, "localhost/three:v1")
    for name in ("bb:1", "three:v1"):
        with open(folder / f"{name.partition(':')[0]}.tar", "wb") as file:
            archive.save(store, [f"localhost/{name}"], file)
    with docker_registry(folder / "registry") as address:
        for source, target in (("bb", "library/bb:1"), ("bb", "team/app:v1"), ("three", "team/three:v1")):
            line = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci-archive:{folder}/{source}.tar"]
            subprocess.run([*line, f"docker://{address}/{target}"], check=True)
        docker = ["skopeo", "copy", "-q", "--dest-tls-verify=false", "-f", "v2s2", f"oci-archive:{folder}/bb.tar"]
        subprocess.run([*docker, f"docker://{address}/team/docker:v1"], check=True)
        yield address


def _tar(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        out.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _image(store: ImageStore, blobs: Sequence[tuple[str, int]], name: str, **config: object) -> Record:
    ids = []
    for digest, _ in blobs:
        with layers.uncompressed(store.blob(digest)) as stream:
            reader = layers.Hashing(stream)
            reader.drain()
            ids.append(reader.digest)
    document = {
        "architecture": archive.architecture(),
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": ids},
        **config,
    }
    return archive.add_image(store, store.add_blob(io.BytesIO(json.dumps(document).encode())), blobs, [name])


def run(
    work: Callable[[Callable[..., Puller]], Awaitable[Any]], tmp_path: Path, conf: str = "", egress: Egress = CLOSED
) -> Any:
    """Runs ``work(puller_of)``; ``puller_of(store)`` makes a puller with this registries.conf."""
    world = RealWorld(brief=True)

    async def body() -> Any:
        transport = Transport(world, egress)
        try:
            known = registries.Registries(registries.parse(conf))
            return await work(lambda store: Puller(world, store, transport, lambda: known))
        finally:
            await transport.close()

    return world.run(body)


def pull(tmp_path: Path, name: str, logins: Sequence[Login] = (), conf: str = "", **options: Any) -> Record:
    store = ImageStore(tmp_path / "store")
    return run(lambda puller: puller(store).pull(name, logins, **options), tmp_path, conf)


def test_short_names_through_a_mirror_and_all_forms(registry: str, tmp_path: Path) -> None:
    mirror = f'[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "{registry}"\n'
    record = pull(tmp_path, "bb:1", conf=mirror)
    store = ImageStore(tmp_path / "store")
    assert store.find("docker.io/library/bb:1") == record and record.pulled
    assert (store.layer(record.layers[0]) / "bin/busybox").stat().st_mode & 0o111
    manifest = record.digests[0].partition("@")[2]
    assert pull(tmp_path, f"{registry}/library/bb@{manifest}").id == record.id
    assert pull(tmp_path, f"{registry}/library/bb:nonsense@{manifest}").id == record.id, "the digest counts"
    assert pull(tmp_path, f"{registry}/team/docker:v1").layers == record.layers, "schema 2"
    three = pull(tmp_path, f"{registry}/team/three:v1")
    root = [store.layer(diff_id) for diff_id in three.layers]
    assert [(root[i] / f"file{i}").stat().st_size for i in range(3)] == [300_000, 300_000, 5000], "gzip and zstd"
    assert list((store.root / "partial").iterdir()) == [] == list((store.root / "tmp").iterdir())


def test_an_index_gives_this_machines_image(registry: str, tmp_path: Path) -> None:
    import http.client

    connection = http.client.HTTPConnection(registry)

    def call(
        method: str, path: str, body: bytes | None = None, kind: str = "application/vnd.oci.image.manifest.v1+json"
    ) -> Any:
        connection.request(method, f"/v2/team/app/manifests/{path}", body, {"Content-Type": kind, "Accept": kind})
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Docker-Content-Digest"), answer.read()

    _, digest, data = call("GET", "v1")
    other = {"digest": digest, "size": len(data), "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    own = {**other, "platform": {"os": "linux", "architecture": archive.architecture()}}
    kind = "application/vnd.oci.image.index.v1+json"
    foreign = {**other, "platform": {"os": "linux", "architecture": "s390x"}}
    for tag, entries in (("multi", [foreign, own]), ("foreign", [foreign])):
        index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
        status, index_digest, _ = call("PUT", tag, index, kind)
        assert status == 201
        if tag == "multi":
            multi = index_digest
    record = pull(tmp_path, f"{registry}/team/app:multi")
    assert record.digests == (f"{registry}/team/app@{multi}",) and record.manifest == digest
    with pytest.raises(PullFailed, match=f"no image for linux/{archive.architecture()}: the index has linux/s390x"):
        pull(tmp_path, f"{registry}/team/app:foreign")


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
def test_private_images(registry: str, tmp_path: Path, scheme: str) -> None:
    faults = Faults("user", "hunter2", scheme)
    with front(registry, faults) as address:
        name = f"{address}/team/app:v1"
        for logins in ([], [Login("user", "wrong")], [Login("", "")]):
            with pytest.raises(
                PullFailed, match=f'failed to pull image "{name}": {address[:9]}.*: (auth|incorrect)'
            ) as caught:
                pull(tmp_path, name, logins)
            assert "(401)" in str(caught.value) and "wrong" not in str(caught.value)
        assert pull(tmp_path, name, [Login("other", "one"), Login("user", "hunter2")]).layers
        conf = f'[[registry]]\nlocation = "{address}"\nusername = "user"\npassword = "hunter2"\n'
        assert pull(tmp_path, f"{address}/team/three:v1", conf=conf).layers
    mirrored = Faults()
    with front(registry, mirrored) as mirror:
        conf = f'[[registry]]\nlocation = "r.test"\n[[registry.mirror]]\nlocation = "{mirror}"\n'
        pull(tmp_path, "r.test/team/app:v1", [Login("user", "hunter2")], conf)
    assert mirrored.asked and not any(mirrored.logins), "a mirror is not shown the registry's password"


def test_a_private_image_that_is_here_is_the_registrys_to_give(registry: str, tmp_path: Path) -> None:
    """Always pulling is what keeps one namespace's private images from another (AlwaysPullImages), also by digest."""
    faults = Faults("user", "hunter2")
    with front(registry, faults) as address:
        record = pull(tmp_path, f"{address}/team/app:v1", [Login("user", "hunter2")])
        for name in (f"{address}/team/app:v1", record.digests[0]):
            with pytest.raises(PullFailed, match=r"\(401\)"):
                pull(tmp_path, name)
        faults.asked.clear()
        assert pull(tmp_path, record.digests[0], [Login("user", "hunter2")]) == record
        assert {method for method, _ in faults.asked} == {"HEAD"}


def test_the_registrys_own_words(registry: str, tmp_path: Path) -> None:
    with pytest.raises(
        PullFailed, match=f'failed to pull image "{registry}/team/app:nope": {registry}: manifest unknown'
    ):
        pull(tmp_path, f"{registry}/team/app:nope")
    nobody = f"127.0.0.1:{free_port()}"
    with pytest.raises(PullFailed, match=f"{nobody}: connection refused"):
        pull(tmp_path, f"{nobody}/a")
    with pytest.raises(
        PullFailed, match=r"registry-1.docker.io is not asked: egress is off; to bring it in: navarch image"
    ):
        pull(tmp_path, "nginx")
    with pytest.raises(PullFailed, match=r"mirror.test is not asked.*; registry-1.docker.io is not asked"):
        pull(
            tmp_path, "nginx", conf='[[registry]]\nlocation="docker.io"\n[[registry.mirror]]\nlocation="mirror.test"\n'
        )


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_resumed(registry: str, tmp_path: Path, ranges: bool) -> None:
    faults = Faults(cut=100_000, ranges=ranges)
    far: list[tuple[int, int, int, int]] = []
    with front(registry, faults) as address:
        record = pull(
            tmp_path, f"{address}/library/bb:1", report=lambda p: far.append((p.done, p.total, p.ready, p.layers))
        )
    assert faults.broken and faults.ranged and all(text.startswith("bytes=") for text in faults.ranged)
    done, total, ready, count = far[-1]
    assert (done, ready) == (total, count) and total == record.size and max(f[0] for f in far) <= total


def test_what_has_come_of_a_pull_is_left_for_the_next(registry: str, tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    first = asyncio.Event

    async def given_up(puller_of: Callable[..., Puller]) -> None:
        half = first()

        def told(progress: Progress) -> None:
            if progress.done > 200_000:
                half.set()

        task = asyncio.ensure_future(puller_of(store).pull(f"{registry}/library/bb:1", (), told))
        await half.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(given_up, tmp_path)
    for path in (store.root / "partial").iterdir():  # as if less had come
        with open(path, "r+b") as file:
            file.truncate(150_000)
    left = len(list((store.root / "partial").iterdir()))
    faults = Faults()
    with front(registry, faults) as address:
        pull(tmp_path, f"{address}/library/bb:1")
    assert faults.ranged == ["bytes=150000-"] * left


def test_blobs_that_are_not_what_was_announced(registry: str, tmp_path: Path) -> None:
    for faults, words in ((Faults(corrupt=True), "as announced"), (Faults(lying_size=5000), "more bytes than the")):
        with front(registry, faults) as address, pytest.raises(PullFailed, match=words):
            pull(tmp_path, f"{address}/library/bb:1")
        store = ImageStore(tmp_path / "store")
        assert not list((store.root / "layers").iterdir()) and not list((store.root / "partial").iterdir())
        assert store.names() == {}
    pull(tmp_path, f"{registry}/library/bb:1")


def test_asked_again_only_the_digest_is_compared(registry: str, tmp_path: Path) -> None:
    faults = Faults()
    with front(registry, faults) as address:
        first = pull(tmp_path, f"{address}/team/app:v1")
        faults.asked.clear()
        assert pull(tmp_path, f"{address}/team/app:v1") == first
        assert [method for method, _ in faults.asked] == ["HEAD"]
        origin = ImageStore(tmp_path / "origin")
        saved = tmp_path / "new.tar"
        _image(origin, [origin.add_blob(io.BytesIO(_tar("new", b"n")))], "localhost/new")
        with open(saved, "wb") as file:
            archive.save(origin, ["localhost/new"], file)
        subprocess.run(
            [
                "skopeo",
                "copy",
                "-q",
                "--dest-tls-verify=false",
                f"oci-archive:{saved}",
                f"docker://{registry}/team/moving:v1",
            ],
            check=True,
        )
        moved = pull(tmp_path, f"{address}/team/moving:v1")
        subprocess.run(
            ["skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false",
             f"docker://{registry}/team/app:v1", f"docker://{registry}/team/moving:v1"], check=True
        )  # fmt: skip
        assert pull(tmp_path, f"{address}/team/moving:v1").id == first.id != moved.id
        assert ImageStore(tmp_path / "store").find(f"{address}/team/moving:v1").id == first.id


def test_three_nodes_of_two_labs_pull_once(registry: str, tmp_path: Path) -> None:
    """Two gateways share the home's store; agents ask at once, with their own sockets."""
    store, faults = ImageStore(tmp_path / "store"), Faults("user", "hunter2")

    async def work(puller_of: Callable[..., Puller]) -> None:
        sockets = [tmp_path / name for name in ("one.sock", "two.sock")]
        servers = [asyncio.ensure_future(PullServer(puller_of(ImageStore(store.root))).serve(path)) for path in sockets]
        while not all(path.exists() for path in sockets):
            await asyncio.sleep(0.01)
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in sockets)
        login, name = Login("user", "hunter2"), f"{address}/team/three:v1"
        agents = [RemotePuller(path, RealWorld(brief=True)) for path in (*sockets, sockets[0])]
        await asyncio.gather(*(agent.pull(name, [login]) for agent in agents))
        with pytest.raises(RuntimeError_, match="incorrect username or password") as caught:
            await RemotePuller(sockets[0], RealWorld(brief=True)).pull(f"{address}/team/app:v1", [])
        assert caught.value.reason == "ErrImagePull"
        with pytest.raises(RuntimeError_, match="invalid reference format") as caught:
            await RemotePuller(sockets[0], RealWorld(brief=True)).pull("A B")
        assert caught.value.reason == "InvalidImageName"
        for server in servers:
            server.cancel()
        with pytest.raises(RuntimeError_, match=r"the lab's gateway: (Connection refused|No such file)"):
            for server in servers:
                with pytest.raises(asyncio.CancelledError):
                    await server
            await RemotePuller(sockets[0], RealWorld(brief=True)).pull(name)

    with front(registry, faults) as address:
        run(work, tmp_path)
    record = store.find(f"{address}/team/three:v1")
    assert record is not None and faults.count("/blobs/") == len(record.layers) + 1, "each blob, and the config, once"


def test_a_gateway_that_ends_meanwhile_is_asked_again(registry: str, tmp_path: Path) -> None:
    asked = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readline()
        asked += 1
        if asked == 3:
            writer.write(b"{}\n")
        writer.close()

    async def work(puller_of: Callable[..., Puller]) -> None:
        async with await asyncio.start_unix_server(once, tmp_path / "s"):
            await RemotePuller(tmp_path / "s", RealWorld(brief=True)).pull("x")

    run(work, tmp_path)
    assert asked == 3


def test_an_agent_that_hangs_up_ends_a_pull_for_nobody(registry: str, tmp_path: Path) -> None:
    async def work(puller_of: Callable[..., Puller]) -> None:
        started, ended = asyncio.Event(), asyncio.Event()

        class Slow:
            async def pull(self, name: str, logins: Sequence[Login]) -> None:
                started.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()

        server = asyncio.ensure_future(PullServer(Slow()).serve(tmp_path / "s"))  # type: ignore[arg-type]
        while not (tmp_path / "s").exists():
            await asyncio.sleep(0.01)
        agents = [asyncio.ensure_future(RemotePuller(tmp_path / "s", RealWorld(brief=True)).pull("x")) for _ in range(2)]
        await started.wait()
        agents[0].cancel()
        await asyncio.sleep(0.05)
        assert not ended.is_set()
        agents[1].cancel()
        await asyncio.wait_for(ended.wait(), 10)
        server.cancel()

    run(work, tmp_path)


def test_a_disk_that_is_full(registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pull that finds no room says so, leaves nothing half done, and works once there is room."""
    root = tmp_path / "store"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", root], check=True)
    try:
        with pytest.raises(PullFailed, match=r"no space left for a blob of \d+ bytes: \d+ are free; see: navarch image prune"):
            pull(tmp_path, f"{registry}/library/bb:1")
        monkeypatch.setattr("nodeagent.images.pull.MIN_ROOM", -(1 << 40))  # as if the room went while it came
        with pytest.raises(PullFailed, match="No space left on device"):
            pull(tmp_path, f"{registry}/library/bb:1")
        store = ImageStore(root)
        assert not store.records() and not list((root / "layers").iterdir()) and not list((root / "tmp").iterdir())
        subprocess.run(["mount", "-o", "remount,size=64m", root], check=True)
        assert store.is_whole(pull(tmp_path, f"{registry}/library/bb:1"))
    finally:
        subprocess.run(["umount", root], check=True)


def test_an_image_that_is_removed_while_another_comes(registry: str, tmp_path: Path) -> None:
    """Collection takes blobs of a pull that is not done yet: they are fetched again."""
    store = ImageStore(tmp_path / "store")
    other = busybox_image(store, "localhost/other", Env=["A=1"])
    faults = Faults()

    async def work(puller_of: Callable[..., Puller]) -> Record:
        removed: list[bool] = []

        def report(progress: Progress) -> None:
            if progress.ready == 3 and not removed:
                removed.append(store.remove(other.id))

        return await puller_of(store).pull(f"{address}/team/three:v1", (), report)

    with front(registry, faults) as address:
        record = run(work, tmp_path)
    assert store.is_whole(record) and faults.count("/blobs/") > 4


def test_tls(registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An authority that nobody knows is refused, with what to do; named or marked as insecure it will do."""
    pem = tmp_path / "pem"
    names = ["-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"]
    line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", "-", "-out", "-", *names]
    pem.write_bytes(subprocess.run(line, check=True, capture_output=True).stdout)
    # As if it were elsewhere: loopback needs no authority.
    monkeypatch.setattr(Repository, "_insecure", property(lambda self: self.endpoint.insecure))
    with front(registry, Faults(), pem) as address:
        name = f"{address}/team/three:v1"
        with pytest.raises(PullFailed, match=r"certificate.*name its authority as ca-file in registries\.conf, or mark it"):
            pull(tmp_path, name)
        with pytest.raises(PullFailed, match=r"if it speaks plain HTTP, mark it as insecure in registries\.conf"):
            pull(tmp_path, f"{registry}/team/three:v1")
        for setting in (f'ca-file = "{pem}"', "insecure = true"):
            assert pull(tmp_path, name, conf=f'[[registry]]\nlocation = "{address}"\n{setting}\n').layers
            ImageStore(tmp_path / "store").untag(name)
