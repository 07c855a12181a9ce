"""Changes of objects of any kind: update, and what is computed from the stored object (patch, scale, binding)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import orjson

from apiserver.registry import objectmeta
from apiserver.registry.creates import Creates, Result, finished, undone
from apiserver.registry.managedfields import differ_in_times
from apiserver.registry.patches import Patch
from apiserver.registry.stored import Stored
from apiserver.registry.strategy import Tree
from apiserver.request import UPDATE, Attributes, Context, WriteOptions
from navarch.api.errors import Cause, NotFound, Timeout, resource_conflict, resource_invalid
from navarch.api.patch import same

Change = Callable[[Tree], Tree]
"""Computes the new object from the stored one, which it may change and return. Raises a StatusError."""


class Writes(Creates):
    """See the module."""

    async def update(
        self, context: Context, namespace: str, name: str, obj: Tree, options: WriteOptions,
        *, subresource: str = "", duplicates: Sequence[str] = (),
    ) -> Result:  # fmt: skip
        """Replaces an object (or its status). Raises Conflict if it carries another resourceVersion than is stored."""
        objectmeta.check_kind(obj, self.kind)
        self.conform(context, obj, options, duplicates)
        metadata = objectmeta.metadata_of(obj)
        objectmeta.must_name(obj, name, namespace)
        version, uid = metadata.get("resourceVersion") or "", metadata.get("uid") or ""
        if not version.strip("0"):  # upstream reads a number
            version = ""
        snapshot = orjson.dumps(obj)

        def change(old: Tree) -> Tree:
            if not version and not self.strategy.unconditional_update:
                text = "Invalid value: 0x0: must be specified for an update"
                cause = Cause("FieldValueInvalid", text, "metadata.resourceVersion")
                raise resource_invalid(self.resource, self.group, name, [cause])  # upstream names the resource here
            self.check_preconditions(old, uid, version)
            new: Tree = orjson.loads(snapshot)
            return new

        try:
            return await self.change(context, namespace, name, change, options, subresource=subresource, keeps=True)
        except NotFound:
            if subresource or not self.strategy.create_on_update:
                raise
            if version:
                raise resource_conflict(self.resource, self.group, name) from None
        metadata.pop("resourceVersion", None)
        return await self.create(context, namespace, obj, options, ask=True)

    async def change(
        self, context: Context, namespace: str, name: str, change: Change, options: WriteOptions = WriteOptions(),  # noqa: B008
        *, subresource: str = "", operation: str = "Update", admit: bool = True, keeps: bool = False,
        patch: Patch | None = None,
    ) -> Result:  # fmt: skip
        """Writes what ``change`` makes of the stored object, as often as others come in between.

        ``subresource`` "" keeps status, "status" keeps all else, one of the strategy's parts all but that; others
        (binding, scale, finalize) keep nothing: their ``change`` is trusted. ``admit`` False leaves out admission.
        ``keeps``: ``change`` leaves the stored object as it is, and makes a new one that shares nothing with it.
        ``patch``: by which it does so, with nothing added but pruning of what that touched.
        Raises NotFound and what ``change`` raises.
        """
        removals: list[Tree] = []
        if not self.codec.same or not self.strategy.strict_types:
            patch = None  # all of the object is pruned
        attempt = _Attempt(context, namespace, name, change, options, subresource, operation, admit, keeps, patch, removals)
        try:
            result: Result = await self.with_stored(namespace, name, lambda stored: self._change(attempt, stored))
        finally:
            await self.release(removals)
        return result

    async def _change(self, attempt: _Attempt, stored: Stored) -> tuple[Result, bool]:
        """One attempt: the result, and whether it was written (else nothing had to be). Raises Lost."""
        context, options, subresource, strategy = attempt.context, attempt.options, attempt.subresource, self.strategy
        rewrite = self.codec.needs_rewrite(stored.data)
        if self.backend.needs_rewrite is not None:
            rewrite = rewrite or self.backend.needs_rewrite(self.key(attempt.namespace, attempt.name))
        if self.converted is not None:
            stored = await self.served(stored)
        # What others compute, such as a binding, is small, and may look at more than the object: it stays in the loop.
        size = max(context.size, len(stored.data)) if attempt.keeps else 0
        old, new = await self._beside(size, self._computed, attempt, stored)
        attributes = Attributes(
            context, UPDATE, self.kind, attempt.namespace, attempt.name, subresource, new, old, options.dry_run, options
        )
        if attempt.admit and self.admission.mutates(attributes):
            passport = self.gate.passport(new)
            await self.admission.admit(attributes)
            self.gate.admitted(context, new, passport)
            if attributes.again:  # what a webhook put where this request may not write
                new = attributes.obj = self._only_its_part(new, old, stored, subresource, None)
                self._prepare(context, new, old, subresource)
            strategy.default(new)
        await self._beside(size if strategy.strict_types else 0, self._judge, context, new, old, subresource)
        finish = await strategy.begin_update(context, new, old, options.dry_run)
        done = False
        try:
            if attempt.admit:
                await self.admission.validate(attributes)
            if not rewrite and await self._beside(size, differ_in_times, new, old):
                return Result(self._reply(old, None, stored.revision)), False
            if options.dry_run:
                return Result(orjson.dumps(new)), False
            result = await self._commit(attempt.namespace, attempt.name, new, stored, attempt.removals)
            done = True
            await self.admission.finished(attributes)
            return Result(result), True
        except (Timeout, asyncio.CancelledError):
            attributes.undo.clear()  # it may have been stored
            raise
        finally:
            await finished(finish, done)
            if not done:
                await undone(attributes)

    def _computed(self, attempt: _Attempt, stored: Stored) -> tuple[Tree, Tree]:
        """The stored object, and what the change makes of it, before admission."""
        subresource, strategy, patch = attempt.subresource, self.strategy, attempt.patch
        old = self.tree_of(stored)
        new = attempt.change(old if attempt.keeps else self.tree_of(stored))
        objectmeta.keep_system_fields(new, old)
        new = self._only_its_part(new, old, stored, subresource, patch)
        said = new
        like = subresource in strategy.status_subresources or (patch is not None and patch.leaves("spec"))
        if strategy.defaults_spec and (like or same(new.get("spec"), old.get("spec"))):  # its defaults are there
            if "spec" in old and "spec" in new:
                said = {**new, "spec": old["spec"]}  # nobody need compare it again
        else:
            strategy.default(new)
        self.tracker.changed(new, old, said, attempt.options.field_manager, attempt.operation, subresource)
        self._prepare(attempt.context, new, old, subresource)
        return old, new

    def _judge(self, context: Context, new: Tree, old: Tree, subresource: str) -> None:
        """After admission: generation, validation, warnings. Raises Invalid, InternalError."""
        strategy, of_status = self.strategy, subresource in self.strategy.status_subresources
        decodes = self.gate.settle(new)
        if strategy.generation and not of_status and objectmeta.body_differs(new, old):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        causes = objectmeta.update_causes(new, old)
        if of_status:
            causes += strategy.validate_status(new, old)
        elif subresource in strategy.part_subresources:
            causes += strategy.validate_part(subresource, new, old)
        else:
            causes += strategy.validate_update(new, old)
        self._refuse(new, causes)
        if not decodes:
            self.gate.prove(new)
        for text in strategy.warnings(new, old):
            context.warn(text)

    def _only_its_part(self, new: Tree, old: Tree, stored: Stored, subresource: str, patch: Patch | None) -> Tree:
        """The change less what a request to this subresource cannot change: the object keeps its status, the status all
        else, each part what is not its own. ``patch``: what made ``new`` of ``old``, if it was that alone."""
        strategy = self.strategy
        if subresource in strategy.status_subresources:
            if patch is not None and patch.touches_only(("metadata", "status")):
                rest = {**new, "metadata": orjson.loads(orjson.dumps(old["metadata"]))}
            else:
                rest = self.tree_of(stored)
            new = _only_status(new, rest)
            if (zeros := strategy.zero_status()) is not None:
                new["status"] = zeros | (new.get("status") or {})
        elif subresource in strategy.part_subresources:
            managed = new["metadata"].get("managedFields")
            new = orjson.loads(orjson.dumps(strategy.only_part(subresource, new, old)))
            if managed is not None:
                new["metadata"]["managedFields"] = managed
        elif not subresource and strategy.has_status and not (patch is not None and patch.leaves("status")):
            new.pop("status", None)
            if "status" in old:
                new["status"] = orjson.loads(orjson.dumps(old["status"]))
        return new

    def _prepare(self, context: Context, new: Tree, old: Tree, subresource: str) -> None:
        if subresource in self.strategy.status_subresources:
            self.strategy.prepare_status(context, new, old)
        elif not subresource:
            self.strategy.prepare_update(context, new, old)


class _Attempt(NamedTuple):
    context: Context
    namespace: str
    name: str
    change: Change
    options: WriteOptions
    subresource: str
    operation: str
    admit: bool
    keeps: bool
    patch: Patch | None
    removals: list[Tree]


def _only_status(new: Tree, out: Tree) -> Tree:
    """Applies a status write: status and annotations. ``out`` is the stored object, which it changes and returns."""
    if "status" in new:
        out["status"] = new["status"]
    else:
        out.pop("status", None)
    for field in ("annotations", "managedFields"):
        if field in new["metadata"]:
            out["metadata"][field] = new["metadata"][field]
        else:
            out["metadata"].pop(field, None)
    return out
