"""DenyServiceExternalIPs: refuses new externalIPs of Services."""

from __future__ import annotations

from apiserver.admission.chain import BasePlugin
from apiserver.admission.plugins.plugin import forbid
from apiserver.request import CREATE, UPDATE, Attributes
from navarch.api.kinds import Kind


class DenyServiceExternalIPs(BasePlugin):
    name = "DenyServiceExternalIPs"

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation in (CREATE, UPDATE) and (kind.group, kind.resource) == ("", "services")

    async def validate(self, attributes: Attributes) -> None:
        new, old = (set(((t or {}).get("spec") or {}).get("externalIPs") or ()) for t in (attributes.obj, attributes.old))
        if not attributes.subresource and new - old:
            raise forbid(attributes, "Use of external IPs is denied by admission control.")
