"""AlwaysDeny: refuses everything, for tests."""

from __future__ import annotations

from apiserver.admission.chain import BasePlugin
from apiserver.admission.plugins.plugin import forbid
from apiserver.request import Attributes


class AlwaysDeny(BasePlugin):
    name = "AlwaysDeny"

    async def validate(self, attributes: Attributes) -> None:
        raise forbid(attributes, "admission control is denying all modifications")
