"""A device plugin: fake GPUs for a node, by the API that real ones use. For lessons, and to try out scheduling of devices.

    sudo python examples/05_fake_gpus.py --node ~/.navarch/labs/default/nodes/node-1 --count 4
    kubectl run trainer --image=busybox --overrides='{"spec": {"containers": [{"name": "trainer", "image": "busybox",
        "args": ["sleep", "1d"], "resources": {"limits": {"example.com/gpu": 2}}}]}}'

A container sees its GPUs as /dev/fake-gpu0 and so on (each is a /dev/null), and their numbers in FAKE_GPUS. Whatever stands in
the file given by --sick (ids, one a line) is unhealthy. In a DaemonSet, mount /var/lib/kubelet/device-plugins by hostPath.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio

from protos import deviceplugin_pb2 as api


class FakeGpus:
    def __init__(self, count: int, sick: Path | None) -> None:
        self.ids, self.sick = [f"gpu-{number}" for number in range(count)], sick

    async def options(self, request: api.Empty, context: Any) -> api.DevicePluginOptions:
        return api.DevicePluginOptions(get_preferred_allocation_available=True)

    async def prefer(self, request: api.PreferredAllocationRequest, context: Any) -> api.PreferredAllocationResponse:
        """GPUs whose numbers follow on each other."""
        one = request.container_requests[0]
        ids = [*one.must_include_deviceIDs, *one.available_deviceIDs][: one.allocation_size]
        return api.PreferredAllocationResponse(container_responses=[api.ContainerPreferredAllocationResponse(deviceIDs=ids)])

    async def before(self, request: api.PreStartContainerRequest, context: Any) -> api.PreStartContainerResponse:
        return api.PreStartContainerResponse()

    def devices(self) -> list[api.Device]:
        sick = self.sick.read_text().split() if self.sick is not None and self.sick.exists() else []
        return [api.Device(ID=one, health="Unhealthy" if one in sick else "Healthy") for one in self.ids]

    async def list_and_watch(self, request: api.Empty, context: Any) -> AsyncIterator[api.ListAndWatchResponse]:
        before: list[api.Device] = []
        while True:
            if (devices := self.devices()) != before:
                yield api.ListAndWatchResponse(devices=devices)
            before = devices
            await asyncio.sleep(0.5)

    async def allocate(self, request: api.AllocateRequest, context: Any) -> api.AllocateResponse:
        return api.AllocateResponse(container_responses=[self.response(one.devicesIDs) for one in request.container_requests])

    def response(self, ids: list[str]) -> api.ContainerAllocateResponse:
        numbers = [one.removeprefix("gpu-") for one in ids]
        places = [f"/dev/fake-gpu{number}" for number in numbers]
        nodes = [api.DeviceSpec(host_path="/dev/null", container_path=place, permissions="rw") for place in places]
        return api.ContainerAllocateResponse(envs={"FAKE_GPUS": ",".join(numbers)}, devices=nodes)

    def handlers(self) -> grpc.GenericRpcHandler:
        def unary(answer: Any, request: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(answer, request.FromString, lambda reply: reply.SerializeToString())

        watch = grpc.unary_stream_rpc_method_handler(
            self.list_and_watch, api.Empty.FromString, lambda reply: reply.SerializeToString()
        )
        methods = {
            "GetDevicePluginOptions": unary(self.options, api.Empty),
            "ListAndWatch": watch,
            "Allocate": unary(self.allocate, api.AllocateRequest),
            "GetPreferredAllocation": unary(self.prefer, api.PreferredAllocationRequest),
            "PreStartContainer": unary(self.before, api.PreStartContainerRequest),
        }
        return grpc.method_handlers_generic_handler("v1beta1.DevicePlugin", methods)


async def register(folder: Path, endpoint: str, resource: str, options: api.DevicePluginOptions) -> None:
    async with grpc.aio.insecure_channel(f"unix:{folder / 'kubelet.sock'}") as channel:
        method = channel.unary_unary(
            "/v1beta1.Registration/Register", lambda request: request.SerializeToString(), api.Empty.FromString
        )
        request = api.RegisterRequest(version="v1beta1", endpoint=endpoint, resource_name=resource, options=options)
        await method(request, wait_for_ready=True, timeout=30)


async def serve(folder: Path, resource: str, gpus: FakeGpus) -> None:
    """Serves and registers; again each time that the agent has begun anew, which clears the folder."""
    kubelet, own = folder / "kubelet.sock", folder / f"{resource.replace('/', '-')}.sock"
    while True:
        while not kubelet.exists():
            await asyncio.sleep(0.2)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((gpus.handlers(),))
        own.unlink(missing_ok=True)
        server.add_insecure_port(f"unix:{own}")
        await server.start()
        await register(folder, own.name, resource, await gpus.options(api.Empty(), None))
        print(f"registered {len(gpus.ids)} devices of {resource}", flush=True)
        while own.exists():
            await asyncio.sleep(0.2)
        await server.stop(None)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fake GPUs for a node")
    parser.add_argument("--node", type=Path, required=True, help="the node's folder, or /var/lib in a pod")
    parser.add_argument("--resource", default="example.com/gpu")
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--sick", type=Path, help="a file with ids of unhealthy devices")
    args = parser.parse_args()
    gpus = FakeGpus(args.count, args.sick)
    asyncio.run(serve(args.node / "kubelet" / "device-plugins", args.resource, gpus))


if __name__ == "__main__":
    main()
