"""The ConfigMaps and Secrets that the pods of this node name, each watched by itself.

A node may read only what its pods use, so there is one small watch for each object in use and none for whole
namespaces. Objects are counted by the pods that hold them; the last holder to leave ends the watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.informer import Informer
from navarch.world import TaskGroup, World
from nodeagent.pods.environment import Objects, Reference

Key = tuple[str, Reference]  # namespace and reference
_TYPES: dict[str, Any] = {"ConfigMap": core_v1.ConfigMap, "Secret": core_v1.Secret}


class ObjectCache:
    """``changed(pod_uid)`` is called when an object that the pod holds has changed."""

    def __init__(self, client: Client, world: World, group: TaskGroup, changed: Callable[[str], None]) -> None:
        self._client, self._world, self._group, self._changed = client, world, group, changed
        self._informers: dict[Key, tuple[Informer[Any], asyncio.Task[None]]] = {}
        self._holders: dict[Key, dict[str, None]] = {}
        self._keys: dict[str, dict[Key, None]] = {}

    def hold(self, pod_uid: str, namespace: str, references: Iterable[Reference]) -> None:
        """From now on the pod holds exactly these objects."""
        keys: dict[Key, None] = dict.fromkeys((namespace, r) for r in references)
        before = self._keys.get(pod_uid, {})
        for key in keys:
            if key not in before:
                self._holders.setdefault(key, {})[pod_uid] = None
                if key not in self._informers:
                    self._watch(key)
        for key in before:
            if key not in keys:
                self._drop(pod_uid, key)
        self._keys[pod_uid] = keys
        if not keys:
            del self._keys[pod_uid]

    def release(self, pod_uid: str) -> None:
        self.hold(pod_uid, "", ())

    async def get(self, namespace: str, references: Iterable[Reference], timeout: float = 10.0) -> Objects:
        """The objects of references that a pod holds; those that do not exist are None.

        Raises TimeoutError when the API server does not say within ``timeout`` seconds.
        """
        objects: dict[Reference, core_v1.ConfigMap | core_v1.Secret | None] = {}
        for reference in dict.fromkeys(references):
            informer, _ = self._informers[namespace, reference]
            if not informer.synced:
                async with asyncio.timeout(timeout):
                    await informer.wait_synced()
            objects[reference] = cast(Any, informer.get(namespace, reference.name))
        return objects

    def _watch(self, key: Key) -> None:
        namespace, reference = key
        informer: Informer[Any] = Informer(
            self._client[_TYPES[reference.kind]], namespace, field_selector=f"metadata.name={reference.name}"
        )

        def handler(kind: str, old: Any, new: Any) -> None:
            if not informer.synced:
                return  # the first list is no change
            for uid in list(self._holders.get(key, ())):
                self._changed(uid)

        informer.add_handler(handler)
        name = f"watch {reference.kind} {namespace}/{reference.name}"
        self._informers[key] = informer, self._group.start(informer.run(), name=name)

    def _drop(self, pod_uid: str, key: Key) -> None:
        holders = self._holders[key]
        holders.pop(pod_uid, None)
        if not holders:
            del self._holders[key]
            _, task = self._informers.pop(key)
            task.cancel()
