"""Authentication: a client certificate, else a bearer token of the first kind that knows it, else nobody (anonymous).

In-process callers are not looked at here: they put their User into the ASGI scope (``navarch.user``).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from apiserver.authn.accounts import AccountTokens
from apiserver.authn.certificates import Certificates
from apiserver.authn.identity import Identity, Proof, TokenAuthenticator, authenticated
from apiserver.authn.tokens import InvalidToken
from apiserver.request import User
from navarch.api.errors import Unauthorized
from navarch.world import World

ANNOTATIONS = "navarch.audit_annotations"
"""Where in the scope authentication leaves what the audit event should tell."""
WEBSOCKET_BEARER = "base64url.bearer.authorization.k8s.io."


class Authenticator:
    """Asks ``kinds`` in their order. ``audiences``: the names of this API server, one of which a token must be for."""

    def __init__(self, world: World, audiences: Sequence[str], kinds: Sequence[TokenAuthenticator]) -> None:
        self.world, self.audiences, self.kinds = world, tuple(audiences), tuple(kinds)
        self.certificates = Certificates()

    async def authenticate(self, scope: Mapping[str, Any]) -> User | None:
        """The user of an ASGI scope, None without credentials. Raises Unauthorized for credentials that are no good."""
        certificate, token = scope.get("navarch.peer_certificate"), bearer_token(scope)
        if certificate:
            try:
                return self.certificates.user(certificate, self.world.now())
            except Unauthorized:
                if not token:
                    raise
        if not token:
            return None
        try:
            identity = await self.identify(token, self.audiences)
        except InvalidToken as error:
            raise Unauthorized() from error
        if identity.annotations:
            scope.get(ANNOTATIONS, {}).update(identity.annotations)
        return identity.user

    def proof(self, scope: Mapping[str, Any]) -> Proof | None:
        """The proof of a request that was let in, by its certificate or a service account's token; None where the end of
        that cannot be seen at a glance. Impersonation is not looked at."""
        certificate, token = scope.get("navarch.peer_certificate"), bearer_token(scope)
        if certificate:
            try:
                return self.certificates.shown(certificate)
            except Unauthorized:
                return None
        accounts = [kind for kind in self.kinds if isinstance(kind, AccountTokens)]
        return accounts[0].proof(token) if token and accounts else None

    async def identify(self, token: str, audiences: tuple[str, ...]) -> Identity:
        """Identifies the token's user. Raises InvalidToken with the reasons of all kinds that looked at it."""
        reasons: list[InvalidToken] = []
        for kind in self.kinds:
            try:
                identity = await kind.token(token, audiences)
            except InvalidToken as error:
                reasons.append(error)
                continue
            if identity is None:
                continue
            good = identity.audiences
            if good is None:
                good = tuple(a for a in self.audiences if a in audiences)
                if not good:
                    continue
            return Identity(authenticated(identity.user), good, identity.annotations)
        text = ", ".join(["invalid bearer token", *map(str, reasons)])
        raise InvalidToken(f"[{text}]" if reasons else text)


def bearer_token(scope: Mapping[str, Any]) -> str:
    """The token of the Authorization header, or of a WebSocket's protocols, where browsers can put one; "" without."""
    for name, value in scope.get("headers") or ():
        if name == b"authorization":
            parts = value.decode("latin-1").strip().split(" ")
            return parts[1] if len(parts) > 1 and parts[0].lower() == "bearer" else ""
        if name == b"sec-websocket-protocol":
            offered = [p.strip() for p in value.decode("latin-1").split(",")]
            mine = [p for p in offered if p.startswith(WEBSOCKET_BEARER)]
            if len(mine) == 1 and len(offered) > 1:  # another protocol is there to be chosen
                return _unpacked(mine[0].removeprefix(WEBSOCKET_BEARER))
    return ""


def _unpacked(text: str) -> str:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
