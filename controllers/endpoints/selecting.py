"""Following services and their pods: whenever a pod's endpoint may change, its services are queued.

Services are indexed by one pair of their selector and pods by all pairs of their labels, so that an event costs what
the pod has labels, however many services and pods there are.
"""

from __future__ import annotations

from typing import Any, TypeVar

from controllers.controller import Context, Controller, key, patience
from controllers.endpoints import members
from navarch.api.types import core_v1

Pod = core_v1.Pod
Service = core_v1.Service
Node = core_v1.Node
T = TypeVar("T")

BY_SELECTOR, BY_LABEL, BY_NODE = "selector", "label", "node"


def label_pair(namespace: str | None, label: str, value: str) -> str:
    """The index value of pods of a namespace that have a label."""
    return f"{namespace}/{label}={value}"


def _first_pair(service: Service) -> list[str]:
    selector = service.spec.selector
    if not selector:
        return []
    label = min(selector)
    return [label_pair(service.metadata.namespace, label, selector[label])]


def label_pairs(pod: Pod) -> list[str]:
    """The index BY_LABEL of a pod: one value a label."""
    return [label_pair(pod.metadata.namespace, k, v) for k, v in (pod.metadata.labels or {}).items()]


def _node(pod: Pod) -> list[str]:
    return [pod.spec.node_name] if pod.spec.node_name else []


def selects(service: Service, pod: Pod) -> bool:
    labels = pod.metadata.labels or {}
    return all(labels.get(k) == v for k, v in (service.spec.selector or {}).items())


class SelectingController(Controller):
    """Queues the keys of services that have a selector. A subclass reconciles them."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.services = self.informer(Service, {BY_SELECTOR: _first_pair})
        self.pods = self.informer(Pod, {BY_LABEL: label_pairs, BY_NODE: _node})
        self.keys_are_of(self.services)
        self.times = members.ChangeTimes()
        self._sizes: dict[str, int] = {}  # pods of each service when it was last looked at
        self.services.add_handler(self._service_changed)
        self.pods.add_handler(self._pod_changed)

    def _service_changed(self, kind: str, old: Service | None, new: Service) -> None:
        if kind == "DELETED":
            self.times.forget(key(new))
            self._sizes.pop(key(new), None)
        if old is None or kind == "DELETED" or _essence(old) != _essence(new):
            self.enqueue(new)

    def _pod_changed(self, kind: str, old: Pod | None, new: Pod) -> None:
        if kind == "MODIFIED" and old is not None and members.facts(old) == members.facts(new):
            return
        if old is not None and old.metadata.labels != new.metadata.labels:
            self.enqueue_services(old)
        self.enqueue_services(new)

    def enqueue_services(self, pod: Pod) -> None:
        for pair in label_pairs(pod):
            for service in self.services.by_index(BY_SELECTOR, pair):
                if selects(service, pod):
                    service_key = key(service)
                    self.queue.add_after(service_key, patience(self._sizes.get(service_key, 0)))

    def pods_of(self, service: Service) -> list[Pod]:
        """The pods that the service selects, by name."""
        selector = service.spec.selector or {}
        if not selector:
            return []
        near = [self.pods.by_index(BY_LABEL, label_pair(service.metadata.namespace, k, v)) for k, v in selector.items()]
        pods = sorted((p for p in min(near, key=len) if selects(service, p)), key=lambda p: p.metadata.name or "")
        self._sizes[key(service)] = len(pods)
        return pods


def _essence(service: Service) -> tuple[Any, ...]:
    return service.metadata.uid, service.metadata.labels, service.spec
