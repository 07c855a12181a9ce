"""Service account tokens for pods, made by the API server's TokenRequest and renewed before they end."""

from __future__ import annotations

from dataclasses import dataclass

from navarch.api.times import parse_time
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.world import World
from nodeagent.volumes.payload import TokenWish

RENEW_AT = 0.8  # of its life
OLDEST = 24 * 3600.0


@dataclass
class _Token:
    text: str
    renew: float  # Unix seconds
    expiry: str  # as the API server wrote it


class Tokens:
    """One pod's tokens."""

    def __init__(self, client: Client, world: World) -> None:
        self._client, self._world = client, world
        self._tokens: dict[TokenWish, _Token] = {}

    async def get(self, pod: core_v1.Pod, wish: TokenWish) -> str:
        """A token that still lives a good while. Raises StatusError or TransportError."""
        now = self._world.now()
        cached = self._tokens.get(wish)
        if cached is not None and now < cached.renew:
            return cached.text
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {},
            "spec": {
                "audiences": [wish.audience] if wish.audience else [],
                "expirationSeconds": wish.seconds,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": pod.metadata.name,
                    "uid": pod.metadata.uid,
                },
            },
        }
        account = pod.spec.service_account_name or "default"
        answer = await self._client[core_v1.ServiceAccount].sub(account, pod.metadata.namespace, "token", body)
        status = answer["status"]
        life = parse_time(status["expirationTimestamp"]) - now
        # A jitter, so that pods that started together do not renew together.
        renew = now + min(life * RENEW_AT, OLDEST) - self._world.random.random() * min(10.0, life * 0.05)
        self._tokens[wish] = _Token(status["token"], renew, status["expirationTimestamp"])
        return self._tokens[wish].text

    def expiry(self, wish: TokenWish) -> str:
        """When a token that was asked for ends, in the API's form."""
        return self._tokens[wish].expiry

    @property
    def next_renewal(self) -> float | None:
        """When the first token wants to be renewed (Unix seconds), None without tokens."""
        return min((t.renew for t in self._tokens.values()), default=None)
