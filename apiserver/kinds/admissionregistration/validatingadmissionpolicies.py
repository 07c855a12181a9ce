"""ValidatingAdmissionPolicy and its bindings: admission in CEL. Evaluation is in apiserver/admission/policies/policies.py."""

from __future__ import annotations

import re
from typing import Any

from apiserver.cel.engine import CelError, Expression
from apiserver.kinds.admissionregistration.expressions import (
    OBJECTS,
    PARAMS,
    RIGHTS,
    Declared,
    compile_expression,
    expression_causes,
    match_conditions_causes,
)
from apiserver.kinds.admissionregistration.matchresources import UNSET, default_match, match_causes
from apiserver.kinds.admissionregistration.webhooks import GROUP
from apiserver.kinds.cells import age_cell, fill, kind, meta_of, name_cell, spec_of, status_of
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names
from navarch.api.errors import Cause, duplicate, invalid, not_supported, required
from navarch.api.kinds import group_version

REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")
MAX_ANNOTATIONS, MAX_VALUE = 20, 5 * 1024
_IDENTIFIER = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*", re.ASCII)
_RESERVED = frozenset((
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let",
    "loop", "package", "namespace", "return", "var", "void", "while",
))  # fmt: skip


def declared(spec: Tree, variables: dict[str, str], rights: bool = True) -> Declared:
    """The names that an expression of a policy may use. ``variables``: the types of the policy's own, as far as they
    come before it."""
    own = tuple((f"variables.{name}", kind) for name, kind in variables.items())
    return OBJECTS + (PARAMS if spec.get("paramKind") else ()) + (RIGHTS if rights else ()) + own


def compile_variables(spec: Tree) -> tuple[dict[str, Expression], dict[str, str]]:
    """The policy's variables and their types. One that does not compile is left out."""
    out: dict[str, Expression] = {}
    types: dict[str, str] = {}
    for variable in spec.get("variables") or ():
        try:
            expression = compile_expression(variable.get("expression") or "", declared(spec, types))
        except CelError:
            continue
        out[variable["name"]] = expression
        types[variable["name"]] = expression.returns if expression.checked else "dyn"
    return out, types


class ValidatingAdmissionPolicyStrategy(Strategy):
    kind = kind(f"{GROUP}/v1", "ValidatingAdmissionPolicy")
    unconditional_update = False
    has_status = True
    columns = (NAME_COLUMN, Column("Validations", "integer"), Column("ParamKind"), AGE_COLUMN)

    def default(self, obj: Tree) -> None:
        spec = obj.setdefault("spec", {})
        fill(spec, failurePolicy="Fail")
        if spec.get("matchConstraints") is not None:
            default_match(spec["matchConstraints"])

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["metadata"]["generation"] = 1
        obj["status"] = {}

    def validate(self, obj: Tree) -> list[Cause]:
        return self._causes(obj, None)

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        return self._causes(obj, old)

    def _causes(self, obj: Tree, old: Tree | None) -> list[Cause]:
        spec, before = spec_of(obj), spec_of(old) if old is not None else {}
        out: list[Cause] = []
        policy = spec.get("failurePolicy")
        if policy not in ("Fail", "Ignore"):
            out.append(not_supported("spec.failurePolicy", policy or "", ("Fail", "Ignore")))
        if (param_kind := spec.get("paramKind")) is not None:
            out += _param_kind(param_kind, "spec.paramKind")
        constraints = spec.get("matchConstraints")
        if constraints is None:
            out.append(required("spec.matchConstraints"))
        else:
            out += match_causes(constraints, "spec.matchConstraints")
            if not constraints.get("resourceRules"):
                out.append(required("spec.matchConstraints.resourceRules"))
        # Conditions that were there before are not judged again.
        if old is None or any(spec.get(f) != before.get(f) for f in ("paramKind", "matchConditions")):
            conditions = spec.get("matchConditions") or ()
            out += match_conditions_causes(conditions, "spec.matchConditions", declared(spec, {}))
        types: dict[str, str] = {}
        for i, variable in enumerate(spec.get("variables") or ()):
            out += _variable(spec, variable, f"spec.variables[{i}]", types)
        if not spec.get("validations") and not spec.get("auditAnnotations"):
            text = "validations or auditAnnotations must contain at least one item"
            return [*out, required("spec.validations", text), required("spec.auditAnnotations", text)]
        for i, validation in enumerate(spec.get("validations") or ()):
            out += _validation(spec, validation, f"spec.validations[{i}]", types)
        return out + _annotations(meta_of(obj).get("name") or "", spec, types)

    def validate_status(self, obj: Tree, old: Tree) -> list[Cause]:
        out: list[Cause] = []
        warnings = (status_of(obj).get("typeChecking") or {}).get("expressionWarnings") or ()
        for i, warning in enumerate(warnings):
            at = f"status.typeChecking.expressionWarnings[{i}]"
            out += [required(f"{at}.{f}") for f in ("warning", "fieldRef") if not (warning.get(f) or "").strip()]
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec = spec_of(obj)
        param_kind = spec.get("paramKind")
        shown = f"{param_kind.get('apiVersion')}/{param_kind.get('kind')}" if param_kind else UNSET
        return [name_cell(obj), len(spec.get("validations") or ()), shown, age_cell(obj, now)]


def _param_kind(param_kind: Tree, at: str) -> list[Cause]:
    out: list[Cause] = []
    version, name = param_kind.get("apiVersion") or "", param_kind.get("kind") or ""
    if not version:
        out.append(required(f"{at}.apiVersion"))
    elif version.count("/") > 1:
        out.append(invalid(f"{at}.apiVersion", version, f"unexpected GroupVersion string: {version}"))
    else:
        group, short = group_version(version)
        if group and (wrong := names.dns_subdomain(group)):
            out.append(invalid(f"{at}.apiVersion", group, ",".join(wrong)))
        if not short:
            out.append(invalid(f"{at}.apiVersion", version, "version must be specified"))
        elif wrong := names.dns1035(short):
            out.append(invalid(f"{at}.apiVersion", short, ",".join(wrong)))
    if not name:
        out.append(required(f"{at}.kind"))
    elif wrong := names.dns1035(name.lower()):
        text = "may have mixed case, but should otherwise match: " + ",".join(wrong)
        out.append(invalid(f"{at}.kind", name, text))
    return out


def _variable(spec: Tree, variable: Tree, at: str, types: dict[str, str]) -> list[Cause]:
    """Adds the variable's type to ``types``, for those that come after it."""
    out: list[Cause] = []
    name, source = variable.get("name") or "", variable.get("expression") or ""
    if not name.strip():
        out.append(required(f"{at}.name", "name is not specified"))
    elif not _IDENTIFIER.fullmatch(name) or name in _RESERVED:
        out.append(invalid(f"{at}.name", name, "name is not a valid CEL identifier"))
    if not source.strip():
        return [*out, required(f"{at}.expression", "expression is not specified")]
    try:
        expression = compile_expression(source, declared(spec, types))
    except CelError as error:
        return [*out, invalid(f"{at}.expression", source, str(error))]
    if not out:
        types[name] = expression.returns if expression.checked else "dyn"
    return out


def _validation(spec: Tree, validation: Tree, at: str, types: dict[str, str]) -> list[Cause]:
    out: list[Cause] = []
    source, message = validation.get("expression") or "", validation.get("message") or ""
    message_source = validation.get("messageExpression") or ""
    if not source.strip():
        out.append(required(f"{at}.expression", "expression is not specified"))
    else:
        out += expression_causes(source, declared(spec, types), f"{at}.expression", ("bool",))
    if message_source and not message_source.strip():
        out.append(invalid(f"{at}.messageExpression", message_source, "must be non-empty if specified"))
    elif message_source:
        out += expression_causes(message_source, declared(spec, types, rights=False), f"{at}.messageExpression", ("string",))
    if message and not message.strip():
        text = "message must be non-empty if specified"
        out.append(invalid(f"{at}.message", message, text))
    elif "\n" in message.strip() or "\r" in message.strip():
        out.append(invalid(f"{at}.message", message, "message must not contain line breaks"))
    reason = validation.get("reason")
    if reason is not None and reason not in REASONS:
        out.append(not_supported(f"{at}.reason", reason, REASONS))
    return out


def _annotations(policy: str, spec: Tree, types: dict[str, str]) -> list[Cause]:
    out: list[Cause] = []
    at, entries = "spec.auditAnnotations", spec.get("auditAnnotations") or []
    if len(entries) > MAX_ANNOTATIONS:
        out.append(invalid(at, entries, f"must not have more than {MAX_ANNOTATIONS} auditAnnotations"))
    keys: list[str] = []
    for i, annotation in enumerate(entries):
        key, source = annotation.get("key") or "", (annotation.get("valueExpression") or "").strip()
        if policy:
            name = f"{policy}/{key}"
            out += [invalid(f"{at}[{i}].key", name, m) for m in names.qualified_name(name)]
        else:
            out.append(invalid(f"{at}[{i}].key", key, "requires metadata.name be non-empty"))
        where = f"{at}[{i}].valueExpression"
        if not source:
            out.append(required(where, "valueExpression is not specified"))
        elif len(source) > MAX_VALUE:
            out.append(required(where, f"must not exceed {MAX_VALUE} bytes in length"))
        else:
            out += expression_causes(source, declared(spec, types), where, ("string", "null"))
        if key in keys:
            out.append(duplicate(f"{at}[{i}].key", key))
        keys.append(key)
    return out
