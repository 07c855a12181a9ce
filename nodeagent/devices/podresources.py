"""The pod resources API (v1) on a socket of the node: which devices which containers have. Monitors of GPUs ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from navarch.api.pods import all_containers
from navarch.api.types import core_v1
from navarch.rpc.sockets import Method, Refusal, Server
from nodeagent.devices.manager import DeviceManager
from protos import podresources_pb2 as messages


class PodResources:
    """``pods`` gives the pods that take room on the node."""

    def __init__(self, devices: DeviceManager, pods: Callable[[], list[core_v1.Pod]]) -> None:
        self._devices, self._pods = devices, pods

    async def run(self, socket: Path) -> None:
        """Serves until cancelled. Raises OSError."""
        server = Server(socket)
        methods = {
            "List": Method(messages.ListPodResourcesRequest, self._list),
            "GetAllocatableResources": Method(messages.AllocatableResourcesRequest, self._allocatable),
            "Get": Method(messages.GetPodResourcesRequest, self._get),
        }
        server.add("v1.PodResourcesLister", methods)
        await server.start()
        try:
            await asyncio.Event().wait()
        finally:
            await server.stop()

    async def _list(self, request: messages.ListPodResourcesRequest) -> messages.ListPodResourcesResponse:
        return messages.ListPodResourcesResponse(pod_resources=[self._of(pod) for pod in self._pods()])

    async def _get(self, request: messages.GetPodResourcesRequest) -> messages.GetPodResourcesResponse:
        for pod in self._pods():
            if (pod.metadata.namespace, pod.metadata.name) == (request.pod_namespace, request.pod_name):
                return messages.GetPodResourcesResponse(pod_resources=self._of(pod))
        raise Refusal("NOT_FOUND", f"pod {request.pod_name} in namespace {request.pod_namespace} not found")

    async def _allocatable(self, request: messages.AllocatableResourcesRequest) -> messages.AllocatableResourcesResponse:
        free = self._devices.devices().items()
        devices = [messages.ContainerDevices(resource_name=name, device_ids=ids) for name, ids in free if ids]
        return messages.AllocatableResourcesResponse(devices=devices)

    def _of(self, pod: core_v1.Pod) -> messages.PodResources:
        containers = []
        for container in all_containers(pod):
            shares = self._devices.ledger.of(pod.metadata.uid or "", container.name)
            devices = [messages.ContainerDevices(resource_name=name, device_ids=s.ids) for name, s in sorted(shares.items())]
            containers.append(messages.ContainerResources(name=container.name, devices=devices))
        return messages.PodResources(name=pod.metadata.name, namespace=pod.metadata.namespace, containers=containers)
