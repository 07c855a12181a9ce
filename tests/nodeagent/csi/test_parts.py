"""The parts of CSI on a node: registration, CSINode, what drivers are told, what is in use."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controllers.csi.driver import BadParameters, secret_ref
from controllers.csi.registrar import Registrar
from navarch.api.types import core_v1, storage_v1
from navarch.world import RealWorld
from nodeagent.plugins.watcher import PluginError, PluginWatcher
from nodeagent.volumes.csi import requests
from nodeagent.volumes.csi.drivers import entry
from nodeagent.volumes.csi.records import Place, Places, Record
from nodeagent.volumes.csi.usage import InUse
from protos import csi_pb2 as csi

MODE = csi.VolumeCapability.AccessMode


@pytest.mark.parametrize(
    ("modes", "single", "mode"),
    [
        (["ReadWriteOnce"], False, MODE.SINGLE_NODE_WRITER),
        (["ReadWriteOncePod"], False, MODE.SINGLE_NODE_WRITER),
        (["ReadWriteOnce"], True, MODE.SINGLE_NODE_MULTI_WRITER),
        (["ReadWriteOncePod"], True, MODE.SINGLE_NODE_SINGLE_WRITER),
        (["ReadOnlyMany"], False, MODE.MULTI_NODE_READER_ONLY),
        (["ReadOnlyMany", "ReadWriteOnce"], False, MODE.MULTI_NODE_SINGLE_WRITER),
        (["ReadWriteOnce", "ReadWriteMany"], True, MODE.MULTI_NODE_MULTI_WRITER),
    ],
)
def test_access_modes(modes: list[str], single: bool, mode: int) -> None:
    assert requests.access_mode(modes, single) == mode


@pytest.mark.parametrize(
    ("policy", "fs_type", "modes", "gives"),
    [
        (None, "ext4", ["ReadWriteOnce"], True),
        (None, "", ["ReadWriteOnce"], False),
        ("ReadWriteOnceWithFSType", "ext4", ["ReadWriteMany"], False),
        ("File", "", ["ReadWriteMany"], True),
        ("None", "ext4", ["ReadWriteOnce"], False),
    ],
)
def test_who_gets_the_fs_group(policy: str | None, fs_type: str, modes: list[str], gives: bool) -> None:
    volume = msgspec.convert({"spec": {"accessModes": modes}}, core_v1.PersistentVolume)
    assert requests.gives_group(storage_v1.CSIDriverSpec(fs_group_policy=policy), volume, fs_type) is gives


def test_a_drivers_entry_in_the_csi_node() -> None:
    topology = csi.Topology(segments={"example.com/zone": "a"})
    driver = entry("d", csi.NodeGetInfoResponse(node_id="i-1", max_volumes_per_node=5, accessible_topology=topology))
    assert (driver.node_id, driver.topology_keys, driver.allocatable) == (
        "i-1", ["example.com/zone"], storage_v1.VolumeNodeResources(count=5),
    )  # fmt: skip
    assert entry("d", csi.NodeGetInfoResponse(node_id="i-1")).allocatable is None


def test_a_record_that_is_not_whole_is_none(tmp_path: Path) -> None:
    place = Place(tmp_path / "v", "mount")
    assert place.read() is None
    place.write(Record("d", "h", "pv"))
    assert place.read() == Record("d", "h", "pv")
    (tmp_path / "v" / "vol_data.json").write_text('{"driver":')
    assert place.read() is None
    place.remove()
    assert not (tmp_path / "v").exists()


def test_a_place_with_files_in_it_is_never_removed(tmp_path: Path) -> None:
    place = Places(tmp_path).of_pod("u", "pv")
    place.write(Record("d", "h", "pv", "u"))
    place.mount.mkdir()
    (place.mount / "precious").write_text("data")
    with pytest.raises(OSError, match="not empty"):
        place.remove()
    assert (place.mount / "precious").read_text() == "data" and place.read() is not None


def test_a_volume_is_in_use_before_it_is_mounted() -> None:
    async def main() -> None:
        looks: list[list[str]] = []
        in_use = InUse(lambda: looks.append(in_use.names))
        in_use.set(["b"])
        reporting = asyncio.ensure_future(in_use.report("a"))
        await asyncio.sleep(0)
        assert looks[-1] == ["a", "b"] and not reporting.done()
        node = core_v1.Node(status=core_v1.NodeStatus(volumes_in_use=["a", "b"]))
        in_use.observe(node)
        await asyncio.wait_for(reporting, 5)
        in_use.set(["b"])  # it was given up
        assert looks[-1] == ["b"]

    asyncio.run(main())


class Handler:
    """Refuses the first registration; and so many departures."""

    def __init__(self, departures: int = 0) -> None:
        self.calls: list[Any] = []
        self.departures = departures

    async def register(self, name: str, endpoint: Path, versions: Sequence[str]) -> None:
        self.calls.append((name, str(endpoint), list(versions)))
        if len(self.calls) == 1:
            raise PluginError("not now")

    async def deregister(self, name: str) -> None:
        if self.departures:
            self.departures -= 1
            raise OSError("the API server is away")
        self.calls.append(name)


@contextlib.asynccontextmanager
async def alongside(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def test_a_driver_that_goes_while_the_api_server_is_away_is_told_later(tmp_path: Path) -> None:
    async def main() -> None:
        handler = Handler(departures=2)
        watcher, other = PluginWatcher(RealWorld(), tmp_path, {"CSIPlugin": handler}), Registrar("e.example.com", "/e.sock")
        async with alongside(watcher.run(), Registrar("d.example.com", "/csi.sock").run(tmp_path)) as (watching, serving):
            await until(lambda: len(handler.calls) == 2)
            (tmp_path / "loop").symlink_to("loop")
            serving.cancel()
            await until(lambda: handler.calls[2:] == ["d.example.com"])
            async with alongside(other.run(tmp_path)):
                await until(lambda: handler.calls[3:] == [("e.example.com", "/e.sock", ["1.0.0"])])
            assert not watching.done()

    asyncio.run(main())


def test_a_driver_with_a_successor_does_not_go(tmp_path: Path) -> None:
    """Two pods of a driver for a moment, as in a rolling update: the old one's end is not the driver's."""

    async def main() -> None:
        handler = Handler()
        (tmp_path / "old").mkdir()
        old, new = Registrar("d.example.com", "/old.sock"), Registrar("d.example.com", "/new.sock")
        watcher = PluginWatcher(RealWorld(), tmp_path, {"CSIPlugin": handler})
        async with alongside(watcher.run(), old.run(tmp_path / "old"), new.run(tmp_path)) as (_, serving, _):
            await until(lambda: len(handler.calls) == 2)
            (tmp_path / "old-reg.sock").symlink_to("old/d.example.com-reg.sock")
            await until(lambda: handler.calls[2:] == [("d.example.com", "/old.sock", ["1.0.0"])])
            serving.cancel()
            await until(lambda: handler.calls[3:])
            assert handler.calls[3:] == [("d.example.com", "/new.sock", ["1.0.0"])]

    asyncio.run(main())


def test_drivers_come_and_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        handler = Handler()
        watcher = PluginWatcher(RealWorld(), tmp_path, {"CSIPlugin": handler})
        async with alongside(watcher.run(), Registrar("d.example.com", "/csi.sock").run(tmp_path)) as (_, serving):
            await until(lambda: len(handler.calls) == 2)
            assert handler.calls == [("d.example.com", "/csi.sock", ["1.0.0"])] * 2
            assert "not registered: not now" in caplog.text
            serving.cancel()
            await until(lambda: handler.calls[2:] == ["d.example.com"])

    asyncio.run(main())


def test_secrets_that_a_class_names() -> None:
    claim = core_v1.PersistentVolumeClaim()
    claim.metadata.name, claim.metadata.namespace = "c", "ns"
    claim.metadata.annotations = {"team": "blue"}
    name, namespace = "csi.storage.k8s.io/node-stage-secret-name", "csi.storage.k8s.io/node-stage-secret-namespace"
    parameters = {name: "${pvc.name}-${pvc.annotations['team']}", namespace: "${pvc.namespace}"}
    assert secret_ref(parameters, "node-stage", claim, "pv") == ("ns", "c-blue")
    assert secret_ref({}, "node-stage", claim, "pv") is None
    claim.metadata.annotations |= {"up": "../../kube-system/secrets/x", "again": "${pv.name}", "none": ""}
    for wrong in (
        {name: "x"}, {name: "${pvc.uid}", namespace: "x"}, {name: "${pvc.annotations['no']}", namespace: "x"},
        # What the claim's owner chooses: no namespace, no path, no template, and not nothing.
        {name: "x", namespace: "${pvc.name}"}, {name: "x", namespace: "${pvc.annotations['team']}"},
        *({name: f"${{pvc.annotations['{key}']}}", namespace: "x"} for key in ("up", "again", "none")),
    ):  # fmt: skip
        with pytest.raises(BadParameters):
            secret_ref(wrong, "node-stage", claim, "pv")
