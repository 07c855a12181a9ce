"""Checks of the fields that say where a pod may run: tolerations, affinity, spread, gates."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import Tree
from apiserver.kinds.checks import validate_label_selector
from navarch.api import names
from navarch.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
UNSATISFIABLE = ("DoNotSchedule", "ScheduleAnyway")
POLICIES = ("Honor", "Ignore")


def validate_tolerations(tolerations: Any, path: str) -> list[Cause]:
    out: list[Cause] = []
    for i, toleration in enumerate(tolerations or ()):
        at = f"{path}[{i}]"
        key, operator = toleration.get("key") or "", toleration.get("operator") or ""
        value, effect = toleration.get("value") or "", toleration.get("effect") or ""
        if key:
            out += [invalid(f"{at}.key", key, m) for m in names.qualified_name(key)]
        elif operator != "Exists":
            text = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            out.append(invalid(f"{at}.operator", operator, text))
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            text = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            out.append(invalid(f"{at}.effect", effect, text))
        if operator in ("", "Equal"):
            out += [invalid(f"{at}.operator", value, m) for m in names.label_value(value)[:1]]
        elif operator == "Exists":
            if value:
                out.append(invalid(f"{at}.operator", toleration, "value must be empty when `operator` is 'Exists'"))
        else:
            out.append(not_supported(f"{at}.operator", operator, ("Equal", "Exists")))
        if effect and effect not in EFFECTS:
            out.append(not_supported(f"{at}.effect", effect, EFFECTS))
    return out


def _node_requirement(requirement: Tree, at: str) -> list[Cause]:
    out: list[Cause] = []
    values = requirement.get("values") or []
    match requirement.get("operator"):
        case "In" | "NotIn":
            if not values:
                out.append(required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        case "Exists" | "DoesNotExist":
            if values:
                text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                out.append(forbidden(f"{at}.values", text))
        case "Gt" | "Lt":
            if len(values) != 1:
                out.append(required(f"{at}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'"))
        case other:
            out.append(invalid(f"{at}.operator", other or "", "not a valid selector operator"))
    return out


def _node_term(term: Tree, path: str) -> list[Cause]:
    out: list[Cause] = []
    for i, requirement in enumerate(term.get("matchExpressions") or ()):
        at, key = f"{path}.matchExpressions[{i}]", requirement.get("key") or ""
        out += _node_requirement(requirement, at)
        out += [invalid(f"{at}.key", key, m) for m in names.qualified_name(key)]
    for i, requirement in enumerate(term.get("matchFields") or ()):
        at, key, values = f"{path}.matchFields[{i}]", requirement.get("key"), requirement.get("values") or []
        if requirement.get("operator") not in ("In", "NotIn"):
            out.append(invalid(f"{at}.operator", requirement.get("operator") or "", "not a valid selector operator"))
        elif len(values) != 1:
            text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            out.append(required(f"{at}.values", text))
        if key != "metadata.name":
            out.append(invalid(f"{at}.key", key or "", "not a valid field selector key"))
    return out


def _weight(weight: Any, at: str) -> list[Cause]:
    return [] if isinstance(weight, int) and 1 <= weight <= 100 else [invalid(at, weight, "must be in the range 1-100")]


def _pod_term(term: Tree, at: str) -> list[Cause]:
    out = validate_label_selector(term.get("labelSelector"), f"{at}.labelSelector")
    out += validate_label_selector(term.get("namespaceSelector"), f"{at}.namespaceSelector")
    for namespace in term.get("namespaces") or ():
        out += [invalid(f"{at}.namespace", namespace, m) for m in names.dns_label(namespace)]
    key = term.get("topologyKey") or ""
    if not key:
        out.append(required(f"{at}.topologyKey", "can not be empty"))
    return out + [invalid(f"{at}.topologyKey", key, m) for m in names.qualified_name(key)]


REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def validate_node_selector_terms(terms: Any, path: str) -> list[Cause]:
    if not terms:
        return [required(path, "must have at least one node selector term")]
    return [cause for i, term in enumerate(terms) for cause in _node_term(term, f"{path}[{i}]")]


def validate_affinity(affinity: Tree | None, path: str) -> list[Cause]:
    out: list[Cause] = []
    if not affinity:
        return out
    node, at = affinity.get("nodeAffinity") or {}, f"{path}.nodeAffinity"
    if node.get(REQUIRED) is not None:
        out += validate_node_selector_terms(
            node[REQUIRED].get("nodeSelectorTerms"), f"{at}.{REQUIRED}.nodeSelectorTerms"
        )
    for i, preferred in enumerate(node.get(PREFERRED) or ()):
        here = f"{at}.{PREFERRED}[{i}]"
        out += _weight(preferred.get("weight"), f"{here}.weight")
        out += _node_term(preferred.get("preference") or {}, f"{here}.preference")
    for field in ("podAffinity", "podAntiAffinity"):
        pod, at = affinity.get(field) or {}, f"{path}.{field}"
        for i, term in enumerate(pod.get(REQUIRED) or ()):
            out += _pod_term(term, f"{at}.{REQUIRED}[{i}]")
        for i, preferred in enumerate(pod.get(PREFERRED) or ()):
            here = f"{at}.{PREFERRED}[{i}]"
            out += _weight(preferred.get("weight"), f"{here}.weight")
            out += _pod_term(preferred.get("podAffinityTerm") or {}, f"{here}.podAffinityTerm")
    return out


def validate_spread(constraints: Any, path: str) -> list[Cause]:
    out: list[Cause] = []
    pairs: set[tuple[str, str]] = set()
    for i, constraint in enumerate(constraints or ()):
        at = f"{path}[{i}]"
        skew, least = constraint.get("maxSkew") or 0, constraint.get("minDomains")
        key, action = constraint.get("topologyKey") or "", constraint.get("whenUnsatisfiable") or ""
        if skew <= 0:
            out.append(invalid(f"{at}.maxSkew", skew, "must be greater than zero"))
        if not key:
            out.append(required(f"{at}.topologyKey", "can not be empty"))
        else:
            out += [invalid(f"{at}.topologyKey", key, m) for m in names.qualified_name(key)]
        if action not in UNSATISFIABLE:
            out.append(not_supported(f"{at}.whenUnsatisfiable", action, UNSATISFIABLE))
        if (key, action) in pairs:
            out.append(duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {action}}}"))
        pairs.add((key, action))
        if least is not None:
            if least <= 0:
                out.append(invalid(f"{at}.minDomains", least, "must be greater than zero"))
            if action != "DoNotSchedule":
                text = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                out.append(invalid(f"{at}.minDomains", least, text))
        for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if constraint.get(field) is not None and constraint[field] not in POLICIES:
                out.append(not_supported(f"{at}.{field}", constraint[field], POLICIES))
        out += validate_label_selector(constraint.get("labelSelector"), f"{at}.labelSelector")
    return out


def validate_gates(spec: Tree, path: str) -> list[Cause]:
    """Readiness gates and scheduling gates."""
    out: list[Cause] = []
    for i, gate in enumerate(spec.get("readinessGates") or ()):
        type_ = gate.get("conditionType") or ""
        out += [invalid(f"{path}.readinessGates[{i}].conditionType", type_, m) for m in names.qualified_name(type_)]
    earlier: set[str] = set()
    for i, gate in enumerate(spec.get("schedulingGates") or ()):
        at, name = f"{path}.schedulingGates[{i}]", gate.get("name") or ""
        out += [invalid(at, name, m) for m in names.qualified_name(name)]
        if name in earlier:
            out.append(duplicate(at, name))
        earlier.add(name)
    if earlier and spec.get("nodeName"):
        out.append(forbidden(f"{path}.nodeName", "cannot be set until all schedulingGates have been cleared"))
    return out
