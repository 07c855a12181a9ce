"""ValidatingAdmissionPolicyBindings: where a policy holds, with which parameters and consequences."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.admissionregistration.matchresources import UNSET, default_match, match_causes
from apiserver.kinds.admissionregistration.webhooks import GROUP
from apiserver.kinds.cells import age_cell, kind, name_cell, spec_of
from apiserver.kinds.checks import validate_label_selector
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names
from navarch.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required

ACTIONS = ("Audit", "Deny", "Warn")
NOT_FOUND = ("Allow", "Deny")


class ValidatingAdmissionPolicyBindingStrategy(Strategy):
    kind = kind(f"{GROUP}/v1", "ValidatingAdmissionPolicyBinding")
    unconditional_update = False
    columns = (NAME_COLUMN, Column("PolicyName"), Column("ParamRef"), AGE_COLUMN)

    def default(self, obj: Tree) -> None:
        spec = obj.setdefault("spec", {})
        if spec.get("matchResources") is not None:
            default_match(spec["matchResources"])

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["metadata"]["generation"] = 1

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        name = spec.get("policyName") or ""
        out = [invalid("spec.policyName", name, m) for m in names.dns_subdomain(name)] if name else []
        out += [] if name else [required("spec.policyName")]
        if (reference := spec.get("paramRef")) is not None:
            out += _param_ref(reference, "spec.paramRef")
        if (resources := spec.get("matchResources")) is not None:
            out += match_causes(resources, "spec.matchResouces")  # as upstream spells it
        return out + _actions(spec.get("validationActions") or [], "spec.validationActions")

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec = spec_of(obj)
        reference = spec.get("paramRef")
        shown = UNSET
        if reference is not None:
            name = reference.get("name") or "*"
            shown = f"{reference['namespace']}/{name}" if reference.get("namespace") else name
        return [name_cell(obj), spec.get("policyName") or "", shown, age_cell(obj, now)]


def _param_ref(reference: Tree, at: str) -> list[Cause]:
    out: list[Cause] = []
    name, selector = reference.get("name") or "", reference.get("selector")
    exclusive = "name and selector are mutually exclusive"
    if name:
        out += [invalid(f"{at}.name", name, m) for m in names.path_segment(name)]
        if selector is not None:
            out.append(forbidden(f"{at}.name", exclusive))
    if selector is not None:
        out += validate_label_selector(selector, f"{at}.selector")
        if name:
            out.append(forbidden(f"{at}.selector", exclusive))
    if not name and selector is None:
        out.append(required(at, "one of name or selector must be specified"))
    action = reference.get("parameterNotFoundAction")
    if not action:
        out.append(required(f"{at}.parameterNotFoundAction"))
    elif action not in NOT_FOUND:
        out.append(not_supported(f"{at}.parameterNotFoundAction", action, ("Deny", "Allow")))
    return out


def _actions(actions: list[str], at: str) -> list[Cause]:
    out: list[Cause] = []
    for i, action in enumerate(actions):
        if action not in ACTIONS:
            out.append(not_supported(f"{at}[{i}]", action, ACTIONS))
        if action in actions[:i]:
            out.append(duplicate(f"{at}[{i}]", action))
    if "Deny" in actions and "Warn" in actions:
        text = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response "
            "and headers serves no purpose)"
        )
        out.append(invalid(at, actions, text))
    if not actions:
        out.append(required(at, "at least one validation action is required"))
    return out
