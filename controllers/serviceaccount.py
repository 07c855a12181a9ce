"""Every namespace has the service account ``default``, which pods get that name none."""

from __future__ import annotations

from controllers.controller import Context, Controller, namespace_is_terminating
from navarch.api.errors import AlreadyExists, StatusError
from navarch.api.types import core_v1, meta_v1

NAME = "default"


class ServiceAccountController(Controller):
    """Keys are namespaces."""

    name = "serviceaccount-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.namespaces = self.informer(core_v1.Namespace)
        self.accounts = self.informer(core_v1.ServiceAccount)
        self.enqueues(self.namespaces)
        self.accounts.add_handler(self._account_changed)

    def _account_changed(self, kind: str, old: core_v1.ServiceAccount | None, new: core_v1.ServiceAccount) -> None:
        if kind == "DELETED" and new.metadata.name == NAME:
            self.queue.add(new.metadata.namespace or "")

    async def reconcile(self, key: str) -> float | None:
        namespace = self.namespaces.get_key(key)
        if namespace is None or namespace.status.phase == "Terminating" or namespace.metadata.deletion_timestamp:
            return None
        if self.accounts.get(key, NAME) is not None:
            return None
        account = core_v1.ServiceAccount(metadata=meta_v1.ObjectMeta(name=NAME, namespace=key))
        try:
            await self.client[core_v1.ServiceAccount].create(account)
        except AlreadyExists:
            pass
        except StatusError as error:
            if not namespace_is_terminating(error):
                raise
        return None
