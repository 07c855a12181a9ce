"""The writing verbs for any kind: create, update, and changes computed from the stored object (patch, scale, binding).

Every change is optimistic: take the object (from the cache, which may lag), compute the new one, and write it on the
condition that the object did not change meanwhile. An answer other than a successful write (an error, or "nothing to
do") that was computed from a cached object only counts if the store still has that very object. Whoever loses a race
queues up for the object, so that many writers of one object each need a few attempts, not many.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import orjson

from apiserver.cache.encoded import encode, with_revision
from apiserver.registry import objectmeta
from apiserver.registry.gate import Gate, internal, may_create, of_metadata
from apiserver.registry.managedfields import Tracker, differ_in_times
from apiserver.registry.patches import STRATEGIC_PATCH, Patch
from apiserver.registry.reads import Backend, Reads
from apiserver.registry.strategy import Strategy, Tree
from apiserver.registry.templates import Templates
from apiserver.request import CREATE, UPDATE, Attributes, Context, WriteOptions
from apiserver.storage.store import Compare, Put, StoreFull, StoreUnavailable, TooLarge, TxnResult
from navarch.api.errors import (
    AlreadyExists,
    BadRequest,
    Cause,
    NotFound,
    StatusError,
    Timeout,
    precondition,
    resource_conflict,
    resource_exists,
    resource_invalid,
)  # fmt: skip
from navarch.api.patch import same
from navarch.api.pruning import Problems, cannot_handle, prepare, strict_error

log = logging.getLogger(__name__)
STRICT, WARN = "Strict", "Warn"
GENERATE_ATTEMPTS = 8
CHANGE_ATTEMPTS = 100
MIN_BESIDE = 64 * 1024
"""Bytes of an object that is worked on beside the event loop: less takes up to 30 ms."""

Change = Callable[[Tree], Tree]
"""Computes the new object from the stored one, which it may change and return. Raises a StatusError."""


class Result(NamedTuple):
    """``data`` is the object's JSON as clients see it; ``created`` by this very request."""

    data: bytes
    created: bool = False


class Stored(NamedTuple):
    """An object as the store has it: ``data`` in the stored shape, with its resource version."""

    data: bytes
    revision: int


class _Sent(NamedTuple):
    """The spec of a new object: as it was sent, if it is worth remembering; ``ready``: it has its defaults already."""

    spec: bytes | None
    ready: bool


class _Lost(Exception):
    """Another writer changed the object first."""


class Writes(Reads):
    """See the module."""

    def __init__(self, backend: Backend, strategy: Strategy) -> None:
        super().__init__(backend, strategy)
        self.tracker = Tracker(self.world, self.kind, self.schema)
        self.gate = Gate(strategy)
        self.templates = Templates(strategy)
        self._queues: dict[str, _Queue] = {}

    # Helpers

    def key(self, namespace: str, name: str) -> str:
        return f"{self.prefix}{namespace}/{name}" if self.kind.namespaced else self.prefix + name

    def conform(
        self, context: Context, obj: Tree, options: WriteOptions, duplicates: Sequence[str] = (),
        patched: tuple[Patch, Tree] | None = None, *, keep_empty: bool = False,
    ) -> bool:  # fmt: skip
        """Prunes the object by its schema; unknown and duplicate fields are ignored, warned of, or refused. Returns whether
        there was nothing to say.

        ``keep_empty``: it is what somebody applies, who owns also what he leaves empty.
        ``patched``: the patch that made ``obj``, and what it was applied to. Raises BadRequest (wrong types, Strict), or
        Invalid if a patch is at fault.
        """
        problems = prepare(obj, self.schema, keep_empty=keep_empty) if patched is None else self._prepare_patched(obj, *patched)
        objectmeta.drop_empty(obj)
        if problems.types and not self.strategy.strict_types:
            problems.types = [t for t in problems.types if of_metadata(t)]
        if problems.types:
            first, kind = problems.types[0], self.kind
            error = cannot_handle(kind.kind, kind.version, first.message())
            if patched is None:
                raise error
            patch, old = patched
            why = first.conversion() if patch.type == STRATEGIC_PATCH else error.message
            raise patch.refused(old, self.schema, why)
        if (problems.unknown or duplicates) and options.field_validation in (STRICT, WARN):
            texts = problems.strict(list(duplicates))
            if options.field_validation == WARN:
                for text in texts:
                    context.warn(text)
            elif patched is None:
                raise strict_error(self.kind.kind, self.kind.version, texts)
            else:
                patch, old = patched
                raise patch.refused(old, self.schema, "strict decoding error: " + ", ".join(texts))
        return not (problems.unknown or duplicates)

    def _conform_new(self, context: Context, obj: Tree, options: WriteOptions, duplicates: Sequence[str]) -> _Sent:
        """As :meth:`conform`, of an object to be created; a spec that was seen before has its defaults then."""
        sent = self.templates.sent(obj)
        ready = self.templates.ready(sent) if sent is not None else None
        if ready is None:
            return _Sent(sent if self.conform(context, obj, options, duplicates) else None, False)
        keys = list(obj)
        del obj["spec"]
        self.conform(context, obj, options, duplicates)
        rest = dict(obj, spec=ready)
        obj.clear()
        obj.update({key: rest[key] for key in keys if key in rest})  # in the order in which it came
        return _Sent(None, True)

    def _prepare_patched(self, obj: Tree, patch: Patch, old: Tree) -> Problems:
        """As prepare; what a patch left as it was stored is in order. (The schema of a custom resource may have changed.)"""
        if not self.codec.same or not self.strategy.strict_types:
            return prepare(obj, self.schema)
        fields = [k for k in obj if not patch.leaves(k)]
        touched = {k: obj[k] for k in fields if k not in old or orjson.dumps(obj[k]) != orjson.dumps(old[k])}
        keys = list(touched)
        problems = prepare(touched, self.schema)
        for key in keys:
            if key in touched:
                obj[key] = touched[key]
            else:
                del obj[key]
        return problems

    def _refuse(self, obj: Tree, causes: list[Cause]) -> None:
        if causes:
            raise resource_invalid(self.kind.kind, self.group, obj["metadata"].get("name", ""), causes)

    async def _txn(self, compare: Compare, puts: Sequence[Put] = (), deletes: Sequence[str] = ()) -> TxnResult:
        try:
            result = await self.store.txn([compare], puts, deletes)
        except StoreFull as error:  # nothing was written; upstream passes etcd's words on as they are
            raise StatusError(str(error), code=500) from error
        except StoreUnavailable as error:
            # Whether it was written is unknown: the client has to look.
            raise Timeout(f"Timeout: request did not complete within the requested timeout - {error}") from error
        except TooLarge as error:
            raise StatusError("etcdserver: request is too large", code=500) from error
        if result.succeeded:
            self.cache.acknowledged(result.revision)
        return result

    async def _encode(self, obj: Tree) -> bytes:
        if self.converted is not None:
            return encode(await self.converted.stored(obj))
        return encode(self.codec.stored(obj))

    def _reply(self, obj: Tree, value: bytes | None, revision: int) -> bytes:
        """The reply for an object that was written at ``revision``; ``value`` is its stored encoding."""
        if value is not None and self.codec.same:
            return with_revision(value, revision)
        obj["metadata"]["resourceVersion"] = str(revision)
        return orjson.dumps(obj)

    # Create

    async def create(
        self, context: Context, namespace: str, obj: Tree, options: WriteOptions, duplicates: Sequence[str] = (),
        *, applied: bool = False, ask: bool = False,
    ) -> Result:  # fmt: skip
        """Stores a new object; ``applied``: its managedFields are those of an apply; ``ask``: the request was allowed by
        another verb, so the right to create is asked for.

        Raises AlreadyExists, Invalid, BadRequest, Forbidden, and what admission raises.
        """
        objectmeta.check_kind(obj, self.kind)
        sent = await self._beside(context.size, self._conform_new, context, obj, options, duplicates)
        metadata = objectmeta.metadata_of(obj)
        objectmeta.match_namespace(obj, namespace)
        if metadata.get("resourceVersion"):
            raise BadRequest("resourceVersion should not be set on objects to be created")
        objectmeta.prepare_create(self.world, obj, self.strategy)
        generated = bool(metadata.get("generateName")) and not metadata.get("name")
        if not generated:
            return await self._create(context, obj, options, sent, applied, ask)
        snapshot = orjson.dumps(obj)
        for attempt in range(1, GENERATE_ATTEMPTS + 1):
            objectmeta.generate_name(self.world, obj)
            try:
                return await self._create(context, obj, options, sent, applied, ask, generated=True)
            except AlreadyExists:
                if attempt == GENERATE_ATTEMPTS:
                    raise
                obj = orjson.loads(snapshot)
        raise AssertionError

    async def _create(
        self, context: Context, obj: Tree, options: WriteOptions, sent: _Sent, applied: bool, ask: bool,
        *, generated: bool = False,
    ) -> Result:  # fmt: skip
        strategy, metadata = self.strategy, obj["metadata"]
        name, namespace = metadata.get("name", ""), metadata.get("namespace", "")
        await self._beside(context.size, self._begin_new, context, obj, options, sent, applied)
        attributes = Attributes(context, CREATE, self.kind, namespace, name, "", obj, None, options.dry_run, options)
        mutated = self.admission.mutates(attributes)
        if mutated:
            if generated:
                name = await self._admit_unnamed(attributes, obj, name)
            else:
                passport = self.gate.passport(obj)
                await self.admission.admit(attributes)
                self.gate.admitted(context, obj, passport)
            if attributes.again:  # what a webhook put where only the server may write
                strategy.prepare_create(context, obj)
        await self._beside(context.size if strategy.strict_types else 0, self._judge_new, context, obj, mutated)
        finish = await strategy.begin_create(context, obj, options.dry_run)
        stored = False
        try:
            if ask:
                may_create(self.backend.authorize, context, self.kind, namespace, name)
            await self.admission.validate(attributes)
            if options.dry_run:
                if (await self.store.get(self.key(namespace, name)))[0] is not None:
                    raise resource_exists(self.resource, self.group, name)
                return Result(orjson.dumps(obj), True)
            key, value = self.key(namespace, name), await self._encode(obj)
            result = await self._txn(Compare(key, 0), [Put(key, value, strategy.ttl)])
            if not result.succeeded:
                raise resource_exists(self.resource, self.group, name)
            stored = True
            return Result(self._reply(obj, value, result.revision), True)
        except (Timeout, asyncio.CancelledError):
            attributes.undo.clear()  # it may have been stored
            raise
        finally:
            await finished(finish, stored)
            if not stored:
                await undone(attributes)

    def _begin_new(self, context: Context, obj: Tree, options: WriteOptions, sent: _Sent, applied: bool) -> None:
        """Before admission: defaults, and who owns what."""
        strategy = self.strategy
        if not sent.ready:
            strategy.default(obj)
            if sent.spec is not None:
                self.templates.remember(sent.spec, obj["spec"])
        # Before what the kind and admission add on their own: that has no owner.
        if not applied:
            self.tracker.created(obj, options.field_manager, status=not strategy.has_status)
        strategy.prepare_create(context, obj)

    def _judge_new(self, context: Context, obj: Tree, mutated: bool) -> None:
        """After admission: defaults of what it added, validation, warnings. Raises Invalid, InternalError."""
        strategy, templates = self.strategy, self.templates
        form = templates.form(obj)
        warnings: list[str] = []
        if form is not None and templates.right(form) and self.gate.decodes_without_spec(obj):
            self._refuse(obj, objectmeta.causes(obj, strategy))
        else:
            if mutated:
                strategy.default(obj)
            decodes = self.gate.settle(obj)
            self._refuse(obj, objectmeta.causes(obj, strategy) + strategy.validate(obj))
            if not decodes:
                self.gate.prove(obj)
            warnings = strategy.warnings(obj, None)
            if form is not None and decodes and not warnings and templates.form(obj) == form:
                templates.found_right(form)
        for text in warnings:
            context.warn(text)

    async def _admit_unnamed(self, attributes: Attributes, obj: Tree, name: str) -> str:
        """Mutating admission comes before a name is generated, as upstream: it may give one of its own, and its refusals
        show what the name would begin with. Returns the name."""
        attributes.name, attributes.unnamed = obj["metadata"]["generateName"], True
        del obj["metadata"]["name"]
        passport = self.gate.passport(obj)
        await self.admission.admit(attributes)
        self.gate.admitted(attributes.context, obj, passport)
        metadata = obj["metadata"]
        attributes.name = metadata["name"] = metadata.get("name") or name
        attributes.unnamed = False
        return str(metadata["name"])

    # Change

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

    def check_preconditions(self, old: Tree, uid: str | None, version: str | None) -> None:
        """Raises Conflict unless the stored object has this uid and resourceVersion (where given)."""
        metadata = old["metadata"]
        name = metadata["name"]
        if uid and uid != metadata.get("uid"):
            why = precondition("UID", uid, metadata.get("uid"))
            raise resource_conflict(self.resource, self.group, name, why)
        if version and version != metadata["resourceVersion"]:
            raise resource_conflict(self.resource, self.group, name)

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

    async def release(self, removals: Sequence[Tree]) -> None:
        """Gives back what objects held that have left the store. Never while the queue for an object is held: a quota that
        counts quotas is written here, too, and two of them that go at once would wait for each other for ever."""
        for obj in removals:
            await self.strategy.after_delete(obj)
            await self.admission.removed(self.kind, obj)

    async def with_stored(self, namespace: str, name: str, act: Callable[[Stored], Any]) -> Any:
        """Awaits ``act`` on the stored object until its answer is true of what the store has; see the module. Raises
        InternalError for an object that somebody stored in a form that nobody can read."""
        key = self.key(namespace, name)
        try:
            return await self._with_stored(key, namespace, name, act)
        except _Lost:
            raise
        except Exception as error:
            if isinstance(error, StatusError) and error.http_code != 500:
                raise
            item, _ = await self.store.get(key)
            if item is None:  # the cache still had it
                raise self.not_found(name) from error
            if self.gate.reads(item.value):
                raise
            log.warning("%s cannot be read as it is stored: %s", key, error)
            raise internal(f'{self.resource} "{name}" cannot be read as it is stored') from error

    async def _with_stored(self, key: str, namespace: str, name: str, act: Callable[[Stored], Any]) -> Any:
        queue = self._queues.get(key)
        if queue is None:
            entry = self.cache.get(self.prefix, namespace, name)
            stored = await self._load(key, name) if entry is None else Stored(entry.data, entry.revision)
            try:
                return await self._attempt(key, name, act, stored, fresh=entry is None)
            except _Lost:
                queue = self._queues.setdefault(key, _Queue())
        queue.users += 1
        try:
            async with queue.lock:
                for _ in range(CHANGE_ATTEMPTS):
                    latest = queue.latest
                    stored = await self._load(key, name) if latest is None else latest
                    try:
                        return await self._attempt(key, name, act, stored, fresh=latest is None)
                    except _Lost:
                        queue.latest = None
            raise resource_conflict(self.resource, self.group, name)
        finally:
            queue.users -= 1
            if not queue.users:
                self._queues.pop(key, None)

    async def _attempt(self, key: str, name: str, act: Callable[[Stored], Any], stored: Stored, fresh: bool) -> Any:
        try:
            result, written = await act(stored)
        except Timeout:
            raise  # it may be written: a second attempt would do it again, or find itself in conflict with the first
        except StatusError:
            if fresh:
                raise
            if (await self._load(key, name)).revision == stored.revision:
                raise
            raise _Lost from None
        if not written and not fresh and (await self._load(key, name)).revision != stored.revision:
            raise _Lost
        return result

    async def _load(self, key: str, name: str) -> Stored:
        item, _ = await self.store.get(key)
        if item is None:
            raise self.not_found(name)
        return Stored(with_revision(item.value, item.revision), item.revision)

    async def served(self, stored: Stored) -> Stored:
        """The same state in the version that is served here, where somebody else has to convert it."""
        if self.converted is None:
            return stored
        return Stored(await self.converted.data(stored.data, stored.revision), stored.revision)

    def tree_of(self, stored: Stored) -> Tree:
        tree: Tree = orjson.loads(stored.data)
        return self.codec.served_tree(tree)

    async def _change(self, attempt: _Attempt, stored: Stored) -> tuple[Result, bool]:
        """One attempt: the result, and whether it was written (else nothing had to be). Raises _Lost."""
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

    async def _beside(self, size: int, work: Callable[..., Any], *arguments: Any) -> Any:
        """Does the work, of an object of ``size`` bytes: in a thread if it would hold up the loop for long."""
        return work(*arguments) if size < MIN_BESIDE else await self.backend.offload(size, work, *arguments)

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

    async def _commit(self, namespace: str, name: str, new: Tree, stored: Stored, removals: list[Tree]) -> bytes:
        """Writes the new state, or removes the object if nothing keeps it any more; see :meth:`remove`. Raises _Lost."""
        key = self.key(namespace, name)
        if self.is_free(new):
            await self.remove(namespace, name, new, stored, removals)
            return orjson.dumps(new)
        value = await self._encode(new)
        result = await self._txn(Compare(key, stored.revision), [Put(key, value, self.strategy.ttl)])
        if not result.succeeded:
            raise _Lost
        if queue := self._queues.get(key):
            queue.latest = Stored(with_revision(value, result.revision), result.revision)
        return self._reply(new, value, result.revision)

    def is_free(self, obj: Tree) -> bool:
        """Whether an object whose deletion began can go: no finalizers, no grace left to be waited for."""
        metadata = obj["metadata"]
        return (
            bool(metadata.get("deletionTimestamp"))
            and not metadata.get("finalizers")
            and not metadata.get("deletionGracePeriodSeconds")
            and not self.strategy.is_held(obj)
        )

    async def remove(self, namespace: str, name: str, obj: Tree, stored: Stored, removals: list[Tree]) -> int:
        """Takes the object out of the store, and notes it in ``removals`` for :meth:`release`; returns the revision.

        Raises _Lost.
        """
        key = self.key(namespace, name)
        result = await self._txn(Compare(key, stored.revision), deletes=[key])
        if not result.succeeded:
            raise _Lost
        removals.append(obj)
        return result.revision


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


class _Queue:
    """Writers of one contended object, one at a time. ``latest``: what the last of them wrote, which the next one takes for
    the stored state, as it does the cache's: that spares a question to the store."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.latest: Stored | None = None


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


async def undone(attributes: Attributes) -> None:
    """Gives back what admission took."""
    for undo in reversed(attributes.undo):
        await undo()


async def finished(finish: Callable[[bool], Any] | None, stored: bool) -> None:
    """Tells an allocator how it went."""
    if finish is not None:
        outcome = finish(stored)
        if inspect.isawaitable(outcome):
            await outcome
