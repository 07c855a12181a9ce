"""What only the store in etcd must do: know when it is alone, and live through the loss of leases."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from apiserver.storage import etcd_presence
from apiserver.storage.etcd import EtcdStore
from apiserver.storage.store import Compare, Put, StoreUnavailable, TooLarge
from navarch.world import RealWorld
from protos import etcd_pb2 as pb
from tests.apiserver.storage.certificates import make_certificates
from tests.apiserver.storage.etcd_server import Etcd

world = RealWorld()


def run(folder: Path, test: Callable[[Etcd], Awaitable[None]]) -> None:
    async def main() -> None:
        with Etcd(folder) as etcd:
            async with asyncio.timeout(20):
                await test(etcd)

    world.run(main)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def count_reads(store: EtcdStore) -> list[None]:
    """Grows by one with every revision that the store asks etcd for."""
    reads: list[None] = []
    ask = store._connection.range

    async def counted(request: Any) -> Any:
        if request.count_only:
            reads.append(None)
        return await ask(request)

    store._connection.range = counted  # type: ignore[method-assign]
    return reads


def test_alone_or_not(tmp_path: Path) -> None:
    async def test(etcd: Etcd) -> None:
        first = EtcdStore(world, [etcd.endpoint])
        one = await first.txn([], [Put("/a", b"1")])
        await until(lambda: first._presence.sole)
        reads = count_reads(first)
        assert await first.current_revision() >= one.revision and not reads
        # A second server writes only when the first one knows of it.
        second = EtcdStore(world, [etcd.endpoint])
        two = await second.txn([Compare("/a", one.revision)], [Put("/a", b"2")])
        assert two.succeeded and not first._presence.sole and not second._presence.sole
        assert await first.current_revision() >= two.revision
        # Many who ask at once share a read or two.
        reads.clear()
        three = await second.txn([], [Put("/b", b"1")])
        answers = await asyncio.gather(*(first.current_revision() for _ in range(50)))
        assert min(answers) >= three.revision and len(reads) <= 2
        await second.close()
        await until(lambda: first._presence.sole)
        assert await first.current_revision() >= three.revision
        await first.close()
        with pytest.raises(StoreUnavailable):
            await first.current_revision()

    run(tmp_path, test)


def test_joining_at_the_same_time(tmp_path: Path) -> None:
    async def test(etcd: Etcd) -> None:
        stores = [EtcdStore(world, [etcd.endpoint]) for _ in range(4)]
        results = await asyncio.gather(*(s.txn([], [Put(f"/{n}", b"1")]) for n, s in enumerate(stores)))
        highest = max(result.revision for result in results)
        assert min(await asyncio.gather(*(s.current_revision() for s in stores))) >= highest
        assert not any(s._presence.sole for s in stores)
        await asyncio.gather(*(s.close() for s in stores))

    run(tmp_path, test)


def test_a_lost_lease_is_noticed_by_the_next_write(tmp_path: Path) -> None:
    async def test(etcd: Etcd) -> None:
        store = EtcdStore(world, [etcd.endpoint])
        made = await store.txn([], [Put("/a", b"1")])
        await store._connection.revoke(pb.LeaseRevokeRequest(id=store._presence._lease))
        again = await store.txn([Compare("/a", made.revision)], [Put("/a", b"2", ttl=3600)])
        assert again.succeeded
        assert not (await store.txn([Compare("/a", made.revision)], [Put("/a", b"3")])).succeeded
        # The same for the lease of a time to live.
        lease = await store._leases.lease(3600)
        await store._connection.revoke(pb.LeaseRevokeRequest(id=lease))
        assert (await store.txn([Compare("/a", 0)], [Put("/a", b"4", ttl=3600)])).succeeded
        assert await store._leases.lease(3600) != lease
        with pytest.raises(TooLarge):
            await store.txn([], [Put("/a", b"x" * 1_500_001)])
        await store.close()

    run(tmp_path, test)


OTHER = """
import sys
from apiserver.storage.etcd import EtcdStore
from navarch.world import RealWorld
world = RealWorld()
async def main():
    await EtcdStore(world, [sys.argv[1]]).start()
    print("started", flush=True)
    await world.sleep(100)
world.run(main)
"""


def test_a_dead_predecessor_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(etcd: Etcd) -> None:
        other = subprocess.Popen([sys.executable, "-c", OTHER, etcd.endpoint], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None and other.stdout.readline() == "started\n"
        store = EtcdStore(world, [etcd.endpoint])
        # While it lives and does not answer, we wait.
        other.send_signal(signal.SIGSTOP)
        starting = asyncio.ensure_future(store.start())
        done, _ = await asyncio.wait([starting], timeout=0.3)
        assert not done
        other.kill()
        other.stdout.close()
        other.wait()
        async with asyncio.timeout(2):
            await starting
            await until(lambda: store._presence.sole)
        await store.close()

    monkeypatch.setattr(etcd_presence, "TTL", 60)
    run(tmp_path, test)


@pytest.mark.parametrize("turns", range(6))
def test_leaving_while_the_lease_is_renewed(turns: int) -> None:
    """The answer and the cancellation meet, however many turns of the loop lie between them: the task ends."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        class Renewals:
            def __init__(self) -> None:
                self.answer: asyncio.Future[bytes] = loop.create_future()
                self.asked = asyncio.Event()

            def send(self, message: bytes) -> None:
                pass

            async def receive(self) -> bytes:
                self.asked.set()
                return await self.answer

            def cancel(self) -> None:
                pass

        class Answers:
            stream = Renewals()

            async def keep_alive(self) -> Renewals:
                return self.stream

        answers = Answers()
        presence = etcd_presence.Presence(world, answers)  # type: ignore[arg-type]
        task = loop.create_task(presence._keep())
        await answers.stream.asked.wait()
        await asyncio.sleep(0)
        answers.stream.answer.set_result(pb.LeaseKeepAliveResponse(ttl=6).SerializeToString())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=1)
        assert done, "the task lived on"

    asyncio.run(main())


def test_large_values(tmp_path: Path) -> None:
    """More than the flow-control windows hold, many at once, and a watch that comes in fragments."""

    async def test(etcd: Etcd) -> None:
        store = EtcdStore(world, [etcd.endpoint])
        start = (await store.txn([], [Put("/start", b"")])).revision
        values = [bytes([65 + n]) * 1_400_000 for n in range(8)]
        await asyncio.gather(*(store.txn([], [Put(f"/large/{n}", value)]) for n, value in enumerate(values)))
        page = await store.list("/large/")
        assert [item.value for item in page.items] == values
        seen: dict[str, bytes | None] = {}
        async for batch in store.watch("/large/", start + 1):
            seen |= {event.key: event.value for event in batch.events}
            if len(seen) == 8:
                break
        assert seen == {f"/large/{n}": value for n, value in enumerate(values)}
        await store.close()

    run(tmp_path, test)


def test_cancelled_calls_leave_the_connection_usable(tmp_path: Path) -> None:
    async def test(etcd: Etcd) -> None:
        store = EtcdStore(world, [etcd.endpoint])
        await store.start()
        for _ in range(20):
            calls = [asyncio.ensure_future(store.txn([], [Put("/a", b"x" * 100_000)])) for _ in range(4)]
            await asyncio.sleep(0)
            for call in calls[::2]:
                call.cancel()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert all(not isinstance(result, BaseException) and result.succeeded for result in results[1::2])
        await store.close()

    run(tmp_path, test)


async def test_mutual_tls_and_failover(tmp_path: Path) -> None:
    tls = make_certificates(tmp_path)
    with Etcd(tmp_path, tls) as etcd:
        # The first endpoint answers nobody.
        store = EtcdStore(world, ["localhost:1", etcd.endpoint], tls)
        async with asyncio.timeout(20):
            while True:
                try:
                    made = await store.txn([], [Put("/a", b"1")])
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.02)
            found, _ = await store.get("/a")
            assert found is not None and found.revision == made.revision
            async for batch in store.watch("/a", made.revision):
                assert batch.revision == made.revision
                break
        await store.close()
    with pytest.raises(ValueError, match="mutual TLS"):
        EtcdStore(world, ["localhost:1"])
