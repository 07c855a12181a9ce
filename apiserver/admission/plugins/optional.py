"""Plugins that are off unless a cluster asks for them; each is a few lines of policy on pods, services or namespaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apiserver.admission.chain import CREATE, UPDATE, BasePlugin
from apiserver.admission.plugins.runtimeclass import covers, merged
from apiserver.request import Attributes
from navarch.api.errors import AlreadyExists, resource_forbidden, resource_not_found
from navarch.api.kinds import Kind
from navarch.api.selectors import parse_label_selector

if TYPE_CHECKING:
    from apiserver.server import APIServer

Tree = dict[str, Any]
NAMESPACES = "/registry/namespaces/"
HOSTNAME = "kubernetes.io/hostname"


def _forbid(attributes: Attributes, why: str) -> Exception:
    return resource_forbidden(attributes.kind.resource, attributes.kind.group, attributes.name, why)


class _OfPods(BasePlugin):
    operations: tuple[str, ...] = (CREATE,)

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation in self.operations and (kind.group, kind.resource) == ("", "pods")


class AlwaysAdmit(BasePlugin):
    name = "AlwaysAdmit"

    def handles(self, operation: str, kind: Kind) -> bool:
        return False


class AlwaysDeny(BasePlugin):
    name = "AlwaysDeny"

    async def validate(self, attributes: Attributes) -> None:
        raise _forbid(attributes, "admission control is denying all modifications")


class AlwaysPullImages(_OfPods):
    """Whoever runs an image has shown that he may pull it: nobody borrows another's image from the node."""

    name = "AlwaysPullImages"
    operations = (CREATE, UPDATE)

    async def admit(self, attributes: Attributes) -> None:
        if not self._ignored(attributes):
            for container in _containers((attributes.obj or {}).get("spec") or {}):
                container["imagePullPolicy"] = "Always"

    async def validate(self, attributes: Attributes) -> None:
        if self._ignored(attributes):
            return
        for container in _containers((attributes.obj or {}).get("spec") or {}):
            if container.get("imagePullPolicy") != "Always":
                raise _forbid(attributes, "image pull policy must be Always")

    def _ignored(self, attributes: Attributes) -> bool:
        if attributes.subresource:
            return True
        images = [[c.get("image") for c in _containers((t or {}).get("spec") or {})] for t in (attributes.obj, attributes.old)]
        return attributes.operation == UPDATE and set(images[0]) <= set(images[1])


def _containers(spec: Tree) -> list[Tree]:
    return [c for f in ("initContainers", "containers", "ephemeralContainers") for c in spec.get(f) or ()]


class LimitPodHardAntiAffinityTopology(_OfPods):
    name = "LimitPodHardAntiAffinityTopology"

    async def validate(self, attributes: Attributes) -> None:
        affinity = ((attributes.obj or {}).get("spec") or {}).get("affinity") or {}
        terms = (affinity.get("podAntiAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        if not attributes.subresource and any(t.get("topologyKey") != HOSTNAME for t in terms):
            raise _forbid(attributes, (
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey "
                f"{next(t.get('topologyKey') for t in terms if t.get('topologyKey') != HOSTNAME)} but only key "
                f"{HOSTNAME} is allowed"
            ))  # fmt: skip


class ExtendedResourceToleration(_OfPods):
    """A pod that asks for a device tolerates the taint of that name, which keeps others off the nodes that have it."""

    name = "ExtendedResourceToleration"
    operations = (CREATE, UPDATE)

    async def admit(self, attributes: Attributes) -> None:
        spec = (attributes.obj or {}).get("spec") or {}
        if attributes.subresource:
            return
        asked = {n for c in _containers(spec) for n in (c.get("resources") or {}).get("requests") or ()}
        extended = sorted(n for n in asked if "/" in n and not n.partition("/")[0].endswith("kubernetes.io"))
        for name in extended:
            own = {"key": name, "operator": "Exists", "effect": "NoSchedule"}
            found = spec.get("tolerations") or []
            if not any(t.get("key") == name and t.get("operator") == "Exists" for t in found):
                spec["tolerations"] = [*found, own]


class PodNodeSelector(_OfPods):
    """Pods of a namespace go to the nodes that its annotation names."""

    name = "PodNodeSelector"
    annotation = "scheduler.alpha.kubernetes.io/node-selector"

    def __init__(self, server: APIServer, configuration: Tree) -> None:
        self.cache = server.cache
        self.limits: dict[str, str] = configuration.get("podNodeSelectorPluginConfig") or {}

    def _selector(self, attributes: Attributes) -> dict[str, str]:
        entry = self.cache.get(NAMESPACES, None, attributes.namespace)
        notes = (entry.tree()["metadata"].get("annotations") or {}) if entry is not None else {}
        text = notes.get(self.annotation, self.limits.get("clusterDefaultNodeSelector", ""))
        return _equalities(text)

    async def admit(self, attributes: Attributes) -> None:
        if attributes.subresource or attributes.obj is None:
            return
        wanted, spec = self._selector(attributes), attributes.obj["spec"]
        own = spec.get("nodeSelector") or {}
        if any(own.get(k, v) != v for k, v in wanted.items()):
            raise _forbid(attributes, "pod node label selector conflicts with its namespace node label selector")
        if wanted:
            spec["nodeSelector"] = own | wanted

    async def validate(self, attributes: Attributes) -> None:
        if attributes.subresource or attributes.obj is None:
            return
        own = attributes.obj["spec"].get("nodeSelector") or {}
        if any(own.get(k) != v for k, v in self._selector(attributes).items()):
            raise _forbid(attributes, "pod node label selector conflicts with its namespace node label selector")
        if attributes.namespace in self.limits:
            allowed = _equalities(self.limits[attributes.namespace])
            if any(allowed.get(k) != v for k, v in own.items()):
                raise _forbid(attributes, "pod node label selector labels conflict with its namespace whitelist")


def _equalities(text: str) -> dict[str, str]:
    """``a=b,c=d`` as a dict. Raises ValueError."""
    parse_label_selector(text)
    pairs = [p.replace("==", "=").partition("=") for p in text.split(",") if p]
    return {key.strip(): value.strip() for key, _, value in pairs}


class PodTolerationRestriction(_OfPods):
    """Pods tolerate what their namespace's annotations give them, and nothing that these do not allow."""

    name = "PodTolerationRestriction"
    operations = (CREATE, UPDATE)
    defaults = "scheduler.alpha.kubernetes.io/defaultTolerations"
    allowed = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"

    def __init__(self, server: APIServer) -> None:
        self.cache = server.cache

    def _listed(self, attributes: Attributes, annotation: str) -> list[Tree]:
        import orjson

        entry = self.cache.get(NAMESPACES, None, attributes.namespace)
        text = (entry.tree()["metadata"].get("annotations") or {}).get(annotation) if entry is not None else None
        try:
            found: Any = orjson.loads(text) if text else []
        except orjson.JSONDecodeError as error:
            raise _forbid(attributes, f"the annotation {annotation} of the namespace is no list: {error}") from None
        return found if isinstance(found, list) else []

    async def admit(self, attributes: Attributes) -> None:
        if attributes.subresource or attributes.obj is None:
            return
        spec, old = attributes.obj["spec"], ((attributes.old or {}).get("spec") or {})
        if attributes.operation == UPDATE and spec.get("tolerations") == old.get("tolerations"):
            return
        given = self._listed(attributes, self.defaults) if attributes.operation == CREATE else []
        if given:
            spec["tolerations"] = merged(spec.get("tolerations") or [], given)

    async def validate(self, attributes: Attributes) -> None:
        if attributes.subresource or attributes.obj is None:
            return
        allowed = self._listed(attributes, self.allowed)
        for toleration in attributes.obj["spec"].get("tolerations") or () if allowed else ():
            if not any(covers(one, toleration) for one in allowed):
                raise _forbid(attributes, "pod tolerations (possibly merged with namespace default tolerations) conflict "
                                          "with its namespace whitelist")  # fmt: skip


class DenyServiceExternalIPs(BasePlugin):
    name = "DenyServiceExternalIPs"

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation in (CREATE, UPDATE) and (kind.group, kind.resource) == ("", "services")

    async def validate(self, attributes: Attributes) -> None:
        new, old = (set(((t or {}).get("spec") or {}).get("externalIPs") or ()) for t in (attributes.obj, attributes.old))
        if not attributes.subresource and new - old:
            raise _forbid(attributes, "Use of external IPs is denied by admission control.")


class _OfNamespaced(BasePlugin):
    def __init__(self, server: APIServer) -> None:
        self.server = server

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation == CREATE and kind.namespaced

    async def _there(self, namespace: str) -> bool:
        cache = self.server.cache
        if cache.get(NAMESPACES, None, namespace) is None:
            await cache.current()
        return cache.get(NAMESPACES, None, namespace) is not None


class NamespaceExists(_OfNamespaced):
    name = "NamespaceExists"

    async def validate(self, attributes: Attributes) -> None:
        if not await self._there(attributes.namespace):
            raise resource_not_found("namespaces", "", attributes.namespace)


class NamespaceAutoProvision(_OfNamespaced):
    """The first object of a namespace makes it."""

    name = "NamespaceAutoProvision"

    async def admit(self, attributes: Attributes) -> None:
        if attributes.dry_run or await self._there(attributes.namespace):
            return
        from apiserver.request import WriteOptions

        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": attributes.namespace}}
        try:
            await self.server.resource("", "namespaces").create(self.server.context(), "", made, WriteOptions())
        except AlreadyExists:
            return
        await self.server.cache.current()
