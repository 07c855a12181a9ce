"""A cache of objects kept current by list and watch: what controllers read instead of asking the server.

An informer lists once, then follows the watch for ever. A watch that ends goes on where it stopped; only when the
server no longer has that place (410) is everything listed again, and what changed meanwhile is found by comparing.
Handlers hear of every difference exactly once: ADDED, MODIFIED, DELETED. An object that was deleted and made anew in
between is told as DELETED then ADDED, so that a handler never takes two objects of one name for one.

An object that cannot be decoded costs nobody else anything: it is logged once a version, counted, and remembered in
``undecodable``. What was known of it before stays in the cache, as if the news had not come yet: handlers do not hear that
it is gone, for it is not. Who deletes or makes objects because others are absent must ask ``undecodable`` first.

Cached objects are shared: never mutate them (:func:`navarch.api.kinds.copy` makes one of your own). Handlers run
inside the informer's task and must be quick: put a key into a queue.
"""

from __future__ import annotations

import asyncio
import logging
from builtins import list as List  # the class below has a method of that name
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

from navarch.api.errors import Expired, Gone, StatusError
from navarch.api.types.base import Struct
from navarch.client.client import Client, ResourceClient
from navarch.client.transport import TransportError
from navarch.client.undecodable import Faults, Undecodable
from navarch.client.watch import ADDED, BOOKMARK, DELETED, MODIFIED, WatchEvent
from navarch.world import Backoff, World

T = TypeVar("T")
S = TypeVar("S", bound=Struct)
Handler = Callable[[str, T | None, T], None]
"""(type, old, new): old is None for ADDED; for DELETED new is the last state of the object."""
UndecodableHandler = Callable[[str, Undecodable], None]
"""(type, what is left of the object): of DELETED it is what was seen last."""
Index = Callable[[T], Iterable[str]]

log = logging.getLogger(__name__)

# A watch that ended sooner than this without a word counts as a failure, so that a sick server is not hammered.
SHORT_WATCH = 1.0
# How long the server shall keep a watch open; drawn from this range, so that not all end together.
WATCH_SECONDS = (300, 600)


def key_of(namespace: str | None, name: str) -> str:
    """``namespace/name``, or ``name`` for what lives in no namespace."""
    return f"{namespace}/{name}" if namespace else name


class Informer(Generic[T]):
    """Objects of one resource, optionally of one namespace or selector. ``run`` keeps it current until cancelled.

    ``indexers`` name functions from an object to index values; :meth:`by_index` finds objects by them. Objects are kept
    without metadata.managedFields, which nobody here reads and which is half of an object, unless told otherwise.
    """

    def __init__(
        self,
        resource: ResourceClient[T],
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        indexers: Mapping[str, Index[T]] | None = None,
        managed_fields: bool = False,
        faults: Faults | None = None,
    ) -> None:
        self.resource = resource
        self._managed_fields = managed_fields
        self.resource_version = ""  # up to where the cache is current, "" before the first list
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._world = resource.client.world
        self._codec = resource.codec
        self.faults = faults or Faults()
        self.undecodable: dict[str, Undecodable] = {}  # by key; what stands in the cache under this key is older
        self._objects: dict[str, T] = {}  # by key
        self._by_namespace: dict[str, dict[str, T]] = {}
        self._indexers: dict[str, Index[T]] = {}
        self._indexes: dict[str, dict[str, dict[str, T]]] = {}  # name -> value -> key -> object
        self._handlers: list[Handler[T]] = []
        self._undecodable_handlers: list[UndecodableHandler] = []
        self._synced = asyncio.Event()
        self._backoff = Backoff(self._world, first=0.1, most=30.0)
        self._unreachable = Backoff(self._world, first=0.1, most=7.0)  # a server that is not there is no busier for it
        for name, function in (indexers or {}).items():
            self.add_index(name, function)

    # Reading

    @property
    def synced(self) -> bool:
        """Whether the first list has been taken in, and every handler heard of it."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        await self._synced.wait()

    def get(self, namespace: str | None, name: str) -> T | None:
        return self._objects.get(key_of(namespace, name))

    def get_key(self, key: str) -> T | None:
        return self._objects.get(key)

    def list(self, namespace: str | None = None) -> List[T]:
        """All objects, or those of one namespace, in the order in which they were first seen."""
        objects = self._objects if namespace is None else self._by_namespace.get(namespace, {})
        return list(objects.values())

    def keys(self) -> List[str]:
        return list(self._objects)

    def __len__(self) -> int:
        return len(self._objects)

    def by_index(self, index: str, value: str) -> List[T]:
        """Objects for which the indexer gave ``value``."""
        return list(self._indexes[index].get(value, {}).values())

    def count(self, index: str, value: str) -> int:
        """How many objects :meth:`by_index` would find; takes the same time for any number."""
        return len(self._indexes[index].get(value, ()))

    def controlled_undecodable(self, uid: str) -> List[Undecodable]:
        """Objects that the owner of this uid controls and nobody can read: it must not take them for absent."""
        return [bad for bad in self.undecodable.values() if bad.is_controlled_by(uid)]

    def key(self, obj: T) -> str:
        return key_of(self._codec.namespace(obj), self._codec.name(obj))

    # Setting up

    def add_handler(self, handler: Handler[T]) -> None:
        """``handler(type, old, new)`` from now on; what is cached already is told as ADDED at once."""
        self._handlers.append(handler)
        for obj in list(self._objects.values()):
            self._call(handler, ADDED, None, obj)

    def add_undecodable_handler(self, handler: UndecodableHandler) -> None:
        """``handler(type, object)`` from now on, for objects that cannot be decoded: as ADDED those known already, and when
        one becomes so; as MODIFIED each further version; as DELETED when it goes or can be decoded again."""
        self._undecodable_handlers.append(handler)
        for bad in list(self.undecodable.values()):
            self._call_undecodable(handler, ADDED, bad)

    def add_index(self, name: str, function: Index[T]) -> None:
        """An index more; adding one of the same name again does nothing."""
        if name in self._indexers:
            return
        self._indexers[name] = function
        self._indexes[name] = {}
        for key, obj in self._objects.items():
            self._enter(name, key, obj)

    # Following

    async def run(self) -> None:
        """Lists and watches until cancelled. Failures are waited out, whatever they are."""
        while True:
            try:
                if not self.resource_version:
                    await self._list()
                await self._follow()
            except (Expired, Gone):
                log.info("%s: history is gone, listing again", self._resource_name)
                self.resource_version = ""
            except (StatusError, TransportError) as error:
                if isinstance(error, StatusError) and error.http_code in (400, 422):
                    self.resource_version = ""  # what it refuses may be the place where we wanted to go on
                delay = (self._unreachable if isinstance(error, TransportError) else self._backoff).next()
                log.warning("%s: %s; trying again in %.1f s", self._resource_name, error, delay)
                await self._world.sleep(delay)
            except Exception:
                # Nobody foresaw it: whatever the cache missed, a list brings it back.
                self.faults.followers[self._resource_name] += 1
                self.resource_version = ""
                delay = self._backoff.next()
                log.exception("%s: listing again in %.1f s", self._resource_name, delay)
                await self._world.sleep(delay)

    async def _list(self) -> None:
        page = await self.resource.list(
            self._namespace, label_selector=self._label_selector, field_selector=self._field_selector, tolerant=True
        )
        self.resource_version = page.resource_version  # first: who hears that an object is gone may ask by when
        self._replace(page.items, page.undecodable)
        self._recovered()
        self._synced.set()

    def _recovered(self) -> None:
        self._backoff.reset()
        self._unreachable.reset()

    async def _follow(self) -> None:
        """One watch, to its end."""
        began = self._world.monotonic()
        heard = False
        watch = self.resource.watch(
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            resource_version=self.resource_version,
            timeout_seconds=self._world.random.randint(*WATCH_SECONDS),
            bookmarks=True,
            tolerant=True,
            share=not self._managed_fields,
        )
        async with watch as events:
            async for event in events:
                heard = True
                self._recovered()
                self._apply(event)
        if not heard and self._world.monotonic() - began < SHORT_WATCH:
            await self._world.sleep(self._backoff.next())

    def _apply(self, event: WatchEvent[T]) -> None:
        bad = event.object if isinstance(event.object, Undecodable) else None
        if event.type == DELETED:
            key = bad.key if bad is not None else self.key(event.object)
            self._readable(key)
            if key in self._objects:
                self._remove(key, self._objects[key] if bad is not None else event.object)
        elif bad is not None:
            self._pass_over(bad)
        elif event.type != BOOKMARK:
            self._put(event.object)
        if event.resource_version:
            self.resource_version = event.resource_version

    def _replace(self, items: List[T], unreadable: Sequence[Undecodable] = ()) -> None:
        present = dict.fromkeys([*map(self.key, items), *(bad.key for bad in unreadable)])
        for key in [key for key in self._objects if key not in present]:
            self._remove(key, self._objects[key])
        for key in [key for key in self.undecodable if key not in present]:
            self._readable(key)
        for obj in items:
            key = self.key(obj)
            old = self._objects.get(key)
            if (
                old is None
                or key in self.undecodable
                or self._codec.resource_version(old) != self._codec.resource_version(obj)
            ):
                self._put(obj)
        for bad in unreadable:
            self._pass_over(bad)

    def _pass_over(self, bad: Undecodable) -> None:
        """Takes note of an object that cannot be decoded; what was known of it stays, unless that was another object."""
        earlier = self.undecodable.get(bad.key)
        if earlier is not None and (earlier.uid, earlier.resource_version) == (bad.uid, bad.resource_version):
            return
        self.faults.undecodable[self._resource_name] += 1
        log.error(
            "%s %s (resourceVersion %s) cannot be decoded and is passed over: %s",
            self._resource_name, bad.key, bad.resource_version, bad.reason,
        )  # fmt: skip
        old = self._objects.get(bad.key)
        if old is not None and bad.uid and self._codec.uid(old) != bad.uid:
            self._remove(bad.key, old)
        self.undecodable[bad.key] = bad
        for handler in self._undecodable_handlers:
            self._call_undecodable(handler, ADDED if earlier is None else MODIFIED, bad)

    def _readable(self, key: str) -> None:
        """The object is gone, or can be decoded again."""
        bad = self.undecodable.pop(key, None)
        if bad is not None:
            for handler in self._undecodable_handlers:
                self._call_undecodable(handler, DELETED, bad)

    def _put(self, obj: T) -> None:
        if not self._managed_fields:
            self._codec.drop_managed_fields(obj)
        key = self.key(obj)
        self._readable(key)
        old = self._objects.get(key)
        if old is not None and self._codec.uid(old) != self._codec.uid(obj):
            self._remove(key, old)
            old = None
        if old is not None:
            self._leave(key, old)
        self._objects[key] = obj
        if namespace := self._codec.namespace(obj):
            self._by_namespace.setdefault(namespace, {})[key] = obj
        for name in self._indexers:
            self._enter(name, key, obj)
        self._tell(ADDED if old is None else MODIFIED, old, obj)

    def _remove(self, key: str, last: T) -> None:
        old = self._objects.pop(key, None)
        if old is None:
            return
        self._leave(key, old)
        if namespace := self._codec.namespace(old):
            inside = self._by_namespace[namespace]
            del inside[key]
            if not inside:
                del self._by_namespace[namespace]
        self._tell(DELETED, old, last)

    def _enter(self, name: str, key: str, obj: T) -> None:
        for value in self._values(name, obj):
            self._indexes[name].setdefault(value, {})[key] = obj

    def _leave(self, key: str, obj: T) -> None:
        for name in self._indexers:
            index = self._indexes[name]
            for value in self._values(name, obj):
                members = index.get(value)
                if members is not None:
                    members.pop(key, None)
                    if not members:
                        del index[value]

    def _values(self, name: str, obj: T) -> List[str]:
        """The values of an indexer; nothing if it raises, so that its mistake does not cost the object its place."""
        try:
            return list(self._indexers[name](obj))
        except Exception:
            self.faults.handlers[self._resource_name] += 1
            log.exception("%s: the index %s failed on %s", self._resource_name, name, self.key(obj))
            return []

    def _tell(self, kind: str, old: T | None, new: T) -> None:
        for handler in self._handlers:
            self._call(handler, kind, old, new)

    def _call(self, handler: Handler[T], kind: str, old: T | None, new: T) -> None:
        try:
            handler(kind, old, new)
        except Exception:
            # One handler's mistake must not cost the others, or the cache, an event.
            self.faults.handlers[self._resource_name] += 1
            log.exception("%s: a handler failed on %s %s", self._resource_name, kind, self.key(new))

    def _call_undecodable(self, handler: UndecodableHandler, kind: str, bad: Undecodable) -> None:
        try:
            handler(kind, bad)
        except Exception:
            self.faults.handlers[self._resource_name] += 1
            log.exception("%s: a handler failed on %s %s, which cannot be decoded", self._resource_name, kind, bad.key)

    @property
    def _resource_name(self) -> str:
        return self.resource.kind.resource

    def check(self) -> None:
        """Raises AssertionError unless namespaces and indexes are what the objects alone would make of them."""
        by_namespace: dict[str, dict[str, T]] = {}
        indexes: dict[str, dict[str, dict[str, T]]] = {name: {} for name in self._indexers}
        for key, obj in self._objects.items():
            assert self.key(obj) == key, f"{self.key(obj)} is kept under {key}"
            if namespace := self._codec.namespace(obj):
                by_namespace.setdefault(namespace, {})[key] = obj
            for name in self._indexers:
                for value in self._values(name, obj):
                    indexes[name].setdefault(value, {})[key] = obj
        assert self._by_namespace == by_namespace, f"namespaces of {self._resource_name}"
        for name, index in indexes.items():
            assert self._indexes[name] == index, f"index {name} of {self._resource_name}"
        for key, bad in self.undecodable.items():
            assert bad.key == key, f"{bad.key} is kept under {key}"
            old = self._objects.get(key)
            assert old is None or not bad.uid or self._codec.uid(old) == bad.uid, f"{key} is two objects"


class SharedInformers:
    """One informer a resource (and selector) for all parts of a component. ``run`` runs those asked for, also later."""

    def __init__(self, client: Client, world: World) -> None:
        self.client = client
        self.world = world
        self.faults = Faults()
        self._informers: dict[tuple[type[Struct], str | None, str | None, str | None], Informer[Any]] = {}
        self._waiting: list[Informer[Any]] = []
        self._more = asyncio.Event()

    def informer(
        self,
        struct: type[S],
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        indexers: Mapping[str, Index[S]] | None = None,
    ) -> Informer[S]:
        """The informer of a kind, made on first use; indexers are added to what it has."""
        key = (struct, namespace, label_selector, field_selector)
        informer = self._informers.get(key)
        if informer is None:
            informer = Informer(
                self.client[struct], namespace, label_selector, field_selector, faults=self.faults
            )
            self._informers[key] = informer
            self._waiting.append(informer)
            self._more.set()
        for name, function in (indexers or {}).items():
            informer.add_index(name, function)
        return cast(Informer[S], informer)

    @property
    def synced(self) -> bool:
        return all(informer.synced for informer in self._informers.values())

    async def wait_synced(self) -> None:
        """Until every informer asked for so far has its first list."""
        for informer in list(self._informers.values()):
            await informer.wait_synced()

    def check(self) -> None:
        """Raises AssertionError unless every informer agrees with itself."""
        for informer in self._informers.values():
            informer.check()

    async def run(self) -> None:
        """Keeps all informers current until cancelled."""
        async with self.world.task_group() as group:
            while True:
                waiting, self._waiting = self._waiting, []
                self._more.clear()
                for informer in waiting:
                    group.start(informer.run(), name=f"informer {informer.resource.kind.resource}")
                await self._more.wait()
