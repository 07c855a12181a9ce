"""Device plugins: the ledger of who has what, and the manager against plugins on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from navarch.api.types import core_v1
from navarch.rpc.sockets import Caller, RpcError
from navarch.world import RealWorld
from nodeagent.devices import ledger as ledgers
from nodeagent.devices.ledger import DeviceError, Gift, Ledger, Share
from nodeagent.devices.manager import DeviceManager
from nodeagent.devices.plugin import natural
from nodeagent.devices.podresources import PodResources
from nodeagent.nodeplugins import DevicePlugins
from nodeagent.plugins.watcher import PluginError
from nodeagent.runtime.runtime import Device, Mount
from protos import deviceplugin_pb2 as api
from protos import podresources_pb2 as pr

GPU = "example.com/gpu"
EXAMPLE = Path(__file__).parents[2] / "examples" / "05_fake_gpus.py"


def pod(uid: str, *main: int, init: tuple[int, ...] = (), sidecars: tuple[int, ...] = ()) -> core_v1.Pod:
    """Containers that ask for so many GPUs: m0, m1 ..., init containers i0 ..., after them sidecars s0 ..."""

    def container(name: str, count: int, **more: str) -> dict[str, Any]:
        return {"name": name, "resources": {"limits": {GPU: str(count)} if count else {}}, **more}

    inits = [container(f"i{n}", count) for n, count in enumerate(init)]
    inits += [container(f"s{n}", count, restartPolicy="Always") for n, count in enumerate(sidecars)]
    spec = {"initContainers": inits, "containers": [container(f"m{n}", count) for n, count in enumerate(main)]}
    return msgspec.convert({"metadata": {"name": uid, "namespace": "ns", "uid": uid}, "spec": spec}, core_v1.Pod)


# --- the ledger ---


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no mistake
@given(st.lists(st.tuples(*[st.lists(st.integers(0, 3), max_size=2)] * 3), max_size=4), st.integers(0, 8))
def test_no_two_containers_that_run_together_share_a_device(pods: list[tuple[list[int], ...]], count: int) -> None:
    ledger, devices = Ledger(), [f"d{n}" for n in range(count)]
    running: dict[str, str] = {}
    for number, (main, init, sidecars) in enumerate(pods):
        one = pod(f"p{number}", *main, init=tuple(init), sidecars=tuple(sidecars))
        for container in [*(one.spec.init_containers or ()), *one.spec.containers]:
            for resource, size in ledgers.requests(container):
                reusable = ledger.reusable(one, container.name, resource)
                try:
                    must, free = ledgers.choose(resource, size, devices, ledger, reusable)
                except DeviceError:
                    assert len(set(devices) - set(ledger.used(resource)) | set(reusable)) < size
                    continue
                ids = ledgers.picked(size, must, free, ())
                assert len(set(ids)) == size
                ledger.put(f"p{number}", container.name, resource, Share(ids))
                if container.name.startswith("i"):
                    assert not any(running.get(i, "").startswith(f"p{other}/") for i in ids for other in range(number))
                    continue
                for number_of_device in ids:
                    assert number_of_device not in running
                    running[number_of_device] = f"p{number}/{container.name}"


def test_a_container_reuses_the_devices_of_its_pods_init_containers() -> None:
    ledger, one = Ledger(), pod("p", 2, 1, init=(2,), sidecars=(1,))
    ledger.put("p", "i0", GPU, Share(("d0", "d1")))
    assert ledger.reusable(one, "s0", GPU) == ["d0", "d1"]
    ledger.put("p", "s0", GPU, Share(("d0",)))  # runs on beside the others
    assert ledger.reusable(one, "m0", GPU) == ["d1"]
    must, free = ledgers.choose(GPU, 2, ["d0", "d1", "d2"], ledger, ["d1"])
    assert ledgers.picked(2, must, free, ["d0"]) == ("d1", "d2")


def test_gifts_of_several_resources_are_one() -> None:
    one = Gift({"A": "1"}, (Mount("/x", "/m"),), (Device("/dev/null", "/dev/a"),), {"k": "1"}, ("v.com/c=1",))
    two = Gift({"B": "2"}, (Mount("/y", "/m"), Mount("/y", "/n")), (), {}, ("v.com/c=1", "v.com/c=2"))
    both = ledgers.merged({"a": one, "b": two})
    assert both.env == {"A": "1", "B": "2"} and both.cdi == ("v.com/c=1", "v.com/c=2")
    assert [m.host_path for m in both.mounts] == ["/x", "/y"]


def test_devices_stand_in_the_order_of_their_numbers() -> None:
    assert sorted(["gpu-10", "gpu-9", "a", "gpu-9b"], key=natural) == ["a", "gpu-9", "gpu-9b", "gpu-10"]
    nines, long = "9" * 5000, "1" + "0" * 5000
    assert sorted([long, "x8", nines, "x007"], key=natural) == ["x007", "x8", nines, long]


# --- the manager ---


def fake_gpus() -> Any:
    spec = importlib.util.spec_from_file_location("fake_gpus", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Node:
    """A device manager on real sockets, and the example's plugin."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.example = folder, fake_gpus()
        self.sick = folder / "sick"
        self.gpus = self.example.FakeGpus(4, self.sick)
        self.begin()

    def begin(self) -> None:
        """A new agent on the old files."""
        sockets = self.folder / "kubelet" / "device-plugins"
        self.manager = DeviceManager(RealWorld(), sockets, self.folder / "devices.json")

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        await self.manager.load()
        task = asyncio.ensure_future(self.manager.run())
        try:
            yield
        finally:
            await ended(task)

    def plugin(self) -> asyncio.Task[None]:
        folder = self.folder / "kubelet" / "device-plugins"
        return asyncio.ensure_future(self.example.serve(folder, GPU, self.gpus))

    async def until(self, capacity: int, allocatable: int) -> None:
        async with asyncio.timeout(20):
            while self.manager.amounts().get(GPU) != (capacity, allocatable):
                await asyncio.sleep(0.01)


async def ended(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def run(tmp_path: Path, body: Callable[[Node], Awaitable[None]], gpus: Any = None) -> None:
    async def main() -> None:
        node = Node(tmp_path)
        node.gpus = gpus or node.gpus
        async with node.serving():
            plugin = node.plugin()
            await node.until(4, 4)
            try:
                await body(node)
            finally:
                await ended(plugin)

    asyncio.run(main())


def test_pods_get_devices_and_give_them_back(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        manager = node.manager
        await manager.admit(pod("p", 3))
        gift = await manager.prepare(pod("p", 3), "m0")
        assert gift.env == {"FAKE_GPUS": "0,1,2"}
        assert gift.devices[2] == Device("/dev/null", "/dev/fake-gpu2", "rw")
        text = f"Allocate failed due to requested number of devices unavailable for {GPU}. Requested: 2, Available: 1, "
        with pytest.raises(DeviceError, match=text):
            await manager.admit(pod("q", 2))
        await manager.release("p")
        await manager.admit(pod("q", 2))
        assert manager.ledger.used(GPU) == {"gpu-0": None, "gpu-1": None}
        assert (await manager.prepare(pod("other", 0), "m0")) == Gift()

    run(tmp_path, body)


def test_two_pods_at_once_never_share(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        outcomes = await asyncio.gather(*(node.manager.admit(pod(f"p{n}", 1)) for n in range(6)), return_exceptions=True)
        assert sum(isinstance(outcome, DeviceError) for outcome in outcomes) == 2
        assert len(node.manager.ledger.used(GPU)) == 4

    run(tmp_path, body)


def test_sick_devices_are_counted_and_not_given_away(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        node.sick.write_text("gpu-0\ngpu-2\n")
        await node.until(4, 2)
        await node.manager.admit(pod("p", 2))
        assert list(node.manager.ledger.used(GPU)) == ["gpu-1", "gpu-3"]
        node.sick.unlink()
        await node.until(4, 4)

    run(tmp_path, body)


def test_a_plugin_that_went_leaves_no_device_to_give(tmp_path: Path) -> None:
    async def main() -> None:
        node = Node(tmp_path)
        async with node.serving():
            plugin = node.plugin()
            await node.until(4, 4)
            await node.manager.admit(pod("p", 1))
            await ended(plugin)
            await node.until(4, 0)
            with pytest.raises(DeviceError, match="no healthy devices present; cannot allocate unhealthy devices"):
                await node.manager.admit(pod("q", 1))
            assert (await node.manager.prepare(pod("p", 1), "m0")).env == {"FAKE_GPUS": "0"}  # the pod keeps its own

    asyncio.run(main())


def test_a_new_agent_knows_who_has_what_and_plugins_come_back(tmp_path: Path) -> None:
    async def main() -> None:
        node = Node(tmp_path)
        plugin = None
        try:
            async with node.serving():
                plugin = node.plugin()
                await node.until(4, 4)
                await node.manager.admit(pod("p", 3))
            node.begin()
            async with node.serving():
                assert node.manager.manages(GPU)
                assert list(node.manager.ledger.used(GPU)) == ["gpu-0", "gpu-1", "gpu-2"]
                await node.until(4, 4)  # it saw the socket go, and has registered again
                await node.manager.keep_only({})
                assert not node.manager.ledger.used(GPU)
        finally:
            if plugin is not None:
                await ended(plugin)
        assert ledgers.load(tmp_path / "devices.json") == Ledger({}, [GPU])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (api.RegisterRequest(version="v1", endpoint="x", resource_name=GPU), "requested API version"),
        (api.RegisterRequest(version="v1beta1", endpoint="x", resource_name="cpu"), "ResourceName"),
        (api.RegisterRequest(version="v1beta1", endpoint="../x", resource_name=GPU), "endpoint"),
    ],
)
def test_registrations_that_are_refused(tmp_path: Path, request_: api.RegisterRequest, text: str) -> None:
    async def body(node: Node) -> None:
        caller = Caller(tmp_path / "kubelet" / "device-plugins" / "kubelet.sock")
        with pytest.raises(RpcError, match=text) as refusal:
            await caller.call("/v1beta1.Registration/Register", request_, api.Empty, 5)
        assert refusal.value.code == "INVALID_ARGUMENT"
        await caller.close()

    run(tmp_path, body)


def test_a_plugin_may_choose_and_be_told_of_starts(tmp_path: Path) -> None:
    """GetPreferredAllocation, PreStartContainer; and what becomes of a pod when Allocate fails."""

    class Picky(fake_gpus().FakeGpus):  # type: ignore[misc]
        starts: list[list[str]] = []

        async def options(self, request: Any, context: Any) -> Any:
            return api.DevicePluginOptions(pre_start_required=True, get_preferred_allocation_available=True)

        async def prefer(self, request: Any, context: Any) -> Any:
            wishes = list(request.container_requests[0].available_deviceIDs)[::-1]
            one = api.ContainerPreferredAllocationResponse(deviceIDs=["gpu-none", *wishes])
            return api.PreferredAllocationResponse(container_responses=[one])

        async def before(self, request: Any, context: Any) -> Any:
            self.starts.append(list(request.devicesIDs))
            return api.PreStartContainerResponse()

        async def allocate(self, request: Any, context: Any) -> Any:
            if len(request.container_requests[0].devicesIDs) > 2:
                raise RuntimeError("too many")
            return await super().allocate(request, context)

    async def body(node: Node) -> None:
        await node.manager.admit(pod("p", 1))
        assert list(node.manager.ledger.used(GPU)) == ["gpu-3"]
        await node.manager.prepare(pod("p", 1), "m0")
        assert node.gpus.starts == [["gpu-3"]]
        with pytest.raises(DeviceError, match=r"Allocate failed due to rpc error: code = Unknown desc = .*too many"):
            await node.manager.admit(pod("q", 3))
        assert list(node.manager.ledger.used(GPU)) == ["gpu-3"]

    run(tmp_path, body, Picky(4, None))


def test_a_plugin_with_names_of_any_kind_harms_no_other(tmp_path: Path) -> None:
    class Odd(fake_gpus().FakeGpus):  # type: ignore[misc]
        async def list_and_watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
            devices = [api.Device(ID=name, health="Healthy") for name in ("9" * 5000, "", "²", "\n")]
            yield api.ListAndWatchResponse(devices=devices)
            await asyncio.Event().wait()

    async def body(node: Node) -> None:
        await node.manager.admit(pod("p", 4))
        assert len(node.manager.ledger.used(GPU)) == 4

    run(tmp_path, body, Odd(4, None))


def test_found_by_its_socket_a_plugin_takes_no_resource_of_the_nodes_own(tmp_path: Path) -> None:
    async def main() -> None:
        node = Node(tmp_path)
        with pytest.raises(PluginError, match='the ResourceName "cpu" is invalid'):
            await DevicePlugins(node.manager).register("cpu", tmp_path / "x.sock", ["v1beta1"])

    asyncio.run(main())


def test_an_unreadable_ledger_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "devices.json").write_text("{")

    async def main() -> None:
        node = Node(tmp_path)
        await node.manager.load()
        assert node.manager.ledger == Ledger() and (tmp_path / "devices.unreadable").exists()

    asyncio.run(main())


def test_monitors_see_who_has_what(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        await node.manager.admit(pod("p", 2))
        socket = tmp_path / "pr.sock"
        task = asyncio.ensure_future(PodResources(node.manager, lambda: [pod("p", 2)]).run(socket))
        caller = Caller(socket)
        try:
            path = "/v1.PodResourcesLister/"
            await caller.connect(5)
            listing = await caller.call(path + "List", pr.ListPodResourcesRequest(), pr.ListPodResourcesResponse, 5)
            assert list(listing.pod_resources[0].containers[0].devices[0].device_ids) == ["gpu-0", "gpu-1"]
            everything = await caller.call(
                path + "GetAllocatableResources", pr.AllocatableResourcesRequest(), pr.AllocatableResourcesResponse, 5
            )
            assert len(everything.devices[0].device_ids) == 4
            with pytest.raises(RpcError, match="pod x in namespace ns not found"):
                request = pr.GetPodResourcesRequest(pod_name="x", pod_namespace="ns")
                await caller.call(path + "Get", request, pr.GetPodResourcesResponse, 5)
        finally:
            await caller.close()
            await ended(task)

    run(tmp_path, body)
