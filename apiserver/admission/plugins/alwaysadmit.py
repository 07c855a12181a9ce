"""AlwaysAdmit: allows everything (deprecated in Kubernetes, as here)."""

from __future__ import annotations

from apiserver.admission.chain import BasePlugin
from navarch.api.kinds import Kind


class AlwaysAdmit(BasePlugin):
    name = "AlwaysAdmit"

    def handles(self, operation: str, kind: Kind) -> bool:
        return False
