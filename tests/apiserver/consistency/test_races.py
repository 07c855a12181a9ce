"""64 clients race over HTTPS on the same objects and one quota, while API servers are killed and started again.

Nothing that was acknowledged may be lost or happen twice, every object's history must be linearizable, and watches must
be complete and in order: over the kills, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from navarch.client.transport import JSON, HTTPSTransport, TransportError
from navarch.world import RealWorld
from tests.apiserver.consistency import checks
from tests.apiserver.consistency.linearizable import DELETE, READ, Operation, linearizable
from tests.apiserver.consistency.recorder import Client, Recorder, Watcher, settled
from tests.apiserver.consistency.servers import Servers

CLIENTS = 64
NAMES = [f"object-{n}" for n in range(12)]
MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/limited/pods"
ROOM = 20
PER_PHASE = 500  # operations that must be answered between two kills
PODS_PER_PHASE = 80
PATIENCE = 60.0  # seconds; nothing here is measured

ALONE = [pytest.param("sqlite", 1, id="sqlite"), pytest.param("etcd", 1, id="etcd")]
SETUPS = [*ALONE, pytest.param("etcd", 2, id="two-on-etcd")]


async def until(world: RealWorld, condition: Any, what: str) -> None:
    end = world.monotonic() + PATIENCE
    while not condition():
        assert world.monotonic() < end, f"not within {PATIENCE} s: {what}"
        await world.sleep(0.02)


async def ask(client: HTTPSTransport, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else orjson.dumps(body)
    response = await client.request(method, path, body=data, content_type=JSON, timeout=20)
    assert response.status in (200, 201), response
    return orjson.loads(response.body)


def last_state(watcher: Watcher) -> dict[str, str]:
    states = [state for _, state in checks.replay(watcher.events)]
    return states[-1] if states else {}


async def kill_and_start(world: RealWorld, servers: Servers, round: int) -> None:
    """SIGKILL of a server in the middle of its work; every second time, of etcd with it."""
    number = round % len(servers.ports)
    if servers.etcd and round % 2:
        servers.etcd.stop()
        servers.etcd.start()
    servers.kill_server(number)
    servers.start_server(number)
    await servers.ready(number)


def check_histories(
    world: RealWorld, recorder: Recorder, watchers: list[Watcher], final: dict[str, str], start: int
) -> None:
    """``final``: the objects that are left, name -> token. ``start``: the revision before the first write."""
    assert recorder.unknown, "no client noticed the kills"
    first = watchers[0].events
    for watcher in watchers:
        assert watcher.events == first, "two watchers saw different histories"
    checks.check_watch(first)
    attempted = {op.token for ops in recorder.operations.values() for op in ops if op.kind not in (READ, DELETE)}
    checks.check_writes(first, recorder.writes, {*attempted, "mark"})
    checks.check_order(recorder.writes)
    checks.check_lists(first, recorder.writes, recorder.lists, start)
    now = world.monotonic()
    written = {event.token for event in first if event.type != "DELETED"}
    for name in NAMES:
        history = settled(recorder.operations.get(name, []), written)
        at_last = Operation(READ, now, now + 1, "ok" if name in final else "absent", final.get(name, ""))
        assert linearizable([*history, at_last]), f"{name} is not linearizable: {history}"


class MapClients:
    """Clients that write, read and delete the same objects; ``answered`` counts the steps that got an answer."""

    def __init__(self, world: RealWorld, transports: list[HTTPSTransport]) -> None:
        self.world, self.transports = world, transports
        self.recorder = Recorder(world, MAPS)
        self.clients = [Client(self.recorder, transport, n, NAMES) for n, transport in enumerate(transports)]
        self.answered = 0
        self.done = False

    async def _work(self, client: Client) -> None:
        while not self.done:
            await client.step()
            if client.broken:
                await self.world.sleep(0.05)
            else:
                self.answered += 1

    async def race(self, servers: Servers) -> None:
        """Three phases, with a kill after the first and the second."""
        async with self.world.task_group() as group:
            for client in self.clients:
                group.start(self._work(client))
            for round in range(3):
                before = self.answered
                await until(self.world, lambda b=before: self.answered > b + PER_PHASE, "writers get answers")
                if round < 2:
                    await kill_and_start(self.world, servers, round)
            self.done = True

    async def newest(self) -> int:
        """The newest change may be a deletion, whose revision no client was told: a write behind it ends the wait."""
        newest = max(write.revision for write in self.recorder.writes)
        body = {"metadata": {"name": "mark"}, "data": {"token": "mark"}}
        mark = await ask(self.transports[0], "POST", MAPS, body)
        return max(newest, int(mark["metadata"]["resourceVersion"]))


@pytest.mark.parametrize(("store", "count"), SETUPS)
def test_racing_writers(tmp_path: Path, store: str, count: int) -> None:
    world = RealWorld()
    servers = Servers(world, tmp_path, store, count)

    async def body() -> None:
        await servers.start()
        clients = MapClients(world, [servers.client(n % count) for n in range(CLIENTS)])
        transports = clients.transports
        start = int((await ask(transports[0], "GET", MAPS))["metadata"]["resourceVersion"])
        watchers = [Watcher(world, transports[n], MAPS, start, lambda obj: obj["data"]["token"]) for n in range(4)]
        async with world.task_group() as watching:
            for watcher in watchers:
                watching.start(watcher.run())
            await clients.race(servers)
            last = await ask(transports[0], "GET", MAPS)
            final = {item["metadata"]["name"]: item["data"]["token"] for item in last["items"]}
            newest = await clients.newest()
            await until(world, lambda: all(w.revision >= newest for w in watchers), "watchers see the newest write")
            watching.cancel()
        for transport in transports:
            await transport.close()

        check_histories(world, clients.recorder, watchers, final, start)

    try:
        world.run(body)
    finally:
        servers.stop()


class PodClients:
    """Clients that each create a pod and delete it again, and what they were told: ``created`` is name -> uid of every
    acknowledged pod, ``doubtful`` are deletions of unknown outcome."""

    def __init__(self, world: RealWorld, transports: list[HTTPSTransport]) -> None:
        self.world, self.transports = world, transports
        self.created: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.doubtful: set[str] = set()
        self.refused = self.lost = 0
        self.done = False

    async def work(self, number: int) -> None:
        turn = 0
        while not self.done:
            turn += 1
            await self._once(number, f"p-{number}-{turn}")

    async def _once(self, number: int, name: str) -> None:
        pod = {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        status, answer = await self._send(number, "POST", PODS, pod)
        if status == 403:
            assert "exceeded quota: room, requested: pods=1" in answer["message"], answer
            self.refused += 1
        elif status == 201:
            self.created[name] = answer["metadata"]["uid"]
            status, _ = await self._send(number, "DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 0})
            (self.deleted if status == 200 else self.doubtful).add(name)
        elif status == 0 or status >= 500:
            self.lost += 1
            await self.world.sleep(0.05)
        else:  # 409: the quota is contended beyond patience
            assert status in (409, 429), answer

    async def _send(self, number: int, method: str, path: str, body: Any) -> tuple[int, Any]:
        try:
            response = await self.transports[number].request(method, path, body=orjson.dumps(body), timeout=20)
        except (TransportError, TimeoutError):
            return 0, None
        return response.status, orjson.loads(response.body)

    def check(self, events: Any, there: dict[str, str], used: int) -> None:
        """``there``: the pods that are left, name -> uid. ``used``: what the quota's status counts."""
        checks.check_watch(events)
        assert self.lost + len(self.doubtful), "no client noticed the kills"
        most = max(len(state) for _, state in checks.replay(events))
        assert most <= ROOM, f"{most} pods at once, the quota has room for {ROOM}"
        assert len(there) <= used <= ROOM, f"the quota says {used}, there are {len(there)}"
        added = {event.name: event.token for event in events if event.type == "ADDED"}
        assert self.created.items() <= added.items(), "an acknowledged pod never was there, or twice"
        gone = {event.name for event in events if event.type == "DELETED"}
        assert self.deleted <= gone <= self.deleted | self.doubtful, "deletions asked for, and all that were acknowledged"
        assert there.keys() == added.keys() - gone


async def limit_pods(admin: HTTPSTransport) -> str:
    """Makes a namespace with room for some pods; the path of its quota."""
    hard = {"pods": str(ROOM)}
    await ask(admin, "POST", "/api/v1/namespaces", {"metadata": {"name": "limited"}})
    await ask(admin, "POST", "/api/v1/namespaces/limited/serviceaccounts", {"metadata": {"name": "default"}})
    path = "/api/v1/namespaces/limited/resourcequotas"
    quota = await ask(admin, "POST", path, {"metadata": {"name": "room"}, "spec": {"hard": hard}})
    await ask(admin, "PUT", f"{path}/room/status", quota | {"status": {"hard": hard, "used": {"pods": "0"}}})
    return f"{path}/room"


@pytest.mark.parametrize(("store", "count"), ALONE)
def test_racing_for_a_quota(tmp_path: Path, store: str, count: int) -> None:
    """Room for 20 pods, 64 clients that create and delete theirs: there are never more than 20, and none is lost."""
    world = RealWorld()
    servers = Servers(world, tmp_path, store, count)

    async def body() -> None:
        await servers.start()
        clients = PodClients(world, [servers.client(n % count) for n in range(CLIENTS)])
        admin = clients.transports[0]
        quota = await limit_pods(admin)
        start = int((await ask(admin, "GET", PODS))["metadata"]["resourceVersion"])
        watcher = Watcher(world, admin, PODS, start, lambda obj: obj["metadata"]["uid"])
        async with world.task_group() as watching:
            watching.start(watcher.run())
            async with world.task_group() as group:
                for number in range(CLIENTS):
                    group.start(clients.work(number))
                for round in range(3):
                    enough = len(clients.created) + clients.refused + PODS_PER_PHASE
                    await until(
                        world, lambda n=enough: len(clients.created) + clients.refused > n, "writers get answers"
                    )
                    if round < 2:
                        await kill_and_start(world, servers, round)
                clients.done = True
            last = await ask(admin, "GET", PODS)
            there = {item["metadata"]["name"]: item["metadata"]["uid"] for item in last["items"]}
            used = int((await ask(admin, "GET", quota))["status"]["used"]["pods"])
            # Nobody writes any more: once the watch shows what the list has, it has shown all.
            await until(world, lambda: last_state(watcher) == there, "the watch is there")
            watching.cancel()
        for transport in clients.transports:
            await transport.close()
        clients.check(watcher.events, there, used)

    try:
        world.run(body)
    finally:
        servers.stop()