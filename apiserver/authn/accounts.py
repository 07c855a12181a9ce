"""Service-account tokens: signed by us, and the objects that they are bound to still live."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import NamedTuple

from apiserver.authn.identity import CREDENTIAL, EXTRA, Identity, Recent, authenticated
from apiserver.authn.tokens import Claims, InvalidToken, Reference, TokenIssuer
from apiserver.cache.cache import Cache, Entry
from apiserver.request import User
from navarch.api import wellknown
from navarch.api.times import format_time, parse_time
from navarch.world import World

ACCOUNTS_GROUP = "system:serviceaccounts"
LEEWAY = 60.0  # seconds that a token outlives the beginning of its object's deletion
STALE = "authentication.k8s.io/stale-token"
INVALIDATED, LAST_USED = wellknown.LEGACY_TOKEN_INVALID_SINCE, wellknown.LEGACY_TOKEN_LAST_USED


class Bond(NamedTuple):
    """A good token, and the states of the objects that it is bound to: see Proof."""

    user: User
    not_before: float
    expires: float
    cache: Cache
    objects: tuple[tuple[str, str | None, Entry], ...]  # prefix, namespace, state

    def holds(self, now: float) -> bool:
        if not self.not_before <= now < self.expires:
            return False
        get = self.cache.get
        return all([get(prefix, namespace, entry.name) is entry for prefix, namespace, entry in self.objects])


class AccountTokens:
    """``used``: told of each Secret whose token somebody authenticates with (namespace, name)."""

    def __init__(
        self, world: World, cache: Cache, issuer: TokenIssuer, used: Callable[[str, str], None] = lambda *_: None
    ) -> None:
        self.world, self.cache, self.issuer, self.used = world, cache, issuer, used
        self._claims = Recent()

    async def token(self, token: str, audiences: tuple[str, ...]) -> Identity | None:
        """See TokenAuthenticator."""
        if token not in self._claims and not self.issuer.issued(token):
            return None
        try:
            return self._identity(token, audiences)
        except InvalidToken as error:
            if not error.curable:
                raise
        await self.cache.current()  # the account or the pod may be newer than what the cache had
        return self._identity(token, audiences)

    def _identity(self, token: str, audiences: tuple[str, ...]) -> Identity:
        user, claims = self.verify(token, audiences)
        good = None if claims.legacy else tuple(a for a in claims.audiences if a in (audiences or self.issuer.audiences))
        annotations = {}
        now = self.world.now()
        if claims.warn_after and now > claims.warn_after:
            late = int(now - claims.warn_after)
            annotations[STALE] = f"subject: {user.name}, seconds after warning threshold: {late}"
        return Identity(user, good, annotations)

    def proof(self, token: str) -> Bond | None:
        """The proof of a token that was found good; None if its end cannot be seen at a glance: it is a Secret's, which is
        read each time, or something that it is bound to is being deleted."""
        claims: Claims | None = self._claims.get(token)
        if claims is None or claims.legacy:
            return None
        objects = []
        for resource, namespace, reference in _bonds(claims):
            prefix = f"/registry/{resource}/"
            entry = self.cache.get(prefix, namespace or None, reference.name)
            if entry is None or (reference.uid and entry.uid != reference.uid) or b'"deletionTimestamp"' in entry.data:
                return None
            objects.append((prefix, namespace or None, entry))
        user = authenticated(account_user(claims))
        return Bond(user, claims.not_before, claims.expires, self.cache, tuple(objects))

    def verify(self, token: str, audiences: tuple[str, ...] = ()) -> tuple[User, Claims]:
        """The user and the claims of a good token for one of ``audiences`` (default: the server's own).

        Raises InvalidToken with the reason.
        """
        claims: Claims | None = self._claims.get(token)
        if claims is None:
            claims = self._claims.remember(token, self.issuer.read(token))
        assert claims is not None
        if claims.legacy:
            self._legacy(token, claims)
            return account_user(claims), claims
        now = self.world.now()
        if now >= claims.expires:
            raise InvalidToken("service account token has expired")
        if now < claims.not_before:
            raise InvalidToken("service account token is not valid yet")
        expected = audiences or self.issuer.audiences
        if not set(claims.audiences) & set(expected):
            shown = ["[" + " ".join(f'"{a}"' for a in them) + "]" for them in (claims.audiences, expected)]
            raise InvalidToken(f"token audiences {shown[0]} is invalid for the target audiences {shown[1]}")
        self._live(claims)
        return account_user(claims), claims

    def _live(self, claims: Claims) -> None:
        """The objects that a token is bound to are still the same ones."""
        for resource, namespace, reference in _bonds(claims):
            self._same(resource, namespace, reference, WORDS[resource])

    def _same(self, resource: str, namespace: str, reference: Reference, what: str) -> Entry:
        entry: Entry | None = self.cache.get(f"/registry/{resource}/", namespace or None, reference.name)
        if entry is None:
            raise InvalidToken(f"{what} {reference.name} has been deleted", curable=True)
        if reference.uid and entry.uid != reference.uid:
            text = f"{what} UID ({entry.uid}) does not match claim ({reference.uid})"
            raise InvalidToken(text, curable=True)
        if b'"deletionTimestamp"' in entry.data:
            begun = entry.tree()["metadata"].get("deletionTimestamp")
            if begun and parse_time(begun) < self.world.now() - LEEWAY:
                raise InvalidToken(f"{what} {reference.name} has been deleted")
        return entry

    def _legacy(self, token: str, claims: Claims) -> None:
        """The token of a Secret: it is good as long as the Secret holds this very token."""
        assert claims.secret is not None
        secret = self._same("secrets", claims.namespace, claims.secret, "secret").tree()
        if b64decode((secret.get("data") or {}).get("token") or "") != token.encode():
            raise InvalidToken("token does not match server's copy", curable=True)
        self._same("serviceaccounts", claims.namespace, claims.account, "service account")
        labels = secret["metadata"].get("labels") or {}
        if labels.get(INVALIDATED):
            raise InvalidToken("the token in secret has been marked invalid: see its label " + INVALIDATED)
        if labels.get(LAST_USED) != format_time(self.world.now())[:10]:
            self.used(claims.namespace, claims.secret.name)


WORDS = {"serviceaccounts": "service account", "pods": "pod", "secrets": "secret", "nodes": "node"}


def _bonds(claims: Claims) -> Iterator[tuple[str, str, Reference]]:
    """Resource, namespace and name of each object that a token is bound to."""
    yield "serviceaccounts", claims.namespace, claims.account
    if claims.pod is not None:
        yield "pods", claims.namespace, claims.pod
    if claims.secret is not None:
        yield "secrets", claims.namespace, claims.secret
    if claims.node is not None and claims.pod is None:
        yield "nodes", "", claims.node


def account_user(claims: Claims) -> User:
    namespace, extra = claims.namespace, {}
    if claims.id:
        extra[CREDENTIAL] = [f"JTI={claims.id}"]
    for name, reference in (("pod", claims.pod), ("node", claims.node)):
        if reference is not None:
            extra[f"{EXTRA}{name}-name"] = [reference.name]
            if reference.uid:
                extra[f"{EXTRA}{name}-uid"] = [reference.uid]
    groups = (ACCOUNTS_GROUP, f"{ACCOUNTS_GROUP}:{namespace}")
    return User(f"system:serviceaccount:{namespace}:{claims.account.name}", groups, claims.account.uid, extra)
