"""Events: what a component tells people about an object, without ever waiting for it or drowning the server.

``event`` only notes; ``run`` sends. Repeats of one event raise the count of the stored one. Many different messages
for one reason are folded into one event, and an object about which too much is said loses the rest (upstream's
numbers). If the server is slow, or gone, the oldest unsent notes are dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from navarch.api.errors import AlreadyExists, Forbidden, NotFound, StatusError
from navarch.api.times import format_time
from navarch.api.types import core_v1, meta_v1
from navarch.api.types.base import Struct
from navarch.client.client import Client
from navarch.client.transport import TransportError
from navarch.world import Backoff, World

NORMAL, WARNING = "Normal", "Warning"
QUEUE_LENGTH = 1000
REMEMBERED = 4096
SPAM_BURST, SPAM_SECONDS = 25, 300.0  # so many events about one object at once, then one every so many seconds
MAX_SIMILAR, SIMILAR_SECONDS = 10, 600.0  # so many different messages for one reason within so many seconds
TRIES = 12

K = TypeVar("K")
V = TypeVar("V")
log = logging.getLogger(__name__)


def reference(obj: Struct, field_path: str | None = None) -> core_v1.ObjectReference:
    """The reference of an event to its object."""
    if isinstance(obj, core_v1.ObjectReference):
        return obj
    gvk = obj._gvk_
    meta: meta_v1.ObjectMeta = obj.metadata  # type: ignore[attr-defined]
    if gvk is None:
        raise TypeError(f"{type(obj).__name__} is no kind that events can be about")
    return core_v1.ObjectReference(
        kind=gvk[2],
        api_version=f"{gvk[0]}/{gvk[1]}" if gvk[0] else gvk[1],
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resource_version,
        field_path=field_path,
    )


class _Note(NamedTuple):
    about: core_v1.ObjectReference
    type: str
    reason: str
    message: str
    time: float


@dataclass
class _Stored:
    """An event that the server has."""

    name: str
    count: int
    first: float


@dataclass
class _Bucket:
    tokens: float
    filled: float


@dataclass
class _Similar:
    messages: dict[str, None] = field(default_factory=dict)
    last: float = 0.0


class EventRecorder:
    """Records events as ``component`` (on ``host``). Nothing is sent unless ``run`` runs."""

    def __init__(self, client: Client, world: World, component: str, host: str = "") -> None:
        self._events = client[core_v1.Event]
        self._world = world
        self._component = component
        self._host = host
        self._queue: deque[_Note] = deque(maxlen=QUEUE_LENGTH)
        self._wake = asyncio.Event()
        self._stored: _Recent[tuple[Any, ...], _Stored] = _Recent(REMEMBERED)
        self._buckets: _Recent[tuple[Any, ...], _Bucket] = _Recent(REMEMBERED)
        self._similar: _Recent[tuple[Any, ...], _Similar] = _Recent(REMEMBERED)
        self._last_stamp = 0

    def event(self, obj: Struct, type: str, reason: str, message: str, field_path: str | None = None) -> None:
        """Notes an event about ``obj`` (an API object or an ObjectReference); ``type`` is Normal or Warning."""
        if not self._events.client.tells_events:
            return
        about = reference(obj, field_path)
        note = _Note(about, type, reason, message[:1024], self._world.now())
        note = self._fold(note)
        if self._allowed(note):
            self._queue.append(note)
            self._wake.set()

    async def run(self) -> None:
        """Sends what is noted until cancelled."""
        while True:
            while self._queue:
                note = self._queue.popleft()
                try:
                    await self._send(note)
                except Exception:
                    log.exception("event about %s %s dropped: %s", note.about.kind, note.about.name, note.reason)
            self._wake.clear()
            await self._wake.wait()

    def _fold(self, note: _Note) -> _Note:
        """Too many different messages of one kind become one message."""
        about = note.about
        similar = self._similar.setdefault((about.kind, about.namespace, about.name, about.uid, note[1:3]), _Similar())
        if note.time - similar.last > SIMILAR_SECONDS:
            similar.messages.clear()
        similar.last = note.time
        if note.message in similar.messages:
            return note
        if len(similar.messages) >= MAX_SIMILAR:
            return note._replace(message=f"(combined from similar events): {note.message}")
        similar.messages[note.message] = None
        return note

    def _allowed(self, note: _Note) -> bool:
        """A token bucket for each object."""
        about = note.about
        key = (about.kind, about.namespace, about.name, about.uid)
        bucket = self._buckets.setdefault(key, _Bucket(SPAM_BURST, note.time))
        bucket.tokens = min(SPAM_BURST, bucket.tokens + (note.time - bucket.filled) / SPAM_SECONDS)
        bucket.filled = note.time
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    async def _send(self, note: _Note) -> None:
        about = note.about
        folded = note.message.startswith("(combined from similar events)")
        where = (about.kind, about.namespace, about.name, about.uid, about.field_path)
        key = (*where, note.type, note.reason, "" if folded else note.message)
        backoff = Backoff(self._world, first=0.2, most=10.0)
        for _ in range(TRIES):
            try:
                stored = self._stored.get(key)
                if stored is not None:
                    try:
                        await self._repeat(note, stored)
                        return
                    except NotFound:
                        self._stored.forget(key)  # events live an hour
                await self._create(note, key)
                return
            except AlreadyExists:
                continue
            except (NotFound, Forbidden) as error:
                log.debug("event dropped: %s", error)  # its namespace is gone, or going
                return
            except StatusError as error:
                if error.http_code < 500 and error.http_code != 429:
                    log.warning("event about %s %s refused: %s", about.kind, about.name, error)
                    return
                await self._world.sleep(backoff.next())
            except TransportError:
                await self._world.sleep(backoff.next())
        log.warning("event about %s %s given up: %s", about.kind, about.name, note.reason)

    async def _repeat(self, note: _Note, stored: _Stored) -> None:
        count = stored.count + 1
        body = {"count": count, "lastTimestamp": format_time(note.time), "message": note.message}
        await self._events.patch(stored.name, note.about.namespace or "default", body, "strategic")
        stored.count = count

    async def _create(self, note: _Note, key: tuple[Any, ...]) -> None:
        # Kubernetes names events after their object and the nanosecond. Ours may be many in one instant of virtual
        # time, so the stamp always grows here, and starts at a random point of the microsecond among recorders.
        stamp = int(note.time * 1e6) * 1000 + self._world.random.randrange(1000)
        self._last_stamp = stamp = max(stamp, self._last_stamp + 1)
        namespace = note.about.namespace or "default"
        name = f"{note.about.name}.{stamp:x}"
        time = format_time(note.time)
        await self._events.create(
            core_v1.Event(
                metadata=meta_v1.ObjectMeta(name=name, namespace=namespace),
                involved_object=note.about,
                type=note.type,
                reason=note.reason,
                message=note.message,
                source=core_v1.EventSource(component=self._component, host=self._host or None),
                reporting_component=self._component,
                reporting_instance=self._host or None,
                first_timestamp=time,
                last_timestamp=time,
                count=1,
            )
        )
        self._stored[key] = _Stored(name, 1, note.time)


class _Recent(Generic[K, V]):
    """A mapping that forgets what was used longest ago."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        if key in self._items:
            self._items.move_to_end(key)
        return self._items.get(key)

    def setdefault(self, key: K, value: V) -> V:
        present = self.get(key)
        if present is None:
            self[key] = present = value
        return present

    def __setitem__(self, key: K, value: V) -> None:
        self._items[key] = value
        self._items.move_to_end(key)
        if len(self._items) > self._most:
            self._items.popitem(last=False)

    def forget(self, key: K) -> None:
        self._items.pop(key, None)
