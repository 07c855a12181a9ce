"""The checks of /healthz, /livez and /readyz, under upstream's names.

What upstream's hooks start one by one, our server starts in three steps: the cache is filled, the default objects are
made, the loops run. Each name stands for the step that does the same here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from apiserver.cache.cache import Cache
from apiserver.storage.health import StoreHealth

Check = Callable[[], Awaitable[None]]

CACHE_HOOKS = (
    "generic-apiserver-start-informers", "storage-object-count-tracker-hook", "start-apiextensions-informers",
    "crd-informer-synced", "start-kube-aggregator-informers",
)  # fmt: skip
OBJECT_HOOKS = (
    "start-system-namespaces-controller", "start-cluster-authentication-info-controller", "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes", "priority-and-fairness-config-producer", "bootstrap-controller",
    "start-service-ip-repair-controllers", "kube-apiserver-autoregistration",
)  # fmt: skip
LOOP_HOOKS = (
    "start-apiserver-admission-initializer", "priority-and-fairness-config-consumer", "priority-and-fairness-filter",
    "start-apiextensions-controllers", "start-legacy-token-tracking-controller", "apiservice-registration-controller",
    "apiservice-discovery-controller", "apiservice-status-local-available-controller",
    "apiservice-status-remote-available-controller", "apiservice-openapi-controller", "apiservice-openapiv3-controller",
)  # fmt: skip


class NotYet(Exception):
    """A step of the start is still to be made, or to be made again."""


class Health:
    """``objects``, ``loops``: set once those steps are done; ``objects`` is cleared when the store has lost them."""

    def __init__(self, cache: Cache, store: StoreHealth, stopping: asyncio.Event) -> None:
        self._cache, self._store, self._stopping = cache, store, stopping
        self.objects, self.loops = asyncio.Event(), asyncio.Event()

    def checks(self, which: str) -> dict[str, Check]:
        """Of healthz, livez or readyz; each raises if something is wrong, with the reason."""
        checks: dict[str, Check] = {"ping": _passes, "log": _passes, "etcd": self._store.check}
        if which == "readyz":
            checks["etcd-readiness"] = self._store.check
            checks["informer-sync"] = self._cached
        hooks = dict.fromkeys(CACHE_HOOKS, self._cached)
        hooks |= dict.fromkeys(OBJECT_HOOKS, self._has_default_objects)
        hooks |= dict.fromkeys(LOOP_HOOKS, self._running)
        checks |= {f"poststarthook/{name}": check for name, check in hooks.items()}
        checks["autoregister-completion"] = self._has_default_objects
        if which == "readyz":
            checks["shutdown"] = self._stays
        return checks

    async def _cached(self) -> None:
        if not self._cache.ready:
            raise NotYet("the cache is being filled")

    async def _has_default_objects(self) -> None:
        await self._cached()
        if not self.objects.is_set():
            raise NotYet("the default objects are being made")

    async def _running(self) -> None:
        if not self.loops.is_set():
            raise NotYet("the server is starting")

    async def _stays(self) -> None:
        if self._stopping.is_set():
            raise NotYet("the server is shutting down")


async def _passes() -> None:
    return None
