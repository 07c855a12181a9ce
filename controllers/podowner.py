"""Ownership of pods, for controllers: whose pod changed, adopting, releasing, making and deleting with expectations."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar

from controllers.controller import (
    BY_CONTROLLER,
    Context,
    Controller,
    by_controller,
    namespace_is_terminating,
    orphans,
    patience,
    refuse_undecodable,
)
from controllers.controller import key as key_of_object
from controllers.expectations import Expectations
from controllers.ownership import adoption_patch, claim, reference, release_patch
from navarch.api import selectors
from navarch.api.errors import Conflict, Invalid, NotFound, StatusError
from navarch.api.pods import controller_of
from navarch.api.types import core_v1, meta_v1
from navarch.api.types.base import Struct
from navarch.client.events import NORMAL, WARNING
from navarch.client.informer import Index, key_of
from navarch.client.transport import TransportError
from navarch.client.undecodable import Undecodable

Pod = core_v1.Pod
UNSETTLED = 6.0
"""Seconds after which we look whether what was expected has come."""
AT_ONCE = 32
"""Requests in flight for one owner."""


class PodOwner(Controller):
    """A subclass says which kind it is and implements ``reconcile``."""

    struct: ClassVar[type[Struct]]
    api_version: ClassVar[str]
    kind: ClassVar[str]
    finalizers: ClassVar[Sequence[str]] = ()
    """Finalizers that its pods carry as long as they are its own: added on adoption, removed on release."""
    owner_indexes: ClassVar[Mapping[str, Index[Any]]] = {}

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.expectations = Expectations(self.world)
        self.events = context.recorder(self.name)
        self.owners: Any = self.informer(self.struct, self.owner_indexes)
        self.pods = self.informer(Pod, {BY_CONTROLLER: by_controller})
        self.keys_are_of(self.owners)
        self.owners.add_handler(self._owner_changed)
        self.pods.add_undecodable_handler(self._undecodable_pod)
        self.pods.add_handler(self._pod_changed)

    # Events

    def _owner_changed(self, kind: str, old: Any, new: Any) -> None:
        if kind == "DELETED":
            self.expectations.forget(key_of_object(new))
        if old is not None and kind == "MODIFIED" and old.metadata.generation == new.metadata.generation:
            # Mostly our own report: looking again at once would find the next pod ready, report it, and so on.
            self.queue.add_after(key_of_object(new), patience(self.pods.count(BY_CONTROLLER, new.metadata.uid or "")))
            return
        self.enqueue(new)

    def _pod_changed(self, kind: str, old: Pod | None, new: Pod) -> None:
        ref = controller_of(new.metadata)
        before = controller_of(old.metadata) if old is not None else None
        if before is not None and (ref is None or before.uid != ref.uid) and (owner := self._owner(new, before)):
            self.enqueue(owner)
        if ref is not None:
            owner = self._owner(new, ref)
            if owner is None:
                return
            key = key_of_object(owner)
            if kind == "ADDED":
                self.expectations.created(key)
            if kind == "DELETED" or new.metadata.deletion_timestamp is not None:
                self.expectations.deleted(key, new.metadata.uid or "")
            self.queue.add_after(key, patience(self.pods.count(BY_CONTROLLER, ref.uid)))
            return
        changed = old is None or before is not None or old.metadata.labels != new.metadata.labels
        if kind != "DELETED" and changed and new.metadata.deletion_timestamp is None:
            for candidate in self.owners.list(new.metadata.namespace):  # an orphan: who would adopt it?
                if self._may_adopt(candidate, new):
                    self.enqueue(candidate)

    def _undecodable_pod(self, kind: str, bad: Undecodable) -> None:
        """Its owner must not replace it; and may go on once it can be read, or is gone."""
        ref = controller_of(bad.metadata) if bad.metadata is not None else None
        if ref is not None and ref.kind == self.kind:
            self.queue.add(key_of(bad.namespace, ref.name))

    def _owner(self, pod: Pod, ref: meta_v1.OwnerReference) -> Any:
        if ref.kind != self.kind:
            return None
        owner = self.owners.get(pod.metadata.namespace, ref.name)
        return owner if owner is not None and owner.metadata.uid == ref.uid else None

    # Work

    def _may_adopt(self, owner: Any, pod: Pod) -> bool:
        try:
            return self.selects(owner).matches(pod.metadata.labels)
        except ValueError:
            return False  # its own reconcile says what is wrong with its selector

    def selects(self, owner: Any) -> selectors.LabelSelector:
        return selectors.from_struct(owner.spec.selector)

    def reference(self, owner: Any) -> meta_v1.OwnerReference:
        return reference(owner, self.api_version, self.kind)

    async def claim(
        self, owner: Any, *, among: Callable[[Pod], bool] | None = None, keep: Callable[[Pod], bool] = lambda pod: True
    ) -> list[Pod]:
        """The pods of the owner after adopting and releasing: all, or those ``among``, which alone are looked at.
        ``keep``: others are not adopted."""
        meta = owner.metadata
        refuse_undecodable(self.pods, meta.uid or "")
        selector = self.selects(owner)
        near = self.pods.by_index(BY_CONTROLLER, meta.uid or "")
        near += self.pods.by_index(BY_CONTROLLER, orphans(meta.namespace))
        mine, adopt, release = claim(owner, lambda pod: selector.matches(pod.metadata.labels), filter(among, near))
        adopt = [pod for pod in adopt if keep(pod)]
        if adopt:
            live: Any = await self.client[self.struct].get(meta.name or "", meta.namespace)
            if live.metadata.uid != meta.uid or live.metadata.deletion_timestamp is not None:
                adopt = []
        for pod in adopt:
            patch = adoption_patch(pod, self.reference(owner), self.finalizers)
            try:
                mine.append(await self.client[Pod].patch(pod.metadata.name or "", pod.metadata.namespace, patch))
            except NotFound:
                pass
        for pod in release:
            patch = release_patch(pod, meta.uid or "", self.finalizers)
            try:
                await self.client[Pod].patch(pod.metadata.name or "", pod.metadata.namespace, patch)
            except (NotFound, Invalid):
                pass
        return mine

    async def create_pods(self, key: str, owner: Any, pods: Sequence[Pod]) -> Exception | None:
        """In batches that double: if the first pod is refused, not hundreds of requests are. The first error."""
        self.expectations.expect_creations(key, len(pods))
        batch, at = 1, 0
        while at < len(pods):
            now = pods[at : at + batch]
            at += len(now)
            errors = await self.in_parallel([lambda pod=pod: self._create(key, owner, pod) for pod in now])  # type: ignore[misc]
            if errors:
                for _ in range(len(pods) - at):
                    self.expectations.created(key)
                return errors[0]
            batch *= 2
        return None

    async def _create(self, key: str, owner: Any, pod: Pod) -> None:
        try:
            created = await self.client[Pod].create(pod)
        except TransportError:
            self.expectations.doubted(key)
            raise
        except StatusError as error:
            self.expectations.created(key)
            if namespace_is_terminating(error):
                return
            self.events.event(owner, WARNING, "FailedCreate", f"Error creating: {error}")
            raise
        self.events.event(owner, NORMAL, "SuccessfulCreate", f"Created pod: {created.metadata.name}")

    async def delete_pods(self, key: str, owner: Any, pods: Sequence[Pod]) -> Exception | None:
        self.expectations.expect_deletions(key, [pod.metadata.uid or "" for pod in pods])
        errors = await self.in_parallel([lambda pod=pod: self._delete(key, owner, pod) for pod in pods])  # type: ignore[misc]
        return next(iter(errors), None)

    async def _delete(self, key: str, owner: Any, pod: Pod) -> None:
        name, uid = pod.metadata.name or "", pod.metadata.uid or ""
        try:
            await self.client[Pod].delete(name, pod.metadata.namespace, uid=uid)
        except (NotFound, Conflict):  # gone, or another pod by now
            self.expectations.deleted(key, uid)
        except (StatusError, TransportError) as error:
            self.expectations.deleted(key, uid)
            self.events.event(owner, WARNING, "FailedDelete", f"Error deleting: {error}")
            raise
        else:
            self.events.event(owner, NORMAL, "SuccessfulDelete", f"Deleted pod: {name}")

    async def in_parallel(self, calls: Sequence[Callable[[], Awaitable[None]]]) -> list[Exception]:
        """Runs all of them, some at a time; what failed, in the order of ``calls``."""
        limit = asyncio.Semaphore(AT_ONCE)
        errors: dict[int, Exception] = {}

        async def one(number: int, call: Callable[[], Awaitable[None]]) -> None:
            async with limit:
                try:
                    await call()
                except (StatusError, TransportError) as error:
                    errors[number] = error

        async with self.world.task_group() as group:
            for number, call in enumerate(calls):
                group.start(one(number, call))
        return [errors[n] for n in sorted(errors)]
