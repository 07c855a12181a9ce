"""Secrets of type kubernetes.io/service-account-token: a token that never ends for the account that they name, for who
asks for one by hand. They go with their account."""

from __future__ import annotations

import base64
from typing import TypeAlias

import jwt
import msgspec

from controllers.controller import Context, Controller
from navarch.api import wellknown
from navarch.api.errors import NotFound
from navarch.api.signing import Key
from navarch.api.types import core_v1

TYPE = wellknown.SERVICE_ACCOUNT_TOKEN
NAME, UID = wellknown.SERVICE_ACCOUNT_NAME, "kubernetes.io/service-account.uid"
ISSUER = "kubernetes/serviceaccount"
BY_ACCOUNT = "account"
Secret: TypeAlias = core_v1.Secret
ServiceAccount: TypeAlias = core_v1.ServiceAccount


class AccountTokenController(Controller):
    """Keys are Secrets. ``root_ca``: PEM text that is given along."""

    name = "serviceaccount-token-controller"

    def __init__(self, context: Context, signer: Key, root_ca: str) -> None:
        super().__init__(context)
        self.signer, self.root_ca = signer, root_ca
        self.secrets = context.informers.informer(
            Secret, field_selector=f"type={TYPE}", indexers={BY_ACCOUNT: lambda s: [_account(s)]}
        )
        self._informers.append(self.secrets)
        self.accounts = self.informer(ServiceAccount)
        self.enqueues(self.secrets)
        self.accounts.add_handler(self._account_changed)

    def _account_changed(self, kind: str, old: ServiceAccount | None, new: ServiceAccount) -> None:
        for secret in self.secrets.by_index(BY_ACCOUNT, f"{new.metadata.namespace}/{new.metadata.name}"):
            self.enqueue(secret)

    async def reconcile(self, key: str) -> float | None:
        secret = self.secrets.get_key(key)
        if secret is None or secret.metadata.deletion_timestamp:
            return None
        namespace, name = secret.metadata.namespace or "", secret.metadata.name or ""
        annotations = secret.metadata.annotations or {}
        account = await self._of(namespace, annotations.get(NAME) or "")
        if account is None or annotations.get(UID, account.metadata.uid) != account.metadata.uid:
            try:
                await self.client[Secret].delete(name, namespace, uid=secret.metadata.uid)
            except NotFound:
                pass
            return None
        desired = {"namespace": _packed(namespace)}
        if self.root_ca:
            desired["ca.crt"] = _packed(self.root_ca)
        data = secret.data or {}
        if not data.get("token"):
            desired["token"] = _packed(self._token(namespace, name, account))
        filled = data | desired
        if filled == data and annotations.get(UID):
            return None
        metadata = msgspec.structs.replace(
            secret.metadata, annotations=annotations | {UID: account.metadata.uid or ""}
        )
        await self.client[Secret].update(msgspec.structs.replace(secret, metadata=metadata, data=filled))
        return None

    async def _of(self, namespace: str, name: str) -> ServiceAccount | None:
        account = self.accounts.get(namespace, name)
        if account is not None:
            return account
        try:  # the cache may be behind, and what follows cannot be taken back
            return await self.client[ServiceAccount].get(name, namespace)
        except NotFound:
            return None

    def _token(self, namespace: str, name: str, account: ServiceAccount) -> str:
        claims = {
            "iss": ISSUER, f"{ISSUER}/namespace": namespace, f"{ISSUER}/secret.name": name,
            f"{ISSUER}/service-account.name": account.metadata.name,
            f"{ISSUER}/service-account.uid": account.metadata.uid,
            "sub": f"system:serviceaccount:{namespace}:{account.metadata.name}",
        }  # fmt: skip
        return jwt.encode(claims, self.signer.private, self.signer.algorithm, {"kid": self.signer.id})


def _account(secret: Secret) -> str:
    return f"{secret.metadata.namespace}/{(secret.metadata.annotations or {}).get(NAME, '')}"


def _packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
