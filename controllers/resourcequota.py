"""The resource quota controller: counts what a namespace uses when a quota is new or says something else, and counts
again now and then.

The API server keeps the count itself (its admission takes before an object is stored, and gives back after it went),
so counting anew is only for what it cannot know: what was there before the quota, and what a server took and did not
live to give back. Shares that are taken for objects that are not stored yet must not be lost by counting too early:
a count replaces the number only if nobody has touched the quota for a while.
"""

from __future__ import annotations

import asyncio
from typing import Any

from controllers.controller import Context, Controller
from navarch.api import quota
from navarch.api.errors import NotFound
from navarch.api.kinds import BY_RESOURCE, KINDS, Kind
from navarch.api.types import core_v1

Tree = dict[str, Any]
RESYNC = 300.0
"""Seconds between counts (kube-controller-manager's --resource-quota-sync-period)."""
QUIET = 10.0
"""Longer than any write is under way."""


class ResourceQuotaController(Controller):
    name = "resourcequota-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.quotas = self.informer(core_v1.ResourceQuota)
        self.quotas.add_handler(self._changed)
        self.keys_are_of(self.quotas)
        self.version_at_wait: dict[str, str] = {}  # key -> the version at which we began to wait

    def _changed(self, kind: str, old: core_v1.ResourceQuota | None, new: core_v1.ResourceQuota) -> None:
        if kind == "ADDED" or old is None or old.spec != new.spec or kind == "DELETED":
            self.enqueue(new)

    async def reconcile(self, key: str) -> float | None:
        cached = self.quotas.get_key(key)
        if cached is None:
            self.version_at_wait.pop(key, None)
            return None
        name, namespace = cached.metadata.name or "", cached.metadata.namespace or ""
        quotas = self.client.tree(BY_RESOURCE["", "v1", "resourcequotas"])
        try:
            tree: Tree = await quotas.get(name, namespace)
        except NotFound:
            return None
        hard, status = (tree.get("spec") or {}).get("hard") or {}, tree.get("status") or {}
        version = tree["metadata"]["resourceVersion"]
        unknown = [n for n in hard if n not in (status.get("used") or {})]
        if hard == (status.get("hard") or {}) and not unknown and self.version_at_wait.get(key) != version:
            self.version_at_wait[key] = version
            return QUIET
        used = await self._count(tree, namespace, list(hard))
        if not unknown and hard != status.get("hard"):
            # What was counted so far stays: only what may be used has changed.
            used = {n: v for n, v in quota.amounts_of(status.get("used")).items() if n in hard}
        written = quota.written(used, hard)
        if (status.get("hard") or {}) != hard or quota.amounts_of(status.get("used")) != used:
            tree["status"] = {"hard": hard, "used": written}
            updated: Tree = await quotas.update_status(tree)
            version = updated["metadata"]["resourceVersion"]
        self.version_at_wait[key] = version
        return RESYNC

    async def _count(self, tree: Tree, namespace: str, names: list[str]) -> dict[str, int]:
        """Counts the use of each of ``names``, from lists that are up to date."""
        used = dict.fromkeys(names, 0)
        for kind in self._kinds(names):
            listed = await self.client.tree(kind).list(namespace)
            for number, obj in enumerate(listed.items):
                if not quota.applies(tree.get("spec") or {}, kind.group, kind.resource, obj):
                    continue
                for name, amount in quota.usage(kind.group, kind.resource, obj).items():
                    if name in used:
                        used[name] += amount
                if number % 500 == 499:
                    await asyncio.sleep(0)
        return used

    def _kinds(self, names: list[str]) -> list[Kind]:
        """The kinds that have to be gone through for these names; of kinds in several versions the first."""
        chosen: dict[tuple[str, str], Kind] = {}
        for kind in KINDS:
            if kind.namespaced and any(_counts(kind, name) for name in names):
                chosen.setdefault((kind.group, kind.resource), kind)
        return list(chosen.values())


def _counts(kind: Kind, name: str) -> bool:
    """Whether objects of the kind count for that name of a quota."""
    if name == quota.count_name(kind.group, kind.resource):
        return True
    if kind.group:
        return False
    match kind.resource:
        case "pods":
            return _of_pods(name)
        case "services" if name.startswith("services."):
            return True
        case "persistentvolumeclaims" if name.endswith(("requests.storage", "/persistentvolumeclaims")):
            return True
    return kind.resource in quota.COUNTED and name == kind.resource


def _of_pods(name: str) -> bool:
    if name == "pods" or name in quota.BOTH or name.startswith(("limits.", "hugepages-")):
        return True
    return name.startswith("requests.") and name != "requests.storage"
