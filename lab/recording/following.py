"""Recording of a live cluster: one informer a resource, and each difference that it hears of becomes one line.

An informer goes on where its watch stopped, and lists anew when the server has forgotten that place; what changed meanwhile it
finds by comparing. So nothing is written twice and nothing that lasted is missed; of several changes during a gap the last one
is written, as the API itself promises no more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from lab.recording.reading import Tree, chosen, cleaned, key_of, revision_of, verbs
from navarch.api.errors import Forbidden, StatusError
from navarch.client.client import Client
from navarch.client.discovery import Resource, discover
from navarch.client.informer import Informer
from navarch.client.transport import TransportError
from navarch.client.watch import WatchEvent
from navarch.world import TaskGroup

log = logging.getLogger(__name__)

DISCOVERY = 30.0  # seconds between two looks for kinds that were defined meanwhile
SYNC = 60.0  # seconds that the first lists may take before the recording begins without those that fail
BEGIN = "begin"  # the mark that is set once everything has been listed


class Sink(Protocol):
    """Takes what is heard; a Recorder (lab/experiments/recording.py) is one. Times in seconds."""

    def change(self, time: float, type: str, key: str, revision: int, value: bytes) -> None: ...

    def mark(self, time: float, name: str) -> None: ...

    def finish(self, time: float) -> None: ...


@dataclass
class Counts:
    """How far a recording has come."""

    changes: int = 0
    objects: int = 0
    resources: int = 0
    forbidden: list[str] = field(default_factory=list)


class Follower(Informer[Tree]):
    """An informer that passes over what its watch tells a second time: a server, or a proxy before several of them, may begin a
    watch too early, and the end of an object's predecessor would then be taken for its own."""

    def _apply(self, event: WatchEvent[Tree]) -> None:
        new, latest = event.resource_version, self.resource_version
        if new.isdigit() and latest.isdigit() and int(new) < int(latest):
            return
        super()._apply(event)


class Following:
    """Tells ``recorder`` the changes of a cluster until cancelled. ``only``, ``without``: resources (see ``chosen``)."""

    def __init__(
        self, client: Client, recorder: Sink, *, only: Collection[str] = (), without: Collection[str] = (),
        say: Callable[[Counts], None] = lambda counts: None,
    ) -> None:  # fmt: skip
        self.client, self.world, self.recorder, self.say = client, client.world, recorder, say
        self.only, self.without = only, without
        self.counts = Counts()
        self.begun: Callable[[], None] = lambda: None
        self.ended: Callable[[], None] = lambda: None
        self._over = False
        self._failure: OSError | None = None
        self.began = self.world.monotonic()
        self._informers: dict[tuple[str, str], Informer[Tree]] = {}
        self._latest: dict[str, tuple[str, int]] = {}  # key -> uid and revision written last
        self._forbidden: dict[str, None] = {}

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self.world.monotonic() - self.began

    async def run(self, seconds: float | None = None) -> None:
        """For so long; None: until cancelled. Raises StatusError and TransportError if the server cannot be read at all,
        OSError if the recorder cannot write."""
        async with self.world.task_group() as group:
            try:
                await self._begin(group)
                try:
                    async with asyncio.timeout(SYNC):
                        for informer in list(self._informers.values()):
                            await informer.wait_synced()
                except TimeoutError:
                    late = [kind for (_, kind), i in self._informers.items() if not i.synced]
                    log.warning("recording without what cannot be listed yet: %s", ", ".join(late))
                self.recorder.mark(self.now, BEGIN)
                self.begun()
                group.start(self._look_for_kinds(group), "kinds")
                end = None if seconds is None else self.now + seconds
                while end is None or self.now < end:
                    if self._failure is not None:
                        raise self._failure
                    await self.world.sleep(1.0 if end is None else max(0.0, min(1.0, end - self.now)))
                    self.say(self.counts)
            finally:  # before the watches hang up, which may take longer than who pressed Ctrl-C wants to wait
                self._over = True
                self.recorder.finish(self.now)
                self.ended()
            group.cancel()

    async def _begin(self, group: TaskGroup) -> None:
        for resource in chosen(await discover(self.client), self.only, self.without):
            key = resource.kind.group, resource.kind.resource
            if key not in self._informers and resource.full not in self._forbidden:
                await self._follow(resource, group)
        self.counts.resources, self.counts.forbidden = len(self._informers), list(self._forbidden)

    async def _follow(self, resource: Resource, group: TaskGroup) -> None:
        kind = resource.kind
        reader = verbs(self.client, kind)
        try:
            await reader.list(limit=1)
        except Forbidden:
            self._forbidden[resource.full] = None
            return
        except StatusError as error:
            log.warning(
                "%s cannot be listed: %s", resource.full, error
            )  # an aggregated server that is away; asked again later
            return
        informer = Follower(reader)

        def changed(type: str, old: Tree | None, new: Tree) -> None:
            self._write(key_of(kind, new), type, cleaned(kind, new), informer.resource_version)

        informer.add_handler(changed)
        self._informers[kind.group, kind.resource] = informer
        group.start(informer.run(), f"follow {resource.full}")

    def _write(self, key: str, type: str, tree: Tree, listed: str) -> None:
        if self._over:
            return
        uid, revision = tree["metadata"].get("uid", ""), revision_of(tree)
        latest = self._latest.get(key)
        if type == "DELETED":
            self._latest.pop(key, None)
            if latest is not None and revision <= latest[1]:
                # A list has told that it is gone: all that is known is that it was by the time of the list.
                revision = max(int(listed) if listed.isdigit() else 0, latest[1])
        else:
            if latest is not None and revision and revision <= latest[1]:
                return
            self._latest[key] = uid, revision
        self.counts.changes += 1
        self.counts.objects = len(self._latest)
        tree["metadata"].pop("resourceVersion", None)  # it is in the line, and stored objects have none
        try:
            self.recorder.change(self.now, type, key, revision, orjson.dumps(tree))
        except OSError as error:  # an informer would only log it, and go on: the rest would be lost in silence
            self._failure, self._over = error, True

    async def _look_for_kinds(self, group: TaskGroup) -> None:
        while True:
            await self.world.sleep(DISCOVERY)
            try:
                await self._begin(group)
            except (StatusError, TransportError) as error:
                log.warning("discovery: %s", error)
