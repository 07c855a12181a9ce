"""Follows the definitions: gives them their names, serves their kinds, and empties them when they go.

A definition's kinds are served before the condition Established tells so: who reads it can use them at once. At the
start of the server all established kinds are served before it is ready.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

import orjson

from apiserver.crd import names
from apiserver.crd.conversion import Converter
from apiserver.crd.custom import CustomStrategy, extract_of, prefix_of, stored_version
from apiserver.crd.definition import FINALIZER, GROUP, RESOURCE
from apiserver.registry.resource import Resource
from apiserver.registry.resources import Resources
from apiserver.registry.strategy import Tree
from apiserver.request import DeleteOptions, WriteOptions, own_context
from apiserver.serviceresolver import ServiceResolver
from apiserver.storage.store import StoreUnavailable
from apiserver.webhookclient import WebhookClient
from navarch.api.errors import Conflict, Expired, NotFound, StatusError
from navarch.api.kinds import KINDS, version_order
from navarch.api.times import format_time
from navarch.client.queue import WorkQueue
from navarch.world import Backoff, TaskGroup

log = logging.getLogger(__name__)
PREFIX = f"/registry/{RESOURCE}/"
MANAGER = WriteOptions(field_manager="kube-apiserver")


class Definitions:
    """All definitions of a server. :meth:`prepare` runs before the server is ready, :meth:`run` beside it."""

    def __init__(self, resources: Resources, resolver: ServiceResolver) -> None:
        self.resources, self.backend = resources, resources.backend
        self.world, self.cache = resources.backend.world, resources.backend.cache
        self._served: dict[str, tuple[tuple[str, str], str, Resource]] = {}  # name -> (group, plural), what was built, storage
        self._prefixes: dict[str, tuple[str, ...]] = {}  # prefix -> selectable fields that the cache keeps
        self._finalizing: dict[str, None] = {}
        self.webhooks = WebhookClient(resolver)
        self._summaries: dict[str, tuple[int, Tree]] = {}  # name -> revision, the small part of the definition

    async def prepare(self) -> None:
        for entry in self.cache.list(PREFIX).entries:
            definition = entry.tree()
            if names.is_true(definition, names.ESTABLISHED):
                self._try_serve(definition, entry.revision)

    async def run(self) -> None:
        try:
            await self._run()
        finally:
            await self.webhooks.close()

    async def _run(self) -> None:
        queue: WorkQueue[str] = WorkQueue(self.world)
        async with self.world.task_group() as group:
            group.start(self._follow(queue), "definitions-follow")
            while (name := await queue.get()) is not None:
                try:
                    await self._sync(name, queue, group)
                    queue.forget(name)
                except (StatusError, StoreUnavailable) as error:
                    log.warning("definition %s: %s", name, error)
                    queue.add_rate_limited(name)
                finally:
                    queue.done(name)

    async def _follow(self, queue: WorkQueue[str]) -> None:
        """Every change of a definition puts its name, and for a name that is free again its whole group, in the queue."""
        cache = self.cache
        while True:
            await cache.wait_ready()
            for name in list(self._served):
                queue.add(name)
            try:
                watcher = cache.watch(PREFIX)
            except Expired:
                continue
            with watcher:
                while events := await watcher.batch():
                    for event in events:
                        if event.entry is not None:
                            queue.add(event.entry.name)

    def _definitions(self) -> list[Tree]:
        """All definitions without what is large in them: names, groups and status."""
        cached, self._summaries = self._summaries, {}
        for entry in self.cache.list(PREFIX).entries:
            summary = cached.get(entry.name)
            if summary is None or summary[0] != entry.revision:
                tree = entry.tree()
                spec = {"group": tree["spec"]["group"]}
                summary = entry.revision, {"metadata": {"name": entry.name}, "spec": spec, "status": tree.get("status")}
            self._summaries[entry.name] = summary
        return [tree for _, tree in self._summaries.values()]

    # One definition

    async def _sync(self, name: str, queue: WorkQueue[str], tasks: TaskGroup) -> None:
        entry = self.cache.get(PREFIX, None, name)
        if entry is None:
            group = name.partition(".")[2]
            self._unserve(name)
            for other in self._definitions():
                if other["spec"]["group"] == group and not names.is_true(other, names.NAMES_ACCEPTED):
                    queue.add(other["metadata"]["name"])
            return
        definition = entry.tree()
        desired = self._status(definition)
        now = definition | {"status": desired}
        if names.is_true(now, names.ESTABLISHED):
            self._try_serve(now, entry.revision)
        if desired != (definition.get("status") or {}):
            await self._write(name, definition["metadata"].get("uid"))
        metadata = definition["metadata"]
        going = metadata.get("deletionTimestamp") and FINALIZER in (metadata.get("finalizers") or ())
        if going and name not in self._finalizing:
            self._finalizing[name] = None
            tasks.start(self._finalize(name, metadata.get("uid")), f"definition-finalize {name}")

    def _status(self, definition: Tree) -> Tree:
        group, name = definition["spec"]["group"], definition["metadata"]["name"]
        others = [d for d in self._definitions() if d["spec"]["group"] == group and d["metadata"]["name"] != name]
        built_in = [k for k in KINDS if k.group == group]
        return names.naming(definition, others, built_in, format_time(self.world.now()))

    async def _write(self, name: str, uid: str | None) -> None:
        def change(old: Tree) -> Tree:
            if old["metadata"].get("uid") == uid:
                old["status"] = self._status(old)
            return old

        try:
            await self.resources[GROUP, RESOURCE].change(
                own_context(self.world), "", name, change, MANAGER, subresource="status"
            )
        except NotFound:
            pass

    # Serving

    def _try_serve(self, definition: Tree, revision: int) -> None:
        try:
            self._serve(definition, revision)
        except Exception:
            # A definition that came into the store past our rules must not take the others with it.
            log.exception("definition %s cannot be served", definition["metadata"]["name"])

    def _serve(self, definition: Tree, revision: int) -> None:
        name, spec = definition["metadata"]["name"], definition["spec"]
        key = spec["group"], spec["names"]["plural"]
        accepted = (definition.get("status") or {}).get("acceptedNames")
        built = hashlib.sha256(orjson.dumps([spec, accepted])).hexdigest()
        had = self._served.get(name)
        if had is not None and had[1] == built:
            return
        prefix = prefix_of(definition)
        extract, selectable = extract_of(definition)
        if self._prefixes.get(prefix, selectable) != selectable:
            self.cache.remove_resource(prefix)
        self.cache.add_resource(prefix, extract)
        self._prefixes[prefix] = selectable
        converter = self._converter(definition)
        strategies = [CustomStrategy(definition, v, revision, self._going(name), converter) for v in spec["versions"]]
        if converter is not None:
            converter.finish |= {s.kind.api_version: s.finish for s in strategies}
        storage = stored_version(definition)
        by_version = {s.kind.version: Resource(self.backend, s) for s in strategies}
        served = sorted((v["name"] for v in spec["versions"] if v.get("served")), key=version_order)
        self.resources.serve_custom(key, [by_version[v] for v in served])
        self._served[name] = key, built, by_version[storage]

    def _converter(self, definition: Tree) -> Converter | None:
        """The converter between the versions; None if converting only means another apiVersion."""
        conversion = definition["spec"].get("conversion") or {}
        if conversion.get("strategy") != "Webhook":
            return None
        storage = f"{definition['spec']['group']}/{stored_version(definition)}"
        return Converter(self.webhooks, self.world.uid, conversion["webhook"], storage)

    def _going(self, name: str) -> Callable[[], bool]:
        """Whether the definition is being deleted: asked of the cache, so that it is true as soon as clients can see it."""
        revision, answer = 0, False

        def going() -> bool:
            nonlocal revision, answer
            entry = self.cache.get(PREFIX, None, name)
            if entry is not None and entry.revision != revision:
                revision, answer = entry.revision, "deletionTimestamp" in entry.tree()["metadata"]
            return answer

        return going

    def _unserve(self, name: str) -> None:
        had = self._served.pop(name, None)
        if had is None:
            return
        key, _, resource = had
        self.resources.serve_custom(key, [])
        self.cache.remove_resource(resource.prefix)
        self._prefixes.pop(resource.prefix, None)

    # Going

    async def _finalize(self, name: str, uid: str | None) -> None:
        """Deletes all objects of a definition, waits until they are gone, and lets the definition go."""
        backoff = Backoff(self.world, first=0.02, most=5.0)
        try:
            began = False
            while True:
                entry = self.cache.get(PREFIX, None, name)
                if entry is None or entry.uid != uid:
                    return
                try:
                    if not began:
                        text = "CustomResource deletion is in progress"
                        await self._note(name, uid, "True", "InstanceDeletionInProgress", text)
                        began = True
                    if await self._empty(name):
                        await self._release(name, uid)
                        return
                except (StatusError, StoreUnavailable) as error:
                    log.warning("deleting the objects of %s: %s", name, error)
                await self.world.sleep(backoff.next())
        finally:
            self._finalizing.pop(name, None)

    async def _empty(self, name: str) -> bool:
        """Deletes what there is; True if there was nothing."""
        had = self._served.get(name)
        if had is None:
            return True
        resource = had[2]
        await self.cache.current()
        entries = self.cache.list(resource.prefix).entries
        for entry in entries:
            if entry.tree()["metadata"].get("deletionTimestamp"):
                continue
            try:
                await resource.delete(own_context(self.world), entry.namespace, entry.name, DeleteOptions(uid=entry.uid))
            except (NotFound, Conflict):
                continue
        return not entries

    async def _note(self, name: str, uid: str | None, value: str, reason: str, message: str) -> None:
        def change(old: Tree) -> Tree:
            if old["metadata"].get("uid") == uid:
                now = format_time(self.world.now())
                names.set_condition(old.setdefault("status", {}), names.TERMINATING, value, reason, message, now)
            return old

        await self.resources[GROUP, RESOURCE].change(
            own_context(self.world), "", name, change, MANAGER, subresource="status"
        )

    async def _release(self, name: str, uid: str | None) -> None:
        try:
            await self._note(name, uid, "False", "InstanceDeletionCompleted", "removed all instances")

            def change(old: Tree) -> Tree:
                if old["metadata"].get("uid") == uid:
                    finalizers = [f for f in old["metadata"].get("finalizers") or () if f != FINALIZER]
                    old["metadata"]["finalizers"] = finalizers
                    if not finalizers:
                        del old["metadata"]["finalizers"]
                return old

            await self.resources[GROUP, RESOURCE].change(own_context(self.world), "", name, change, MANAGER)
        except NotFound:
            pass
