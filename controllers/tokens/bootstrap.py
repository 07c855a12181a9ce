"""Bootstrap tokens: expired ones are deleted; the others sign the ConfigMap kube-public/cluster-info, so that who holds
a token can believe what it reads there before it knows any certificate."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import TypeAlias

from controllers.controller import Context, Controller
from navarch.api import wellknown
from navarch.api.errors import NotFound
from navarch.api.times import parse_time
from navarch.api.types import core_v1

NAMESPACE, TYPE, PREFIX = "kube-system", wellknown.BOOTSTRAP_TOKEN, "bootstrap-token-"
INFO_NAMESPACE, INFO = "kube-public", "cluster-info"
CONTENT, SIGNATURE = "kubeconfig", "jws-kubeconfig-"
Secret: TypeAlias = core_v1.Secret
ConfigMap: TypeAlias = core_v1.ConfigMap


class _Tokens(Controller):
    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.secrets = context.informers.informer(Secret, NAMESPACE, field_selector=f"type={TYPE}")
        self._informers.append(self.secrets)


class TokenCleaner(_Tokens):
    """Keys are Secrets."""

    name = "token-cleaner-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.enqueues(self.secrets)

    async def reconcile(self, key: str) -> float | None:
        secret = self.secrets.get_key(key)
        if secret is None:
            return None
        remaining = lifetime(secret, self.world.now())
        if remaining is None or remaining > 0:
            return remaining
        try:
            await self.client[Secret].delete(secret.metadata.name or "", NAMESPACE, uid=secret.metadata.uid)
        except NotFound:
            pass
        return None


class BootstrapSigner(_Tokens):
    """One key: the ConfigMap."""

    name = "bootstrap-signer-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        selector = f"metadata.name={INFO}"
        self.maps = context.informers.informer(ConfigMap, INFO_NAMESPACE, field_selector=selector)
        self._informers.append(self.maps)
        self.enqueues(self.maps)
        self.secrets.add_handler(lambda kind, old, new: self.queue.add(f"{INFO_NAMESPACE}/{INFO}"))

    async def reconcile(self, key: str) -> float | None:
        info = self.maps.get_key(key)
        content = (info.data or {}).get(CONTENT) if info is not None else None
        if info is None or not content:
            return None
        signatures, again = {}, None
        for secret in sorted(self.secrets.list(), key=lambda s: s.metadata.name or ""):
            remaining = lifetime(secret, self.world.now())
            if text(secret, "usage-bootstrap-signing") != "true" or (remaining is not None and remaining <= 0):
                continue
            id, word = text(secret, "token-id"), text(secret, "token-secret")
            if not id or not word or secret.metadata.name != PREFIX + id:
                continue
            signatures[SIGNATURE + id] = signature(content, id, word)
            again = remaining if again is None else min(again, remaining or again)
        other_data = {k: v for k, v in (info.data or {}).items() if not k.startswith(SIGNATURE)}
        desired = other_data | signatures
        if desired != info.data:
            patch = {k: desired.get(k) for k in {**(info.data or {}), **desired}}
            await self.client[ConfigMap].patch(INFO, INFO_NAMESPACE, {"data": patch})
        return again


def lifetime(secret: Secret, now: float) -> float | None:
    """Seconds that a token is still good for; None: for ever. What cannot be read is over."""
    expiration = text(secret, "expiration")
    if not expiration:
        return None
    try:
        return parse_time(expiration) - now
    except ValueError:
        return 0.0


def text(secret: Secret, name: str) -> str:
    try:
        return base64.b64decode((secret.data or {}).get(name) or "").decode()
    except ValueError:
        return ""


def signature(content: str, id: str, word: str) -> str:
    """A detached JWS (HS256): who has the token and the content can make it again."""
    header = _packed(json.dumps({"alg": "HS256", "kid": id}, separators=(",", ":")).encode())
    signed = f"{header}.{_packed(content.encode())}".encode()
    return f"{header}..{_packed(hmac.new(f'{id}.{word}'.encode(), signed, hashlib.sha256).digest())}"


def _packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


