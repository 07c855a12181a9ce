"""PodTolerationRestriction: adds the namespace's tolerations to its pods and checks theirs."""

from __future__ import annotations

from typing import Any

from apiserver.admission.plugins.plugin import NAMESPACES, PodPlugin, Tree, forbid
from apiserver.admission.plugins.runtimeclass import covers, merged
from apiserver.cache.cache import Cache
from apiserver.request import CREATE, UPDATE, Attributes


class PodTolerationRestriction(PodPlugin):
    """Pods tolerate what their namespace's annotations give them, and nothing that these do not allow."""

    name = "PodTolerationRestriction"
    operations = (CREATE, UPDATE)
    defaults = "scheduler.alpha.kubernetes.io/defaultTolerations"
    allowed = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def _listed(self, attributes: Attributes, annotation: str) -> list[Tree]:
        import orjson

        entry = self.cache.get(NAMESPACES, None, attributes.namespace)
        text = (entry.tree()["metadata"].get("annotations") or {}).get(annotation) if entry is not None else None
        try:
            tolerations: Any = orjson.loads(text) if text else []
        except orjson.JSONDecodeError as error:
            raise forbid(attributes, f"the annotation {annotation} of the namespace is no list: {error}") from None
        return tolerations if isinstance(tolerations, list) else []

    async def admit(self, attributes: Attributes) -> None:
        if attributes.subresource or attributes.obj is None:
            return
        spec, old = attributes.obj["spec"], ((attributes.old or {}).get("spec") or {})
        if attributes.operation == UPDATE and spec.get("tolerations") == old.get("tolerations"):
            return
        defaults = self._listed(attributes, self.defaults) if attributes.operation == CREATE else []
        if defaults:
            spec["tolerations"] = merged(spec.get("tolerations") or [], defaults)

    async def validate(self, attributes: Attributes) -> None:
        if attributes.subresource or attributes.obj is None:
            return
        allowed = self._listed(attributes, self.allowed)
        for toleration in attributes.obj["spec"].get("tolerations") or () if allowed else ():
            if not any(covers(one, toleration) for one in allowed):
                raise forbid(attributes, "pod tolerations (possibly merged with namespace default tolerations) conflict "
                                          "with its namespace whitelist")  # fmt: skip
