"""x-kubernetes-validations: rules in CEL on any part of an object, and on how it changes.

A rule that speaks of ``oldSelf`` is a transition rule: it holds between the value before and after. Values that did not
change need not satisfy other rules again (ratcheting).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from apiserver.cel.engine import CelError, Expression, compile_cel
from apiserver.cel.fields import undefined_field
from apiserver.crd import ast, costs
from apiserver.crd.values import ABSENT, Check
from apiserver.crd.views import compile_view, type_of
from navarch.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required
from navarch.api.patch import same

Schema = Mapping[str, Any]
WORD = "x-kubernetes-validations"
REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
MESSAGE_LENGTH = 2048
MAX_EXPENSIVE = 4  # so many rules are named when all of them together are too expensive
_DATA = ("default", "enum", "example")  # words of a schema behind which no schemas stand
_old_self = re.compile(r"\boldSelf\b").search


class Rule:
    """One compiled rule. Raises CelError."""

    def __init__(self, tree: Mapping[str, Any], self_type: str) -> None:
        self.source: str = tree.get("rule") or ""
        self.transition = _old_self(self.source) is not None
        self.optional = bool(tree.get("optionalOldSelf"))
        self._variables: tuple[tuple[str, str], ...] = (("self", self_type), ("oldSelf", self_type))
        if self.optional:
            self._variables = (("self", self_type), ("oldSelfValue", self_type), ("oldSelfThere", "bool"))
        self.expression = self._compile(self.source)
        text = tree.get("messageExpression")
        self.message_expression = self._compile(text) if text else None
        self.message: str = (tree.get("message") or "").strip()
        self.reason: str = tree.get("reason") or "FieldValueInvalid"
        self.field_path: str = tree.get("fieldPath") or ""

    def _compile(self, source: str) -> Expression:
        if self.optional and _old_self(source):
            optional = "oldSelfThere ? optional.of(oldSelfValue) : optional.none()"
            source = f"cel.bind(oldSelf, {optional}, {source})"
        return compile_cel(source, self._variables)

    def variables(self, value: Any, old: Any) -> dict[str, Any]:
        if self.optional:
            there = old is not ABSENT
            return {"self": value, "oldSelfValue": old if there else value, "oldSelfThere": there}
        return {"self": value, "oldSelf": old if old is not ABSENT else value}

    def run(self, raw: Any, variables: dict[str, Any], path: str, out: list[Cause]) -> None:
        name = self.message or self.source.strip()
        try:
            if self.expression.evaluate(variables) is True:
                return
        except CelError as error:
            if str(error).startswith("no such overload"):
                text = "call arguments did not match a supported operator, function or macro signature for rule"
                why = f"'{error}': {text}: {name}"
            else:
                why = f"{error} evaluating rule: {name}"
            out.append(_invalid(path, raw, why))
            return
        out.append(self._cause(raw, path, self._text(variables)))

    def _text(self, variables: dict[str, Any]) -> str:
        if self.message_expression is not None:
            try:
                text = self.message_expression.evaluate(variables)
            except CelError:
                text = ""
            if isinstance(text, str) and text.strip() and "\n" not in text.strip():
                return text.strip()
        return self.message or f"failed rule: {self.source.strip()}"

    def _cause(self, raw: Any, path: str, text: str) -> Cause:
        where = (path + self.field_path).removeprefix(".") or "<nil>"
        if self.reason == "FieldValueRequired":
            return required(where, text)
        if self.reason == "FieldValueForbidden":
            return forbidden(where, text)
        if self.reason == "FieldValueDuplicate":
            return duplicate(where, raw)
        return _invalid(where, raw, text)


def _invalid(path: str, value: Any, text: str) -> Cause:
    """Values of several parts are not shown."""
    if isinstance(value, dict | list):
        return Cause("FieldValueInvalid", f"Invalid value: {text}", path or "<nil>")
    return invalid(path or "<nil>", value, text)


class Rules:
    """The rules of a value and of its parts."""

    def __init__(self, schema: Schema) -> None:
        kind = type_of(schema)
        self.rules = [Rule(r, kind) for r in schema.get(WORD) or ()]
        self.view = compile_view(schema) if self.rules else None
        self.fields: dict[str, Rules] = {}
        for name, child in (schema.get("properties") or {}).items():
            if (below := compile_rules(child)) is not None:
                self.fields[name] = below
        extra, items = schema.get("additionalProperties"), schema.get("items")
        self.extra = compile_rules(extra) if isinstance(extra, Mapping) else None
        self.items = compile_rules(items) if isinstance(items, Mapping) else None
        self._list = Check(schema) if self.items is not None and schema.get("x-kubernetes-list-type") == "map" else None

    def run(self, value: Any, path: str, out: list[Cause], old: Any = ABSENT) -> None:
        """Adds what the rules find. ``old``: the value before, if there is one that corresponds."""
        if value is None:
            return
        if old is None:
            old = ABSENT
        if self.rules:
            self._own(value, path, out, old)
        prefix = f"{path}." if path else ""
        if type(value) is dict:
            before = old if type(old) is dict else {}
            for name, rules in self.fields.items():
                if name in value:
                    rules.run(value[name], prefix + name, out, before.get(name, ABSENT))
            if self.extra is not None:
                for key, one in value.items():
                    self.extra.run(one, f"{path}[{key}]", out, before.get(key, ABSENT))
        elif type(value) is list and self.items is not None:
            old_by_identity = self._list.correlated(old) if self._list is not None and type(old) is list else {}
            for i, one in enumerate(value):
                old_item = old_by_identity.get(self._list.identity(one), ABSENT) if self._list is not None else ABSENT
                self.items.run(one, f"{path}[{i}]", out, old_item)

    def _own(self, value: Any, path: str, out: list[Cause], old: Any) -> None:
        unchanged = old is not ABSENT and same(old, value)
        due = [r for r in self.rules if (not unchanged if not r.transition else r.optional or old is not ABSENT)]
        if not due:
            return
        view = self.view(value) if self.view else value
        before = old if old is ABSENT or self.view is None else self.view(old)
        for rule in due:
            rule.run(value, rule.variables(view, before), path, out)


def compile_rules(schema: Schema) -> Rules | None:
    """The rules of a schema that passed :func:`check_rules`; None if it has none."""
    return Rules(schema) if WORD in schema or _has_rules(schema) else None


def _has_rules(schema: Any) -> bool:
    if isinstance(schema, Mapping):
        return bool(schema.get(WORD)) or any(_has_rules(v) for k, v in schema.items() if k not in _DATA)
    return isinstance(schema, list) and any(_has_rules(v) for v in schema)


# --- of definitions ---------------------------------------------------------------------------------------------------


class Spent(NamedTuple):
    """The estimated cost of a rule for a whole object."""

    path: str
    cost: int


def check_rules(schema: Schema, path: str) -> list[Cause]:
    """Everything that is wrong with the rules of the schema of a whole object."""
    spent: list[Spent] = []
    out = _check(schema, path, True, True, 1, spent)
    total = sum(one.cost for one in spent)
    if not out and total > costs.SCHEMA_LIMIT:
        text = "contributed to estimated rule & messageExpression cost total exceeding cost limit for entire OpenAPIv3 schema"
        for one in sorted(spent, key=lambda s: -s.cost)[:MAX_EXPENSIVE]:
            if one.cost > costs.SCHEMA_LIMIT // 100:
                out.append(forbidden(one.path, text))
        what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        out.append(forbidden(path, costs.exceeded(what, total, costs.SCHEMA_LIMIT)))
    return out


def _check(
    schema: Schema, path: str, correlatable: bool, root: bool, bound: int | None, spent: list[Spent]
) -> list[Cause]:
    """``bound``: how many values of this schema an object can have, None if nothing says."""
    out: list[Cause] = []
    for i, rule in enumerate(schema.get(WORD) or ()):
        out += _check_rule(rule, schema, f"{path}.{WORD}[{i}]", correlatable, root, bound, spent)
    for name, child in (schema.get("properties") or {}).items():
        out += _check(child, f"{path}.properties[{name}]", correlatable, False, bound, spent)

    def below(most: int | None) -> int | None:
        return None if bound is None or most is None else bound * int(most)

    extra, items = schema.get("additionalProperties"), schema.get("items")
    if isinstance(extra, Mapping):
        most = below(schema.get("maxProperties"))
        out += _check(extra, f"{path}.additionalProperties", correlatable, False, most, spent)
    if isinstance(items, Mapping):
        keyed = schema.get("x-kubernetes-list-type") == "map"
        out += _check(items, f"{path}.items", correlatable and keyed, False, below(schema.get("maxItems")), spent)
    return out


def _cost(
    expression: Expression, schema: Schema, root: bool, bound: int | None, path: str, what: str, spent: list[Spent]
) -> list[Cause]:
    """Estimates an expression; a cause if it alone is too expensive."""
    try:
        one = costs.Estimate(schema, root).cost(ast.parse(expression.serialized()))
    except ValueError:
        return []  # an expression that the engine could not check has no types to estimate by
    cost = min(costs.MAX_COST, one * costs.cardinality(schema, bound))
    spent.append(Spent(path, cost))
    if cost > costs.RULE_LIMIT:
        return [forbidden(path, costs.exceeded(f"estimated {what} cost", cost, costs.RULE_LIMIT))]
    return []


def _check_rule(
    rule: Mapping[str, Any], schema: Schema, path: str, correlatable: bool, root: bool, bound: int | None,
    spent: list[Spent],
) -> list[Cause]:  # fmt: skip
    out: list[Cause] = []
    source, message = rule.get("rule") or "", rule.get("message")
    if not source.strip():
        return [required(f"{path}.rule", "rule is not specified")]
    if message is not None and not message.strip():
        text = "message must be non-empty if specified"
        out.append(invalid(f"{path}.message", message, text))
    elif message and "\n" in message.strip():
        out.append(invalid(f"{path}.message", message, "message must not contain line breaks"))
    elif message and len(message) > MESSAGE_LENGTH:
        text = f"message must have a maximum length of {MESSAGE_LENGTH} characters"
        out.append(invalid(f"{path}.message", message[:10] + "...", text))
    elif "\n" in source.strip() and not message:
        out.append(required(f"{path}.message", "message must be specified if rule contains line breaks"))
    expression = rule.get("messageExpression")
    if expression is not None and not expression.strip():
        out.append(required(f"{path}.messageExpression", "must be non-empty if specified"))
    if (reason := rule.get("reason")) is not None and reason not in REASONS:
        out.append(not_supported(f"{path}.reason", reason, REASONS))
    if field := rule.get("fieldPath"):
        out += _check_field(field, schema, f"{path}.fieldPath")
    if rule.get("optionalOldSelf") is not None and not _old_self(source):
        text = "may not be set if oldSelf is not used in rule"
        out.append(invalid(f"{path}.optionalOldSelf", rule["optionalOldSelf"], text))
    if _old_self(source) and not correlatable:
        text = "oldSelf cannot be used on the uncorrelatable portion of the schema"
        out.append(invalid(f"{path}.rule", source, text + f" within {path.rpartition('.')[0]}"))
    if out:
        return out
    try:
        compiled = Rule(dict(rule) | {"messageExpression": None}, type_of(schema))
    except CelError as error:
        return [_shown(f"{path}.rule", rule, f"compilation failed: {error}")]
    if text := undefined_field(source, schema, root):
        return [_shown(f"{path}.rule", rule, f"compilation failed: {text}")]
    if compiled.expression.returns not in ("bool", "dyn"):
        return [_shown(f"{path}.rule", rule, "compilation failed: must evaluate to a bool")]
    if expression:
        try:
            compiled = Rule(rule, type_of(schema))
        except CelError as error:
            return [_shown(f"{path}.messageExpression", rule, f"messageExpression compilation failed: {error}")]
        if compiled.message_expression is not None and compiled.message_expression.returns not in ("string", "dyn"):
            return [_shown(f"{path}.messageExpression", rule, "messageExpression must evaluate to a string")]
    out += _cost(compiled.expression, schema, root, bound, f"{path}.rule", "rule", spent)
    if compiled.message_expression is not None:
        message_expression = compiled.message_expression
        out += _cost(message_expression, schema, root, bound, f"{path}.messageExpression", "messageExpression", spent)
    return out


def _check_field(field: str, schema: Schema, path: str) -> list[Cause]:
    node: Any = schema
    for name in re.findall(r"\.([^.\[]+)|\['([^']+)'\]", field):
        key = name[0] or name[1]
        inner = (node.get("properties") or {}).get(key) if isinstance(node, Mapping) else None
        node = inner or (node.get("additionalProperties") if isinstance(node, Mapping) else None)
    if not field.startswith((".", "[")) or not isinstance(node, Mapping) or node is schema:
        return [invalid(path, field, "fieldPath must be a valid path: does not refer to a valid field")]
    return []


def _shown(path: str, rule: Mapping[str, Any], text: str) -> Cause:
    """A cause that shows the whole rule, as Go prints it."""

    def pointer(name: str, kind: str) -> str:
        return f"(*{kind})(nil)" if rule.get(name) is None else f"(*{kind})(0xc0)"

    def quoted(name: str) -> str:
        return json.dumps(rule.get(name) or "", ensure_ascii=False)

    shown = (
        f"apiextensions.ValidationRule{{Rule:{quoted('rule')}, Message:{quoted('message')}, "
        f"MessageExpression:{quoted('messageExpression')}, Reason:{pointer('reason', 'apiextensions.FieldValueErrorReason')}, "
        f"FieldPath:{quoted('fieldPath')}, OptionalOldSelf:{pointer('optionalOldSelf', 'bool')}}}"
    )
    return Cause("FieldValueInvalid", f"Invalid value: {shown}: {text}", path)
