"""The ownership graph: all objects by uid, kept by their events. Pure.

An owner that is named but was never seen is in the graph as a *virtual* vertex, and asked for at once: if the server
does not know it, its dependents are garbage. Each event returns the work that it causes, as (what, uid) pairs in a
fixed order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from navarch.api.types.meta_v1 import OwnerReference

ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"
"""Finalizers through which a deletion waits for the collector."""

DELETE_WORK, ORPHAN_WORK = "delete", "orphan"
REPORT_WORK = "report"
"""The uid of such work is the dependent's, a space, and that of an owner which lives in another namespace."""


class Identity(NamedTuple):
    group: str
    version: str
    kind: str
    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {where}"


class Coordinates(NamedTuple):
    """A dependent's reference to its owner, and its place: two references of one uid may name different objects."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


class Work(NamedTuple):
    what: str
    uid: str


@dataclass
class Vertex:
    identity: Identity
    virtual: bool = False
    owners: tuple[OwnerReference, ...] = ()
    dependents: dict[str, Vertex] = field(default_factory=dict)  # by uid
    deleting: bool = False
    waits_for_dependents: bool = False  # being deleted in the foreground
    orphans_dependents: bool = False  # being deleted, leaving its dependents behind

    @property
    def blockers(self) -> list[Vertex]:
        """Dependents that a foreground deletion waits for."""
        uid = self.identity.uid
        return [d for d in self.dependents.values() if any(r.uid == uid and r.block_owner_deletion for r in d.owners)]


def group_version(api_version: str) -> tuple[str, str]:
    group, _, version = api_version.rpartition("/")
    return group, version


def identity_of(ref: OwnerReference, namespace: str) -> Identity:
    """The owner that a dependent in ``namespace`` means (its namespace is wrong if the owner has none)."""
    group, version = group_version(ref.api_version)
    return Identity(group, version, ref.kind, namespace, ref.name, ref.uid)


class Graph:
    def __init__(self) -> None:
        self.vertices: dict[str, Vertex] = {}

    def observe(
        self,
        identity: Identity,
        owners: Iterable[OwnerReference] | None,
        finalizers: Iterable[str] | None,
        deleting: bool,
    ) -> list[Work]:
        """An object was added or changed."""
        work: dict[Work, None] = {}
        vertex = self.vertices.get(identity.uid)
        if vertex is None:
            vertex = self.vertices[identity.uid] = Vertex(identity)
        elif vertex.virtual:
            self._becomes_real(vertex, identity, work)
        self._set_owners(vertex, tuple(owners or ()), work)
        finalizer_names = tuple(finalizers or ())
        vertex.deleting = deleting
        orphaning = deleting and ORPHAN in finalizer_names
        if orphaning and not vertex.orphans_dependents:
            work[Work(ORPHAN_WORK, identity.uid)] = None
        vertex.orphans_dependents = orphaning
        waiting = deleting and FOREGROUND in finalizer_names
        if waiting and not vertex.waits_for_dependents:
            for uid in vertex.dependents:
                work[Work(DELETE_WORK, uid)] = None
            work[Work(DELETE_WORK, identity.uid)] = None
        vertex.waits_for_dependents = waiting
        return list(work)

    def forget(self, uid: str) -> list[Work]:
        """An object is gone, or proved never to have been there. It stays as a virtual one while others name it."""
        vertex = self.vertices.get(uid)
        if vertex is None:
            return []
        work: dict[Work, None] = {}
        for ref in vertex.owners:
            owner = self.vertices.get(ref.uid)
            if owner is not None:
                self._part(owner, uid, work)
        vertex.owners = ()
        vertex.virtual = True
        vertex.deleting = vertex.waits_for_dependents = vertex.orphans_dependents = False
        if not vertex.dependents:
            self.vertices.pop(uid, None)
        for dependent in vertex.dependents:
            work[Work(DELETE_WORK, dependent)] = None
        return list(work)

    def _part(self, owner: Vertex, uid: str, work: dict[Work, None]) -> None:
        """``uid`` does not name ``owner`` any more."""
        owner.dependents.pop(uid, None)
        if owner.virtual and not owner.dependents:
            self.vertices.pop(owner.identity.uid, None)
        self._check_owner(owner, work)

    def _becomes_real(self, vertex: Vertex, identity: Identity, work: dict[Work, None]) -> None:
        """A named owner is there. Whoever named it by other coordinates named nobody."""
        vertex.virtual = False
        vertex.identity = identity
        for uid, dependent in vertex.dependents.items():
            if identity.namespace and identity.namespace != dependent.identity.namespace:
                work[Work(REPORT_WORK, f"{uid} {identity.uid}")] = None
            if not all(self._names(ref, dependent, identity) for ref in dependent.owners if ref.uid == identity.uid):
                work[Work(DELETE_WORK, uid)] = None

    @staticmethod
    def _names(ref: OwnerReference, dependent: Vertex, owner: Identity) -> bool:
        group, _ = group_version(ref.api_version)
        same = (group, ref.kind, ref.name) == (owner.group, owner.kind, owner.name)
        return same and owner.namespace in ("", dependent.identity.namespace)

    def _set_owners(self, vertex: Vertex, owners: tuple[OwnerReference, ...], work: dict[Work, None]) -> None:
        uid = vertex.identity.uid
        before, after = {r.uid: r for r in vertex.owners}, {r.uid: r for r in owners}
        vertex.owners = owners
        for owner_uid, ref in before.items():
            new = after.get(owner_uid)
            owner = self.vertices.get(owner_uid)
            if owner is None:
                continue
            if new is None:
                self._part(owner, uid, work)
            elif ref.block_owner_deletion and not new.block_owner_deletion:
                self._check_owner(owner, work)
        for owner_uid, ref in after.items():
            if owner_uid in before:
                continue
            owner = self.vertices.get(owner_uid)
            if owner is None:
                owner = Vertex(identity_of(ref, vertex.identity.namespace), virtual=True)
                self.vertices[owner_uid] = owner
                work[Work(DELETE_WORK, owner_uid)] = None
            elif not owner.virtual and not self._names(ref, vertex, owner.identity):
                if owner.identity.namespace and owner.identity.namespace != vertex.identity.namespace:
                    work[Work(REPORT_WORK, f"{uid} {owner_uid}")] = None
                work[Work(DELETE_WORK, uid)] = None
            owner.dependents[uid] = vertex
            if owner.waits_for_dependents:
                work[Work(DELETE_WORK, uid)] = None

    @staticmethod
    def _check_owner(owner: Vertex, work: dict[Work, None]) -> None:
        """An owner that waits for its dependents may have waited long enough."""
        if owner.waits_for_dependents:
            work[Work(DELETE_WORK, owner.identity.uid)] = None
