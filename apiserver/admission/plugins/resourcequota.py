"""ResourceQuota: what a namespace uses never passes what it may use.

Usage is written before the object is: a compare-and-swap on the quota's status, so that of many writers in many
servers only those that fit get through. If the object is not stored after all, its share is given back; when an
object goes, finishes or shrinks, its share is given back after that was stored. So the number in status is never too
low; a server that dies in between leaves it too high, until controllers/resourcequota.py counts again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apiserver.admission.chain import BasePlugin
from apiserver.registry.resource import Resource
from apiserver.registry.resources import Resources
from apiserver.request import CREATE, UPDATE, Attributes, WriteOptions, own_context
from navarch.api import quota
from navarch.api.errors import NotFound, StatusError, resource_forbidden
from navarch.api.kinds import Kind

Tree = dict[str, Any]
PREFIX = "/registry/resourcequotas/"
CHANGING = ("pods", "services", "persistentvolumeclaims")  # kinds whose share can change while they live
OPTIONS = WriteOptions(field_manager="kube-apiserver")


CONFIGURATION = ("apiserver.config.k8s.io/v1", "ResourceQuotaConfiguration")


def limited_resources(tree: Mapping[str, Any] | None) -> list[Tree]:
    """The limitedResources of a configuration. Raises ValueError."""
    if not tree:
        return []
    if (tree.get("apiVersion"), tree.get("kind")) != CONFIGURATION:
        raise ValueError(f"ResourceQuota: expected {CONFIGURATION[0]}, Kind={CONFIGURATION[1]}")
    out: list[Tree] = tree.get("limitedResources") or []
    for i, one in enumerate(out):
        if not one.get("resource"):
            raise ValueError(f"ResourceQuota: limitedResources[{i}].resource: Required value")
    return out


class ResourceQuota(BasePlugin):
    name = "ResourceQuota"

    def __init__(self, resources: Resources, limited: Sequence[Tree] = ()) -> None:
        """``limited``: what nobody may use without a quota that covers it (limitedResources of the configuration)."""
        self.resources, self._limited = resources, limited

    def handles(self, operation: str, kind: Kind) -> bool:
        if not kind.namespaced:
            return False
        return operation == CREATE or (operation == UPDATE and not kind.group and kind.resource in CHANGING)

    @property
    def _quotas(self) -> Resource:
        return self.resources["", "resourcequotas"]

    def _of(self, namespace: str, kind: Kind, obj: Tree) -> list[Tree]:
        """The quotas that the object counts against, in order of name."""
        entries = self._quotas.cache.list(PREFIX, namespace).entries
        quotas = [entry.tree() for entry in entries]
        return [q for q in quotas if quota.applies(q.get("spec") or {}, kind.group, kind.resource, obj)]

    def _any(self, namespace: str) -> bool:
        return bool(self._quotas.cache.list(PREFIX, namespace).entries)

    async def validate(self, attributes: Attributes) -> None:
        """Takes what the object needs. Raises Forbidden."""
        obj, kind = attributes.obj, attributes.kind
        if obj is None or (attributes.operation == CREATE and attributes.subresource):
            return
        quotas = self._of(attributes.namespace, kind, obj)
        if self._limited and attributes.operation == CREATE:
            self._covered(attributes, obj, quotas)
        if not quotas:
            return
        needs = quota.usage(kind.group, kind.resource, obj)
        old = attributes.old if attributes.operation == UPDATE else None
        had = quota.usage(kind.group, kind.resource, old) if old is not None else {}
        more = {name: n - had.get(name, 0) for name, n in needs.items() if n > had.get(name, 0)}
        for one in quotas:
            hard = (one.get("spec") or {}).get("hard") or {}
            if kind.resource == "pods" and not kind.group and attributes.operation == CREATE:
                silent = quota.missing(hard, obj)
                if silent:
                    name = one["metadata"]["name"]
                    raise self._forbid(attributes, f"failed quota: {name}: must specify {silent}")
            if any(name in hard for name in more):
                await self._take(attributes, one["metadata"]["name"], more)

    def _covered(self, attributes: Attributes, obj: Tree, quotas: list[Tree]) -> None:
        """Limited resources and scopes need a quota. Raises Forbidden."""
        kind = attributes.kind
        mine = [o for o in self._limited if (o.get("apiGroup") or "", o.get("resource")) == (kind.group, kind.resource)]
        if not mine:
            return
        used = quota.usage(kind.group, kind.resource, obj)
        parts = [part for one in mine for part in one.get("matchContains") or ()]
        covered = {name for one in quotas for name in (one.get("spec") or {}).get("hard") or ()}
        if bare := sorted(n for n in used if any(part in n for part in parts) and n not in covered):
            raise self._forbid(attributes, f"insufficient quota to consume: {','.join(bare)}")
        selectors = [s for one in mine for s in one.get("matchScopes") or ()]
        names = {s["scopeName"] for one in quotas for s in quota.selectors_of(one.get("spec") or {})}
        scopes = quota.within(selectors, kind.group, kind.resource, obj)
        if uncovered := [s for s in scopes if s["scopeName"] not in names]:
            shown = [f"{{{s['scopeName']} {s['operator']} [{' '.join(s.get('values') or ())}]}}" for s in uncovered]
            raise self._forbid(attributes, f"insufficient quota to match these scopes: [{' '.join(shown)}]")

    async def _take(self, attributes: Attributes, name: str, more: dict[str, int]) -> None:
        usage: dict[str, int] = {}

        def change(old: Tree) -> Tree:
            status = old.setdefault("status", {})
            hard, used = quota.amounts_of((old.get("spec") or {}).get("hard")), quota.amounts_of(status.get("used"))
            amounts = {n: v for n, v in more.items() if n in hard}
            unknown = [n for n in sorted(amounts) if n not in used]
            if unknown:
                raise self._forbid(attributes, f"status unknown for quota: {name}, resources: {','.join(unknown)}")
            over = [n for n in sorted(amounts) if used[n] + amounts[n] > hard[n]]
            if over:
                limits = (old.get("spec") or {}).get("hard") or {}
                shown = [_listed({n: d[n] for n in over}, limits) for d in (amounts, used, hard)]
                why = f"exceeded quota: {name}, requested: {shown[0]}, used: {shown[1]}, limited: {shown[2]}"
                raise self._forbid(attributes, why)
            usage.clear()
            usage.update(amounts)
            after = used | {n: used[n] + v for n, v in amounts.items()}
            status["used"] = quota.written(after, status.get("used"))
            return old

        options = WriteOptions(dry_run=True) if attributes.dry_run else OPTIONS
        try:
            await self._quotas.change(
                own_context(self._quotas.world), attributes.namespace, name, change, options, subresource="status", admit=False
            )
        except NotFound:
            return  # the quota went away
        if not attributes.dry_run:
            attributes.undo.append(lambda: self._give(attributes.namespace, name, usage))

    async def finished(self, attributes: Attributes) -> None:
        """After a change was stored: gives back what the object no longer needs."""
        kind, old, obj = attributes.kind, attributes.old, attributes.obj
        if old is None or obj is None or attributes.operation != UPDATE or not self._any(attributes.namespace):
            return
        had, needs = (quota.usage(kind.group, kind.resource, o) for o in (old, obj))
        less = {name: n - needs.get(name, 0) for name, n in had.items() if n > needs.get(name, 0)}
        if less:
            for one in self._of(attributes.namespace, kind, old):
                await self._give(attributes.namespace, one["metadata"]["name"], less)

    async def removed(self, kind: Kind, obj: Tree) -> None:
        """After an object has left the store."""
        namespace = obj["metadata"].get("namespace", "")
        if not namespace or not self._any(namespace):
            return
        had = quota.usage(kind.group, kind.resource, obj)
        for one in self._of(namespace, kind, obj):
            await self._give(namespace, one["metadata"]["name"], had)

    async def _give(self, namespace: str, name: str, less: dict[str, int]) -> None:
        def change(old: Tree) -> Tree:
            status = old.setdefault("status", {})
            used = quota.amounts_of(status.get("used"))
            after = {n: max(0, v - less.get(n, 0)) for n, v in used.items()}
            if after != used:
                status["used"] = quota.written(after, status.get("used"))
            return old

        try:
            await self._quotas.change(
                own_context(self._quotas.world), namespace, name, change, OPTIONS, subresource="status", admit=False
            )
        except StatusError:
            return  # gone, or the store is away: the controller counts again

    def _forbid(self, attributes: Attributes, why: str) -> StatusError:
        return resource_forbidden(attributes.kind.resource, attributes.kind.group, attributes.name, why)


def _listed(amounts: dict[str, int], like: Tree) -> str:
    return ",".join(f"{name}={value}" for name, value in quota.written(amounts, like).items())
