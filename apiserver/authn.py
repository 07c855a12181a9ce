"""Who asks: a client certificate, a service-account token, or nobody (anonymous: RBAC lets it see health and version).

In-process callers are not looked at here: they put their User into the ASGI scope (``navarch.user``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from apiserver.cache.cache import Cache, Entry
from apiserver.request import User
from apiserver.tokens import Claims, InvalidToken, Reference, TokenIssuer
from navarch.api.errors import Unauthorized
from navarch.world import World

AUTHENTICATED = "system:authenticated"
ACCOUNTS_GROUP = "system:serviceaccounts"
EXTRA = "authentication.kubernetes.io/"
KEPT = 4096


class _Recent(OrderedDict[bytes | str, Any]):
    """The last few answers that cost a public-key operation or a parse."""

    def remember(self, key: bytes | str, value: Any) -> Any:
        self[key] = value
        if len(self) > KEPT:
            self.popitem(last=False)
        return value


class Authenticator:
    """Certificates are taken as verified: the TLS layer checks the chain against the client CA."""

    def __init__(self, world: World, cache: Cache, tokens: TokenIssuer) -> None:
        self.world, self.cache, self.tokens = world, cache, tokens
        self._certificates = _Recent()
        self._claims = _Recent()

    async def authenticate(self, scope: Mapping[str, Any]) -> User | None:
        """The user of an ASGI scope, None without credentials. Raises Unauthorized for credentials that are not good."""
        certificate = scope.get("navarch.peer_certificate")
        if certificate:
            return self.certificate_user(certificate)
        for name, value in scope.get("headers") or ():
            if name == b"authorization":
                word, _, token = value.decode("latin-1").partition(" ")
                if word.lower() == "bearer" and token:
                    return await self.token_user(token.strip())
                break
        return None

    def certificate_user(self, der: bytes) -> User:
        """Common name and organisations of a client certificate."""
        found = self._certificates.get(der)
        if found is None:
            found = self._certificates.remember(der, _parse(der))
        user, not_before, not_after = found
        if not not_before <= self.world.now() <= not_after:
            raise Unauthorized()
        return user  # type: ignore[no-any-return]

    async def token_user(self, token: str) -> User:
        """The service account that a token speaks for. Raises Unauthorized."""
        try:
            return self.verify(token)[0]
        except InvalidToken as error:
            if not error.curable:
                raise Unauthorized() from error
        await self.cache.current()  # the account or the pod may be newer than what the cache had
        try:
            return self.verify(token)[0]
        except InvalidToken as error:
            raise Unauthorized() from error

    def verify(self, token: str, audiences: tuple[str, ...] = ()) -> tuple[User, Claims]:
        """The user and the claims of a good token for one of ``audiences`` (default: the server's own).

        Raises InvalidToken with the reason.
        """
        claims: Claims | None = self._claims.get(token)
        if claims is None:
            claims = self._claims.remember(token, self.tokens.read(token))
        now = self.world.now()
        if now >= claims.expires:
            raise InvalidToken("service account token has expired")
        if now < claims.not_before:
            raise InvalidToken("service account token is not valid yet")
        if not set(claims.audiences) & set(audiences or self.tokens.audiences):
            wanted, has = list(audiences or self.tokens.audiences), list(claims.audiences)
            raise InvalidToken(f"token audiences {has!r} is invalid for the target audiences {wanted!r}")
        self._live(claims)
        return account_user(claims), claims

    def _live(self, claims: Claims) -> None:
        """The objects that a token is bound to are still the same ones."""
        self._same("serviceaccounts", claims.namespace, claims.account, "service account")
        if claims.pod is not None:
            self._same("pods", claims.namespace, claims.pod, "pod")
        if claims.secret is not None:
            self._same("secrets", claims.namespace, claims.secret, "secret")
        if claims.node is not None and claims.pod is None:
            self._same("nodes", "", claims.node, "node")

    def _same(self, resource: str, namespace: str, reference: Reference, what: str) -> None:
        entry: Entry | None = self.cache.get(f"/registry/{resource}/", namespace or None, reference.name)
        if entry is None:
            raise InvalidToken(f"{what} {reference.name} has been deleted", curable=True)
        if entry.uid != reference.uid:
            text = f"{what} UID ({entry.uid}) does not match claim ({reference.uid})"
            raise InvalidToken(text, curable=True)


def account_user(claims: Claims) -> User:
    namespace, extra = claims.namespace, {}
    if claims.id:
        extra[f"{EXTRA}credential-id"] = [f"JTI={claims.id}"]
    for name, reference in (("pod", claims.pod), ("node", claims.node)):
        if reference is not None:
            extra[f"{EXTRA}{name}-name"] = [reference.name]
            extra[f"{EXTRA}{name}-uid"] = [reference.uid]
    groups = (ACCOUNTS_GROUP, f"{ACCOUNTS_GROUP}:{namespace}", AUTHENTICATED)
    return User(f"system:serviceaccount:{namespace}:{claims.account.name}", groups, claims.account.uid, extra)


def _parse(der: bytes) -> tuple[User, float, float]:
    try:
        certificate = x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise Unauthorized() from error
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not names or not names[0].value:
        raise Unauthorized()
    organisations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    groups = tuple(str(o.value) for o in organisations)
    user = User(str(names[0].value), (*groups, *(() if AUTHENTICATED in groups else (AUTHENTICATED,))))
    return user, certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
