"""Namespaces on their way out: deletes all that is in them, pods first, then lets them go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from controllers.controller import Context, Controller
from controllers.servedkinds import PartialObject, Resource, served
from navarch.api.conditions import set_condition
from navarch.api.errors import MethodNotAllowed, NotFound, StatusError
from navarch.api.times import format_time
from navarch.api.types import core_v1
from navarch.client.transport import TransportError

Namespace = core_v1.Namespace

FINALIZER = "kubernetes"
FIRST_LOOK, LAST_LOOK = 0.25, 15.0
"""Seconds until we look again whether what was deleted is gone; doubling."""


@dataclass
class Content:
    """The findings of one pass over a namespace. Counts are by ``resource.group`` and by finalizer."""

    remaining: dict[str, int] = field(default_factory=dict)
    finalizers: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    discovery: str = ""

    @property
    def clear(self) -> bool:
        return not (self.remaining or self.failures or self.discovery)


def conditions(content: Content) -> list[core_v1.NamespaceCondition]:
    """The namespace's conditions, as upstream words them."""

    def make(type_: str, bad: bool, reason: str, message: str, good: tuple[str, str]) -> core_v1.NamespaceCondition:
        if not bad:
            reason, message = good
        return core_v1.NamespaceCondition(
            type=type_, status="True" if bad else "False", reason=reason, message=message
        )

    resources = ", ".join(f"{name} has {count} resource instances" for name, count in sorted(content.remaining.items()))
    finalizers = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(content.finalizers.items()))
    failed = ", ".join(sorted(content.failures))
    return [
        make(
            "NamespaceDeletionDiscoveryFailure",
            bool(content.discovery),
            "DiscoveryFailed",
            f"Discovery failed for some groups, 1 failing: {content.discovery}",
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        make(
            "NamespaceDeletionGroupVersionParsingFailure",
            False,
            "",
            "",
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        make(
            "NamespaceDeletionContentFailure",
            bool(content.failures),
            "ContentDeletionFailed",
            f"Failed to delete all resource types, {len(content.failures)} remaining: {failed}",
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        make(
            "NamespaceContentRemaining",
            bool(content.remaining),
            "SomeResourcesRemain",
            f"Some resources are remaining: {resources}",
            ("ContentRemoved", "All content successfully removed"),
        ),
        make(
            "NamespaceFinalizersRemaining",
            bool(content.finalizers),
            "SomeFinalizersRemain",
            f"Some content in the namespace has finalizers remaining: {finalizers}",
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ]


class NamespaceController(Controller):
    """Keys are namespaces."""

    name = "namespace-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.namespaces = self.informer(Namespace)
        self.pods = self.informer(core_v1.Pod)
        self._looks: dict[str, int] = {}
        self.enqueues(self.namespaces, lambda ns: ns.metadata.deletion_timestamp is not None)
        self.pods.add_handler(self._pod_changed)

    def _pod_changed(self, kind: str, old: core_v1.Pod | None, new: core_v1.Pod) -> None:
        """When the last pod of a dying namespace is gone the rest can go at once."""
        namespace = new.metadata.namespace or ""
        if kind == "DELETED" and namespace in self._looks and not self.pods.list(namespace):
            self.queue.add(namespace)

    async def reconcile(self, key: str) -> float | None:
        namespace = self.namespaces.get_key(key)
        if namespace is None or namespace.metadata.deletion_timestamp is None:
            self._looks.pop(key, None)
            return None
        if FINALIZER not in (namespace.spec.finalizers or ()):
            return None
        if namespace.status.phase != "Terminating":
            namespace = await self._write(namespace, msgspec.structs.replace(namespace.status, phase="Terminating"))
        content = await self._clear(key)
        changed = False
        listed: list[core_v1.NamespaceCondition] = list(namespace.status.conditions or ())
        for condition in conditions(content):
            listed, new = set_condition(listed, condition, format_time(self.world.now()))
            changed = changed or new
        if changed and not (content.clear and not namespace.status.conditions):
            namespace = await self._write(namespace, msgspec.structs.replace(namespace.status, conditions=listed))
        if content.clear:
            await self._finalize(namespace)
            self._looks.pop(key, None)
            return None
        looks = self._looks[key] = self._looks.get(key, 0) + 1
        return min(LAST_LOOK, FIRST_LOOK * 2.0 ** min(looks - 1, 20))

    async def _write(self, namespace: Namespace, status: core_v1.NamespaceStatus) -> Namespace:
        return await self.client[Namespace].update_status(msgspec.structs.replace(namespace, status=status))

    async def _finalize(self, namespace: Namespace) -> None:
        finalizers = [f for f in namespace.spec.finalizers or () if f != FINALIZER]
        spec = msgspec.structs.replace(namespace.spec, finalizers=finalizers or None)
        try:
            await self.client[Namespace].sub(
                namespace.metadata.name or "",
                None,
                "finalize",
                msgspec.structs.replace(namespace, spec=spec),
                method="PUT",
            )
        except NotFound:
            pass

    async def _clear(self, name: str) -> Content:
        """Deletes what the namespace holds. As long as pods are left nothing else is touched: they may need it."""
        content = Content()
        try:
            resources = [r for r in await served(self.client) if r.kind.namespaced and r.can("list", "delete")]
        except (StatusError, TransportError) as error:
            content.discovery = str(error)
            return content
        pods = [r for r in resources if r.name == ("", "pods")]
        await self._clear_all(name, pods, content)
        if content.clear:
            await self._clear_all(name, [r for r in resources if r.name != ("", "pods")], content)
        return content

    async def _clear_all(self, name: str, resources: Sequence[Resource], content: Content) -> None:
        for resource in resources:
            try:
                remaining = await self._clear_one(name, resource)
            except (StatusError, TransportError) as error:
                content.failures.append(str(error))
                continue
            if remaining:
                content.remaining[f"{resource.kind.resource}.{resource.kind.group}"] = len(remaining)
            for obj in remaining:
                for finalizer in obj.metadata.finalizers or ():
                    content.finalizers[finalizer] = content.finalizers.get(finalizer, 0) + 1

    async def _clear_one(self, name: str, resource: Resource) -> list[PartialObject]:
        """Deletes the objects of one resource and returns those that are left."""
        client = self.client.resource(resource.kind, PartialObject)
        objects = (await client.list(name)).items
        if not objects:
            return []
        deleted = False
        if resource.can("deletecollection"):
            try:
                await client.delete_collection(name, propagation_policy="Background")
                deleted = True
            except (MethodNotAllowed, NotFound):
                pass
        if not deleted:
            for obj in objects:
                try:
                    await client.delete(obj.metadata.name or "", name, propagation_policy="Background")
                except NotFound:
                    pass
        return (await client.list(name)).items
