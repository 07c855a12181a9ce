"""DefaultTolerationSeconds: pods tolerate not-ready and unreachable nodes for 300 s unless they say otherwise."""

from __future__ import annotations

from typing import Any

from apiserver.admission.chain import BasePlugin
from apiserver.request import CREATE, UPDATE, Attributes
from navarch.api import wellknown
from navarch.api.kinds import Kind

NOT_READY = wellknown.NOT_READY
UNREACHABLE = wellknown.UNREACHABLE
SECONDS = 300


def _tolerates(toleration: dict[str, Any], key: str) -> bool:
    return toleration.get("key") in (key, None, "") and toleration.get("effect") in ("NoExecute", None, "")


class DefaultTolerationSeconds(BasePlugin):
    """A pod stays five minutes on a node that is not ready or not reachable, unless it says otherwise."""

    name = "DefaultTolerationSeconds"

    def __init__(self, not_ready: int = SECONDS, unreachable: int = SECONDS) -> None:
        self._seconds = ((NOT_READY, not_ready), (UNREACHABLE, unreachable))

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation in (CREATE, UPDATE) and (kind.group, kind.resource) == ("", "pods")

    async def admit(self, attributes: Attributes) -> None:
        if attributes.subresource or attributes.obj is None:
            return
        spec = attributes.obj["spec"]
        tolerations = spec.get("tolerations") or []
        added = [
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
            for key, seconds in self._seconds
            if not any(_tolerates(t, key) for t in tolerations)
        ]
        if added:
            spec["tolerations"] = [*tolerations, *added]
