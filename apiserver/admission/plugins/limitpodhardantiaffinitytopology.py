"""LimitPodHardAntiAffinityTopology: allows required pod anti-affinity by host name only."""

from __future__ import annotations

from apiserver.admission.plugins.plugin import PodPlugin, forbid
from apiserver.request import Attributes
from navarch.api import wellknown

HOSTNAME = wellknown.HOSTNAME


class LimitPodHardAntiAffinityTopology(PodPlugin):
    name = "LimitPodHardAntiAffinityTopology"

    async def validate(self, attributes: Attributes) -> None:
        affinity = ((attributes.obj or {}).get("spec") or {}).get("affinity") or {}
        terms = (affinity.get("podAntiAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        if not attributes.subresource and any(t.get("topologyKey") != HOSTNAME for t in terms):
            raise forbid(attributes, (
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey "
                f"{next(t.get('topologyKey') for t in terms if t.get('topologyKey') != HOSTNAME)} but only key "
                f"{HOSTNAME} is allowed"
            ))  # fmt: skip
