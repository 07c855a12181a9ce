"""The EndpointSlice controller."""

from __future__ import annotations

from controllers.controller import Context
from controllers.controller import key as key_of_object
from controllers.endpoints import members, slices
from controllers.endpoints.selecting import BY_NODE, Node, SelectingController
from controllers.pendingwrites import Overlay
from navarch.api.errors import NotFound, StatusError
from navarch.api.types import discovery_v1
from navarch.client.client import Client
from navarch.client.events import WARNING

EndpointSlice = discovery_v1.EndpointSlice
BY_SERVICE = "service"


def _service_of(slice_: EndpointSlice) -> list[str]:
    """The service of a slice that is ours."""
    labels = slice_.metadata.labels or {}
    name = labels.get(slices.SERVICE_NAME)
    if not name or labels.get(slices.MANAGED_BY) != slices.MANAGER:
        return []
    return [f"{slice_.metadata.namespace}/{name}"]


class EndpointSliceController(SelectingController):
    name = "endpointslice-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.events = context.recorder("endpoint-slice-controller")
        self.nodes = self.informer(Node)
        self.slices = self.informer(EndpointSlice, {BY_SERVICE: _service_of})
        self.overlay = Overlay(self.slices, self.world)
        self.nodes.add_handler(self._node_changed)
        self.slices.add_handler(self._slice_changed)

    def _node_changed(self, kind: str, old: Node | None, new: Node) -> None:
        if kind == "MODIFIED" and old is not None and _zone(old) == _zone(new):
            return
        for pod in self.pods.by_index(BY_NODE, new.metadata.name or ""):
            self.enqueue_services(pod)

    def _slice_changed(self, kind: str, old: EndpointSlice | None, new: EndpointSlice) -> None:
        for service in dict.fromkeys([*(_service_of(old) if old is not None else ()), *_service_of(new)]):
            self.queue.add(service)

    async def reconcile(self, key: str) -> float | None:
        service = self.services.get_key(key)
        if service is None or not service.spec.selector or service.metadata.deletion_timestamp is not None:
            return None  # slices of a service that is gone are garbage
        pods = self.pods_of(service)
        existing = self.overlay.over(self.slices.by_index(BY_SERVICE, key), lambda s: key in _service_of(s))
        existing = [s for s in existing if s.metadata.deletion_timestamp is None]
        zones = {}
        for pod in pods:
            node = self.nodes.get(None, pod.spec.node_name) if pod.spec.node_name else None
            if node is not None:
                zones[node.metadata.name or ""] = _zone(node)
        plan = slices.plan(
            service,
            pods,
            zones,
            existing,
            most=self.config.max_endpoints_per_slice,
            trigger=self.times.trigger(key, service, pods),
        )
        try:
            await write(self.client, self.overlay, plan)
        except StatusError as error:
            if error.http_code not in (404, 409):
                text = f"Error updating Endpoint Slices for Service {key_of_object(service)}: {error}"
                self.events.event(service, WARNING, "FailedToUpdateEndpointSlices", text)
            raise
        return None


async def write(client: Client, overlay: Overlay[EndpointSlice], plan: slices.Plan) -> None:
    """Does what a plan says, and notes it in the overlay."""
    resource = client[EndpointSlice]
    for new_slice in plan.create:
        overlay.wrote(await resource.create(new_slice))
    for changed in plan.update:
        overlay.wrote(await resource.update(changed))
    for old_slice in plan.delete:
        try:
            await resource.delete(old_slice.metadata.name or "", old_slice.metadata.namespace, uid=old_slice.metadata.uid)
        except NotFound:
            pass
        overlay.deleted(old_slice)


def _zone(node: Node) -> str | None:
    return (node.metadata.labels or {}).get(members.ZONE)
