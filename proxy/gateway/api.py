"""The kinds of the Gateway API as JSON trees, and what they have in common: references, grants, conditions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from navarch.api.kinds import Kind

GROUP = "gateway.networking.k8s.io"
CONTROLLER = "navarch.dev/gateway"
"""spec.controllerName of the GatewayClasses that are ours."""

Tree = dict[str, Any]

GATEWAY_CLASSES = Kind(GROUP, "v1", "GatewayClass", "gatewayclasses", False)
GATEWAYS = Kind(GROUP, "v1", "Gateway", "gateways")
HTTP_ROUTES = Kind(GROUP, "v1", "HTTPRoute", "httproutes")
REFERENCE_GRANTS = Kind(GROUP, "v1beta1", "ReferenceGrant", "referencegrants")
KINDS = (GATEWAY_CLASSES, GATEWAYS, HTTP_ROUTES, REFERENCE_GRANTS)


@dataclass(frozen=True)
class Finding:
    """A condition without its time."""

    type: str
    status: bool
    reason: str
    text: str = ""


def key(obj: Tree) -> str:
    meta = obj["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def by_age(objects: Iterable[Tree]) -> list[Tree]:
    return sorted(objects, key=lambda o: (o["metadata"].get("creationTimestamp") or "", key(o)))


def spec_of(obj: Tree) -> Tree:
    return obj.get("spec") or {}


def is_granted(grants: Iterable[Tree], kind: str, source: str, to_kind: str, namespace: str, name: str) -> bool:
    """A ReferenceGrant of ``namespace`` lets HTTPRoutes or Gateways (``kind``) of ``source`` name this Secret or Service."""
    for grant in grants:
        if grant["metadata"].get("namespace") != namespace:
            continue
        spec = spec_of(grant)
        of = any((f.get("group"), f.get("kind"), f.get("namespace")) == (GROUP, kind, source) for f in spec.get("from") or ())
        to = any((t.get("group") or "") == "" and t.get("kind") == to_kind and t.get("name") in (None, "", name)
                 for t in spec.get("to") or ())  # fmt: skip
        if of and to:
            return True
    return False


def conditions(old: Iterable[Tree] | None, findings: Iterable[Finding], generation: int, now: str) -> list[Tree]:
    """Findings as conditions; one whose status is as before keeps its time. Conditions of other types stay."""
    before = {c.get("type"): c for c in old or ()}
    out = []
    for finding in findings:
        status, last = "True" if finding.status else "False", before.pop(finding.type, {})
        changed = now if last.get("status") != status else last.get("lastTransitionTime") or now
        out.append({
            "type": finding.type, "status": status, "reason": finding.reason, "message": finding.text[:32768],
            "observedGeneration": generation, "lastTransitionTime": changed,
        })  # fmt: skip
    return [*out, *before.values()]
