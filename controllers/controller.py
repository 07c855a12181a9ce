"""The pattern of every controller: informers put keys into a queue, workers bring one key at a time to order.

``reconcile(key)`` reads the caches and works whatever events were missed. It raises when something failed: the key
then comes again, later each time. It returns the seconds after which it wants to look again even if nothing happens,
or None. A key whose object cannot be decoded is left alone: what is not understood is neither acted on nor missed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from controllers.config import Config
from controllers.metrics import Metrics
from navarch.api.errors import Conflict, NotFound, StatusError
from navarch.api.pods import controller_of
from navarch.api.types.base import Struct
from navarch.client.client import Client
from navarch.client.events import WARNING, EventRecorder
from navarch.client.informer import Index, Informer, SharedInformers, key_of
from navarch.client.queue import WorkQueue
from navarch.client.transport import TransportError
from navarch.client.undecodable import Undecodable
from navarch.client.watch import DELETED
from navarch.world import World, describe

S = TypeVar("S", bound=Struct)
T = TypeVar("T")

BY_CONTROLLER = "controller"
"""Index of objects by the uid of their controller; those without one under :func:`orphans` of their namespace."""


def orphans(namespace: str | None) -> str:
    return f"/{namespace or ''}"


def by_controller(obj: Any) -> list[str]:
    ref = controller_of(obj.metadata)
    return [ref.uid if ref is not None else orphans(obj.metadata.namespace)]


def key(obj: Any) -> str:
    return key_of(obj.metadata.namespace, obj.metadata.name)


def patience(size: int) -> float:
    """Seconds to gather events before an object with ``size`` members is gone through again.

    A pass costs in proportion to the members. Waiting in proportion too bounds its share of the time however large the
    object is, so that a thousand pods that become ready one by one do not cost a million looks.
    """
    return 0.0 if size < 100 else min(0.5, size * 1e-4)


class Heartbeats(Protocol):
    """Knows of signs of life of nodes that are never written down, as in a simulation that leaves heartbeats out."""

    fell_silent: Callable[[str], None]
    """Called with the name of a node from which no more signs come."""

    def last(self, name: str, /) -> float:
        """Monotonic time of a node's last sign of life; infinite while it is alive, -infinite if it is not known."""
        raise NotImplementedError


class Context:
    """The parts that all controllers of one process share."""

    def __init__(self, client: Client, world: World, config: Config, informers: SharedInformers) -> None:
        self.client, self.world, self.config, self.informers = client, world, config, informers
        self.heartbeats: Heartbeats | None = None
        self.metrics = Metrics()
        self.metrics.watch_informers(informers.faults)
        self.recorders: dict[str, EventRecorder] = {}
        self.structs: dict[type[Struct], None] = {}  # kinds of which somebody holds all objects

    def recorder(self, component: str) -> EventRecorder:
        """Tells events in the name of ``component``; run by the manager."""
        if component not in self.recorders:
            self.recorders[component] = EventRecorder(self.client, self.world, component)
        return self.recorders[component]


class Controller:
    """Base of all controllers. A subclass asks for its informers in ``__init__`` and implements ``reconcile``."""

    name: ClassVar[str] = ""
    """As in kube-controller-manager's --controllers."""
    workers: ClassVar[int] = 0
    """How many keys at a time; 0: as the knob concurrent-syncs says."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.client, self.world, self.config = context.client, context.world, context.config
        self.log = logging.getLogger(f"controllers.{self.name}")
        self.queue: WorkQueue[str] = WorkQueue(context.world)
        self.sync_events = context.recorder(self.name)
        self._informers: list[Informer[Any]] = []
        self._subjects: list[Informer[Any]] = []  # the objects that keys stand for
        context.metrics.watch_queue(self.name, self.queue)

    def informer(self, struct: type[S], indexers: Mapping[str, Index[S]] | None = None) -> Informer[S]:
        """The shared informer of a kind; the controller starts working only when it has synced."""
        self.context.structs[struct] = None
        informer = self.context.informers.informer(struct, indexers=indexers)
        if informer not in self._informers:
            self._informers.append(informer)
        return informer

    def enqueue(self, obj: Any) -> None:
        self.queue.add(key(obj))

    def enqueues(self, informer: Informer[T], only: Callable[[T], bool] | None = None) -> None:
        """Every change of an object of ``informer`` queues its key."""
        self.keys_are_of(informer)

        def handler(kind: str, old: T | None, new: T) -> None:
            if only is None or only(new):
                self.enqueue(new)

        informer.add_handler(handler)

    def keys_are_of(self, informer: Informer[Any]) -> None:
        """Keys of the queue stand for objects of ``informer``: events about failures go there."""
        self._subjects.append(informer)

        def handler(kind: str, bad: Undecodable) -> None:
            if kind == DELETED:  # perhaps what was left alone can be looked at now
                self.queue.add(bad.key)

        informer.add_undecodable_handler(handler)

    def _is_undecodable(self, key: str) -> bool:
        return any(key in informer.undecodable for informer in self._subjects)

    async def reconcile(self, key: str) -> float | None:
        raise NotImplementedError

    async def run(self) -> None:
        """Works until cancelled."""
        await self.synced()
        async with self.world.task_group() as group:
            for i in range(self.workers or self.config.concurrent_syncs):
                group.start(self._work(), name=f"{self.name} {i}")

    async def synced(self) -> None:
        for informer in self._informers:
            await informer.wait_synced()

    async def _work(self) -> None:
        while True:
            object_key = await self.queue.get()
            began = self.world.monotonic()
            try:
                again = None if self._is_undecodable(object_key) else await self.reconcile(object_key)
            except Exception as error:
                self._failed(object_key, error)
            else:
                self.queue.forget(object_key)
                self.queue.again(object_key, again)
            finally:
                self.queue.done(object_key)
                self.context.metrics.worked(self.name, self.world.monotonic() - began)

    def _failed(self, object_key: str, error: Exception) -> None:
        self.context.metrics.failed(self.name, error)
        if isinstance(error, Conflict | NotFound):  # the cache was behind; it catches up by itself
            self.log.debug("%s: %s", object_key, error)
        elif isinstance(error, StatusError | TransportError):
            self.log.warning("%s: %s", object_key, error)
        else:
            if isinstance(error, UndecodableDependent):
                self.log.warning("%s: %s", object_key, error)
            else:
                self.log.error("%s: a mistake in the controller", object_key, exc_info=error)
            self._tell_failure(object_key, error)
        self.queue.add_rate_limited(object_key)

    def _tell_failure(self, key: str, error: Exception) -> None:
        """An event on the object; the recorder keeps it from being told too often."""
        for informer in self._subjects:
            if (about := informer.get_key(key)) is not None:
                self.sync_events.event(about, WARNING, "FailedSync", f"Error syncing: {describe(error)}")
                return


class UndecodableDependent(Exception):
    """An object that the owner controls cannot be decoded: it must not be taken for absent and made again."""


def refuse_undecodable(informer: Informer[Any], uid: str) -> None:
    """Raises UndecodableDependent if the owner of this uid controls an object that cannot be decoded."""
    for bad in informer.controlled_undecodable(uid):
        raise UndecodableDependent(f"{informer.resource.kind.resource} {bad.key} cannot be decoded: {bad.reason}")


def namespace_is_terminating(error: Exception) -> bool:
    """A create was refused because the namespace is going away: nothing that retrying would help."""
    if not isinstance(error, StatusError):
        return False
    causes = error.details.get("causes") or ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
