"""An object's use of a ResourceQuota: pure functions on JSON trees, for the admission that counts and for the
controller that counts again.

Amounts are whole billionths (:mod:`navarch.api.quantity`), by the names that quotas use (``requests.cpu``,
``count/deployments.apps``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from navarch.api import qos, quantity, resources, wellknown
from navarch.api.pods import TERMINAL_PHASES
from navarch.api.types import core_v1

Tree = dict[str, Any]
Amounts = dict[str, int]

# Kinds that quotas have a short name for, from the time before count/.
COUNTED = ("configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets", "services")
# Resources that are asked for by a plain name as well as by "requests.".
BOTH = ("cpu", "memory", "ephemeral-storage")
CLASS_SUFFIX = ".storageclass.storage.k8s.io/"
CLASS_ANNOTATION = wellknown.BETA_STORAGE_CLASS


def count_name(group: str, resource: str) -> str:
    return f"count/{resource}.{group}" if group else f"count/{resource}"


def usage(group: str, resource: str, obj: Tree) -> Amounts:
    """The amounts that the object counts for."""
    out = {count_name(group, resource): quantity.NANO}
    if group:
        return out
    if resource in COUNTED:
        out[resource] = quantity.NANO
    match resource:
        case "pods":
            out |= _pod(obj)
        case "services":
            out |= _service(obj)
        case "persistentvolumeclaims":
            out |= _claim(obj)
    return out


def _typed(obj: Tree) -> core_v1.PodSpec:
    return msgspec.convert(obj.get("spec") or {}, core_v1.PodSpec)


def _pod(obj: Tree) -> Amounts:
    """Nothing once the pod has finished."""
    if (obj.get("status") or {}).get("phase") in TERMINAL_PHASES:
        return {}
    spec = _typed(obj)
    out: Amounts = {"pods": quantity.NANO}
    for prefix, amounts in (("requests.", resources.pod_requests(spec)), ("limits.", resources.pod_limits(spec))):
        for name, amount in amounts.items():
            nanos = amount * (10**6 if name == "cpu" else quantity.NANO)
            if prefix == "requests." and (name in BOTH or name.startswith("hugepages-")):
                out[name] = nanos
            if prefix == "requests." or name in BOTH:
                out[prefix + name] = nanos
    return out


def _service(obj: Tree) -> Amounts:
    spec = obj.get("spec") or {}
    ports = spec.get("ports") or ()
    match spec.get("type"):
        case "NodePort":
            return {"services.nodeports": len(ports) * quantity.NANO}
        case "LoadBalancer":
            allocated = spec.get("allocateLoadBalancerNodePorts") is not False
            node_ports = len(ports) if allocated else sum(bool(p.get("nodePort")) for p in ports)
            return {"services.nodeports": node_ports * quantity.NANO, "services.loadbalancers": quantity.NANO}
    return {}


def _claim(obj: Tree) -> Amounts:
    spec = obj.get("spec") or {}
    request = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    size = quantity.nanos(request) if request is not None else 0
    out = {"requests.storage": size}
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    name = annotations.get(CLASS_ANNOTATION) or spec.get("storageClassName") or ""
    if name:
        out[f"{name}{CLASS_SUFFIX}requests.storage"] = size
        out[f"{name}{CLASS_SUFFIX}persistentvolumeclaims"] = quantity.NANO
    return out


def missing(hard: Iterable[str], obj: Tree) -> str:
    """A pod must say what it asks of everything that a quota limits: who fails to, or "".

    ``requests.cpu for: a,b; limits.cpu for: a``.
    """
    out = []
    spec = obj.get("spec") or {}
    for name in sorted(hard):
        short = name.removeprefix("requests.").removeprefix("limits.")
        if short not in ("cpu", "memory"):
            continue
        side = "limits" if name.startswith("limits.") else "requests"
        if ((spec.get("resources") or {}).get(side) or {}).get(short) is not None:
            continue
        silent = [
            c.get("name") or ""
            for field in ("containers", "initContainers")
            for c in spec.get(field) or ()
            if ((c.get("resources") or {}).get(side) or {}).get(short) is None
        ]
        if silent:
            out.append(f"{name} for: {','.join(sorted(silent))}")
    return "; ".join(out)


def selectors_of(quota_spec: Tree) -> list[Tree]:
    """The scopes of a quota as ScopedResourceSelectorRequirements."""
    plain: list[Tree] = [{"scopeName": s, "operator": "Exists"} for s in quota_spec.get("scopes") or ()]
    return plain + list((quota_spec.get("scopeSelector") or {}).get("matchExpressions") or ())


def applies(quota_spec: Tree, group: str, resource: str, obj: Tree) -> bool:
    """Whether the object is within the scopes of the quota. Scopes other than a volume class speak of pods alone."""
    selectors = selectors_of(quota_spec)
    return len(within(selectors, group, resource, obj)) == len(selectors)


def within(selectors: Iterable[Tree], group: str, resource: str, obj: Tree) -> list[Tree]:
    """Those of the selectors that the object is in."""
    match group, resource:
        case ("", "persistentvolumeclaims"):
            return [one for one in selectors if _claim_in(one, obj)]
        case ("", "pods"):
            return [one for one in selectors if _pod_in(one, obj)]
    return []


def _claim_in(one: Tree, obj: Tree) -> bool:
    name = (obj.get("spec") or {}).get("volumeAttributesClassName") or ""
    return one.get("scopeName") == "VolumeAttributesClass" and _holds(one, name)


def _pod_in(one: Tree, obj: Tree) -> bool:
    spec = obj.get("spec") or {}
    match one.get("scopeName"):
        case "Terminating":
            return (spec.get("activeDeadlineSeconds") or -1) >= 0
        case "NotTerminating":
            return (spec.get("activeDeadlineSeconds") or -1) < 0
        case "BestEffort":
            return qos.qos_class(_typed(obj)) == "BestEffort"
        case "NotBestEffort":
            return qos.qos_class(_typed(obj)) != "BestEffort"
        case "PriorityClass":
            return _holds(one, spec.get("priorityClassName") or "")
        case "CrossNamespacePodAffinity":
            return _crosses(spec.get("affinity") or {})
    return False


def _holds(one: Tree, value: str) -> bool:
    values = one.get("values") or ()
    match one.get("operator"):
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return bool(value)
        case _:
            return not value


def _crosses(affinity: Tree) -> bool:
    """Whether a pod affinity looks at pods of other namespaces."""
    for kind in ("podAffinity", "podAntiAffinity"):
        terms_by_strength = affinity.get(kind) or {}
        terms = list(terms_by_strength.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        for weighted in terms_by_strength.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            terms.append(weighted.get("podAffinityTerm") or {})
        if any(t.get("namespaces") or t.get("namespaceSelector") is not None for t in terms):
            return True
    return False


def amounts_of(listed: Mapping[str, quantity.Quantity] | None) -> Amounts:
    return {name: quantity.nanos(value) for name, value in (listed or {}).items()}


def written(amounts: Mapping[str, int], like: Mapping[str, quantity.Quantity] | None = None) -> dict[str, str]:
    """As quantities, in the style of ``like`` (the quota's own numbers)."""
    out = {}
    for name in sorted(amounts):
        model = (like or {}).get(name)
        style = quantity.family(model) if model is not None else "DecimalSI"
        if style == "DecimalSI" and ("memory" in name or "storage" in name) and amounts[name] % (1024 * quantity.NANO) == 0:
            style = "BinarySI"
        out[name] = quantity.format_nanos(amounts[name], style)
    return out
