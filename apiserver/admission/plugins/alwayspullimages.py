"""AlwaysPullImages: sets every container's imagePullPolicy to Always."""

from __future__ import annotations

from apiserver.admission.plugins.plugin import PodPlugin, containers_of, forbid
from apiserver.request import CREATE, UPDATE, Attributes


class AlwaysPullImages(PodPlugin):
    """Whoever runs an image has shown that he may pull it: nobody borrows another's image from the node."""

    name = "AlwaysPullImages"
    operations = (CREATE, UPDATE)

    async def admit(self, attributes: Attributes) -> None:
        if not self._ignored(attributes):
            for container in containers_of((attributes.obj or {}).get("spec") or {}):
                container["imagePullPolicy"] = "Always"

    async def validate(self, attributes: Attributes) -> None:
        if self._ignored(attributes):
            return
        for container in containers_of((attributes.obj or {}).get("spec") or {}):
            if container.get("imagePullPolicy") != "Always":
                raise forbid(attributes, "image pull policy must be Always")

    def _ignored(self, attributes: Attributes) -> bool:
        if attributes.subresource:
            return True
        specs = [(tree or {}).get("spec") or {} for tree in (attributes.obj, attributes.old)]
        images = [[container.get("image") for container in containers_of(spec)] for spec in specs]
        return attributes.operation == UPDATE and set(images[0]) <= set(images[1])
