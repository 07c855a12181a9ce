"""The CEL of admission: the variables that match conditions and policies have, and evaluating many expressions on them.

The values of ``variables`` of a policy are expressions themselves. Each is evaluated when an expression that names it is,
once, and if that fails, only who really needs the value fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apiserver.admission.webhooks.admissionreview import Reviewed
from apiserver.cel.authorizer import Decide, authorizer, deciding, request_resource
from apiserver.cel.engine import CelError, Expression, Unset, activation
from apiserver.kinds.admissionregistration.expressions import Declared
from apiserver.request import User
from navarch.api.kinds import Kind

Tree = dict[str, Any]
PATIENCE = 2.0
"""Seconds of evaluation for one policy and one request; the engine bounds the turns of loops in each expression."""


class ConditionError(Exception):
    """A match condition does not evaluate."""


@dataclass
class Scope:
    """Values for expressions that were compiled with the variables ``declared``. ``now`` tells the seconds that have
    passed."""

    declared: Declared
    values: dict[str, Any]
    user: User
    decide: Decide
    now: Callable[[], float]
    variables: Mapping[str, Expression] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._activation: Any = None
        self._end = self.now() + PATIENCE

    def evaluate(self, expression: Expression) -> Any:
        """Raises CelError."""
        for name in _NAMED.findall(expression.source) if self.variables else ():
            if name in self.variables:
                self._resolve(name)
        if self.now() > self._end:
            raise CelError("operation cancelled: actual cost limit exceeded")
        if self._activation is None:
            self._activation = activation(self.declared, self.values)
        try:
            if "authorizer" not in self.values:
                return expression.within(self._activation)
            with deciding(self.decide):
                return expression.within(self._activation)
        except Unset as unset:
            name = str(unset.args[0])
            why = self.failed.get(name.removeprefix("variables."), "it has no value")
            raise CelError(f'composited variable "{name.removeprefix("variables.")}" fails to evaluate: {why}') from None

    def _resolve(self, name: str) -> None:
        at = f"variables.{name}"
        if at in self.values or name in self.failed:
            return
        self.failed[name] = "it refers to itself"
        try:
            value = self.evaluate(self.variables[name])
        except CelError as error:
            self.failed[name] = str(error)
            return
        del self.failed[name]
        self.values[at] = value
        self._activation = None


_NAMED = re.compile(r"(?<![\w.])variables\s*\.\s*([A-Za-z_]\w*)")


_WORD = re.compile(r"[A-Za-z_]\w*")
_ROOTS = frozenset(("object", "oldObject", "request", "namespaceObject", "authorizer", "params"))


def named(expressions: Iterable[Expression | None]) -> frozenset[str]:
    """The variables that expressions could ask for: only those need values. Handing an object over costs more than most
    expressions."""
    return _ROOTS.intersection(*[{w for e in expressions if e is not None for w in _WORD.findall(e.source)}])


async def values_for(names: frozenset[str], reviewed: Reviewed, kind: Kind) -> dict[str, Any]:
    """The values of these variables, ``params`` excepted, for a request that is seen as ``kind``. Raises StatusError."""
    out: dict[str, Any] = {}
    if "object" in names:
        out["object"] = await reviewed.new(kind)
    if "oldObject" in names:
        out["oldObject"] = await reviewed.old(kind)
    if "request" in names:
        out["request"] = await reviewed.request(kind)
    if "namespaceObject" in names:
        out["namespaceObject"] = reviewed.namespace()
    if "authorizer" in names:
        user = reviewed.attributes.context.user
        out["authorizer"] = authorizer(user)
        out["authorizer.requestResource"] = request_resource(user, reviewed.attributes.about())
    return out


def conditions_hold(conditions: Sequence[tuple[str, Expression]], scope: Scope) -> bool:
    """Whether all match conditions hold; one that is false decides, whatever fails. Raises ConditionError."""
    failed: list[str] = []
    for _, expression in conditions:
        try:
            if scope.evaluate(expression) is not True:
                return False
        except CelError as error:
            failed.append(f"expression '{expression.source}' resulted in error: {error}")
    if failed:
        raise ConditionError(failed[0] if len(failed) == 1 else f"[{', '.join(failed)}]")
    return True
