"""Slices for Endpoints that somebody writes by hand: proxies only look at slices."""

from __future__ import annotations

from controllers.controller import Context, Controller
from controllers.endpoints import slices
from controllers.endpoints.endpointslice import write
from controllers.pendingwrites import Overlay
from navarch.api import wellknown
from navarch.api.types import core_v1, discovery_v1

Endpoints = core_v1.Endpoints
EndpointSlice = discovery_v1.EndpointSlice

SKIP = wellknown.SKIP_MIRROR
LEADER = "control-plane.alpha.kubernetes.io/leader"
BY_ENDPOINTS = "endpoints"


def _mirror_of(slice_: EndpointSlice) -> list[str]:
    labels = slice_.metadata.labels or {}
    name = labels.get(slices.SERVICE_NAME)
    if not name or labels.get(slices.MANAGED_BY) != slices.MIRROR_MANAGER:
        return []
    return [f"{slice_.metadata.namespace}/{name}"]


def is_mirrored(endpoints: Endpoints) -> bool:
    """Not told otherwise, and not a lock of old leader elections."""
    labels, annotations = endpoints.metadata.labels or {}, endpoints.metadata.annotations or {}
    return labels.get(SKIP) != "true" and LEADER not in annotations


class MirroringController(Controller):
    """Keys are Endpoints, and the services of the same name."""

    name = "endpointslice-mirroring-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.endpoints = self.informer(Endpoints)
        self.services = self.informer(core_v1.Service)
        self.slices = self.informer(EndpointSlice, {BY_ENDPOINTS: _mirror_of})
        self.overlay = Overlay(self.slices, self.world)
        self.enqueues(self.endpoints)
        self.services.add_handler(self._service_changed)
        self.slices.add_handler(self._slice_changed)

    def _service_changed(self, kind: str, old: core_v1.Service | None, new: core_v1.Service) -> None:
        if old is None or kind == "DELETED" or bool(old.spec.selector) != bool(new.spec.selector):
            self.enqueue(new)

    def _slice_changed(self, kind: str, old: EndpointSlice | None, new: EndpointSlice) -> None:
        for key in dict.fromkeys([*(_mirror_of(old) if old is not None else ()), *_mirror_of(new)]):
            self.queue.add(key)

    async def reconcile(self, key: str) -> float | None:
        endpoints, service = self.endpoints.get_key(key), self.services.get_key(key)
        source = endpoints
        if service is None or service.spec.selector or endpoints is None or not is_mirrored(endpoints):
            source = None
        existing = self.overlay.over(self.slices.by_index(BY_ENDPOINTS, key), lambda s: key in _mirror_of(s))
        existing = [s for s in existing if s.metadata.deletion_timestamp is None]
        limits = {"most": self.config.max_endpoints_per_slice, "most_each": self.config.mirroring_max_endpoints_per_subset}
        await write(self.client, self.overlay, slices.mirror(source, existing, **limits))
        return None
