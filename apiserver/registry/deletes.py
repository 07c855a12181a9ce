"""Deletion for any kind: grace, finalizers and propagation policies, preconditions, collections.

An object goes at once unless a grace period, a finalizer or its kind (:meth:`Strategy.is_held`) keeps it. Then its
deletionTimestamp is set, and whoever removes the last finalizer, or deletes it again with no grace, ends it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from apiserver.registry.objectmeta import FOREGROUND, ORPHAN
from apiserver.registry.options import META_GROUP, ListOptions
from apiserver.registry.reads import ListResult
from apiserver.registry.stored import Stored
from apiserver.registry.strategy import Tree
from apiserver.registry.writes import Writes
from apiserver.request import DELETE, Attributes, Context, DeleteOptions
from navarch.api.durations import as_duration
from navarch.api.errors import NotFound, invalid, not_supported, resource_invalid
from navarch.api.times import format_time, parse_time

POLICIES = ("Background", "Foreground", "Orphan")

# Kinds whose deletion answers with the object; the others answer with a Status.
ANSWER_OBJECT = {("", r) for r in ("pods", "services", "serviceaccounts", "podtemplates", "resourcequotas")}


class Deleted(NamedTuple):
    """The answer of a delete; ``is_gone`` if the object has left the store."""

    data: bytes
    is_gone: bool


def check_options(options: DeleteOptions) -> None:
    """Raises Invalid for options that contradict each other."""
    causes = []
    if options.propagation_policy is not None:
        if options.orphan_dependents is not None:
            why = "orphanDependents and deletionPropagation cannot be both set"
            causes.append(invalid("propagationPolicy", options.propagation_policy, why))
        if options.propagation_policy not in POLICIES:
            causes.append(not_supported("propagationPolicy", options.propagation_policy, [*POLICIES, "nil"]))
    if causes:
        raise resource_invalid("DeleteOptions", META_GROUP, "", causes)


def finalizers_after(present: list[str], options: DeleteOptions, default: str = "Background") -> list[str]:
    """The finalizers after the propagation policy had its say. Without one those that are there decide, and then the
    kind's ``default`` (upstream's GarbageCollectionDeleteStrategy; "": the kind has no dependents)."""
    policy: str | None = options.propagation_policy
    if not default:
        policy = "Background"
    elif policy is None and options.orphan_dependents is not None:
        policy = "Orphan" if options.orphan_dependents else "Background"
    if policy is None and (default != "Orphan" or FOREGROUND in present):
        return present
    policy = policy or default
    required = {"Orphan": [ORPHAN], "Foreground": [FOREGROUND]}.get(policy, [])
    out = [f for f in present if f not in (ORPHAN, FOREGROUND) or f in required]
    return out + [f for f in required if f not in out]


class Deletes(Writes):
    """See the module."""

    async def delete(
        self, context: Context, namespace: str, name: str, options: DeleteOptions, *, admit: bool = True
    ) -> Deleted:
        """Deletes, or begins to. Raises NotFound, Conflict (preconditions), Forbidden and what admission raises.

        ``admit``: whether admission is asked; an eviction has been admitted as the creation that it is.
        """
        check_options(options)
        self._warn(context, options)

        removals: list[Tree] = []

        async def act(stored: Stored) -> tuple[Deleted, bool]:
            return await self._delete(context, namespace, name, options, stored, removals, admit)

        try:
            result: Deleted = await self.with_stored(namespace, name, act)
        finally:
            await self.release(removals)
        return result

    def _warn(self, context: Context, options: DeleteOptions) -> None:
        if options.propagation_policy is None and options.orphan_dependents is None and self.strategy.deletion_warning:
            context.warn(self.strategy.deletion_warning)

    async def _delete(
        self, context: Context, namespace: str, name: str, options: DeleteOptions, stored: Stored, removals: list[Tree],
        admit: bool = True,
    ) -> tuple[Deleted, bool]:  # fmt: skip
        if self.converted is not None:
            stored = await self.served(stored)
        old = self.tree_of(stored)
        self.check_preconditions(old, options.uid, options.resource_version)
        self.strategy.check_delete(context, old)
        if admit:
            attributes = Attributes(
                context, DELETE, self.kind, namespace, name, "", None, old, options.dry_run, options
            )
            await self.admission.admit(attributes)
            await self.admission.validate(attributes)
        new = self.tree_of(stored)
        changed = self._mark(new, options)
        if self.is_free(new):
            if options.dry_run:
                return Deleted(self._answer(new, stored.revision), True), False
            revision = await self.remove(namespace, name, new, stored, removals)
            return Deleted(self._answer(new, revision), True), True
        if not changed:
            return Deleted(self._reply(new, None, stored.revision), False), False
        if options.dry_run:
            return Deleted(orjson.dumps(new), False), False
        return Deleted(await self._commit(namespace, name, new, stored, removals), False), True

    def _mark(self, obj: Tree, options: DeleteOptions) -> bool:
        """Sets what says that the object is being deleted; returns whether anything changed."""
        before = orjson.dumps(obj)
        metadata = obj["metadata"]
        seconds = max(0, self.strategy.graceful_seconds(obj, options.grace_period_seconds))
        finalizers = finalizers_after(list(metadata.get("finalizers") or ()), options, self.strategy.default_propagation)
        if finalizers:
            metadata["finalizers"] = finalizers
        else:
            metadata.pop("finalizers", None)
        since = metadata.get("deletionTimestamp")
        if since is None:
            metadata["deletionTimestamp"] = format_time(self.world.now() + as_duration(seconds))
            metadata["deletionGracePeriodSeconds"] = seconds
            if generation := metadata.get("generation"):
                metadata["generation"] = generation + 1
            self.strategy.begin_delete(obj)
        else:
            # Grace only gets shorter; a second delete that names none changes nothing.
            remaining = metadata.get("deletionGracePeriodSeconds") or 0
            if options.grace_period_seconds is not None and seconds < remaining:
                metadata["deletionTimestamp"] = format_time(parse_time(since) - as_duration(remaining) + as_duration(seconds))
                metadata["deletionGracePeriodSeconds"] = seconds
        return orjson.dumps(obj) != before

    def _answer(self, obj: Tree, revision: int) -> bytes:
        if (self.group, self.resource) in ANSWER_OBJECT:
            return self._reply(obj, None, revision)
        details: dict[str, Any] = {"name": obj["metadata"]["name"], "kind": self.resource}
        if self.group:
            details["group"] = self.group
        if uid := obj["metadata"].get("uid"):
            details["uid"] = uid
        return orjson.dumps(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        )

    async def delete_collection(
        self, context: Context, namespace: str, selection: ListOptions, options: DeleteOptions
    ) -> ListResult:
        """Deletes all that the selection lists; returns what it found. One that is gone already does not matter."""
        check_options(options)
        self._warn(context, options)
        result = await self.list(namespace, selection)
        for item in result.items:
            metadata = orjson.loads(item)["metadata"]
            one = DeleteOptions(
                options.dry_run, options.grace_period_seconds, options.propagation_policy, options.orphan_dependents,
                options.uid or metadata.get("uid"), options.resource_version,
            )  # fmt: skip
            try:
                await self.delete(context, metadata.get("namespace", ""), metadata["name"], one)
            except NotFound:
                continue
        return result
