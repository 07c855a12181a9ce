"""A watch as a reply without end: one JSON event a line, as they come."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import orjson

from apiserver.cache.cache import Watcher
from apiserver.cache.history import BOOKMARK, Event
from apiserver.http import shapes
from apiserver.registry.options import ListOptions
from apiserver.registry.resource import Resource
from apiserver.wire.asgi import Request
from apiserver.wire.negotiation import META_GROUP, Accept
from navarch.api.errors import Expired, StatusError
from navarch.world import World

BATCH = 64 * 1024  # bytes of objects that are on their way to one client; the rest waits where all share it
INITIAL_END = "k8s.io/initial-events-end"
STALL_SECONDS = 5.0  # what a client has to take what was sent, once its watch has ended


class OpenWatches:
    """All open watches of a server, so that they can be ended when it stops. A watch that names no timeout lives at least
    ``shortest`` seconds, up to twice as long; without end if that is 0."""

    def __init__(self, world: World, shortest: float) -> None:
        self.world, self.shortest = world, shortest
        self.open: dict[Watcher, None] = {}
        self.stalled: dict[Watcher, asyncio.TimerHandle] = {}  # dropped, and not ended yet
        self.stopping = False

    def stop(self) -> None:
        """Ends every watch; the clients reconnect elsewhere."""
        self.stopping = True
        for watcher in list(self.open):
            watcher.close()

    async def serve(
        self, request: Request, resource: Resource, namespace: str, name: str, options: ListOptions, accept: Accept
    ) -> None:
        """Sends the events until the client leaves, the time is up, or the watcher falls behind."""
        include = shapes.include_object(request.query) if accept.shape == "Table" else ""
        try:
            watcher = await resource.watch(namespace, name, options)
        except Expired as error:
            # As upstream does: the watch begins, and its only event is the error.
            await request.start_stream(200, accept.content_type)
            await request.write(orjson.dumps({"type": "ERROR", "object": error.status()}) + b"\n")
            await request.end_stream()
            return
        seconds = options.timeout_seconds or self.shortest * (1 + self.world.random.random())
        frame = framer(self.world, resource, accept, include)
        watcher.on_overflow = functools.partial(self._overflowed, request, watcher)
        with watcher:
            convert = await resource.converted_events(namespace, options)
            self.open[watcher] = None
            try:
                if self.stopping:
                    watcher.close()
                async with self.world.task_group() as group:
                    group.start(self._close_when_gone(request, watcher), "watch-disconnect")
                    if seconds:
                        group.start(self._close_after(seconds, request, watcher), "watch-timeout")
                    await request.start_stream(200, accept.content_type)
                    if request.release is not None:
                        request.release()
                    while events := await watcher.batch(BATCH):
                        if convert is not None:
                            try:
                                events = await convert(events)
                            except StatusError as error:
                                await request.write(orjson.dumps({"type": "ERROR", "object": error.status()}) + b"\n")
                                break
                        await request.write(b"".join([frame(event) for event in events]))
                        await asyncio.sleep(0)  # a client that reads fast never makes us wait; others have their turn
                    group.cancel()
                if watcher.error is not None:
                    await request.write(orjson.dumps({"type": "ERROR", "object": watcher.error.status()}) + b"\n")
                await request.end_stream()
            finally:
                self.open.pop(watcher, None)
                if (timer := self.stalled.pop(watcher, None)) is not None:
                    timer.cancel()

    async def _close_when_gone(self, request: Request, watcher: Watcher) -> None:
        await request.disconnected()
        watcher.close()

    async def _close_after(self, seconds: float, request: Request, watcher: Watcher) -> None:
        await self.world.sleep(seconds)
        watcher.close()
        await self.world.sleep(STALL_SECONDS)  # usually the watch has ended meanwhile
        request.abort()

    def _overflowed(self, request: Request, watcher: Watcher) -> None:
        """The client is too slow; if it does not read at all, its connection goes, too."""
        loop = asyncio.get_running_loop()
        self.stalled[watcher] = loop.call_later(STALL_SECONDS, request.abort)


def framer(world: World, resource: Resource, accept: Accept, include: str) -> Callable[[Event], bytes]:
    """How events become lines. The plain shape shares the bytes among all watchers."""
    kind = resource.kind
    head = True

    def plain(event: Event) -> bytes:
        if event.type != BOOKMARK:
            return resource.frame(event)
        return line(event, bookmark(kind.kind, kind.api_version, event))

    def as_table(event: Event) -> bytes:
        nonlocal head
        objects = [] if event.entry is None else [resource.render(event.entry)]
        tree = shapes.table(
            resource.strategy, objects, bookmark_metadata(event), accept.version, include, world.now(), head
        )
        head = False
        return line(event, tree)

    def as_partial(event: Event) -> bytes:
        if event.entry is None:
            return line(event, bookmark("PartialObjectMetadata", f"{META_GROUP}/v1", event))
        return line(event, shapes.partial(orjson.loads(resource.render(event.entry))))

    if accept.shape == "Table":
        return as_table
    return as_partial if accept.shape else plain


def line(event: Event, obj: Any) -> bytes:
    return orjson.dumps({"type": event.type, "object": obj}) + b"\n"


def bookmark(kind: str, api_version: str, event: Event) -> dict[str, Any]:
    """The object of a bookmark: nothing but a resourceVersion."""
    metadata = bookmark_metadata(event) | {"creationTimestamp": None}
    return {"kind": kind, "apiVersion": api_version, "metadata": metadata}


def bookmark_metadata(event: Event) -> dict[str, Any]:
    metadata: dict[str, Any] = {"resourceVersion": str(event.revision)}
    if event.initial_end:
        metadata["annotations"] = {INITIAL_END: "true"}
    return metadata
