"""ValidatingAdmissionPolicy: requests are judged by expressions that people store in the API.

A policy is compiled once a generation. A request pays only if a bound policy speaks of its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from apiserver.admission.audit import annotate
from apiserver.admission.cachefollower import follow
from apiserver.admission.chain import BasePlugin
from apiserver.admission.policies.conditions import ConditionError, Scope, conditions_hold, named, values_for
from apiserver.admission.webhooks.admissionreview import Reviewed, equivalents, namespace_labels
from apiserver.admission.webhooks.rules import applies, matching_kind, selects
from apiserver.cel.engine import CelError, Expression
from apiserver.kinds.admissionregistration.expressions import Declared, compile_expression
from apiserver.kinds.admissionregistration.validatingadmissionpolicies import compile_variables, declared
from apiserver.kinds.admissionregistration.webhooks import GROUP
from apiserver.registry.resources import Resources
from apiserver.request import Attributes, Authorize
from navarch.api.errors import Forbidden, StatusError, resource_forbidden
from navarch.api.kinds import Kind, group_version
from navarch.api.selectors import selector_matches

Tree = dict[str, Any]
POLICIES, BINDINGS = "/registry/validatingadmissionpolicies/", "/registry/validatingadmissionpolicybindings/"
FAILURES = "validation.policy.admission.k8s.io/validation_failure"
MAX_VALUE, MAX_MESSAGE = 10 * 1024, 5 * 1024
CODES = {"Forbidden": 403, "Unauthorized": 401, "RequestEntityTooLarge": 413, "Invalid": 422}


class Validation(NamedTuple):
    expression: Expression
    message_expression: Expression | None
    tree: Tree


@dataclass
class Policy:
    """One policy, compiled."""

    name: str
    spec: Tree
    declared: Declared
    error: str = ""  # why it cannot be evaluated
    conditions: tuple[tuple[str, Expression], ...] = ()
    variables: dict[str, Expression] = field(default_factory=dict)
    validations: list[Validation] = field(default_factory=list)
    annotations: list[tuple[str, Expression]] = field(default_factory=list)
    bindings: list[Tree] = field(default_factory=list)
    names: frozenset[str] = frozenset()
    """The variables of the request that the expressions ask for."""

    @property
    def ignores(self) -> bool:
        return self.spec.get("failurePolicy") == "Ignore"

    def concerns(self, operation: str, kinds: Iterable[Kind]) -> bool:
        """Whether a rule could speak of one of the kinds."""
        rules = (self.spec.get("matchConstraints") or {}).get("resourceRules") or ()
        return any(applies(rule, operation, kind, None) for kind in kinds for rule in rules)


def compile_policy(tree: Tree) -> Policy:
    """Never fails: what does not compile (it was checked when it was stored) is the policy's error."""
    spec = tree.get("spec") or {}
    variables, types = compile_variables(spec)
    everything = declared(spec, types)
    policy = Policy(tree["metadata"]["name"], spec, everything, variables=variables)
    try:
        policy.conditions = tuple(
            (c["name"], compile_expression(c["expression"].strip(), everything)) for c in spec.get("matchConditions") or ()
        )
        for one in spec.get("validations") or ():
            message_source = one.get("messageExpression")
            message = compile_expression(message_source, everything) if message_source else None
            policy.validations.append(Validation(compile_expression(one["expression"], everything), message, one))
        policy.annotations = [
            (a["key"], compile_expression(a["valueExpression"].strip(), everything))
            for a in spec.get("auditAnnotations") or ()
        ]
    except CelError as error:
        policy.error = str(error)
    judging = (e for v in policy.validations for e in (v.expression, v.message_expression))
    others = (e for _, e in (*policy.conditions, *policy.annotations))
    policy.names = named((*variables.values(), *judging, *others))
    return policy


class Denial(NamedTuple):
    policy: str
    binding: str  # "" if the policy itself is at fault
    message: str
    reason: str

    def text(self) -> str:
        bound = f" with binding '{self.binding}'" if self.binding else ""
        return f"ValidatingAdmissionPolicy '{self.policy}'{bound} denied request: {self.message}"


class Decision(NamedTuple):
    number: int  # of the expression
    message: str
    reason: str


class _ConfigurationError(Exception):
    """A binding cannot be used with a request."""


class ValidatingAdmissionPolicy(BasePlugin):
    name = "ValidatingAdmissionPolicy"

    def __init__(self, resources: Resources, authorize: Authorize, forget: Callable[[], None]) -> None:
        """``forget``: has the chain ask anew what the plugin handles."""
        self.resources, self.authorize, self._forget = resources, authorize, forget
        self.world, self.cache = resources.backend.world, resources.backend.cache
        self.policies: list[Policy] = []
        self._compiled: dict[str, tuple[tuple[str, int], Policy]] = {}  # by name, with uid and generation
        self._candidates: dict[tuple[str, Kind], tuple[list[Policy], list[Kind]]] = {}

    def handles(self, operation: str, kind: Kind) -> bool:
        if kind.group == GROUP:
            return False  # nobody locks himself out
        others = equivalents(self.resources, kind)
        matching = [p for p in self.policies if p.concerns(operation, (kind, *others))]
        self._candidates[operation, kind] = matching, others
        return bool(matching)

    async def prepare(self) -> None:
        """Takes policies and bindings as they are now."""
        compiled: dict[str, tuple[tuple[str, int], Policy]] = {}
        for entry in self.cache.list(POLICIES).entries:
            tree = entry.tree()
            version = (tree["metadata"].get("uid") or "", tree["metadata"].get("generation") or 0)
            cached = self._compiled.get(entry.name)
            compiled[entry.name] = cached if cached and cached[0] == version else (version, compile_policy(tree))
        for _, policy in compiled.values():
            policy.bindings = []
        for entry in self.cache.list(BINDINGS).entries:
            tree = entry.tree()
            if (entry_ := compiled.get(tree["spec"].get("policyName") or "")) is not None:
                entry_[1].bindings.append(tree)
        policies = [policy for _, (_, policy) in sorted(compiled.items()) if policy.bindings]
        self._compiled = compiled
        if policies or self.policies:
            self.policies = policies
            self._candidates.clear()
            self._forget()

    async def follow(self) -> None:
        """Keeps up with them."""
        async with self.world.task_group() as group:
            for prefix in (POLICIES, BINDINGS):
                group.start(follow(self.cache, prefix, self.prepare), "admission policies")

    async def validate(self, attributes: Attributes) -> None:
        policies, others = self._candidates.get((attributes.operation, attributes.kind), ((), ()))
        reviewed = Reviewed(self.resources, attributes)
        denied: list[Denial] = []
        for policy in policies:
            kind = self._matches(policy.spec.get("matchConstraints") or {}, attributes, others)
            if kind is None:
                continue
            if policy.error:
                if not policy.ignores:
                    denied.append(Denial(policy.name, "", f"failed to configure policy: {policy.error}", ""))
                continue
            notes: dict[str, list[str]] = {}
            for binding in policy.bindings:
                await self._bound(policy, binding, kind, reviewed, others, denied, notes)
            for key, values in notes.items():
                annotate(attributes, f"{policy.name}/{key}", ", ".join(values))
        if denied:
            raise self._refusal(attributes, denied[0])

    def _matches(self, match: Tree, attributes: Attributes, others: Iterable[Kind], every: bool = False) -> Kind | None:
        """The kind as which constraints want the object. ``every``: no rules want all."""
        if not selects(match, attributes, namespace_labels(self.cache, attributes)):
            return None
        exact, others = match.get("matchPolicy") == "Exact", list(others)
        if matching_kind(match.get("excludeResourceRules") or (), exact, attributes, others) is not None:
            return None
        rules = match.get("resourceRules") or ()
        if not rules and every:
            return attributes.kind
        return matching_kind(rules, exact, attributes, others)

    async def _bound(
        self, policy: Policy, binding: Tree, kind: Kind, reviewed: Reviewed, others: Iterable[Kind],
        denied: list[Denial], notes: dict[str, list[str]],
    ) -> None:  # fmt: skip
        """Applies a policy by one of its bindings: adds to ``denied`` and ``notes``, warns and annotates."""
        attributes, spec, name = reviewed.attributes, binding["spec"], binding["metadata"]["name"]
        resources = spec.get("matchResources")
        if resources is not None and self._matches(resources, attributes, others, every=True) is None:
            return
        try:
            params = await self._params(policy, spec, attributes)
        except _ConfigurationError as error:
            if not policy.ignores:
                denied.append(Denial(policy.name, name, f"failed to configure binding: {error}", ""))
            return
        for param in params:
            decisions, annotations, errors = await self._evaluate(policy, kind, reviewed, param)
            for decision in decisions:
                for action in spec.get("validationActions") or ():
                    if action == "Deny":
                        denied.append(Denial(policy.name, name, decision.message, decision.reason))
                    elif action == "Warn":
                        attributes.context.warn(
                            f"Validation failed for ValidatingAdmissionPolicy '{policy.name}' with binding '{name}': "
                            f"{decision.message}"
                        )
                    else:
                        failure = {
                            "message": decision.message, "policy": policy.name, "binding": name,
                            "expressionIndex": decision.number, "validationActions": spec["validationActions"],
                        }  # fmt: skip
                        annotate(attributes, FAILURES, orjson.dumps([failure]).decode())
            for key, value in annotations:
                values = notes.setdefault(key, [])
                if value not in values:
                    values.append(value[:MAX_VALUE])
            denied += [Denial(policy.name, name, text, "") for text in errors]

    async def _params(self, policy: Policy, spec: Tree, attributes: Attributes) -> list[Tree | None]:
        """The values of ``params``, one for each object that the binding names; [None] if it names none."""
        kind, reference = policy.spec.get("paramKind"), spec.get("paramRef")
        if kind is None or reference is None:
            return [None]
        group, version = group_version(kind["apiVersion"])
        shown = f"{kind['apiVersion']}, Kind={kind['kind']}"
        served = self.resources.served.items()
        resources = [r for key, r in served if key[:2] == (group, version) and r.kind.kind == kind["kind"]]
        if not resources:
            raise _ConfigurationError(f"paramKind kind `{shown}` not known")
        resource, namespace = resources[0], ""
        if resource.kind.namespaced:
            namespace = reference.get("namespace") or attributes.namespace
            if not namespace:
                raise _ConfigurationError(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                )
        elif reference.get("namespace"):
            raise _ConfigurationError("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
        out: list[Tree | None] = []
        if name := reference.get("name"):
            tree = resource.cached(namespace, name)
            if tree is None:
                await self.cache.current()
                tree = resource.cached(namespace, name)
            out = [tree] if tree is not None else []
        else:
            entries = self.cache.list(resource.prefix, namespace or None).entries
            chosen = [e for e in entries if selector_matches(reference.get("selector"), dict(e.labels))]
            out = [resource.codec.served_tree(e.tree()) for e in chosen]
        if not out and reference.get("parameterNotFoundAction") == "Deny":
            raise _ConfigurationError("no params found for policy binding with `Deny` parameterNotFoundAction")
        return out

    async def _scope(self, policy: Policy, kind: Kind, reviewed: Reviewed, param: Tree | None) -> Scope:
        user = reviewed.attributes.context.user
        values = await values_for(policy.names, reviewed, kind)
        if "params" in policy.names and policy.spec.get("paramKind"):
            values["params"] = param
        return Scope(policy.declared, values, user, self.authorize, self.world.monotonic, policy.variables)

    async def _evaluate(
        self, policy: Policy, kind: Kind, reviewed: Reviewed, param: Tree | None
    ) -> tuple[list[Decision], list[tuple[str, str]], list[str]]:
        """Evaluates the policy. Returns its objections, its audit annotations, and the errors of those."""
        scope = await self._scope(policy, kind, reviewed, param)
        try:
            if not conditions_hold(policy.conditions, scope):
                return [], [], []
        except ConditionError as error:
            return ([] if policy.ignores else [Decision(0, str(error), "")]), [], []
        decisions = []
        for i, validation in enumerate(policy.validations):
            try:
                holds = scope.evaluate(validation.expression) is True
            except CelError as error:
                if not policy.ignores:
                    text = f"expression '{validation.expression.source}' resulted in error: {error}"
                    decisions.append(Decision(i, text, ""))
                continue
            if not holds:
                decisions.append(Decision(i, _message(validation, scope), validation.tree.get("reason") or ""))
        annotations, errors = [], []
        for key, expression in policy.annotations:
            try:
                value = scope.evaluate(expression)
            except CelError as error:
                if not policy.ignores:
                    errors.append(f"expression '{expression.source}' resulted in error: {error}")
                continue
            if isinstance(value, str) and value.strip():
                annotations.append((key, value.strip()))
        return decisions, annotations, errors

    def _refusal(self, attributes: Attributes, denial: Denial) -> StatusError:
        reason, text = denial.reason or "Invalid", denial.text()
        refusal: Forbidden = resource_forbidden(attributes.kind.resource, attributes.kind.group, attributes.name, text)
        details = dict(refusal.details) | {"causes": [{"message": text}]}
        return StatusError(refusal.message, details, code=CODES.get(reason, 422), reason=reason)


def _message(validation: Validation, scope: Scope) -> str:
    """The message for a client: by the expression for it, else the text, else the expression that failed."""
    if validation.message_expression is not None:
        try:
            text = scope.evaluate(validation.message_expression)
        except CelError:
            text = ""
        if isinstance(text, str) and (text := text.strip()) and "\n" not in text and len(text) <= MAX_MESSAGE:
            return text
    message = (validation.tree.get("message") or "").strip()
    return message or f"failed expression: {validation.expression.source.strip()}"
