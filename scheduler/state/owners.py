"""Which pods are like a pod, as Services and controllers tell: what default spread constraints count.

The answer is kept for each sort of pod until a Service's or a controller's selector changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from navarch.api import kinds, selectors
from navarch.api.pods import controller_of
from navarch.api.selectors import LabelSelector, Requirement
from navarch.api.types import apps_v1, core_v1
from navarch.api.types.base import Struct
from navarch.client.informer import Informer, SharedInformers
from scheduler.state.pods import PodInfo

CONTROLLERS: dict[str, type[Struct]] = {
    "ReplicaSet": apps_v1.ReplicaSet,
    "StatefulSet": apps_v1.StatefulSet,
    "ReplicationController": core_v1.ReplicationController,
}
MAX_KEPT = 4096


class Owners:
    """``changed`` is called when an answer may have changed."""

    def __init__(self, informers: SharedInformers, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._selectors: dict[tuple[Any, ...], LabelSelector | None] = {}
        self.services = informers.informer(core_v1.Service)
        self.services.add_handler(self._on_change)
        self.controllers: dict[str, Informer[Any]] = {}
        for kind, struct in CONTROLLERS.items():
            if any(k.kind == kind for k in kinds.KINDS):
                self.controllers[kind] = informers.informer(struct)
                self.controllers[kind].add_handler(self._on_change)

    def _on_change(self, kind: str, old: Any, new: Any) -> None:
        if old is None or kind == "DELETED" or old.spec.selector != new.spec.selector:
            self._selectors.clear()
            self._changed()

    def selector(self, pod: PodInfo) -> LabelSelector | None:
        """The pods that the same Services and the same controller choose; None if there is neither."""
        owner = controller_of(pod.pod.metadata)
        key = (pod.namespace, tuple(pod.labels.items()), owner and (owner.kind, owner.name))
        if key not in self._selectors:
            if len(self._selectors) >= MAX_KEPT:
                self._selectors.clear()
            self._selectors[key] = self._find(pod, (owner and owner.kind) or "", (owner and owner.name) or "")
        return self._selectors[key]

    def _find(self, pod: PodInfo, owner_kind: str, owner: str) -> LabelSelector | None:
        chosen: dict[Requirement, None] = {}
        for service in self.services.list(pod.namespace):
            if service.spec.selector and selectors.from_labels(service.spec.selector).matches(pod.labels):
                chosen |= dict.fromkeys(selectors.from_labels(service.spec.selector).requirements)
        controllers = self.controllers.get(owner_kind)
        controller = controllers.get(pod.namespace, owner) if controllers else None
        if controller is not None and controller.spec.selector:
            plain = owner_kind == "ReplicationController"
            make: Any = selectors.from_labels if plain else selectors.from_struct
            chosen |= dict.fromkeys(make(controller.spec.selector).requirements)
        if not chosen:
            return None
        return LabelSelector(tuple(sorted(chosen, key=lambda r: (r.key, r.operator, r.values))))
