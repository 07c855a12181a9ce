"""Which requests concern a webhook or a policy: rules and selectors, matched. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apiserver.admission.policies.conditions import named
from apiserver.cel.engine import CelError, Expression
from apiserver.kinds.admissionregistration.expressions import compile_expression
from apiserver.kinds.admissionregistration.webhooks import CONDITION_VARIABLES
from apiserver.request import Attributes
from navarch.api.kinds import Kind
from navarch.api.selectors import selector_matches

Tree = dict[str, Any]


@dataclass(frozen=True)
class Hook:
    """One webhook of a configuration."""

    configuration: str
    tree: Tree
    conditions: tuple[tuple[str, Expression], ...] = field(default=())
    names: frozenset[str] = frozenset()
    """The variables that the conditions ask for."""
    error: str = ""
    """Why the conditions cannot be evaluated; they were checked when they were stored, but by another version perhaps."""

    @property
    def name(self) -> str:
        return str(self.tree["name"])

    @property
    def ignores(self) -> bool:
        """Whether its failure does not matter."""
        return self.tree.get("failurePolicy") == "Ignore"

    def rules(self, operation: str, kind: Kind) -> bool:
        """Whether a rule speaks of this operation on this very kind, or on a subresource of it."""
        return any(applies(rule, operation, kind, None) for rule in self.tree.get("rules") or ())


def compile_hooks(configurations: Iterable[Tree]) -> list[Hook]:
    """The webhooks of all configurations, in the order in which they are called."""
    every = sorted(configurations, key=lambda c: c["metadata"]["name"])
    return [_hook(tree["metadata"]["name"], hook) for tree in every for hook in tree.get("webhooks") or ()]


def _hook(configuration: str, tree: Tree) -> Hook:
    try:
        conditions = tuple(
            (c["name"], compile_expression(c["expression"].strip(), CONDITION_VARIABLES))
            for c in tree.get("matchConditions") or ()
        )
    except CelError as error:
        return Hook(configuration, tree, error=str(error))
    return Hook(configuration, tree, conditions, named(e for _, e in conditions))


def applies(rule: Tree, operation: str, kind: Kind, subresource: str | None, name: str = "") -> bool:
    """Whether a rule speaks of this; of any subresource, and any name, if that is None."""

    def has(field: str, value: str) -> bool:
        values = rule.get(field) or ()
        return "*" in values or value in values

    scope = rule.get("scope") or "*"
    # A Namespace counts as being in itself to most rules, but it is no namespaced object.
    if scope != "*" and scope != ("Namespaced" if kind.namespaced else "Cluster"):
        return False
    if not (has("operations", operation) and has("apiGroups", kind.group) and has("apiVersions", kind.version)):
        return False
    resource_names = rule.get("resourceNames")
    if resource_names and subresource is not None and name not in resource_names:
        return False
    for pattern in rule.get("resources") or ():
        resource, _, sub = pattern.partition("/")
        if resource in ("*", kind.resource) and (subresource is None or sub == subresource or sub == "*"):
            return True
    return False


def matching_kind(
    rules: Sequence[Tree], exact: bool, attributes: Attributes, equivalents: Iterable[Kind]
) -> Kind | None:
    """The kind as which the object is wanted, None if no rule wants it. ``equivalents``: the same resource in its other
    versions, which count unless ``exact``."""
    about = attributes.subresource, "" if attributes.unnamed else attributes.name
    if any(applies(rule, attributes.operation, attributes.kind, *about) for rule in rules):
        return attributes.kind
    if not exact:
        for rule in rules:
            for kind in equivalents:
                if applies(rule, attributes.operation, kind, *about):
                    return kind
    return None


def selects(tree: Tree, attributes: Attributes, namespace_labels: Mapping[str, str] | None) -> bool:
    """Whether namespaceSelector and objectSelector of a webhook or of matchConstraints let the request through.
    ``namespace_labels``: of the object's namespace, None if it has none."""
    selector = tree.get("namespaceSelector") or {}
    if selector and namespace_labels is not None and not selector_matches(selector, dict(namespace_labels)):
        return False
    selector = tree.get("objectSelector") or {}
    if not selector:
        return True
    trees = [t for t in (attributes.obj, attributes.old) if t is not None]
    return any(selector_matches(selector, (t.get("metadata") or {}).get("labels")) for t in trees)
