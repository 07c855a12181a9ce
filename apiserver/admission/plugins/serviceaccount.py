"""ServiceAccount: every pod runs as one, and finds its token, the cluster's CA and its namespace in a volume."""

from __future__ import annotations

from typing import Any

from apiserver.admission.chain import BasePlugin
from apiserver.admission.plugins.podreferences import is_mirror, secret_mentions
from apiserver.authn.tokens import WARN_SECONDS
from apiserver.authz.node import references
from apiserver.cache.cache import Cache
from apiserver.request import CREATE, UPDATE, Attributes
from navarch.api.errors import resource_forbidden
from navarch.api.kinds import Kind
from navarch.world import World, name_suffix

Tree = dict[str, Any]
PREFIX = "/registry/serviceaccounts/"
DEFAULT = "default"
ENFORCE = "kubernetes.io/enforce-mountable-secrets"
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
        return operation in (CREATE, UPDATE) and (kind.group, kind.resource) == ("", "pods")

    def changes(self, operation: str, kind: Kind) -> bool:
        return operation == CREATE

    async def admit(self, attributes: Attributes) -> None:
        pod = attributes.obj
        if pod is None or attributes.subresource:
            return
        spec = pod.setdefault("spec", {})
        if is_mirror(pod):
            return  # it shows what an agent runs anyway, and stays as it is
        name = spec.get("serviceAccountName") or DEFAULT
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = await self._account(attributes, name)
        if _automounts(account, spec):
            self._mount(spec)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [dict(r) for r in account["imagePullSecrets"]]

    async def validate(self, attributes: Attributes) -> None:
        pod = attributes.obj or {}
        spec = pod.get("spec") or {}
        if attributes.operation == UPDATE:
            if attributes.subresource == "ephemeralcontainers" and spec.get("serviceAccountName"):
                account = await self._account(attributes, spec["serviceAccountName"])
                if enforces(account):
                    self._environments(attributes, account, spec, "ephemeralContainers")
            return
        if attributes.subresource:
            return
        if is_mirror(pod):
            if why := _mirror_problem(pod, spec):
                raise self._forbid(attributes, f"a mirror pod may not {why}")
            return
        name = spec.get("serviceAccountName")
        if not name:
            raise self._forbid(attributes, f"no service account specified for pod {attributes.namespace}/{attributes.name}")
        account = await self._account(attributes, name)
        if enforces(account):
            self._mountable(attributes, account, spec)

    def _mountable(self, attributes: Attributes, account: Tree, spec: Tree) -> None:
        """Only secrets that the account lists. Raises Forbidden."""
        name, listed = account["metadata"]["name"], _listed(account, "secrets")
        for volume in spec.get("volumes") or ():
            secret = (volume.get("secret") or {}).get("secretName")
            if volume.get("secret") is not None and secret not in listed:
                why = f'volume with secret.secretName="{secret or ""}" is not allowed because service account {name} does not '
                raise self._forbid(attributes, why + "reference that secret")
        self._environments(attributes, account, spec, "initContainers", "containers")
        pulls = _listed(account, "imagePullSecrets")
        for i, reference in enumerate(spec.get("imagePullSecrets") or ()):
            if (reference.get("name") or "") not in pulls:
                why = f'imagePullSecrets[{i}].name="{reference.get("name") or ""}" is not allowed because service account '
                raise self._forbid(attributes, f"{why}{name} does not reference that imagePullSecret")

    def _environments(self, attributes: Attributes, account: Tree, spec: Tree, *fields: str) -> None:
        name, listed = account["metadata"]["name"], _listed(account, "secrets")
        for where, secret in secret_mentions(spec, *fields):
            if secret not in listed:
                why = f'{where} referencing secret.secretName="{secret}" is not allowed because service account {name} does '
                raise self._forbid(attributes, why + "not reference that secret")

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
        volume_name = next((v["name"] for v in volumes if v.get("name", "").startswith(VOLUME)), "")
        name = volume_name or VOLUME + name_suffix(self.world)
        used = False
        for field in ("initContainers", "containers"):
            for container in spec.get(field) or ():
                mounts = container.get("volumeMounts") or []
                if any(m.get("mountPath") == MOUNT_PATH for m in mounts):
                    continue
                mount = {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}
                container["volumeMounts"] = [*mounts, mount]
                used = True
        if used and not volume_name:
            spec["volumes"] = [*volumes, token_volume(name)]


def enforces(account: Tree) -> bool:
    """Whether the account's pods may use only the secrets that it lists."""
    return str((account["metadata"].get("annotations") or {}).get(ENFORCE, "")) in ("1", "t", "T", "true", "TRUE", "True")


def _listed(account: Tree, field: str) -> set[str]:
    return {one.get("name") or "" for one in account.get(field) or ()}


def _mirror_problem(pod: Tree, spec: Tree) -> str:
    if spec.get("serviceAccountName"):
        return "reference service accounts"
    if references(pod, "secrets"):
        return "reference secrets"
    sources = [s for v in spec.get("volumes") or () for s in (v.get("projected") or {}).get("sources") or ()]
    if any(source.get("serviceAccountToken") is not None for source in sources):
        return "use ServiceAccountToken volume projections"
    return ""


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
