"""Which API servers there are, so that one that is alone can answer "most recent" without asking etcd.

Every server keeps a key under /navarch/servers/ alive by a lease. One that joins puts its key, and does not write
anything else until every server that was there has acknowledged it (rewritten its own key with a ``seen`` revision at
or above the newcomer's) or is gone. So a server that has acknowledged nobody, and whose lease surely still runs, knows
that every acknowledged write is its own. Every transaction compares the writer's own key: who lost its lease cannot
write before it has joined again.

The key tells which process holds it; a successor on the same machine that finds that process dead removes the key
instead of waiting for its lease to end.

Beside them lies a key for good, which keeps servers of older versions out: those take it for a server that never
acknowledges them, and never write. They would not understand values with a place (etcd_revisions). Servers of older
versions that were there before that key are waited for until they have ended. ``since`` is the etcd revision from which
on no such server has written: the resourceVersions that clients had from it are lower than all that are given out now,
and too old.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path
from typing import Any

from apiserver.storage.etcd_connection import Connection
from apiserver.storage.etcd_revisions import PLACES
from apiserver.storage.grpc_channel import RpcError, Stream
from apiserver.storage.store import StoreUnavailable
from navarch.world import World
from protos import etcd_pb2 as pb

log = logging.getLogger(__name__)

PREFIX = "/navarch/servers/"
FORMAT = PREFIX + "format"
TTL = 6  # seconds


class Presence:
    """This server's key. :meth:`join` before the first write, and again when it was lost."""

    def __init__(self, world: World, connection: Connection) -> None:
        self._world, self._connection = world, connection
        self.key = PREFIX + world.uid()
        self.created = 0  # create revision of the key while we hold it; every transaction compares it
        self.alone = False  # nobody else has a key that we acknowledged
        self.floor = 0  # while alone: what others wrote is at or below this revision
        self.since = 0  # see the module; 0 while it is not known
        self._until = 0.0  # monotonic seconds: the lease surely runs until then
        self._until_wall = 0.0  # the same in Unix time, as the monotonic clock stands still while a machine sleeps
        self._lease = 0
        self._joining = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._listed = 0  # revision of the last list
        self._older: dict[str, None] = {}  # servers of older versions that were told of

    @property
    def sole(self) -> bool:
        """Whether all acknowledged writes are surely this server's own."""
        world = self._world
        return self.alone and world.monotonic() < self._until and world.now() < self._until_wall

    def _renewed(self, sent: tuple[float, float]) -> None:
        self._until, self._until_wall = sent[0] + TTL, sent[1] + TTL

    def _clocks(self) -> tuple[float, float]:
        return self._world.monotonic(), self._world.now()

    async def join(self, lost: int = 0) -> None:
        """Makes the key and waits until everyone knows of it. ``lost``: the create revision known to be gone."""
        async with self._joining:
            if self.created and self.created != lost:
                return
            await self._stop()
            self.alone, self.created = False, 0
            sent = self._clocks()
            self._lease = (await self._connection.grant(pb.LeaseGrantRequest(ttl=TTL))).id
            self._renewed(sent)
            await self._connection.txn(pb.TxnRequest(success=[_format(0, ready=False), self._put(0)]))
            others = await self._list()
            created = others.pop(self.key, (0, {}))[0]
            self._tasks = [asyncio.ensure_future(self._keep())]
            while waiting := self._before(others, created):
                for key in waiting:
                    if _dead(others[key][1]):
                        await self._remove(key, others[key][0])
                    else:
                        await self._world.sleep(0.05)
                others = await self._list()
                if others.pop(self.key, (0, {}))[0] != created:
                    raise StoreUnavailable("lost the lease while joining")
            if not self.since:
                await self._connection.txn(pb.TxnRequest(success=[_format(1, ready=True)]))
                await self._list()
            self.created = created
            self._tasks.append(asyncio.ensure_future(self._follow()))

    def _before(self, others: dict[str, tuple[int, dict[str, Any]]], created: int) -> list[str]:
        """Those that we have to wait for: who was there before us and does not know of us, and all of an older version.
        Whoever came later waits for us instead."""
        out = []
        for key, (since, value) in others.items():
            older = not value.get("places")
            if older and key not in self._older:
                self._older[key] = None
                log.warning("an API server of an older version (process %s) still runs on this etcd, of which it would not "
                            "understand what this version writes: waiting until it has ended", value.get("pid"))  # fmt: skip
            if older or (since < created and value.get("seen", 0) < created):
                out.append(key)
        return out

    def forget(self) -> None:
        """The store is another one: the key is to be made again before anything is written or answered from memory."""
        self.alone, self.created, self.floor, self.since = False, 0, 0, 0

    async def leave(self) -> None:
        """Gives the key up; the store must not be used afterwards."""
        await self._stop()
        self.alone = False
        if self._lease:
            try:
                async with asyncio.timeout(1):  # etcd may be gone before us
                    await self._connection.revoke(pb.LeaseRevokeRequest(id=self._lease))
            except Exception as error:
                log.info("could not give the lease back: %s", error)

    async def _stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self) -> None:
        """Keeps the lease alive. When it has ended, the next write finds out and joins again."""
        while True:
            try:
                stream = await self._connection.keep_alive()
                try:
                    if not await self._renew(stream):
                        return
                finally:
                    stream.cancel()
            except (RpcError, StoreUnavailable, TimeoutError) as error:
                log.info("the lease was not renewed: %s", error)
            await self._world.sleep(0.2)

    async def _renew(self, stream: Stream) -> bool:
        """Renews the lease again and again; returns True when the stream has ended, False when the lease has."""
        while True:
            sent = self._clocks()
            stream.send(pb.LeaseKeepAliveRequest(id=self._lease).SerializeToString())
            async with asyncio.timeout(TTL):  # not wait_for: before Python 3.12 that can swallow a cancellation
                message = await stream.receive()
            if message is None:
                return True
            if pb.LeaseKeepAliveResponse.FromString(message).ttl <= 0:
                return False
            self._renewed(sent)
            await self._world.sleep(TTL / 3)

    async def _follow(self) -> None:
        """Acknowledges those who come, and notices when the last other one has gone."""
        while True:
            try:
                others = await self._list()
                mine = others.pop(self.key, None)
                if mine is None:
                    self.alone = False
                    return
                newest = max((created for created, _ in others.values()), default=0)
                self.floor = max(self.floor, self._listed)
                self.alone = not others
                if mine[1].get("seen", 0) < newest:
                    compare = pb.Compare(target=pb.Compare.CREATE, key=self.key.encode(), create_revision=self.created)
                    await self._connection.txn(pb.TxnRequest(compare=[compare], success=[self._put(newest)]))
                await self._change()
            except Exception as error:
                log.info("could not follow the other servers: %s", error)
                await self._world.sleep(0.2)

    async def _list(self) -> dict[str, tuple[int, dict[str, Any]]]:
        """Key -> create revision and value of every server, but for those of older versions that are kept out."""
        request = pb.RangeRequest(key=PREFIX.encode(), range_end=PREFIX[:-1].encode() + b"0")
        response = await self._connection.range(request)
        self._listed = response.header.revision
        servers = {kv.key.decode(): (kv.create_revision, json.loads(kv.value)) for kv in response.kvs}
        begun, value = servers.pop(FORMAT, (0, {}))
        if value.get("ready"):
            self.since = next(kv.mod_revision for kv in response.kvs if kv.key.decode() == FORMAT)
        return {key: (created, v) for key, (created, v) in servers.items() if created < begun or v.get("places")}

    async def _change(self) -> None:
        """Waits until something changed behind the last list."""
        create = pb.WatchCreateRequest(
            key=PREFIX.encode(), range_end=PREFIX[:-1].encode() + b"0", start_revision=self._listed + 1
        )
        stream = await self._connection.watch()
        try:
            stream.send(pb.WatchRequest(create=create).SerializeToString())
            while (message := await stream.receive()) is not None:
                response = pb.WatchResponse.FromString(message)
                if response.canceled or response.events:
                    return
        finally:
            stream.cancel()

    async def _remove(self, key: str, created: int) -> None:
        compare = pb.Compare(target=pb.Compare.CREATE, key=key.encode(), create_revision=created)
        delete = pb.RequestOp(delete=pb.DeleteRangeRequest(key=key.encode()))
        await self._connection.txn(pb.TxnRequest(compare=[compare], success=[delete]))

    def _put(self, newest: int) -> Any:
        value = json.dumps({"seen": newest, "places": PLACES, **_process(os.getpid())}).encode()
        return pb.RequestOp(put=pb.PutRequest(key=self.key.encode(), value=value, lease=self._lease))


def _format(version: int, ready: bool) -> Any:
    """Puts the key that keeps older versions out if etcd has put it ``version`` times before."""
    note = "older versions of navarch do not understand what lies here: this key has their API servers wait"
    value = json.dumps({"places": PLACES, "ready": ready, "note": note}).encode()
    compare = pb.Compare(target=pb.Compare.VERSION, key=FORMAT.encode(), version=version)
    put = pb.RequestOp(put=pb.PutRequest(key=FORMAT.encode(), value=value))
    return pb.RequestOp(txn=pb.TxnRequest(compare=[compare], success=[put]))


def _process(pid: int) -> dict[str, Any]:
    """Identifies a process for good: machine boot, pid namespace, pid, start time."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if stat[0] in "ZX":
        raise ProcessLookupError(pid)
    return {
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "pids": os.stat("/proc/self/ns/pid").st_ino,
        "pid": pid,
        "start": int(stat[19]),
    }


def _dead(value: dict[str, Any]) -> bool:
    """Whether the process in a key's value is surely gone; False if it cannot be told."""
    me = _process(os.getpid())
    if any(value.get(part) != me[part] for part in ("boot", "pids")):
        return False
    try:
        return _process(int(value["pid"])) != {part: value.get(part) for part in me}
    except (FileNotFoundError, ProcessLookupError):
        return True
