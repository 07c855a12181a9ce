"""OwnerReferencesPermissionEnforcement: who gives an object an owner lets it be deleted, and may hold the owner up.

So a change of owners needs leave to delete the object, and blockOwnerDeletion leave to set the owner's finalizers.
"""

from __future__ import annotations

from typing import Any

from apiserver.admission.chain import BasePlugin
from apiserver.authz.authorizer import Authorizer
from apiserver.registry.resources import Resources
from apiserver.request import CREATE, UPDATE, Attributes, RequestInfo
from navarch.api.errors import Forbidden, resource_forbidden
from navarch.api.kinds import Kind, group_version

Tree = dict[str, Any]


class OwnerReferencesPermissionEnforcement(BasePlugin):
    name = "OwnerReferencesPermissionEnforcement"

    def __init__(self, resources: Resources, authorizer: Authorizer) -> None:
        self.resources, self.authorizer = resources, authorizer

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation in (CREATE, UPDATE)

    async def validate(self, attributes: Attributes) -> None:
        kind = attributes.kind
        if (kind.group, kind.resource, attributes.subresource) == ("", "pods", "status"):
            return
        new, old = _owners(attributes.obj), _owners(attributes.old)
        if new == old:
            return
        if attributes.operation == UPDATE:
            at = (kind.group, kind.version, kind.resource, "", attributes.namespace, attributes.name)
            allowed, why = self._may(attributes, RequestInfo("delete", "", True, *at))
            if not allowed:
                text = "cannot set an ownerRef on a resource you can't delete: "
                raise _forbid(attributes, f"{text}{why}, <nil>")
        before = {r.get("uid"): bool(r.get("blockOwnerDeletion")) for r in old}
        for reference in new:
            if reference.get("blockOwnerDeletion") and not before.get(reference.get("uid")):
                self._blocks(attributes, reference)

    def _blocks(self, attributes: Attributes, reference: Tree) -> None:
        group, version = group_version(reference.get("apiVersion") or "")
        name = reference.get("kind") or ""
        kinds = [r.kind for key, r in self.resources.served.items() if key[:2] == (group, version) and r.kind.kind == name]
        if not kinds:
            raise _forbid(attributes, (
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion "
                f'{reference.get("apiVersion")} Kind {name}: no matches for kind "{name}" in version '
                f'"{reference.get("apiVersion")}"'
            ))  # fmt: skip
        kind = kinds[0]
        namespace = attributes.namespace if kind.namespaced else ""
        at = (kind.group, kind.version, kind.resource, "finalizers", namespace, reference.get("name") or "")
        allowed, why = self._may(attributes, RequestInfo("update", "", True, *at))
        if not allowed:
            text = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: "
            raise _forbid(attributes, f"{text}{why}, <nil>")

    def _may(self, attributes: Attributes, info: RequestInfo) -> tuple[bool, str]:
        return self.authorizer.authorize(attributes.context.user, info)


def _owners(obj: Tree | None) -> list[Tree]:
    return ((obj or {}).get("metadata") or {}).get("ownerReferences") or []


def _forbid(attributes: Attributes, why: str) -> Forbidden:
    return resource_forbidden(attributes.kind.resource, attributes.kind.group, attributes.name, why)
