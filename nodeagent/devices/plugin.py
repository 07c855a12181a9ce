"""One device plugin: its socket, the devices that it lists, and what is asked of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from navarch.rpc.sockets import Caller, RpcError
from nodeagent.devices.ledger import Gift
from nodeagent.runtime.runtime import Device, Mount
from protos import deviceplugin_pb2 as messages

SERVICE = "/v1beta1.DevicePlugin/"
HEALTHY = "Healthy"
CONNECT, CALL = 10.0, 30.0  # seconds


class DevicePlugin:
    """``health``: device -> whether it is well; empty after the plugin went."""

    def __init__(self, resource: str, socket: Path, *, pre_start: bool, preferred: bool) -> None:
        self.resource = resource
        self.pre_start, self.preferred = pre_start, preferred
        self.health: dict[str, bool] = {}
        self.is_up = False
        self._caller = Caller(socket)

    @property
    def healthy(self) -> list[str]:
        return [number for number, well in self.health.items() if well] if self.is_up else []

    async def follow(self, changed: Callable[[], None]) -> None:
        """Takes in the lists of devices until the plugin goes. Raises RpcError."""
        await self._caller.connect(CONNECT)
        try:
            async for listing in self._caller.stream(SERVICE + "ListAndWatch", messages.Empty(), messages.ListAndWatchResponse):
                self.is_up = True
                self.health = {d.ID: d.health == HEALTHY for d in sorted(listing.devices, key=lambda d: natural(d.ID))}
                changed()
        finally:
            self.is_up = False
            changed()

    async def preference(self, count: int, free: Sequence[str], must: Sequence[str]) -> list[str]:
        """The devices that the plugin would rather give away. Raises RpcError."""
        one = messages.ContainerPreferredAllocationRequest(
            available_deviceIDs=[*must, *free], must_include_deviceIDs=must, allocation_size=count
        )
        request = messages.PreferredAllocationRequest(container_requests=[one])
        reply = messages.PreferredAllocationResponse
        answer = await self._caller.call(SERVICE + "GetPreferredAllocation", request, reply, CALL)
        return list(answer.container_responses[0].deviceIDs) if answer.container_responses else []

    async def allocate(self, ids: Sequence[str]) -> Gift:
        """Allocate: everything that a container with these devices gets. Raises RpcError."""
        request = messages.AllocateRequest(container_requests=[messages.ContainerAllocateRequest(devicesIDs=ids)])
        answer = await self._caller.call(SERVICE + "Allocate", request, messages.AllocateResponse, CALL)
        if len(answer.container_responses) != 1:
            raise RpcError("INTERNAL", f"{len(answer.container_responses)} responses for one container")
        return gift(answer.container_responses[0])

    async def before_start(self, ids: Sequence[str]) -> None:
        """A container with these devices is about to start. Raises RpcError."""
        request = messages.PreStartContainerRequest(devicesIDs=ids)
        await self._caller.call(SERVICE + "PreStartContainer", request, messages.PreStartContainerResponse, CALL)

    async def close(self) -> None:
        self.is_up = False
        await self._caller.close()


def gift(response: messages.ContainerAllocateResponse) -> Gift:
    """A plugin's answer in our terms."""
    return Gift(
        env=dict(sorted(response.envs.items())),
        mounts=tuple(Mount(m.host_path, m.container_path, m.read_only) for m in response.mounts),
        devices=tuple(Device(d.host_path, d.container_path or d.host_path, d.permissions or "rwm") for d in response.devices),
        annotations=dict(sorted(response.annotations.items())),
        cdi=tuple(d.name for d in response.cdi_devices),
    )


def natural(text: str) -> list[tuple[int, str]]:
    """A sort key under which gpu-10 comes after gpu-9. Numbers are told by their length first: they may have any."""
    return [(len(digits) if digits else -1, digits or word) for digits, word in _PARTS(text)]


_PARTS = re.compile(r"0*([0-9]+)|([^0-9]+)").findall
