"""ExtendedResourceToleration: adds tolerations for the extended resources that a pod asks for."""

from __future__ import annotations

from apiserver.admission.plugins.plugin import PodPlugin, containers_of
from apiserver.request import CREATE, UPDATE, Attributes


class ExtendedResourceToleration(PodPlugin):
    """A pod that asks for a device tolerates the taint of that name, which keeps others off the nodes that have it."""

    name = "ExtendedResourceToleration"
    operations = (CREATE, UPDATE)

    async def admit(self, attributes: Attributes) -> None:
        spec = (attributes.obj or {}).get("spec") or {}
        if attributes.subresource:
            return
        resource_names = {n for c in containers_of(spec) for n in (c.get("resources") or {}).get("requests") or ()}
        extended = sorted(n for n in resource_names if "/" in n and not n.partition("/")[0].endswith("kubernetes.io"))
        for name in extended:
            own = {"key": name, "operator": "Exists", "effect": "NoSchedule"}
            tolerations = spec.get("tolerations") or []
            if not any(t.get("key") == name and t.get("operator") == "Exists" for t in tolerations):
                spec["tolerations"] = [*tolerations, own]
