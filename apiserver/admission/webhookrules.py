"""Which webhooks a request concerns: configurations compiled, and matched with requests. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from apiserver.crd.cel import CelError, Expression, compile_cel
from apiserver.registry.checks import selector_matches
from apiserver.registry.webhooks import CONDITION_VARIABLES
from apiserver.request import Attributes
from navarch.api.kinds import Kind

Tree = dict[str, Any]


@dataclass(frozen=True)
class Hook:
    """One webhook of a configuration."""

    configuration: str
    tree: Tree
    conditions: tuple[tuple[str, Expression], ...] = field(default=())

    @property
    def name(self) -> str:
        return str(self.tree["name"])

    @property
    def ignores(self) -> bool:
        """Whether its failure does not matter."""
        return self.tree.get("failurePolicy") == "Ignore"

    def rules(self, operation: str, kind: Kind, subresource: str | None = None) -> bool:
        """Whether a rule speaks of this operation on this very kind; of any subresource if None."""
        return any(_applies(rule, operation, kind, subresource) for rule in self.tree.get("rules") or ())


class ConditionError(Exception):
    """A match condition does not evaluate."""


def compile_hooks(configurations: Iterable[Tree]) -> list[Hook]:
    """The webhooks of all configurations, in the order in which they are called."""
    out = []
    for tree in sorted(configurations, key=lambda c: c["metadata"]["name"]):
        for hook in tree.get("webhooks") or ():
            conditions = tuple(
                (c["name"], compile_cel(c["expression"].strip(), CONDITION_VARIABLES))
                for c in hook.get("matchConditions") or ()
            )
            out.append(Hook(tree["metadata"]["name"], hook, conditions))
    return out


def _applies(rule: Tree, operation: str, kind: Kind, subresource: str | None) -> bool:
    def has(name: str, value: str) -> bool:
        values = rule.get(name) or ()
        return "*" in values or value in values

    scope = rule.get("scope") or "*"
    if scope != "*" and scope != ("Namespaced" if kind.namespaced else "Cluster"):
        return False
    if not (has("operations", operation) and has("apiGroups", kind.group) and has("apiVersions", kind.version)):
        return False
    for pattern in rule.get("resources") or ():
        resource, _, sub = pattern.partition("/")
        if resource in ("*", kind.resource) and (subresource is None or sub == subresource or sub == "*"):
            return True
    return False


def matching_kind(hook: Hook, attributes: Attributes, equivalents: Iterable[Kind]) -> Kind | None:
    """The kind as which the webhook wants the object, None if it does not want it. ``equivalents``: the same resource in
    its other versions."""
    if hook.rules(attributes.operation, attributes.kind, attributes.subresource):
        return attributes.kind
    if hook.tree.get("matchPolicy") == "Exact":
        return None
    for kind in equivalents:
        if hook.rules(attributes.operation, kind, attributes.subresource):
            return kind
    return None


def selects(hook: Hook, attributes: Attributes, namespace_labels: Mapping[str, str] | None) -> bool:
    """Whether the selectors let the request through. ``namespace_labels``: of the object's namespace, None if it has
    none."""
    selector = hook.tree.get("namespaceSelector") or {}
    if selector and namespace_labels is not None and not selector_matches(selector, dict(namespace_labels)):
        return False
    selector = hook.tree.get("objectSelector") or {}
    if not selector:
        return True
    trees = [t for t in (attributes.obj, attributes.old) if t is not None]
    return any(selector_matches(selector, (t.get("metadata") or {}).get("labels")) for t in trees)


def conditions_hold(hook: Hook, variables: Mapping[str, Any]) -> bool:
    """Whether all match conditions hold; one that is false decides, whatever fails. Raises ConditionError."""
    failed = ""
    for name, expression in hook.conditions:
        try:
            if expression.evaluate(variables) is not True:
                return False
        except CelError as error:
            failed = failed or f"{name}: {error}"
    if failed:
        raise ConditionError(failed)
    return True
