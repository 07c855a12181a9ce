"""The Endpoints controller: the older form of the same, one object a service."""

from __future__ import annotations

from controllers.controller import Context
from controllers.endpoints import subsets
from controllers.endpoints.selecting import SelectingController
from navarch.api.errors import AlreadyExists, NotFound
from navarch.api.types import core_v1

Endpoints = core_v1.Endpoints


class EndpointsController(SelectingController):
    name = "endpoints-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.endpoints = self.informer(Endpoints)
        self.enqueues(self.endpoints)

    async def reconcile(self, key: str) -> float | None:
        service = self.services.get_key(key)
        current = self.endpoints.get_key(key)
        client = self.client[Endpoints]
        if service is None:
            # Ours carry our label; what people made for services without a selector stays.
            if current is not None and (current.metadata.labels or {}).get(subsets.MANAGED_BY) == subsets.MANAGER:
                try:
                    await client.delete(
                        current.metadata.name or "", current.metadata.namespace, uid=current.metadata.uid
                    )
                except NotFound:
                    pass
            return None
        if not service.spec.selector or service.metadata.deletion_timestamp is not None:
            return None
        pods = self.pods_of(service)
        desired = subsets.plan(service, pods, current, self.times.trigger(key, service, pods))
        if desired is None:
            return None
        if current is not None:
            await client.update(desired)
            return None
        try:
            await client.create(desired)
        except AlreadyExists:
            pass  # the cache is behind; its event brings the key back
        return None
