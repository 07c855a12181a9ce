"""All verbs for any kind: reads, writes and deletes come from their modules, patches and scale are here.

Kinds never subclass this: what is special about a kind is in its Strategy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from apiserver.registry import objectmeta, scale
from apiserver.registry.creates import STRICT, WARN, Result
from apiserver.registry.deletes import Deletes
from apiserver.registry.managedfields import APPLY
from apiserver.registry.options import META_GROUP
from apiserver.registry.patches import APPLY_PATCH, Patch
from apiserver.registry.scale import SCALE_SCHEMA
from apiserver.registry.strategy import Tree
from apiserver.request import Context, WriteOptions
from navarch.api import pruning
from navarch.api.errors import (
    AlreadyExists,
    BadRequest,
    InternalError,
    NotFound,
    precondition,
    required,
    resource_conflict,
    resource_invalid,
)
from navarch.api.patch import copy_tree, managed
from navarch.api.patch.apply import apply
from navarch.api.times import format_time

_HEAD = ("apiVersion", "kind", "metadata")


class Resource(Deletes):
    """The verbs of one kind."""

    async def patch(
        self, context: Context, namespace: str, name: str, patch: Patch, options: WriteOptions, *, subresource: str = ""
    ) -> Result:
        """Applies a patch to the object or its status. Raises NotFound, Conflict, Invalid, BadRequest ..."""
        if patch.type == APPLY_PATCH:
            return await self.apply(context, namespace, name, patch, options, subresource=subresource)

        def change(old: Tree) -> Tree:
            version, uid, kind = old["metadata"]["resourceVersion"], old["metadata"].get("uid"), old["kind"]
            new = patch.apply(old, self.schema)
            if not isinstance(new.get("metadata"), dict):
                raise BadRequest("metadata must be an object")
            if new.get("apiVersion") != self.kind.api_version or new.get("kind") != kind:
                other = f"{new.get('apiVersion')}, Kind={new.get('kind')}"
                raise BadRequest(f"the patched object is of another kind: {other}")
            self.conform(context, new, options, patch.duplicates, (patch, old))
            metadata = new["metadata"]
            if metadata.get("name") != name or metadata.get("namespace", "") != namespace:
                other = metadata.get("name") if metadata.get("name") != name else metadata.get("namespace")
                raise BadRequest(f"the name of the object ({other}) does not match the name on the URL ({name})")
            if metadata.get("resourceVersion", version) != version:
                raise resource_conflict(self.resource, self.group, name)
            if metadata.get("uid", uid) != uid:
                why = precondition("UID", metadata["uid"], uid)
                raise resource_conflict(self.resource, self.group, name, why)
            return new

        return await self.change(
            context, namespace, name, change, options, subresource=subresource, keeps=True, patch=patch
        )

    async def apply(
        self, context: Context, namespace: str, name: str, patch: Patch, options: WriteOptions, *, subresource: str = ""
    ) -> Result:
        """Server-side apply; makes the object if there is none. Raises Conflict with the fields of other managers."""
        check_manager(options)
        config: Tree = await self._beside(len(patch.body), self._configuration, context, patch, options)
        metadata = objectmeta.metadata_of(config)
        objectmeta.match_name(config, name, namespace)
        version, uid = metadata.pop("resourceVersion", None), metadata.pop("uid", None)
        if self.strategy.has_status:
            of_status = subresource in self.strategy.status_subresources
            config = {k: v for k, v in config.items() if (k == "status") == of_status or k in _HEAD}

        def merged(live: Tree | None) -> Tree:
            return apply(
                live, config, self.schema, manager=options.field_manager, api_version=self.kind.api_version,
                now=format_time(self.world.now()), force=options.force, subresource=subresource,
            )  # fmt: skip

        def change(old: Tree) -> Tree:
            self.check_preconditions(old, uid, version)
            new = merged(old)
            if self.strategy.strict_types:
                pruning.prepare(new, self.schema)  # what is applied empty is owned, and absent
            return new

        while True:
            try:
                return await self.change(
                    context, namespace, name, change, options, subresource=subresource, operation=APPLY, keeps=True
                )
            except NotFound:
                if subresource or uid:
                    raise
            try:
                new = await self._beside(len(patch.body), merged, None)
                return await self.create(context, namespace, new, options, applied=True, ask=True)
            except AlreadyExists:
                continue  # made by somebody else meanwhile: apply to that

    def _configuration(self, context: Context, patch: Patch, options: WriteOptions) -> Tree:
        """Checks and prunes the configuration that is applied, as any body."""
        config: Tree = copy_tree(patch.tree)
        objectmeta.check_kind(config, self.kind)
        self.conform(context, config, options, patch.duplicates, keep_empty=True)
        return config

    async def get_scale(self, namespace: str, name: str) -> bytes:
        """The Scale of an object. Raises InternalError, as upstream, for a custom resource without the replicas field."""
        obj, paths = await self.get_tree(namespace, name), self.strategy.scale_paths
        if scale.at(obj, paths.spec) is None:
            raise InternalError(f'Internal error occurred: the spec replicas field ".{".".join(paths.spec)}" does not exist')
        return orjson.dumps(scale.scale_of(obj, paths))

    async def update_scale(
        self, context: Context, namespace: str, name: str, body: Tree, options: WriteOptions,
        duplicates: Sequence[str] = (),
    ) -> bytes:  # fmt: skip
        """PUT of a Scale; ``duplicates``: paths of its keys that stand twice."""
        desired = self._scale(body, context, options, duplicates)
        objectmeta.must_name(desired, name, namespace)
        version, uid = desired["metadata"].get("resourceVersion"), desired["metadata"].get("uid")
        paths = self.strategy.scale_paths

        def change(old: Tree) -> Tree:
            self.check_preconditions(old, uid, version)
            return scale.set_scale(old, desired, paths)

        return await self._scaled(context, namespace, name, change, options)

    async def patch_scale(
        self, context: Context, namespace: str, name: str, patch: Patch, options: WriteOptions
    ) -> bytes:
        """PATCH of a Scale, by any patch type."""
        paths = self.strategy.scale_paths
        if patch.type == APPLY_PATCH:
            return await self._apply_scale(context, namespace, name, patch, options)

        def change(old: Tree) -> Tree:
            patched = patch.apply(scale.scale_of(old, paths), SCALE_SCHEMA)
            desired = self._scale(patched, context, options, patch.duplicates, (patch, old))
            self._same_scale(desired, old, namespace, name)
            return scale.set_scale(old, desired, paths)

        return await self._scaled(context, namespace, name, change, options)

    async def _apply_scale(
        self, context: Context, namespace: str, name: str, patch: Patch, options: WriteOptions
    ) -> bytes:
        check_manager(options)
        paths, config = self.strategy.scale_paths, self._scale(patch.tree, context, options, patch.duplicates)
        objectmeta.check_kind(config, scale.SCALE)
        objectmeta.match_name(config, name, namespace)
        metadata = config["metadata"]
        version, uid = metadata.pop("resourceVersion", None), metadata.pop("uid", None)

        def change(old: Tree) -> Tree:
            self.check_preconditions(old, uid, version)
            entries = managed.decode(old["metadata"].get("managedFields"))
            view = scale.scale_of(old, paths)
            view["metadata"]["managedFields"] = managed.encode(scale.owners_of_scale(entries, paths))
            new = apply(
                view, config, SCALE_SCHEMA, manager=options.field_manager, api_version=scale.SCALE.api_version,
                now=format_time(self.world.now()), force=options.force, subresource="scale",
            )  # fmt: skip
            owners = managed.decode(new["metadata"]["managedFields"])
            out = scale.set_scale(old, new, paths)
            entries = scale.owners_of_object(entries, owners, self.kind.api_version, paths)
            out["metadata"]["managedFields"] = managed.encode(entries)
            return out

        return await self._scaled(context, namespace, name, change, options, operation=APPLY)

    def _same_scale(self, desired: Tree, old: Tree, namespace: str, name: str) -> None:
        """Checks that a patched Scale is still that of the object. Raises BadRequest, Conflict."""
        metadata = objectmeta.metadata_of(desired)
        objectmeta.match_name(desired, name, namespace)
        self.check_preconditions(old, metadata.get("uid"), metadata.get("resourceVersion"))

    def _scale(
        self, tree: Mapping[str, Any], context: Context, options: WriteOptions, duplicates: Sequence[str],
        patched: tuple[Patch, Tree] | None = None,
    ) -> Tree:  # fmt: skip
        """A copy of the Scale with the fields that one has. ``patched``: by what, and the object before, to say so.

        Raises BadRequest, Invalid for a wrong type, and for an unknown or double field if fieldValidation is Strict.
        """
        body: Tree = orjson.loads(orjson.dumps(tree))
        problems = pruning.prepare(body, SCALE_SCHEMA)
        problems.raise_types("Scale", "v1")
        if (problems.unknown or duplicates) and options.field_validation in (STRICT, WARN):
            texts = problems.strict(list(duplicates))
            if options.field_validation == WARN:
                for text in texts:
                    context.warn(text)
            elif patched is None:
                raise pruning.strict_error("Scale", "v1", texts)
            else:
                patch, old = patched
                raise patch.refused(old, SCALE_SCHEMA, "strict decoding error: " + ", ".join(texts))
        return body

    async def _scaled(
        self, context: Context, namespace: str, name: str, change: Any, options: WriteOptions, operation: str = "Update"
    ) -> bytes:
        result = await self.change(
            context, namespace, name, change, options, subresource="scale", operation=operation
        )
        return orjson.dumps(scale.scale_of(orjson.loads(result.data), self.strategy.scale_paths))


def check_manager(options: WriteOptions) -> None:
    """Raises Invalid for an apply that does not say who applies."""
    if not options.field_manager:
        cause = required("fieldManager", "is required for apply patch")
        raise resource_invalid("PatchOptions", META_GROUP, "", [cause])
