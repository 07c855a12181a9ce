"""A request as webhooks and policies see it: an AdmissionRequest, in the version that they ask for.

They know objects by the kind of the path: who scales a Deployment shows them a Scale, not the Deployment.
"""

from __future__ import annotations

from typing import Any

import orjson

from apiserver.cache.cache import Cache
from apiserver.kinds.admissionregistration.expressions import NAMESPACE
from apiserver.registry import scale
from apiserver.registry.resource import Resource
from apiserver.registry.resources import Resources
from apiserver.request import Attributes, DeleteOptions, WriteOptions
from navarch.api.kinds import Kind

Tree = dict[str, Any]
NAMESPACES = "/registry/namespaces/"
KINDS = {
    "scale": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
    "eviction": {"group": "policy", "version": "v1", "kind": "Eviction"},
    "token": {"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"},
}
"""Subresources whose bodies are of another group than their resource."""


def equivalents(resources: Resources, kind: Kind) -> list[Kind]:
    """The kinds that are the same stored objects in another version."""
    own = resources.served.get((kind.group, kind.version, kind.resource))
    if own is None or own.kind != kind:
        return []
    prefix = own.strategy.prefix
    return [r.kind for r in resources.served.values() if r.strategy.prefix == prefix and r.kind != kind]


def namespace_labels(cache: Cache, attributes: Attributes) -> dict[str, str] | None:
    """The labels that a namespaceSelector looks at; None for what is in no namespace, which every selector takes."""
    if attributes.kind.resource == "namespaces" and not attributes.kind.group:
        tree = attributes.obj or attributes.old or {}
        return dict((tree.get("metadata") or {}).get("labels") or {})
    if not attributes.namespace or not attributes.kind.namespaced:
        return None
    entry = cache.get(NAMESPACES, None, attributes.namespace)
    return dict(entry.labels) if entry is not None else {}


class Reviewed:
    """One request. Objects are converted once for each version; :meth:`changed` forgets what was converted."""

    def __init__(self, resources: Resources, attributes: Attributes) -> None:
        self.resources, self.attributes = resources, attributes
        self._old: dict[Kind, Tree | None] = {}
        self._new: dict[Kind, Tree | None] = {}

    def changed(self) -> None:
        self._new.clear()

    @property
    def scales(self) -> bool:
        return self.attributes.subresource == "scale"

    def resource(self, kind: Kind) -> Resource | None:
        """Where objects of the kind are; None if it is only the body of a subresource."""
        resource = self.resources.served.get((kind.group, kind.version, kind.resource))
        return resource if resource is not None and resource.kind == kind else None

    async def new(self, kind: Kind) -> Tree | None:
        if kind not in self._new:
            self._new[kind] = await self._shaped(self.attributes.obj, kind)
        return self._new[kind]

    async def old(self, kind: Kind) -> Tree | None:
        if kind not in self._old:
            self._old[kind] = await self._shaped(self.attributes.old, kind)
        return self._old[kind]

    def namespace(self) -> Tree | None:
        """The namespace of the object with the fields that expressions may see; None for what is in none."""
        kind, name = self.attributes.kind, self.attributes.namespace
        if not kind.namespaced or not name or (kind.resource == "namespaces" and not kind.group):
            return None
        entry = self.resources.backend.cache.get(NAMESPACES, None, name)
        if entry is None:
            return None
        tree, parts = entry.tree(), NAMESPACE["properties"]
        return {part: {k: v for k, v in (tree.get(part) or {}).items() if k in parts[part]["properties"]} for part in parts}

    async def _shaped(self, tree: Tree | None, kind: Kind) -> Tree | None:
        if tree is None:
            return None
        if kind != self.attributes.kind:
            tree = await self.converted(tree, self.attributes.kind, kind)
        if self.scales and (resource := self.resource(kind)) is not None:
            return scale.scale_of(tree, resource.strategy.scale_paths)
        return tree

    async def converted(self, tree: Tree, has: Kind, wants: Kind) -> Tree:
        """The object in another version. Raises StatusError."""
        source, target = self.resource(has), self.resource(wants)
        assert source is not None and target is not None  # only kinds that are served have others that are equal
        copy: Tree = orjson.loads(orjson.dumps(tree))
        webhook = source.codec.webhook
        if webhook is not None:
            return (await webhook.convert([copy], wants.api_version))[0]
        return target.codec.served_tree(source.codec.stored(copy))

    async def request(self, kind: Kind) -> Tree:
        """The AdmissionRequest without uid and objects, as one who asked for ``kind`` sees it."""
        attributes = self.attributes
        user, own_kind = attributes.context.user, attributes.kind

        def gvk(k: Kind) -> Tree:
            own = KINDS.get(attributes.subresource)
            return own or {"group": k.group, "version": k.version, "kind": k.kind}

        def gvr(k: Kind) -> Tree:
            return {"group": k.group, "version": k.version, "resource": k.resource}

        person: Tree = {"username": user.name, "groups": list(user.groups)}
        if user.uid:
            person["uid"] = user.uid
        if user.extra:
            person["extra"] = user.extra
        out: Tree = {
            "kind": gvk(kind), "resource": gvr(kind), "requestKind": gvk(own_kind), "requestResource": gvr(own_kind),
            "name": "" if attributes.unnamed else attributes.name, "operation": attributes.operation, "userInfo": person,
            "dryRun": attributes.dry_run, "options": options_of(attributes),
        }  # fmt: skip
        if attributes.namespace:
            out["namespace"] = attributes.namespace
        if attributes.subresource:
            out["subResource"] = out["requestSubResource"] = attributes.subresource
        return out


def options_of(attributes: Attributes) -> Tree | None:
    """The options of the request as an object; None for a connection."""
    options = attributes.options
    if attributes.operation == "CONNECT":
        return None
    out: Tree = {"apiVersion": "meta.k8s.io/v1", "kind": f"{attributes.operation.capitalize()}Options"}
    if attributes.dry_run:
        out["dryRun"] = ["All"]
    if isinstance(options, DeleteOptions):
        if options.grace_period_seconds is not None:
            out["gracePeriodSeconds"] = options.grace_period_seconds
        if options.propagation_policy:
            out["propagationPolicy"] = options.propagation_policy
    elif isinstance(options, WriteOptions) and options.field_manager:
        out["fieldManager"] = options.field_manager
    return out
