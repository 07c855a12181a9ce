"""Expressions in admission's objects: what they may name, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence

from apiserver.cel.engine import CelError, Expression, compile_cel
from apiserver.cel.fields import undefined_field
from apiserver.kinds.cells import Tree
from navarch.api import names
from navarch.api.errors import Cause, duplicate, invalid, required, too_many

Declared = tuple[tuple[str, str], ...]
OBJECTS: Declared = (("object", "dyn"), ("oldObject", "dyn"), ("request", "dyn"), ("namespaceObject", "dyn"))
RIGHTS: Declared = (("authorizer", "map(string)"), ("authorizer.requestResource", "map(string)"))
PARAMS: Declared = (("params", "dyn"),)
MAX_CONDITIONS = 64


def _object(**properties: Tree) -> Tree:
    return {"type": "object", "properties": properties}


_TEXT: Tree = {"type": "string"}
_ANY: Tree = {"x-kubernetes-preserve-unknown-fields": True}
_TEXTS: Tree = {"type": "object", "additionalProperties": _TEXT}
_GVK = _object(group=_TEXT, version=_TEXT, kind=_TEXT)
_GVR = _object(group=_TEXT, version=_TEXT, resource=_TEXT)
REQUEST = _object(
    kind=_GVK, resource=_GVR, subResource=_TEXT, requestKind=_GVK, requestResource=_GVR, requestSubResource=_TEXT,
    name=_TEXT, namespace=_TEXT, operation=_TEXT, dryRun={"type": "boolean"}, options=_ANY,
    userInfo=_object(username=_TEXT, uid=_TEXT, groups={"type": "array", "items": _TEXT}, extra=_ANY),
)  # fmt: skip
NAMESPACE = _object(
    metadata=_object(
        name=_TEXT, generateName=_TEXT, namespace=_TEXT, labels=_TEXTS, annotations=_TEXTS, UID=_TEXT,
        creationTimestamp=_TEXT, deletionGracePeriodSeconds={"type": "integer"}, deletionTimestamp=_TEXT,
        generation={"type": "integer"}, resourceVersion=_TEXT, finalizers={"type": "array", "items": _TEXT},
    ),
    spec=_object(finalizers={"type": "array", "items": _TEXT}),
    status=_object(conditions=_ANY, phase=_TEXT),
)  # fmt: skip


def plain_fields(schema: Tree, whole: bool) -> Tree | None:
    """The fields of one of these types; None for what may have any."""
    return schema.get("properties") if schema.get("type") == "object" else None


def compile_expression(source: str, declared: Declared, returns: Sequence[str] = ()) -> Expression:
    """Compiles an expression that must give one of these types; any if there are none. Raises CelError with the words of a
    validation."""
    try:
        expression = compile_cel(source, declared)
    except CelError as error:
        raise CelError(f"compilation failed: {error}") from None
    for name, schema in (("request", REQUEST), ("namespaceObject", NAMESPACE)):
        if text := undefined_field(source, schema, False, (name,), plain_fields):
            raise CelError(f"compilation failed: {text}")
    if returns and expression.checked and expression.returns not in returns:
        shown = expression.returns.replace("<", "(").replace(">", ")")
        types = " ".join(returns).replace("null", "null_type")
        raise CelError(f"must evaluate to {types if len(returns) == 1 else f'one of [{types}]'} but got {shown}")
    return expression


def expression_causes(source: str, declared: Declared, path: str, returns: Sequence[str] = ()) -> list[Cause]:
    try:
        compile_expression(source, declared, returns)
    except CelError as error:
        return [invalid(path, source, str(error))]
    return []


def match_conditions_causes(conditions: Sequence[Tree], path: str, declared: Declared) -> list[Cause]:
    """Validates matchConditions. Returns causes, empty when they are valid."""
    out: list[Cause] = []
    if len(conditions) > MAX_CONDITIONS:
        out.append(too_many(path, len(conditions), MAX_CONDITIONS))
    earlier: list[str] = []
    for i, condition in enumerate(conditions):
        at, name = f"{path}[{i}]", condition.get("name") or ""
        source = (condition.get("expression") or "").strip()
        if not source:
            out.append(required(f"{at}.expression"))
        else:
            out += expression_causes(source, declared, f"{at}.expression", ("bool",))
        if not name:
            out.append(required(f"{at}.name"))
        else:
            out += [invalid(f"{at}.name", name, m) for m in names.qualified_name(name)]
            if name in earlier:
                out.append(duplicate(f"{at}.name", name))
            earlier.append(name)
    return out
