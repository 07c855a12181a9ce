"""A recording of a live cluster loses nothing and doubles nothing, whatever happens to the connection and to the server."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiserver.assembly import assemble
from apiserver.config import Config
from apiserver.request import User
from apiserver.server import APIServer
from apiserver.storage.memory import MemoryStore
from lab.experiments.recording import Recorder, Recording
from lab.experiments.state import State
from lab.recording.following import Following
from navarch.api import kinds
from navarch.api.errors import AlreadyExists, NotFound
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.transport import InProcessTransport, Response, Stream, TransportError
from navarch.virtual import SimulatedWorld

ADMIN = User("admin", ("system:masters", "system:authenticated"))
GONE = orjson.dumps({
    "type": "ERROR",
    "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410, "message": "gone"},
}) + b"\n"  # fmt: skip
WRITES = ("configmaps", "secrets", "pods", "namespaces")


class Weather:
    """A transport to a server that comes and goes: it cuts watches, forgets history, and tells some events twice."""

    def __init__(self, world: SimulatedWorld, chance: random.Random) -> None:
        self.world, self.chance = world, chance
        self.server: APIServer | None = None
        self.calm = False
        self.cuts: list[asyncio.Event] = []
        self.gone = 0  # how many watches were told 410

    def _inner(self, user: User = ADMIN) -> InProcessTransport:
        if self.server is None:
            raise TransportError("connection refused")
        return InProcessTransport(self.server.app, user)

    def cut(self) -> None:
        for event in self.cuts:
            event.set()
        self.cuts = []

    async def request(self, method: str, path: str, **options: Any) -> Response:
        await self.world.sleep(self.chance.random() * 0.05)
        return await self._inner().request(method, path, **options)

    @contextlib.asynccontextmanager
    async def stream(self, method: str, path: str, **options: Any) -> AsyncIterator[Stream]:
        await self.world.sleep(self.chance.random() * 0.05)
        async with self._inner().stream(method, path, **options) as inner:
            cut = asyncio.Event()
            self.cuts.append(cut)
            yield _Stream(self, inner, cut)

    def websocket(self, path: str, **options: Any) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        pass


class _Stream:
    def __init__(self, weather: Weather, inner: Stream, cut: asyncio.Event) -> None:
        self.status, self.headers = inner.status, inner.headers
        self.weather, self.inner, self.cut = weather, inner, cut

    async def chunks(self) -> AsyncIterator[bytes]:
        weather = self.weather
        if not weather.calm and weather.chance.random() < 0.3:
            weather.gone += 1
            yield GONE
            return
        source = self.inner.chunks()
        while True:
            chunk = asyncio.ensure_future(anext(source, None))  # type: ignore[arg-type]
            ends = asyncio.ensure_future(self.cut.wait())
            try:
                await asyncio.wait((chunk, ends), return_when=asyncio.FIRST_COMPLETED)
                if self.cut.is_set():
                    raise TransportError("cut")
                data = chunk.result()
            finally:
                chunk.cancel()
                ends.cancel()
                await asyncio.wait((chunk, ends))
            if data is None:
                return
            yield data
            if not weather.calm and weather.chance.random() < 0.2:
                yield data  # twice, as a server does that begins a little too early

    async def read(self) -> bytes:
        return await self.inner.read()


async def write(client: Client, chance: random.Random) -> None:
    """One change of one of a few objects, made, changed or deleted; names come back, so that objects replace others."""
    name, what = f"x{chance.randrange(4)}", chance.choice(("configmaps", "secrets", "pods"))
    tree: dict[str, Any] = {"metadata": {"name": name, "annotations": {"n": str(chance.random())}}}
    if what == "pods":
        tree["spec"] = {"containers": [{"name": "c", "image": "i"}]}
    elif what == "secrets":
        tree["stringData"] = {"password": "hunter2"}
        tree["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = (
            '{"stringData": "hunter2"}'
        )
    else:
        tree["data"] = {"value": str(chance.random())}
    verbs = client.tree(next(k for k in kinds.KINDS if k.resource == what))
    try:
        deed = chance.random()
        if deed < 0.4:
            await verbs.create(tree, "default")
        elif deed < 0.75:
            await verbs.patch(name, "default", {"metadata": {"annotations": {"n": str(chance.random())}}})
        else:
            await verbs.delete(name, "default", grace_period_seconds=0)
    except (AlreadyExists, NotFound):
        pass


def record(seed: int, faults: int) -> tuple[Recording, dict[str, Any], bytes, int]:
    """Records through bad weather; gives the recording, the store in the end, the bytes, the number of 410s."""
    world = SimulatedWorld(seed)
    chance = random.Random(seed)
    recorder = Recorder({"source": "test"})
    weather = Weather(world, chance)

    async def main() -> dict[str, Any]:
        store = MemoryStore()
        async with world.task_group() as group:

            async def up() -> asyncio.Task[None]:
                server, ready = assemble(world, store, Config(store="memory")), asyncio.Event()
                task = group.start(server.run(lambda _: ready.set(), listen=False), "server")
                await ready.wait()
                weather.server = server
                return task

            task = await up()
            client = Client(InProcessTransport(weather.server.app, ADMIN), world)
            await client[core_v1.ServiceAccount].create(_account(), "default")
            following = group.start(Following(Client(weather, world), recorder, only=WRITES).run(), "record")
            await world.sleep(1.0)
            for _ in range(faults):
                for _ in range(chance.randrange(1, 12)):
                    await write(client, chance)
                    await world.sleep(chance.random() * 0.2)
                fault = chance.random()
                if fault < 0.6:
                    weather.cut()
                else:
                    weather.server = None
                    weather.cut()
                    task.cancel()
                    await asyncio.wait((task,))
                    await world.sleep(chance.random() * 20)
                    task = await up()
                    client = Client(InProcessTransport(weather.server.app, ADMIN), world)
            weather.calm = True
            await world.sleep(60.0)
            following.cancel()
            await asyncio.wait((following,))
            group.cancel()
        page = await store.list("/registry/")
        return {item.key: (item.revision, orjson.loads(item.value)) for item in page.items}

    stored = world.run(main)
    return recorder.recording(), stored, recorder.content, weather.gone


def _account() -> core_v1.ServiceAccount:
    from navarch.api.types import meta_v1

    return core_v1.ServiceAccount(metadata=meta_v1.ObjectMeta(name="default"))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_nothing_is_lost_or_doubled(seed: int) -> None:
    recording, stored, _, _ = record(seed, 8)
    state, revisions = State(), {}
    for change in recording.changes:
        key = change.key
        before = revisions.get(key)
        if change.type == "ADDED":
            assert before is None, f"{key} is there already"
        else:
            assert before is not None, f"{key} was not there"
            uid, revision = before
            assert uid == change.object["metadata"]["uid"]
            assert change.revision > revision
        state.apply(change.type, key, change.object)
        revisions[key] = (change.object["metadata"]["uid"], change.revision)
        if change.type == "DELETED":
            del revisions[key]
    for resource in WRITES:
        mine = {k: v for k, v in stored.items() if k.startswith(f"/registry/{resource}/")}
        there = {k: revision for k, (_, revision) in revisions.items() if k.startswith(f"/registry/{resource}/")}
        assert there == {k: revision for k, (revision, _) in mine.items()}
        for key, (_, tree) in mine.items():
            tree["metadata"].pop("managedFields", None)
            if resource == "secrets":
                tree = {k: tree[k] for k in ("apiVersion", "kind", "metadata")}
                tree["metadata"].pop("annotations", None)
            assert state.get(key) == tree


def test_a_full_disk_ends_a_recording():
    """Informers only log what a handler of theirs raises: the rest would be lost in silence."""
    world = SimulatedWorld(1)

    class Full(Recorder):
        def change(self, *line: Any) -> None:
            raise OSError(28, "No space left on device")

    async def main() -> None:
        server, ready = assemble(world, MemoryStore(), Config(store="memory")), asyncio.Event()
        async with world.task_group() as group:
            group.start(server.run(lambda _: ready.set(), listen=False), "server")
            await ready.wait()
            client = Client(InProcessTransport(server.app, ADMIN), world)
            with pytest.raises(ExceptionGroup) as raised:
                await Following(client, Full({}), only=("namespaces",)).run()
            assert raised.group_contains(OSError, match="No space left")
            group.cancel()

    world.run(main)


def test_the_weather_is_bad() -> None:
    """The proxy of these tests does what it is there for, and the recording holds deletions that only a list told."""
    recording, _, data, gone = record(5, 12)
    assert gone > 5
    assert {"ADDED", "MODIFIED", "DELETED"} <= {c.type for c in recording.of("pods")}
    assert recording.mark("begin") is not None
    assert any(c.key.startswith("/registry/secrets/") for c in recording.changes)
    import gzip

    assert b"hunter2" not in gzip.decompress(data)
