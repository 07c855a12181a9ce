"""Escalation check: nobody grants more through RBAC than they hold, unless they may ``escalate`` or ``bind`` roles.

Upstream this sits in the storage of the RBAC kinds; here it is a plugin like the others.
"""

from __future__ import annotations

from typing import Any

from apiserver.admission.chain import BasePlugin
from apiserver.authz.authorizer import Authorizer
from apiserver.authz.rules import uncovered
from apiserver.request import CREATE, SYSTEM_MASTERS, UPDATE, Attributes, RequestInfo
from navarch.api.errors import Forbidden, resource_forbidden
from navarch.api.kinds import Kind

Tree = dict[str, Any]
GROUP = "rbac.authorization.k8s.io"
EVERYTHING = (
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
    {"verbs": ["*"], "nonResourceURLs": ["*"]},
)


class Escalation(BasePlugin):
    name = "RBACEscalation"

    def __init__(self, authorizer: Authorizer) -> None:
        self.authorizer = authorizer

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation in (CREATE, UPDATE) and kind.group == GROUP

    async def validate(self, attributes: Attributes) -> None:
        user, obj, old = attributes.context.user, attributes.obj or {}, attributes.old or {}
        if SYSTEM_MASTERS in user.groups:
            return
        if attributes.kind.resource.endswith("bindings"):
            if old and all(obj.get(f) == old.get(f) for f in ("roleRef", "subjects")):
                return
            self._binding(attributes, obj)
        else:
            if old and all(obj.get(f) == old.get(f) for f in ("rules", "aggregationRule")):
                return
            if self._may(attributes, "escalate", attributes.kind.resource, attributes.namespace, attributes.name):
                return
            if obj.get("aggregationRule") is not None and self._missing(attributes, EVERYTHING):
                why = "must have cluster-admin privileges to use an aggregationRule"
                raise resource_forbidden(attributes.kind.resource, GROUP, attributes.name, why)
            self._check_rules(attributes, obj.get("rules") or ())

    def _binding(self, attributes: Attributes, obj: Tree) -> None:
        reference = obj.get("roleRef") or {}
        namespace = attributes.namespace if reference.get("kind") == "Role" else ""
        resource = "roles" if namespace else "clusterroles"
        name = reference.get("name") or ""
        if self._may(attributes, "bind", resource, attributes.namespace, name):
            return
        rules = self.authorizer.rbac.role_rules(namespace, name)
        if rules is None:
            kind = resource.removesuffix("s")
            why = f'{kind}.{GROUP} "{name}" not found'
            raise resource_forbidden(attributes.kind.resource, GROUP, attributes.name, why)
        self._check_rules(attributes, rules)

    def _may(self, attributes: Attributes, verb: str, resource: str, namespace: str, name: str) -> bool:
        info = RequestInfo(verb, "", True, GROUP, "v1", resource, "", namespace, name)
        return self.authorizer.authorize(attributes.context.user, info).allowed

    def _missing(self, attributes: Attributes, rules: Any) -> list[Tree]:
        owned = self.authorizer.rbac.rules_for(attributes.context.user, attributes.namespace)
        return uncovered(owned, rules)

    def _check_rules(self, attributes: Attributes, rules: Any) -> None:
        missing = self._missing(attributes, rules)
        if missing:
            raise self._refuse(attributes, missing)

    def _refuse(self, attributes: Attributes, missing: list[Tree]) -> Forbidden:
        user = attributes.context.user
        groups = ", ".join(f'"{g}"' for g in user.groups)
        lines = "\n".join(_shown(part) for part in missing)
        why = f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n{lines}'
        return resource_forbidden(attributes.kind.resource, GROUP, attributes.name, why)


def _shown(rule: Tree) -> str:
    """A rule as upstream's message has it."""
    words = {
        "nonResourceURLs": "NonResourceURLs", "apiGroups": "APIGroups", "resources": "Resources",
        "resourceNames": "ResourceNames", "verbs": "Verbs",
    }  # fmt: skip
    parts = []
    for field, word in words.items():
        if field in rule:
            values = ", ".join(f'"{v}"' for v in rule[field])
            parts.append(f"{word}:[{values}]")
    return "{" + ", ".join(parts) + "}"
