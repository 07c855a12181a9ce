"""ServiceAccount: every pod runs as one, and finds its token, the cluster's CA and its namespace in a volume."""

from __future__ import annotations

from typing import Any

from apiserver.admission.chain import BasePlugin
from apiserver.authn.tokens import WARN_SECONDS
from apiserver.cache.cache import Cache
from apiserver.request import CREATE, Attributes
from navarch.api.errors import resource_forbidden
from navarch.api.kinds import Kind
from navarch.world import World, name_suffix

Tree = dict[str, Any]
PREFIX = "/registry/serviceaccounts/"
DEFAULT = "default"
MIRROR = "kubernetes.io/config.mirror"
MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
VOLUME = "kube-api-access-"
ROOT_CA = "kube-root-ca.crt"
# The default account of a new namespace is made by a controller: a pod may come first and waits a little.
ATTEMPTS, PAUSE = 20, 0.1


class ServiceAccount(BasePlugin):
    name = "ServiceAccount"

    def __init__(self, world: World, cache: Cache) -> None:
        self.world, self.cache = world, cache

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation == CREATE and (kind.group, kind.resource) == ("", "pods")

    async def admit(self, attributes: Attributes) -> None:
        pod = attributes.obj
        if pod is None or attributes.subresource:
            return
        spec = pod.setdefault("spec", {})
        if MIRROR in (pod["metadata"].get("annotations") or {}):
            # A mirror pod only shows what an agent runs anyway; it may not gain access through the API.
            if spec.get("serviceAccountName"):
                raise self._forbid(attributes, "a mirror pod may not reference service accounts")
            return
        name = spec.get("serviceAccountName") or DEFAULT
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = await self._account(attributes, name)
        if _automounts(account, spec):
            self._mount(spec)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [dict(r) for r in account["imagePullSecrets"]]

    async def _account(self, attributes: Attributes, name: str) -> Tree:
        entry = self.cache.get(PREFIX, attributes.namespace, name)
        if entry is None:
            await self.cache.current()
            entry = self.cache.get(PREFIX, attributes.namespace, name)
        attempt = 0
        while entry is None and name == DEFAULT and attempt < ATTEMPTS:
            await self.world.sleep(PAUSE)
            entry = self.cache.get(PREFIX, attributes.namespace, name)
            attempt += 1
        if entry is None:
            where = f"{attributes.namespace}/{name}"
            why = f'error looking up service account {where}: serviceaccount "{name}" not found'
            raise self._forbid(attributes, why)
        return entry.tree()

    def _forbid(self, attributes: Attributes, why: str) -> Exception:
        return resource_forbidden("pods", "", attributes.name, why)

    def _mount(self, spec: Tree) -> None:
        """Adds the token volume and mounts it where no container has something of its own."""
        volumes = spec.get("volumes") or []
        found = next((v["name"] for v in volumes if v.get("name", "").startswith(VOLUME)), "")
        name = found or VOLUME + name_suffix(self.world)
        used = False
        for field in ("initContainers", "containers"):
            for container in spec.get(field) or ():
                mounts = container.get("volumeMounts") or []
                if any(m.get("mountPath") == MOUNT_PATH for m in mounts):
                    continue
                mount = {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}
                container["volumeMounts"] = [*mounts, mount]
                used = True
        if used and not found:
            spec["volumes"] = [*volumes, token_volume(name)]


def _automounts(account: Tree, spec: Tree) -> bool:
    """The pod decides, else the account, else yes."""
    for holder in (spec, account):
        if holder.get("automountServiceAccountToken") is not None:
            return bool(holder["automountServiceAccountToken"])
    return True


def token_volume(name: str) -> Tree:
    field = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": WARN_SECONDS, "path": "token"}},
        {"configMap": {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [field]}},
    ]
    return {"name": name, "projected": {"sources": sources, "defaultMode": 0o644}}
