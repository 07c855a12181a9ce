"""A store in trouble: it is told within two seconds, writes get the right codes, reads do not lie, and it passes."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from apiserver.request import ANONYMOUS, LOOPBACK, User
from apiserver.storage.etcd import EtcdStore
from apiserver.storage.sqlite import SqliteStore
from apiserver.storage.store import Put, StoreFull, StoreRewound, StoreUnavailable
from navarch.world import RealWorld
from tests.apiserver.kinds.served import Asker, served
from tests.apiserver.storage.etcd_server import Etcd

MAPS = "/api/v1/namespaces/default/configmaps"
NOTICE = 2.0  # seconds in which trouble is told
SLACK = 3.0  # more, for a machine that is busy


async def ask(asker: Asker, method: str, path: str, tree: Any = None, user: User = LOOPBACK) -> tuple[int, bytes]:
    sent: list[Any] = []
    path, _, query = path.partition("?")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": orjson.dumps(tree) if tree else b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": []}
    await asker.server.app(scope | {"navarch.user": user}, receive, send)
    return sent[0]["status"], b"".join(m.get("body", b"") for m in sent[1:])


def config_map(name: str, size: int = 1) -> Any:
    return {"metadata": {"name": name}, "data": {"k": "x" * size}}


async def until(asker: Asker, ready: bool, seconds: float) -> bytes:
    """Waits until the server is ready, or is not; returns what it says. The time is bounded."""
    async with asyncio.timeout(seconds):
        while True:
            status, text = await ask(asker, "GET", "/readyz?verbose")
            if (status == 200) == ready:
                return text
            await asyncio.sleep(0.02)


async def make(asker: Asker, name: str) -> None:
    """Makes a config map, as soon as the store is there again."""
    async with asyncio.timeout(15):
        while (await ask(asker, "POST", MAPS, config_map(name)))[0] not in (201, 409):
            await asyncio.sleep(0.02)


class Watching:
    """A watch of all config maps, and what it was told."""

    def __init__(self, asker: Asker) -> None:
        self.lines = b""
        self.begun = asyncio.Event()
        self.task = asyncio.ensure_future(self._run(asker))

    async def _run(self, asker: Asker) -> None:
        async def receive() -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            self.begun.set()
            self.lines += message.get("body", b"")

        scope = {"type": "http", "method": "GET", "path": MAPS, "query_string": b"watch=1", "headers": []}
        await asker.server.app(scope | {"navarch.user": LOOPBACK}, receive, send)


@asynccontextmanager
async def on_etcd(folder: Path, *options: str) -> AsyncIterator[tuple[Etcd, Asker]]:
    with Etcd(folder, None, *options) as etcd:
        store = EtcdStore(RealWorld(), [etcd.endpoint], timeout=2.0)
        try:
            await store.start()
            async with served(store=store) as asker:
                yield etcd, asker
        finally:
            etcd.signal(signal.SIGCONT)
            await store.close()


def run(test: Callable[[Path], Awaitable[None]]) -> None:
    with tempfile.TemporaryDirectory(prefix="navarch-") as folder:  # short: it holds sockets
        RealWorld().run(lambda: test(Path(folder)))


@pytest.mark.parametrize("kept", ["nothing", "an older copy"])
def test_etcd_is_emptied_or_put_back(kept: str) -> None:
    async def test(folder: Path) -> None:
        async with on_etcd(folder) as (etcd, asker):
            assert (await ask(asker, "POST", MAPS, config_map("old")))[0] == 201
            etcd.stop()
            shutil.copytree(folder / "data", folder / "copy")
            etcd.start()
            for number in range(20):
                await make(asker, f"new{number}")
            watch = Watching(asker)
            await watch.begun.wait()
            etcd.stop()
            shutil.rmtree(folder / "data")
            if kept != "nothing":
                shutil.copytree(folder / "copy", folder / "data")
            etcd.start()
            await until(asker, False, NOTICE + SLACK)
            async with asyncio.timeout(15):
                await watch.task
            await until(asker, True, 15)
            last = orjson.loads(watch.lines.splitlines()[-1])
            assert last["type"] == "ERROR" and last["object"]["code"] == 410 and last["object"]["reason"] == "Expired"
            # What reads tell is what there is.
            _, text = await ask(asker, "GET", MAPS)
            names = [item["metadata"]["name"] for item in orjson.loads(text)["items"]]
            assert "new3" not in names and ("old" in names) == (kept != "nothing")
            assert (await ask(asker, "GET", f"{MAPS}/new3"))[0] == 404
            # The objects of every start are there again, and writes are seen.
            for path in (
                "/api/v1/namespaces/kube-system", "/apis/rbac.authorization.k8s.io/v1/clusterroles/admin",
                "/api/v1/namespaces/default/services/kubernetes",
            ):  # fmt: skip
                assert (await ask(asker, "GET", path))[0] == 200, path
            assert (await ask(asker, "POST", MAPS, config_map("new3")))[0] == 201
            assert (await ask(asker, "GET", f"{MAPS}/new3"))[0] == 200

    run(test)


def test_a_client_that_comes_back_with_a_revision_of_the_past_lists_again() -> None:
    async def test(folder: Path) -> None:
        async with on_etcd(folder) as (_, asker):
            status, text = await ask(asker, "GET", f"{MAPS}?watch=1&resourceVersion=99999999&timeoutSeconds=1")
            assert status == 200 and orjson.loads(text)["object"]["code"] == 410

    run(test)


def test_the_store_itself_says_so() -> None:
    async def test(folder: Path) -> None:
        with Etcd(folder) as etcd:
            store = EtcdStore(RealWorld(), [etcd.endpoint])
            heard = []
            store.on_rewind = lambda: heard.append(1)
            for number in range(9):
                await store.txn([], [Put(f"/k{number}", b"v")])
            revision = await store.current_revision()
            await store.check()
            etcd.stop()
            shutil.rmtree(folder / "data")
            etcd.start()
            with pytest.raises(StoreRewound, match=f"went back from revision {revision // 128} to"):
                while True:
                    try:
                        await store.txn([], [Put("/k", b"v")])
                    except StoreUnavailable as error:  # while etcd starts
                        if isinstance(error, StoreRewound):
                            raise
                    await asyncio.sleep(0.02)
            assert heard == [1]
            assert (await store.txn([], [Put("/k", b"v")])).succeeded, "from then on it is a new store"
            with pytest.raises(StoreRewound):
                async for _ in store.watch("", revision + 1):
                    raise AssertionError
            await store.close()

    run(test)


def test_etcd_stalls_or_dies() -> None:
    async def test(folder: Path) -> None:
        async with on_etcd(folder) as (etcd, asker):
            assert (await ask(asker, "POST", MAPS, config_map("a")))[0] == 201
            for number, word in ((signal.SIGSTOP, b"etcd does not answer"), (signal.SIGKILL, b"no connection")):
                began = time.monotonic()
                etcd.signal(number)
                text = await until(asker, False, NOTICE + SLACK)
                assert b"[-]etcd failed: " in text and b"[-]etcd-readiness failed: " in text
                assert time.monotonic() - began < NOTICE + SLACK
                while word not in text:  # the first to notice may have other words
                    text = (await ask(asker, "GET", "/readyz"))[1]
                    await asyncio.sleep(0.02)
                # Who may not look at the single check is not told why.
                _, public = await ask(asker, "GET", "/readyz", user=ANONYMOUS)
                assert b"[-]etcd failed: reason withheld" in public and word not in public
                status, text = await ask(asker, "GET", "/livez/etcd")
                assert status == 500 and text.startswith(b"internal server error: ") and word in text
                status, text = await ask(asker, "POST", MAPS, config_map(f"b{number}"))
                assert status == 504 and orjson.loads(text)["reason"] == "Timeout"
                if number == signal.SIGSTOP:
                    etcd.signal(signal.SIGCONT)
                else:
                    etcd.stop()
                    etcd.start()
                await until(asker, True, 15)
                assert (await ask(asker, "POST", MAPS, config_map(f"c{number}")))[0] == 201

    run(test)


def test_etcd_has_no_space() -> None:
    async def test(folder: Path) -> None:
        async with on_etcd(folder, "--quota-backend-bytes", str(8 << 20)) as (_, asker):
            status, number = 201, 0
            async with asyncio.timeout(30):
                while status == 201:
                    status, text = await ask(asker, "POST", MAPS, config_map(f"m{number}", 500_000))
                    number += 1
            tree = orjson.loads(text)
            assert status == 500 and tree["message"] == "etcdserver: mvcc: database space exceeded", tree
            text = await until(asker, False, NOTICE + SLACK)
            assert b"[-]etcd failed: etcdserver: mvcc: database space exceeded (alarm NOSPACE)" in text
            assert (await ask(asker, "GET", f"{MAPS}/m0"))[0] == 200, "reads go on"
            assert (await ask(asker, "DELETE", f"{MAPS}/m0"))[0] == 200, "and deletions"

    run(test)


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="navarch-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path, piece: int) -> Path:
    """Fills the disk with one file."""
    filler = folder / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while file.write(bytes(piece)):
            pass
    return filler


async def test_sqlite_on_a_full_disk() -> None:
    with small_disk(24) as folder:
        store = SqliteStore(RealWorld(), folder / "store.db")
        async with served(store=store) as asker:
            assert (await ask(asker, "POST", MAPS, config_map("before")))[0] == 201
            filler = fill(folder, 1 << 16)
            status, number = 201, 0
            while status == 201 and number < 50:
                status, text = await ask(asker, "POST", MAPS, config_map(f"m{number}", 500_000))
                number += 1
            tree = orjson.loads(text)
            assert status == 500 and tree["message"] == "the store has no room: database or disk is full", tree
            text = await until(asker, False, NOTICE + SLACK)
            assert b"[-]etcd failed: the store has no room: database or disk is full" in text
            assert (await ask(asker, "GET", f"{MAPS}/before"))[0] == 200
            assert (await ask(asker, "GET", f"{MAPS}/m{number - 1}"))[0] == 404, "it was refused"
            filler.unlink()
            await until(asker, True, 5)
            assert (await ask(asker, "POST", MAPS, config_map("after", 500_000)))[0] == 201
        await store.close()


async def test_a_full_disk_is_told_before_anybody_writes() -> None:
    with small_disk(4) as folder:
        store = SqliteStore(RealWorld(), folder / "store.db")
        await store.txn([], [Put("/a", b"v")])
        await store.check()
        filler = fill(folder, 4096)
        with pytest.raises(StoreFull):
            await store.check()
        filler.unlink()
        await store.check()
        assert (await store.txn([], [Put("/b", b"v")])).succeeded
        await store.close()


async def test_a_compaction_that_fails_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    store = SqliteStore(RealWorld(), tmp_path / "store.db")
    await store.txn([], [Put("/a", b"v")])

    def fails(*_: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(store._writer, "_commit", fails)
    with pytest.raises(StoreUnavailable, match="the compaction failed: disk I/O error"):
        await store.compact(await store.current_revision())
    await store.close()


@pytest.mark.parametrize("way", ["removed", "replaced"])
async def test_the_file_is_taken_away(way: str, tmp_path: Path) -> None:
    store = SqliteStore(RealWorld(), tmp_path / "store.db")
    await store.check()
    (tmp_path / "store.db").rename(tmp_path / "old.db")
    if way == "replaced":
        (tmp_path / "store.db").touch()
    with pytest.raises(StoreUnavailable, match="was removed or replaced"):
        await store.check()
    (tmp_path / "old.db").rename(tmp_path / "store.db")
    await store.check()
    await store.close()
