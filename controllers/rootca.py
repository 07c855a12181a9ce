"""Every namespace has the ConfigMap ``kube-root-ca.crt``: with it pods know the API server when they see it."""

from __future__ import annotations

import msgspec

from controllers.controller import Context, Controller, namespace_is_terminating
from navarch.api.errors import AlreadyExists, StatusError
from navarch.api.types import core_v1, meta_v1

NAME = "kube-root-ca.crt"
FILE = "ca.crt"
DESCRIPTION = "kubernetes.io/description"
TEXT = "The CA bundle that signs this cluster's API server, for clients inside the cluster."


class RootCAController(Controller):
    """Keys are namespaces."""

    name = "root-ca-certificate-publisher-controller"

    def __init__(self, context: Context, bundle: str) -> None:
        """``bundle``: the CA certificates as PEM text."""
        super().__init__(context)
        self.bundle = bundle
        self.namespaces = self.informer(core_v1.Namespace)
        # Only this one name: the ConfigMaps of a cluster can be many, and large.
        self.maps = context.informers.informer(core_v1.ConfigMap, field_selector=f"metadata.name={NAME}")
        self._informers.append(self.maps)
        self.enqueues(self.namespaces)
        self.maps.add_handler(self._map_changed)

    def _map_changed(self, kind: str, old: core_v1.ConfigMap | None, new: core_v1.ConfigMap) -> None:
        if new.metadata.name == NAME:
            self.queue.add(new.metadata.namespace or "")

    async def reconcile(self, key: str) -> float | None:
        namespace = self.namespaces.get_key(key)
        if namespace is None or namespace.status.phase == "Terminating" or namespace.metadata.deletion_timestamp:
            return None
        current = self.maps.get(key, NAME)
        data = {FILE: self.bundle}
        maps = self.client[core_v1.ConfigMap]
        if current is not None:
            annotations = current.metadata.annotations or {}
            if current.data == data and DESCRIPTION in annotations:
                return None
            metadata = msgspec.structs.replace(current.metadata, annotations={**annotations, DESCRIPTION: TEXT})
            await maps.update(msgspec.structs.replace(current, metadata=metadata, data=data))
            return None
        metadata = meta_v1.ObjectMeta(name=NAME, namespace=key, annotations={DESCRIPTION: TEXT})
        try:
            await maps.create(core_v1.ConfigMap(metadata=metadata, data=data))
        except AlreadyExists:
            pass
        except StatusError as error:
            if not namespace_is_terminating(error):
                raise
        return None
