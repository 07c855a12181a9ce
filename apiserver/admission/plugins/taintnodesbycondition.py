"""TaintNodesByCondition: new nodes start with the not-ready taint."""

from __future__ import annotations

from apiserver.admission.chain import BasePlugin
from apiserver.request import CREATE, Attributes
from navarch.api import wellknown
from navarch.api.kinds import Kind

NOT_READY = wellknown.NOT_READY


class TaintNodesByCondition(BasePlugin):
    """A new node takes no pods before a controller has seen it ready."""

    name = "TaintNodesByCondition"

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation == CREATE and (kind.group, kind.resource) == ("", "nodes")

    async def admit(self, attributes: Attributes) -> None:
        if attributes.subresource or attributes.obj is None:
            return
        spec = attributes.obj.setdefault("spec", {})
        taints = spec.get("taints") or []
        if not any(t.get("key") == NOT_READY and t.get("effect") == "NoSchedule" for t in taints):
            spec["taints"] = [*taints, {"key": NOT_READY, "effect": "NoSchedule"}]
