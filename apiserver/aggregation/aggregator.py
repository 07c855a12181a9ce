"""Follows the APIServices: registers those that this server answers itself, and keeps up with the servers behind the others.

Only while there are such servers does anything run for them: a watch of each one's Service and EndpointSlices, and a
check every half minute, at once when a request did not get through.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from apiserver.aggregation.authentication import publish_authentication
from apiserver.aggregation.availability import Finding, referenced, with_finding
from apiserver.aggregation.remote import Remote
from apiserver.aggregation.strategy import GROUP, RESOURCE
from apiserver.config import Config
from apiserver.http.apis import APIs
from apiserver.http.extension import Extension, GroupVersion, Tree
from apiserver.http.priorities import BUILT_IN, CUSTOM, REGISTRATION
from apiserver.request import DeleteOptions, WriteOptions, own_context
from apiserver.serviceresolver import ServiceResolver
from apiserver.storage.store import StoreUnavailable
from navarch.api import wellknown
from navarch.api.errors import AlreadyExists, Conflict, Expired, NotFound, StatusError
from navarch.api.selectors import from_labels
from navarch.api.times import format_time
from navarch.client.queue import WorkQueue
from navarch.world import TaskGroup

if TYPE_CHECKING:
    from apiserver.http.forwarding import Forwarder

log = logging.getLogger(__name__)
PREFIX = f"/registry/{RESOURCE}/"
AUTOMANAGED = "kube-aggregator.kubernetes.io/automanaged"
ON_START, ALWAYS = "onstart", "true"  # of a built-in group: made once; of a custom one: kept
MANAGER = WriteOptions(field_manager="kube-apiserver")
CHECK_PERIOD = 30.0
MAX_DELAY = 30.0


def name_of(group: str, version: str) -> str:
    return f"{version}.{group}"


def local_service(group: str, version: str, figures: tuple[int, int], managed: str) -> Tree:
    """The APIService of a group and version that this server answers."""
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "APIService",
        "metadata": {"name": name_of(group, version), "labels": {AUTOMANAGED: managed}},
        "spec": {"version": version, "groupPriorityMinimum": figures[0], "versionPriority": figures[1]}
        | ({"group": group} if group else {}),
    }


class Aggregator:
    """``own``: parts of this server that answer for a group and version as another server would, unless an APIService
    names one."""

    def __init__(
        self, apis: APIs, config: Config, resolver: ServiceResolver, own: Mapping[GroupVersion, Extension] | None = None
    ) -> None:
        self.apis, self.config, self.resolver, self.resources = apis, config, resolver, apis.resources
        self.world, self.cache = apis.resources.backend.world, apis.resources.backend.cache
        self.own = dict(own or {})
        self.remotes: dict[str, Remote] = {}  # by the name of the APIService
        self._services: dict[str, Tree] = {}  # name -> the APIService
        self._forwarder: Forwarder | None = None
        self._changed = asyncio.Event()  # the custom kinds that are served, or APIServices
        self._queue: WorkQueue[str] = WorkQueue(self.world, most_delay=MAX_DELAY)
        self._followed: dict[str, asyncio.Task[None]] = {}
        self.resources.changed.append(self._changed.set)

    # Life

    async def prepare(self) -> None:
        """Before the server is ready: everything that it answers itself has its APIService."""
        await publish_authentication(self.resources, self.config)
        for entry in self.cache.list(PREFIX).entries:
            self._services[entry.name] = entry.tree()
        groups = self.apis.discovery.groups.items()
        needed = {(group, version) for group, versions in groups if group != REGISTRATION for version in versions}
        needed = (needed | set(self.own)) - set(self.resources.custom_versions())
        async with self.world.task_group() as group:
            for key in sorted(needed):
                group.start(self._register(*key, BUILT_IN.get(key, CUSTOM), ON_START), "apiservice-register")
            for name, tree in self._services.items():
                labels = tree["metadata"].get("labels") or {}
                if labels.get(AUTOMANAGED) == ON_START and name not in {name_of(*key) for key in needed}:
                    group.start(self._delete(name), "apiservice-delete")
        await self.cache.current()
        self._services = {e.name: e.tree() for e in self.cache.list(PREFIX).entries}
        for tree in self._services.values():
            self._apply(tree)
        self.publish()

    async def run(self) -> None:
        try:
            async with self.world.task_group() as group:
                group.start(self._follow(group), "apiservices-follow")
                group.start(self._automanage(), "apiservices-automanage")
                while (name := await self._queue.get()) is not None:
                    group.start(self._checked(name), f"apiservice-check {name}")
        finally:
            if self._forwarder is not None:
                await self._forwarder.close()

    async def _follow(self, tasks: TaskGroup) -> None:
        cache = self.cache
        while True:
            await cache.wait_ready()
            try:
                watcher = cache.watch(PREFIX)
            except Expired:
                continue
            with watcher:
                removed = dict.fromkeys(self._services)
                for entry in cache.list(PREFIX).entries:
                    removed.pop(entry.name, None)
                for name in removed:
                    self._drop(name)
                while events := await watcher.batch():
                    for event in events:
                        if event.entry is None:
                            continue
                        if event.type == "DELETED":
                            self._drop(event.entry.name)
                        else:
                            self._apply(event.entry.tree())
                    for name in self.remotes:
                        if name not in self._followed:
                            self._followed[name] = tasks.start(self._follow_service(name), f"apiservice-follow {name}")
                            self._queue.add(name)
                    self.publish()
                    self._changed.set()

    def _apply(self, tree: Tree) -> None:
        """Takes an APIService as it is now."""
        name, spec = tree["metadata"]["name"], tree["spec"]
        self._services[name] = tree
        remote = self.remotes.get(name)
        if spec.get("service") is None:
            self._forget(name)
        elif remote is None or remote.spec != spec:
            self._forget(name)
            self.remotes[name] = remote = Remote(
                self.resolver, self.config, self._forwards(), spec.get("group") or "", spec.get("version") or "", spec,
                lambda: self._queue.add(name),
            )  # fmt: skip
            self._queue.add(name)
        if remote is not None and name in self.remotes:
            conditions = (tree.get("status") or {}).get("conditions") or ()
            remote.available = any(c.get("type") == "Available" and c.get("status") == "True" for c in conditions)

    def _forget(self, name: str) -> None:
        self.remotes.pop(name, None)
        if (task := self._followed.pop(name, None)) is not None:
            task.cancel()

    def _drop(self, name: str) -> None:
        self._services.pop(name, None)
        self._forget(name)

    def _forwards(self) -> Forwarder:
        if self._forwarder is None:
            from apiserver.http.forwarding import Forwarder  # with aiohttp, which few servers ever need

            self._forwarder = Forwarder(self.world, self.resolver.names)
        return self._forwarder

    def publish(self) -> None:
        """Tells the server who answers for what."""
        extensions = dict(self.own)
        extensions |= {(r.group, r.version): r for r in self.remotes.values()}
        figures = {
            (s["spec"].get("group") or "", s["spec"].get("version") or ""): (
                s["spec"]["groupPriorityMinimum"], s["spec"]["versionPriority"],
            )
            for s in self._services.values()
        }  # fmt: skip
        self.apis.aggregate(extensions, figures)

    # Servers behind APIServices

    async def _follow_service(self, name: str) -> None:
        """A change of the Service or of its endpoints is looked at soon."""
        reference = self.remotes[name].spec["service"]
        namespace, service = reference["namespace"], reference["name"]
        slices = self.resources["discovery.k8s.io", "endpointslices"].prefix
        selector = from_labels({wellknown.SERVICE_NAME: service})

        async def follow(prefix: str, only: str | None) -> None:
            cache = self.cache
            while True:
                await cache.wait_ready()
                try:
                    watcher = cache.watch(prefix, namespace, only, labels=None if only else selector)
                except Expired:
                    continue
                with watcher:
                    while await watcher.batch():
                        self._queue.forget(name)
                        self._queue.add(name)

        async with self.world.task_group() as group:
            group.start(follow("/registry/services/", service), "apiservice-service")
            group.start(follow(slices, None), "apiservice-slices")

    async def _checked(self, name: str) -> None:
        """One check, and when the next one is due."""
        try:
            remote = self.remotes.get(name)
            if remote is None:
                self._queue.forget(name)
                return
            before = remote.discovered(), remote.openapi_url()
            finding = await self._check(remote)
            if self.remotes.get(name) is not remote:
                return  # the APIService changed meanwhile, and is in the queue again
            await self._write(name, finding)
            if (remote.discovered(), remote.openapi_url()) != before:
                self.publish()
            if finding.status == "True":
                self._queue.forget(name)
                self._queue.add_after(name, CHECK_PERIOD)
            else:
                self._queue.add_rate_limited(name)
        except (StatusError, StoreUnavailable) as error:
            log.warning("APIService %s: %s", name, error)
            self._queue.add_rate_limited(name)
        finally:
            self._queue.done(name)

    async def _check(self, remote: Remote) -> Finding:
        reference = remote.spec["service"]
        namespace, name = reference["namespace"], reference["name"]
        service = self.resources["", "services"].cached(namespace, name)
        slices = self.resolver.slices(namespace, name) if service is not None else []
        return referenced(remote.spec, service, slices) or await remote.check()

    async def _write(self, name: str, finding: Finding) -> None:
        """Writes the condition if it says something new."""

        def change(old: Tree) -> Tree:
            if old["spec"].get("service") is not None:
                now = format_time(self.world.now())
                old["status"] = with_finding(old.get("status") or {}, finding, now)
            return old

        try:
            await self.resources[GROUP, RESOURCE].change(
                own_context(self.world), "", name, change, MANAGER, subresource="status"
            )
        except NotFound:
            return
        if (remote := self.remotes.get(name)) is not None:
            remote.available = finding.status == "True"

    # What this server answers itself

    async def _automanage(self) -> None:
        """Every served version of a custom kind has its APIService, as long as it is served."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            needed = {name_of(*key): key for key in self.resources.custom_versions()}
            try:
                for key in needed.values():
                    await self._register(*key, CUSTOM, ALWAYS)
                for name, tree in list(self._services.items()):
                    managed = (tree["metadata"].get("labels") or {}).get(AUTOMANAGED)
                    if managed == ALWAYS and name not in needed:
                        await self._delete(name)
            except (StatusError, StoreUnavailable) as error:
                log.warning("cannot register custom kinds: %s", error)
                await self.world.sleep(1.0)
                self._changed.set()

    async def _register(self, group: str, version: str, figures: tuple[int, int], managed: str) -> None:
        desired = local_service(group, version, figures, managed)
        name = desired["metadata"]["name"]
        resource = self.resources[GROUP, RESOURCE]
        current = self._services.get(name)
        if current is None:
            try:
                await resource.create(own_context(self.world), "", desired, MANAGER)
            except AlreadyExists:
                pass
            return
        if (current["metadata"].get("labels") or {}).get(AUTOMANAGED) != managed or current["spec"] == desired["spec"]:
            return  # somebody else's now, or as it should be

        def change(old: Tree) -> Tree:
            return old | {"spec": desired["spec"]}

        await resource.change(own_context(self.world), "", name, change, MANAGER)

    async def _delete(self, name: str) -> None:
        try:
            await self.resources[GROUP, RESOURCE].delete(own_context(self.world), "", name, DeleteOptions())
        except (NotFound, Conflict):
            pass


