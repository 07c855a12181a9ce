"""LimitRanger: pods and claims get the defaults of their namespace's LimitRanges, and stay within their bounds."""

from __future__ import annotations

from typing import Any

import msgspec

from apiserver.admission.chain import BasePlugin
from apiserver.cache.cache import Cache
from apiserver.request import CREATE, UPDATE, Attributes
from navarch.api import quantity, quota, resources
from navarch.api.errors import resource_forbidden
from navarch.api.kinds import Kind
from navarch.api.types import core_v1

Tree = dict[str, Any]
PREFIX = "/registry/limitranges/"
NOTE = "kubernetes.io/limit-ranger"
CLAIMS = "persistentvolumeclaims"


class LimitRanger(BasePlugin):
    name = "LimitRanger"

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def handles(self, operation: str, kind: Kind) -> bool:
        if kind.group or kind.resource not in ("pods", CLAIMS):
            return False
        return operation in (CREATE, UPDATE)

    def changes(self, operation: str, kind: Kind) -> bool:
        return operation == CREATE

    def _ranges(self, namespace: str) -> list[list[Tree]]:
        """The limits of each LimitRange."""
        return [(e.tree().get("spec") or {}).get("limits") or [] for e in self.cache.list(PREFIX, namespace).entries]

    async def admit(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if obj is None or attributes.subresource or attributes.kind.resource != "pods":
            return
        for limits in self._ranges(attributes.namespace):
            default_requests: Tree = {}
            most: Tree = {}
            for limit in limits:
                if limit.get("type") == "Container":
                    default_requests |= limit.get("defaultRequest") or {}
                    most |= limit.get("default") or {}
            notes = []
            for field, word in (("containers", "container"), ("initContainers", "init container")):
                for container in obj["spec"].get(field) or () if default_requests or most else ():
                    notes += _fill(container, word, default_requests, most)
            if notes:
                metadata = obj["metadata"]
                text = "LimitRanger plugin set: " + "; ".join(notes)
                metadata["annotations"] = (metadata.get("annotations") or {}) | {NOTE: text}

    async def validate(self, attributes: Attributes) -> None:
        obj = attributes.obj
        resized = attributes.subresource == "resize"
        if obj is None or (attributes.subresource and not resized):
            return
        if attributes.operation == UPDATE and attributes.kind.resource == "pods" and not resized:
            return  # nothing else changes what a pod asks for
        if attributes.operation == UPDATE and obj["metadata"].get("deletionTimestamp"):
            return
        for limits in self._ranges(attributes.namespace):
            problems = _claim_causes(limits, obj) if attributes.kind.resource == CLAIMS else _pod_causes(limits, obj)
            wrong = list(dict.fromkeys(problems))
            if wrong:
                why = wrong[0] if len(wrong) == 1 else "[" + ", ".join(wrong) + "]"
                raise resource_forbidden(attributes.kind.resource, "", attributes.name, why)


def _claim_causes(limits: list[Tree], claim: Tree) -> list[str]:
    claim_requests = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    return [text for limit in limits if limit.get("type") == "PersistentVolumeClaim" for text in _claim(limit, claim_requests)]


def _pod_causes(limits: list[Tree], pod: Tree) -> list[str]:
    out: list[str] = []
    for limit in limits:
        if limit.get("type") == "Container":
            for field in ("containers", "initContainers"):
                for container in pod["spec"].get(field) or ():
                    amounts = container.get("resources") or {}
                    out += _bounds(limit, amounts.get("requests") or {}, amounts.get("limits") or {}, "Container")
        elif limit.get("type") == "Pod":
            spec = msgspec.convert(pod["spec"], core_v1.PodSpec)
            out += _bounds(limit, _written(spec, "requests"), _written(spec, "limits"), "Pod")
    return out


def _written(spec: core_v1.PodSpec, side: resources.Side) -> Tree:
    """The sum of the requests or limits (``side``) of the pod's containers, as quantities."""
    sums = resources.containers_sum(spec, side)
    return quota.written({n: v * (10**6 if n == "cpu" else quantity.NANO) for n, v in sums.items()})


def _fill(container: Tree, word: str, requests: Tree, limits: Tree) -> list[str]:
    """Sets what the container leaves open; returns the words of the annotation."""
    sides = container.setdefault("resources", {})
    set_ = {}
    # A limit that the container has is its request already: the defaults of a pod saw to it.
    for field, defaults in (("requests", requests), ("limits", limits)):
        own = dict(sides.get(field) or {})
        new = [name for name in sorted(defaults) if name not in own]
        if new:
            sides[field] = own | {name: defaults[name] for name in new}
        set_[field] = new
    out = []
    for field, one in (("requests", "request"), ("limits", "limit")):
        if set_[field]:
            out.append(f"{', '.join(set_[field])} {one} for {word} {container.get('name') or ''}")
    return out


def _bounds(limit: Tree, requests: Tree, limits: Tree, type_: str) -> list[str]:
    out = []
    for name, bound in sorted((limit.get("min") or {}).items()):
        text = f"minimum {name} usage per {type_} is {bound}"
        request, most = requests.get(name), limits.get(name)
        if request is None:
            out.append(f"{text}.  No request is specified")
        elif quantity.compare(request, bound) < 0:
            out.append(f"{text}, but request is {request}")
        elif most is not None and quantity.compare(most, bound) < 0:
            out.append(f"{text}, but limit is {most}")
    for name, bound in sorted((limit.get("max") or {}).items()):
        text = f"maximum {name} usage per {type_} is {bound}"
        request, most = requests.get(name), limits.get(name)
        if most is None:
            out.append(f"{text}.  No limit is specified")
        elif quantity.compare(most, bound) > 0:
            out.append(f"{text}, but limit is {most}")
        elif request is not None and quantity.compare(request, bound) > 0:
            out.append(f"{text}, but request is {request}")
    for name, bound in sorted((limit.get("maxLimitRequestRatio") or {}).items()):
        text = f"{name} max limit to request ratio per {type_} is {bound}"
        request, most = (quantity.nanos(d.get(name) or 0) for d in (requests, limits))
        if not request:
            out.append(f"{text}, but no request is specified or request is 0")
        elif not most:
            out.append(f"{text}, but no limit is specified or limit is 0")
        elif most * quantity.NANO > quantity.nanos(bound) * request:
            out.append(f"{text}, but provided ratio is {most / request:f}")
    return out


def _claim(limit: Tree, requests: Tree) -> list[str]:
    """A claim asks and has no limit."""
    out = []
    for word, field, sign in (("minimum", "min", 1), ("maximum", "max", -1)):
        for name, bound in sorted((limit.get(field) or {}).items()):
            text = f"{word} {name} usage per PersistentVolumeClaim is {bound}"
            request = requests.get(name)
            if request is None:
                out.append(f"{text}.  No request is specified")
            elif sign * quantity.compare(request, bound) < 0:
                out.append(f"{text}, but request is {request}")
    return out
