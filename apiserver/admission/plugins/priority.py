"""Priority: turns the name of a PriorityClass into the number that the scheduler compares."""

from __future__ import annotations

from typing import Any

from apiserver.admission.chain import BasePlugin
from apiserver.cache.cache import Cache
from apiserver.cache.objects import Entry
from apiserver.request import CREATE, UPDATE, Attributes
from navarch.api.errors import resource_forbidden
from navarch.api.kinds import Kind

Tree = dict[str, Any]
PREFIX = "/registry/priorityclasses/"
PREEMPT = "PreemptLowerPriority"


class Priority(BasePlugin):
    name = "Priority"

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self._cached: tuple[list[Entry], Tree | None] = ([], None)  # the classes, and which is the default

    def handles(self, operation: str, kind: Kind) -> bool:
        names = ("", "pods"), ("scheduling.k8s.io", "priorityclasses")
        return operation in (CREATE, UPDATE) and (kind.group, kind.resource) in names

    async def admit(self, attributes: Attributes) -> None:
        if attributes.kind.resource != "pods" or attributes.subresource or attributes.obj is None:
            return
        spec = attributes.obj["spec"]
        if attributes.operation == UPDATE:
            before = (attributes.old or {}).get("spec") or {}
            for field in ("priority", "preemptionPolicy"):
                if spec.get(field) is None and before.get(field) is not None:
                    spec[field] = before[field]
            return
        name = spec.get("priorityClassName") or ""
        priority, policy = 0, PREEMPT
        chosen = await self._named(attributes, name) if name else self._default()
        if chosen is not None:
            if not name:
                spec["priorityClassName"] = chosen["metadata"]["name"]
            priority, policy = chosen.get("value") or 0, chosen.get("preemptionPolicy") or PREEMPT
        if spec.get("priority") is not None and spec["priority"] != priority:
            raise resource_forbidden("pods", "", attributes.name, (
                f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; "
                f"priority admission controller computed {priority} from the given PriorityClass name"
            ))  # fmt: skip
        if spec.get("preemptionPolicy") is not None and spec["preemptionPolicy"] != policy:
            raise resource_forbidden("pods", "", attributes.name, (
                f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec; "
                f"priority admission controller computed {policy} from the given PriorityClass name"
            ))  # fmt: skip
        spec["priority"], spec["preemptionPolicy"] = priority, policy

    async def _named(self, attributes: Attributes, name: str) -> Tree:
        entry = self.cache.get(PREFIX, None, name)
        if entry is None:
            await self.cache.current()
            entry = self.cache.get(PREFIX, None, name)
        if entry is None:
            raise resource_forbidden("pods", "", attributes.name, f"no PriorityClass with name {name} was found")
        return entry.tree()

    def _default(self) -> Tree | None:
        """The global default; of several (a race) the lowest, so that nobody gains from it."""
        entries = list(self.cache.list(PREFIX).entries)
        if entries != self._cached[0]:
            defaults = [t for e in entries if (t := e.tree()).get("globalDefault")]
            self._cached = entries, min(defaults, key=lambda t: t.get("value") or 0, default=None)
        return self._cached[1]

    async def validate(self, attributes: Attributes) -> None:
        """There is at most one global default."""
        obj = attributes.obj
        if attributes.kind.resource != "priorityclasses" or obj is None or not obj.get("globalDefault"):
            return
        await self.cache.current()
        default = self._default()
        if default is not None and default["metadata"]["name"] != attributes.name:
            other = default["metadata"]["name"]
            why = f"PriorityClass {other} is already marked as default. Only one default can exist"
            raise resource_forbidden("priorityclasses", "scheduling.k8s.io", attributes.name, why)
