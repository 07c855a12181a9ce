"""RuntimeClass: a pod gets the overhead of its class, and goes only to nodes that can run it."""

from __future__ import annotations

from typing import Any

from apiserver.admission.chain import BasePlugin
from apiserver.cache.cache import Cache
from apiserver.request import CREATE, Attributes
from navarch.api import quantity
from navarch.api.errors import Forbidden, resource_forbidden
from navarch.api.kinds import Kind

Tree = dict[str, Any]
PREFIX = "/registry/runtimeclasses/"


class RuntimeClass(BasePlugin):
    name = "RuntimeClass"

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation == CREATE and (kind.group, kind.resource) == ("", "pods")

    async def _class(self, attributes: Attributes, spec: Tree) -> Tree:
        """The pod's class, empty if it names none. Raises Forbidden."""
        name = spec.get("runtimeClassName")
        if name is None:
            return {}
        entry = self.cache.get(PREFIX, None, name)
        if entry is None:
            await self.cache.current()
            entry = self.cache.get(PREFIX, None, name)
        if entry is None:
            raise _forbid(attributes, f'pod rejected: RuntimeClass "{name}" not found')
        return entry.tree()

    async def admit(self, attributes: Attributes) -> None:
        if attributes.subresource or attributes.obj is None:
            return
        spec = attributes.obj["spec"]
        runtime_class = await self._class(attributes, spec)
        overhead = (runtime_class.get("overhead") or {}).get("podFixed") or {}
        if overhead:
            _match(attributes, spec.get("overhead"), overhead)
            spec["overhead"] = overhead
        scheduling = runtime_class.get("scheduling") or {}
        selector = spec.get("nodeSelector") or {}
        for key, value in sorted((scheduling.get("nodeSelector") or {}).items()):
            if selector.get(key, value) != value:
                raise _forbid(attributes, (
                    f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                    f"pod.spec.nodeSelector[{key}] = {selector[key]}"
                ))  # fmt: skip
        if scheduling.get("nodeSelector"):
            spec["nodeSelector"] = selector | scheduling["nodeSelector"]
        if scheduling.get("tolerations"):
            spec["tolerations"] = merged(spec.get("tolerations") or [], scheduling["tolerations"])

    async def validate(self, attributes: Attributes) -> None:
        if attributes.subresource or attributes.obj is None:
            return
        spec = attributes.obj["spec"]
        if spec.get("runtimeClassName") is None and not spec.get("overhead"):
            return
        runtime_class = await self._class(attributes, spec)
        overhead = (runtime_class.get("overhead") or {}).get("podFixed") or {}
        if overhead:
            _match(attributes, spec.get("overhead") or {}, overhead)
        elif spec.get("overhead"):
            raise _forbid(attributes, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")


def _forbid(attributes: Attributes, why: str) -> Forbidden:
    return resource_forbidden("pods", "", attributes.name, why)


def _match(attributes: Attributes, own: Tree | None, overhead: Tree) -> None:
    if own is None:
        return
    if own.keys() != overhead.keys() or any(quantity.compare(own[n], overhead[n]) for n in own):
        raise _forbid(attributes, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")


def merged(first: list[Tree], second: list[Tree]) -> list[Tree]:
    """Both lists of tolerations, without those that another one covers."""
    every = [*first, *second]
    out: list[Tree] = []
    for i, one in enumerate(every):
        if any(covers(other, one) for other in out):
            continue
        if any(other != one and covers(other, one) for other in every[i + 1 :]):
            continue
        out.append(one)
    return out


def covers(wide: Tree, one: Tree) -> bool:
    """Whether ``wide`` tolerates all that ``one`` does."""
    if wide == one:
        return True
    exists = wide.get("operator") == "Exists"
    if one.get("key") != wide.get("key") and not (not wide.get("key") and exists):
        return False
    if wide.get("effect") and one.get("effect") != wide["effect"]:
        return False
    most, seconds = wide.get("tolerationSeconds"), one.get("tolerationSeconds")
    if wide.get("effect") == "NoExecute" and most is not None and (seconds is None or seconds > most):
        return False
    if exists:
        return True
    return one.get("operator") in (None, "", "Equal") and (one.get("value") or "") == (wide.get("value") or "")
