"""The garbage collector's hands: watches every kind that can be deleted, and deletes, orphans or unblocks."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec

from controllers.controller import Context, Controller
from controllers.garbage.graph import (
    DELETE_WORK,
    FOREGROUND,
    ORPHAN,
    ORPHAN_WORK,
    REPORT_WORK,
    Coordinates,
    Graph,
    Identity,
    Vertex,
    Work,
    identity_of,
)
from controllers.servedkinds import PartialObject, Resource, served
from navarch.api.errors import NotFound, StatusError
from navarch.api.kinds import BY_GVK, Kind
from navarch.api.types.core_v1 import ObjectReference
from navarch.api.types.meta_v1 import ObjectMeta, OwnerReference
from navarch.client.client import ResourceClient
from navarch.client.events import WARNING
from navarch.client.informer import Informer
from navarch.client.transport import TransportError
from navarch.client.undecodable import Undecodable
from navarch.client.watch import DELETED
from navarch.world import TaskGroup, describe

IGNORED = (("", "events"), ("events.k8s.io", "events"))
"""Many, short-lived, and never owned."""
REFRESH = 30.0
"""Seconds between looks at what the server serves: new kinds are watched from then on."""
SYNC_PATIENCE = 30.0
REMEMBERED = 500


class InvalidOwner(Exception):
    """A cluster-scoped object names an owner that lives in a namespace: nobody can say whether that is gone."""


class UnknownKind(Exception):
    """No served resource has this kind (yet)."""


class GarbageCollector(Controller):
    """Keys are ``delete UID``, ``orphan UID`` and ``report UID UID``. Whatever goes wrong with an object, it is not deleted:
    only owners that the server says are not there count as absent."""

    name = "garbage-collector-controller"
    workers = 20

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.graph = Graph()
        self._kinds: dict[tuple[str, str], Kind] = {}  # by group and kind
        self._watched: dict[tuple[str, str], tuple[Kind, asyncio.Task[None] | None]] = {}
        self._absent: OrderedDict[Coordinates, None] = OrderedDict()  # owners that proved not to exist
        self._doubted: dict[str, None] = {}  # uids that were undecodable: the next event is taken in whatever it changes
        self._complete = asyncio.Event()  # the graph holds everything there is

    # Watching

    async def run(self) -> None:
        async with self.world.task_group() as group:
            group.start(self._follow_served(group), name="garbage kinds")
            for i in range(self.workers):
                group.start(self._work(), name=f"{self.name} {i}")

    async def _follow_served(self, group: TaskGroup) -> None:
        while True:
            try:
                await self._watch(await served(self.client), group)
            except Exception as error:
                unforeseen = not isinstance(error, StatusError | TransportError)
                self.log.warning("cannot learn what is served: %s", describe(error), exc_info=unforeseen)
                await self.world.sleep(1 if not self._complete.is_set() else REFRESH)
                continue
            await self.world.sleep(REFRESH)

    async def _watch(self, resources: Sequence[Resource], group: TaskGroup) -> None:
        """Follows exactly these resources from now on."""
        by_name = {r.name: r for r in resources}
        self._kinds = {(r.kind.group, r.kind.kind): r.kind for r in resources if r.can("get")}
        for name in [n for n in self._watched if n not in by_name]:
            kind, task = self._watched.pop(name)
            if task is not None:
                task.cancel()
            for uid in [u for u, v in self.graph.vertices.items() if _is_of(v, kind)]:
                self._add(self.graph.forget(uid))
        new: list[Informer[Any]] = []
        for name, resource in by_name.items():
            if name in self._watched or name in IGNORED or not resource.can("list", "watch", "delete"):
                continue
            informer = self._informer(resource.kind)
            task = None
            if not self._is_shared(resource.kind):
                task = group.start(informer.run(), name=f"garbage {resource.kind.resource}")
            self._watched[name] = resource.kind, task
            informer.add_handler(self._handler(resource.kind))
            informer.add_undecodable_handler(self._undecodable_handler(resource.kind))
            new.append(informer)
        if new:
            self._complete.clear()
            for informer in new:
                try:
                    async with asyncio.timeout(SYNC_PATIENCE):
                        await informer.wait_synced()
                except TimeoutError:
                    self.log.warning("%s cannot be listed: going on without", informer.resource.kind.resource)
        self._complete.set()

    def _informer(self, kind: Kind) -> Informer[Any]:
        """The one that other controllers use already, else one of bare metadata."""
        if self._is_shared(kind):
            return self.context.informers.informer(kind.type)
        return Informer(self.client.resource(kind, PartialObject))

    def _is_shared(self, kind: Kind) -> bool:
        built_in = BY_GVK.get((kind.group, kind.version, kind.kind))
        return built_in is not None and built_in.type in self.context.structs

    def _handler(self, kind: Kind) -> Any:
        def handler(event: str, old: Any, new: Any) -> None:
            meta = new.metadata
            doubted = (meta.uid or "") in self._doubted
            self._doubted.pop(meta.uid or "", None)
            if event == DELETED:
                self._remember_absent(_as_owner(self._identity(kind, meta)))
                self._add(self.graph.forget(meta.uid or ""))
                return
            if old is None or doubted or not _unchanged(old.metadata, meta):
                self._observe(kind, meta)

        return handler

    @staticmethod
    def _identity(kind: Kind, meta: ObjectMeta) -> Identity:
        return Identity(kind.group, kind.version, kind.kind, meta.namespace or "", meta.name or "", meta.uid or "")

    def _observe(self, kind: Kind, meta: ObjectMeta) -> None:
        identity = self._identity(kind, meta)
        deleting = meta.deletion_timestamp is not None
        self._add(self.graph.observe(identity, meta.owner_references, meta.finalizers, deleting))

    def _undecodable_handler(self, kind: Kind) -> Any:
        """Of an object that others cannot read the metadata is all that counts here: it owns and is owned as ever."""

        def handler(event: str, bad: Undecodable) -> None:
            if event != DELETED and bad.metadata is not None:
                self._observe(kind, bad.metadata)
            elif event == DELETED:
                # Gone, or readable again, of which the other handler hears next. Dependents ask the server themselves.
                self._doubted[bad.uid] = None
                self._add(self.graph.forget(bad.uid))

        return handler

    def _add(self, work: list[Work]) -> None:
        for what, uid in work:
            self.queue.add(f"{what} {uid}")

    # Work

    async def reconcile(self, key: str) -> float | None:
        await self._complete.wait()
        what, _, uid = key.partition(" ")
        if what == REPORT_WORK:
            self._report_invalid(*uid.split(" ", 1))
            return None
        vertex = self.graph.vertices.get(uid)
        if vertex is None:
            return None
        try:
            if what == ORPHAN_WORK:
                await self._orphan(vertex)
            elif what == DELETE_WORK:
                await self._delete(vertex)
                if vertex.virtual and self.graph.vertices.get(uid) is vertex:
                    return REFRESH  # it is there, and no watch has shown it: it may have come and gone in between
        except InvalidOwner as error:
            self.log.warning("%s", error)  # trying again would not help; nothing is done about the object
        except UnknownKind as error:
            self.log.debug("%s: %s", vertex.identity, error)
            return REFRESH
        return None

    async def _delete(self, vertex: Vertex) -> None:
        """Looks whether the object is garbage, and deletes it if it is."""
        if vertex.deleting and not vertex.waits_for_dependents:
            return
        live = await self._live(vertex.identity)
        if live is None:
            self._remember_absent(_as_owner(vertex.identity))
            self._add(self.graph.forget(vertex.identity.uid))
            return
        if vertex.waits_for_dependents:
            await self._finish_foreground(vertex, live)
            return
        owners = live.metadata.owner_references or []
        if not owners:
            return
        solid: list[OwnerReference] = []
        dangling: list[OwnerReference] = []
        waiting: list[OwnerReference] = []
        for ref in owners:
            await self._classify(vertex.identity, ref, solid, dangling, waiting)
        if solid:
            if dangling or waiting:
                await self._patch(vertex.identity, live, {"ownerReferences": _plain(solid)})
            return
        if waiting and vertex.dependents:
            # Two foreground deletions in a circle would wait for each other for ever: this one does not block.
            if any(d.waits_for_dependents for d in vertex.dependents.values()):
                loose = [msgspec.structs.replace(r, block_owner_deletion=False) for r in owners]
                live = await self._patch(vertex.identity, live, {"ownerReferences": _plain(loose)})
            policy = "Foreground"
        else:
            finalizers = live.metadata.finalizers or ()
            policy = "Orphan" if ORPHAN in finalizers else "Foreground" if FOREGROUND in finalizers else "Background"
        self.log.debug("deleting %s: its owners are gone (%s)", vertex.identity, policy)
        try:
            await self._resource(vertex.identity).delete(
                vertex.identity.name,
                vertex.identity.namespace or None,
                propagation_policy=policy,
                uid=vertex.identity.uid,
                resource_version=live.metadata.resource_version,
            )
        except NotFound:
            pass

    async def _classify(
        self,
        dependent: Identity,
        ref: OwnerReference,
        solid: list[OwnerReference],
        dangling: list[OwnerReference],
        waiting: list[OwnerReference],
    ) -> None:
        """Sorts an owner into there, gone, and being deleted in the foreground; by asking the server."""
        owner = identity_of(ref, dependent.namespace)
        here = Coordinates(ref.api_version, ref.kind, dependent.namespace, ref.name, ref.uid)
        if here in self._absent or here._replace(namespace="") in self._absent:
            dangling.append(ref)
            return
        kind = self._kind(owner)
        if kind.namespaced and not dependent.namespace:
            raise InvalidOwner(f"{dependent} names {owner} as owner, which lives in a namespace")
        live = await self._live(owner)
        if live is None:
            self._remember_absent(here if kind.namespaced else here._replace(namespace=""))
            dangling.append(ref)
        elif live.metadata.deletion_timestamp is not None and FOREGROUND in (live.metadata.finalizers or ()):
            waiting.append(ref)
        else:
            solid.append(ref)

    async def _finish_foreground(self, vertex: Vertex, live: PartialObject) -> None:
        """Lets go of an owner once no dependent blocks it; else sees that the dependents go."""
        blockers = vertex.blockers
        if not blockers:
            await self._remove_finalizer(vertex.identity, live, FOREGROUND)
            return
        for dependent in blockers:
            if not dependent.waits_for_dependents:
                self.queue.add(f"{DELETE_WORK} {dependent.identity.uid}")

    async def _orphan(self, vertex: Vertex) -> None:
        """Cuts the dependents loose, then lets go of the owner."""
        if not vertex.orphans_dependents:
            return
        uid = vertex.identity.uid
        for dependent in list(vertex.dependents.values()):
            live = await self._live(dependent.identity)
            if live is None:
                continue
            references = [r for r in live.metadata.owner_references or () if r.uid != uid]
            if len(references) != len(live.metadata.owner_references or ()):
                try:
                    await self._patch(dependent.identity, live, {"ownerReferences": _plain(references)})
                except NotFound:
                    pass
        owner = await self._live(vertex.identity)
        if owner is not None:
            await self._remove_finalizer(vertex.identity, owner, ORPHAN)

    # Requests

    def _kind(self, identity: Identity) -> Kind:
        kind = self._kinds.get((identity.group, identity.kind))
        if kind is None:
            raise UnknownKind(f"{identity.kind} of group {identity.group!r} is not served")
        return kind

    def _resource(self, identity: Identity) -> ResourceClient[PartialObject]:
        return self.client.resource(self._kind(identity), PartialObject)

    async def _live(self, identity: Identity) -> PartialObject | None:
        """The object as the server has it now; None if it, the one of this uid, does not exist."""
        kind = self._kind(identity)
        if kind.namespaced and not identity.namespace:
            return None
        try:
            live = await self._resource(identity).get(identity.name, identity.namespace or None)
        except NotFound:
            return None
        return live if live.metadata.uid == identity.uid else None

    async def _patch(self, identity: Identity, live: PartialObject, metadata: dict[str, Any]) -> PartialObject:
        body = {
            "metadata": {"uid": identity.uid, "resourceVersion": live.metadata.resource_version, **metadata},
        }
        return await self._resource(identity).patch(identity.name, identity.namespace or None, body)

    async def _remove_finalizer(self, identity: Identity, live: PartialObject, finalizer: str) -> None:
        finalizers = live.metadata.finalizers or []
        if finalizer not in finalizers:
            return
        try:
            await self._patch(identity, live, {"finalizers": [f for f in finalizers if f != finalizer] or None})
        except NotFound:
            pass

    def _report_invalid(self, dependent_uid: str, owner_uid: str) -> None:
        """The event that a dependent names an owner of another namespace; in upstream's words."""
        dependent = self.graph.vertices.get(dependent_uid)
        if dependent is None:
            return
        group, version, kind, namespace, name, uid = dependent.identity
        about = ObjectReference(
            api_version=f"{group}/{version}" if group else version, kind=kind, namespace=namespace or None, name=name, uid=uid
        )
        for ref in dependent.owners:
            if ref.uid == owner_uid:
                what = f"[{ref.api_version}/{ref.kind}, namespace: {namespace}, name: {ref.name}, uid: {ref.uid}]"
                text = f'ownerRef {what} does not exist in namespace "{namespace}"'
                self.sync_events.event(about, WARNING, "OwnerRefInvalidNamespace", text)

    def _remember_absent(self, owner: Coordinates) -> None:
        self._absent[owner] = None
        self._absent.move_to_end(owner)
        while len(self._absent) > REMEMBERED:
            self._absent.popitem(last=False)


def _as_owner(identity: Identity) -> Coordinates:
    """As a reference to this object has it."""
    group, version, kind, namespace, name, uid = identity
    return Coordinates(f"{group}/{version}" if group else version, kind, namespace, name, uid)


def _is_of(vertex: Vertex, kind: Kind) -> bool:
    return not vertex.virtual and (vertex.identity.group, vertex.identity.kind) == (kind.group, kind.kind)


def _unchanged(old: Any, new: Any) -> bool:
    return bool(
        old.owner_references == new.owner_references
        and old.finalizers == new.finalizers
        and old.deletion_timestamp == new.deletion_timestamp
    )


def _plain(refs: list[OwnerReference]) -> list[Any] | None:
    return [msgspec.to_builtins(r) for r in refs] or None
