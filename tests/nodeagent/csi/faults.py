"""A program, run in a mount namespace of its own: for each call of a driver's node service, the agent or the driver dies
before or after it. A new one then mounts the volume, finds the data, and takes everything away.

It prints one line of JSON: row -> what was wrong.

It is a program since grpcio does not survive the fork by which the other tests enter a node.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.transport import InProcessTransport
from navarch.world import RealWorld
from nodeagent.pods.fieldrefs import ConfigError
from nodeagent.volumes.csi.drivers import Drivers
from nodeagent.volumes.csi.mounter import CsiVolumes
from nodeagent.volumes.csi.usage import InUse
from nodeagent.volumes.tokens import Tokens
from tests.client.double import Double

EXAMPLE = Path(__file__).parents[3] / "examples" / "06_a_csi_driver.py"
CALLS = ("NodeStageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume")
ROWS = [
    f"{who} {when} {call}, {end}"
    for call in CALLS
    for when in ("before", "after")
    for who in ("agent", "driver")
    for end in ("used again", "let go")
]
REPUBLISH = "a driver that wants to be called again"
NAME = "folders.example.com"


def example() -> Any:
    spec = importlib.util.spec_from_file_location("csi_example", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Died(Exception):
    pass


class Node:
    """A node's folder, a driver that listens, an API server with one volume, and agents one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.module = folder, example()
        self.driver = self.module.Driver(folder / "data", "n1", {}, False)
        self.api = Double()
        self.api.put("/apis/storage.k8s.io/v1/csidrivers/" + NAME, {
            "spec": {"attachRequired": False, "fsGroupPolicy": "File", "volumeLifecycleModes": ["Persistent", "Ephemeral"]},
        })  # fmt: skip
        self.api.put("/api/v1/nodes/n1", {"metadata": {"name": "n1"}, "spec": {}, "status": {}})
        self.client = Client(InProcessTransport(self.api, "node"), RealWorld())
        self.begin()

    def begin(self) -> None:
        """A new agent, which knows what is on disk."""
        self.drivers = Drivers(self.client, "n1", lambda: None)
        self.csi = CsiVolumes(RealWorld(), self.client, "n1", self.folder / "kubelet", self.drivers, InUse(lambda: None))

    async def register(self) -> None:
        await self.drivers.register(NAME, self.folder / "csi.sock", ["1.0.0"])

    @contextlib.asynccontextmanager
    async def serving(self) -> Any:
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        server = asyncio.ensure_future(self.module.serve(self.driver, self.folder / "csi.sock"))
        try:
            await self.register()
            yield
        finally:
            server.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await server

    async def set_up(self, uid: str = "u1") -> Path:
        volume, claim, pod = objects(uid, self.handle)
        return await self.csi.set_up(pod, pod.spec.volumes[0], (claim, volume), Tokens(self.client, RealWorld()))  # type: ignore[index]

    @property
    def handle(self) -> str:
        request = self.module.csi.CreateVolumeRequest(name="v1")
        return str(self.driver.CreateVolume(request).volume.volume_id)

    async def release(self, uid: str = "u1") -> None:
        await self.csi.tear_down(uid)
        assert await self.csi._unstage_unused()

    def mounts(self) -> list[str]:
        return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.folder) in line.split()[4]]


def objects(uid: str, handle: str) -> tuple[Any, Any, core_v1.Pod]:
    """(volume, claim, pod) of one claim."""
    size, modes = {"storage": "1Gi"}, ["ReadWriteOnce"]
    source = {"driver": NAME, "volumeHandle": handle}
    volume = {"metadata": {"name": "pv"}, "spec": {"capacity": size, "accessModes": modes, "csi": source}}
    claim = {"metadata": {"name": "c", "namespace": "ns"}, "status": {"capacity": size, "phase": "Bound"}}
    spec = {"containers": [], "securityContext": {"fsGroup": 3000}}
    spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]  # type: ignore[assignment]
    pod = {"metadata": {"name": "p", "namespace": "ns", "uid": uid}, "spec": spec}
    return (
        msgspec.convert(volume, core_v1.PersistentVolume),
        msgspec.convert(claim, core_v1.PersistentVolumeClaim),
        msgspec.convert(pod, core_v1.Pod),
    )


async def row(node: Node, words: str) -> None:
    """One row of the table. Raises AssertionError."""
    death, _, end = words.partition(", ")
    who, when, call = death.split()
    async with node.serving():
        path = await node.set_up()
        (path / "precious").write_text("data")
        if call in CALLS[:2]:
            await node.release()
            await dies(node, who, when, call, node.set_up)
        else:
            await dies(node, who, when, call, node.release)
        node.begin()
        await node.register()
        if end == "used again":
            await again(node)
        else:
            await node.release()
    assert node.mounts() == [], "something stays mounted"
    assert [p for p in (node.folder / "kubelet").rglob("*") if not p.is_dir()] == [], "records stay"
    assert list((node.folder / "data").glob("*/files/precious")), "the driver's data is gone"


async def republish(node: Node) -> None:
    """A driver that wants it is called again for what is mounted, and a minute later the next time. Raises AssertionError."""
    path = "/apis/storage.k8s.io/v1/csidrivers/" + NAME
    spec = node.api.objects[path]["spec"]
    calls: list[str] = []
    node.driver.hook = lambda method, moment: calls.append(method) if moment == "before" else None
    async with node.serving():
        await node.set_up()
        await node.set_up()
        assert calls.count("NodePublishVolume") == 1 and node.csi.next_republish("u1") is None
        node.api.put(path, {"spec": spec | {"requiresRepublish": True}})
        await node.set_up()
        assert calls.count("NodePublishVolume") == 2 and calls.count("NodeStageVolume") == 1
        due = node.csi.next_republish("u1")
        assert due is not None and 0 < due - RealWorld().now() <= 60
        await node.release()
        assert node.csi.next_republish("u1") is None and node.mounts() == []


async def again(node: Node) -> None:
    """The pod goes on, another one comes, and they go one after the other."""
    path = await node.set_up()
    assert (path / "precious").read_text() == "data", "the data is lost"
    assert (path / "precious").stat().st_gid == 3000
    other = await node.set_up("u2")
    await node.release("u1")
    assert (other / "precious").read_text() == "data", "another pod's volume is gone"
    await node.release("u2")


async def dies(node: Node, who: str, when: str, call: str, work: Callable[[], Any]) -> None:
    """Does the work, in the middle of which one of the two dies."""
    task = asyncio.ensure_future(work())
    happened = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hook(method: str, moment: str) -> None:
        if (method, moment) != (call, when) or happened.is_set():
            return
        loop.call_soon_threadsafe(happened.set)
        if who == "agent":
            task.cancel()
        else:
            raise Died

    node.driver.hook = hook
    try:
        with contextlib.suppress(asyncio.CancelledError, ConfigError, OSError, AssertionError):
            await task
        assert happened.is_set() or task.cancelled(), "the call never came"
    finally:
        node.driver.hook = lambda method, moment: None


def main(folder: Path) -> None:
    async def run() -> dict[str, str]:
        out = {}
        for number, words in enumerate([*ROWS, REPUBLISH]):
            (folder / str(number)).mkdir(parents=True)
            try:
                node = Node(folder / str(number))
                await asyncio.wait_for(republish(node) if words == REPUBLISH else row(node, words), 30)
            except BaseException:
                out[words] = traceback.format_exc()
        return out

    print(json.dumps(asyncio.run(run())))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
