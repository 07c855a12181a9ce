"""Access to the agent's server: the API server, administrators, and whom a SubjectAccessReview lets in."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from navarch.api.errors import StatusError
from navarch.api.types import authentication_v1, authorization_v1
from navarch.client.client import Client
from navarch.client.transport import TransportError
from navarch.world import World

MASTERS = "system:masters"
ALLOWED_FOR, DENIED_FOR = 300.0, 30.0
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Caller:
    name: str
    groups: tuple[str, ...] = ()


def server_context(certificate: str, key: str, client_ca: str) -> ssl.SSLContext:
    """TLS that asks for a client certificate of our CA; who shows none is anonymous."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def of_certificate(certificate: Any) -> Caller | None:
    """The caller of a verified client certificate: common name and organizations."""
    if not certificate:
        return None
    pairs = [pair for part in certificate.get("subject", ()) for pair in part]
    names = [value for key, value in pairs if key == "commonName"]
    groups = [value for key, value in pairs if key == "organizationName"]
    return Caller(names[0], (*groups, "system:authenticated")) if names else None


class Gate:
    """Authenticates and authorizes requests; answers of the API server are kept for a while."""

    def __init__(self, client: Client, world: World, node_name: str) -> None:
        self._client, self._world, self._node = client, world, node_name
        self._decisions: dict[tuple[Caller, str, str], tuple[float, bool]] = {}
        self._tokens: dict[str, tuple[float, Caller | None]] = {}

    async def check(self, request: web.Request) -> None:
        """Raises HTTPUnauthorized or HTTPForbidden."""
        transport = request.transport
        caller = of_certificate(transport.get_extra_info("peercert")) if transport else None
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if caller is None and scheme.lower() == "bearer" and token:
            caller = await self._token(token)
        if caller is None:
            raise web.HTTPUnauthorized(text="Unauthorized")
        if MASTERS in caller.groups:
            return
        verb, resource = _VERBS.get(request.method, "get"), subresource(request.path)
        if not await self._allowed(caller, verb, resource):
            text = f"Forbidden (user={caller.name}, verb={verb}, resource=nodes, subresource(s)=[{resource}])"
            raise web.HTTPForbidden(text=text)

    async def _token(self, token: str) -> Caller | None:
        now = self._world.monotonic()
        until, caller = self._tokens.get(token, (0.0, None))
        if now < until:
            return caller
        review = authentication_v1.TokenReview(spec=authentication_v1.TokenReviewSpec(token=token))
        try:
            answer = await self._client[authentication_v1.TokenReview].create(review)
        except (StatusError, TransportError):
            return None
        user = answer.status.user if answer.status.authenticated else None
        caller = Caller(user.username or "", tuple(user.groups or ())) if user else None
        self._trim(self._tokens)
        self._tokens[token] = now + (60.0 if caller else 10.0), caller
        return caller

    async def _allowed(self, caller: Caller, verb: str, resource: str) -> bool:
        now = self._world.monotonic()
        key = (caller, verb, resource)
        until, allowed = self._decisions.get(key, (0.0, False))
        if now < until:
            return allowed
        review = authorization_v1.SubjectAccessReview(
            spec=authorization_v1.SubjectAccessReviewSpec(
                user=caller.name,
                groups=list(caller.groups),
                resource_attributes=authorization_v1.ResourceAttributes(
                    verb=verb, version="v1", resource="nodes", subresource=resource, name=self._node
                ),
            ),
            status=authorization_v1.SubjectAccessReviewStatus(allowed=False),
        )
        try:
            answer = await self._client[authorization_v1.SubjectAccessReview].create(review)
            allowed = bool(answer.status and answer.status.allowed)
        except (StatusError, TransportError):
            return False
        self._trim(self._decisions)
        self._decisions[key] = now + (ALLOWED_FOR if allowed else DENIED_FOR), allowed
        return allowed

    @staticmethod
    def _trim(table: dict[Any, Any]) -> None:
        while len(table) >= 1000:
            table.pop(next(iter(table)))


def subresource(path: str) -> str:
    """The subresource of nodes that a path belongs to."""
    first = path.split("/")[1]
    return {"stats": "stats", "metrics": "metrics", "logs": "log", "healthz": "healthz", "pods": "pods"}.get(
        first, "proxy"
    )
