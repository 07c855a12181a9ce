"""New objects of any kind: how one that comes in is brought into its schema's form, and how it is created."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import orjson

from apiserver.registry import objectmeta
from apiserver.registry.gate import may_create, of_metadata
from apiserver.registry.managedfields import Tracker
from apiserver.registry.patches import STRATEGIC_PATCH, Patch
from apiserver.registry.reads import Backend
from apiserver.registry.stored import StoredObjects
from apiserver.registry.strategy import Strategy, Tree
from apiserver.registry.templates import Templates
from apiserver.request import CREATE, Attributes, Context, WriteOptions
from apiserver.storage.store import Compare, Put
from navarch.api.errors import AlreadyExists, BadRequest, Cause, Timeout, resource_exists, resource_invalid
from navarch.api.pruning import Problems, cannot_handle, prepare, strict_error

STRICT, WARN = "Strict", "Warn"
GENERATE_ATTEMPTS = 8


class Result(NamedTuple):
    """``data`` is the object's JSON as clients see it; ``created`` by this very request."""

    data: bytes
    created: bool = False


class _Sent(NamedTuple):
    """The spec of a new object: as it was sent, if it is worth remembering; ``ready``: it has its defaults already."""

    spec: bytes | None
    ready: bool


class Creates(StoredObjects):
    """See the module."""

    def __init__(self, backend: Backend, strategy: Strategy) -> None:
        super().__init__(backend, strategy)
        self.tracker = Tracker(self.world, self.kind, self.schema)
        self.templates = Templates(strategy)

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
