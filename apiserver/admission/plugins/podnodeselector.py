"""PodNodeSelector: adds the namespace's node selector to its pods."""

from __future__ import annotations

from apiserver.admission.plugins.plugin import NAMESPACES, PodPlugin, Tree, forbid
from apiserver.cache.cache import Cache
from apiserver.request import Attributes
from navarch.api.selectors import parse_label_selector


class PodNodeSelector(PodPlugin):
    """Pods of a namespace go to the nodes that its annotation names."""

    name = "PodNodeSelector"
    annotation = "scheduler.alpha.kubernetes.io/node-selector"

    def __init__(self, cache: Cache, configuration: Tree) -> None:
        self.cache = cache
        self.limits: dict[str, str] = configuration.get("podNodeSelectorPluginConfig") or {}

    def _selector(self, attributes: Attributes) -> dict[str, str]:
        entry = self.cache.get(NAMESPACES, None, attributes.namespace)
        notes = (entry.tree()["metadata"].get("annotations") or {}) if entry is not None else {}
        text = notes.get(self.annotation, self.limits.get("clusterDefaultNodeSelector", ""))
        return _equalities(text)

    async def admit(self, attributes: Attributes) -> None:
        if attributes.subresource or attributes.obj is None:
            return
        required, spec = self._selector(attributes), attributes.obj["spec"]
        own = spec.get("nodeSelector") or {}
        if any(own.get(k, v) != v for k, v in required.items()):
            raise forbid(attributes, "pod node label selector conflicts with its namespace node label selector")
        if required:
            spec["nodeSelector"] = own | required

    async def validate(self, attributes: Attributes) -> None:
        if attributes.subresource or attributes.obj is None:
            return
        own = attributes.obj["spec"].get("nodeSelector") or {}
        if any(own.get(k) != v for k, v in self._selector(attributes).items()):
            raise forbid(attributes, "pod node label selector conflicts with its namespace node label selector")
        if attributes.namespace in self.limits:
            allowed = _equalities(self.limits[attributes.namespace])
            if any(allowed.get(k) != v for k, v in own.items()):
                raise forbid(attributes, "pod node label selector labels conflict with its namespace whitelist")


def _equalities(text: str) -> dict[str, str]:
    """``a=b,c=d`` as a dict. Raises ValueError."""
    parse_label_selector(text)
    pairs = [p.replace("==", "=").partition("=") for p in text.split(",") if p]
    return {key.strip(): value.strip() for key, _, value in pairs}
