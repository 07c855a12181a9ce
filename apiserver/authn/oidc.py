"""ID tokens of OpenID Connect issuers: verified with the keys that the issuer publishes, which are fetched in the
background and again when a token names a key that we do not have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import jwt
import orjson

from apiserver.authn.claims import Mappings
from apiserver.authn.identity import Identity, Recent
from apiserver.authn.tokens import InvalidToken
from navarch.world import Backoff, World

log = logging.getLogger(__name__)

Fetch = Callable[[str], Awaitable[bytes]]
"""The body of a URL. Raises OSError."""
DISCOVERY = "/.well-known/openid-configuration"
MIN_PAUSE, MAX_PAUSE = 1.0, 60.0  # seconds between questions to the issuer
LEEWAY = 300.0  # of "not before": clocks differ


@dataclass(frozen=True)
class Issuer:
    """One issuer whose tokens are believed. ``ca`` is PEM text, "" the system's CAs."""

    url: str
    audiences: tuple[str, ...]
    mappings: Mappings
    discovery_url: str = ""
    ca: str = ""
    algorithms: tuple[str, ...] = ("RS256",)


class KeySet:
    """The keys of an issuer by their ids."""

    def __init__(self, world: World, issuer: Issuer, fetch: Fetch) -> None:
        self.world, self.issuer, self.fetch = world, issuer, fetch
        self.keys: dict[str, jwt.PyJWK] = {}
        self.is_loaded = False  # fetched at least once
        self._address = ""
        self._backoff = Backoff(world, MIN_PAUSE, MAX_PAUSE)
        self._not_before = 0.0
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Fetches the keys for the first time, however long that takes."""
        while not self.is_loaded:
            await self.refresh()
            if not self.is_loaded:
                await self.world.sleep(max(0.0, self._not_before - self.world.monotonic()))

    async def key(self, id: str) -> jwt.PyJWK:
        """Raises InvalidToken."""
        if not self.is_loaded:
            raise InvalidToken("oidc: authenticator not initialized")
        if id not in self.keys and (id or len(self.keys) != 1):
            await self.refresh()
        if not id and len(self.keys) == 1:
            return next(iter(self.keys.values()))
        if id not in self.keys:
            raise InvalidToken("oidc: verify token: failed to verify signature: no key of the issuer has the token's id")
        return self.keys[id]

    async def refresh(self) -> None:
        """Asks the issuer, unless that was done a moment ago: tokens with made-up keys cannot make us ask more often."""
        not_before = self._not_before
        async with self._lock:
            if self.world.monotonic() < self._not_before or self._not_before != not_before:
                return
            try:
                await self._fetch()
                self.is_loaded = True
                self._backoff.reset()
                self._not_before = self.world.monotonic() + MIN_PAUSE
            except (OSError, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
                delay = self._backoff.next()
                self._not_before = self.world.monotonic() + delay
                log.error("cannot fetch the keys of %s: %s; again in %.0f s", self.issuer.url, error, delay)

    async def _fetch(self) -> None:
        if not self._address:
            where = self.issuer.discovery_url or self.issuer.url.rstrip("/") + DISCOVERY
            document = orjson.loads(await self.fetch(where))
            if document["issuer"] != self.issuer.url:
                raise ValueError(f"the issuer calls itself {document['issuer']!r}")
            self._address = str(document["jwks_uri"])
        listed = orjson.loads(await self.fetch(self._address))["keys"]
        keys: dict[str, jwt.PyJWK] = {}
        for one in listed:
            if one.get("use", "sig") != "sig":
                continue
            try:
                keys[one.get("kid") or ""] = jwt.PyJWK(one)
            except jwt.PyJWTError as error:
                log.info("a key of %s is left out: %s", self.issuer.url, error)
        if not keys:
            raise ValueError("the issuer publishes no key to sign with")
        self.keys = keys


class OIDC:
    """Tokens of one issuer."""

    def __init__(self, world: World, issuer: Issuer, fetch: Fetch) -> None:
        self.world, self.issuer = world, issuer
        self.keys = KeySet(world, issuer, fetch)
        self._verified = Recent()

    async def token(self, token: str, audiences: tuple[str, ...]) -> Identity | None:
        """See TokenAuthenticator."""
        claims = self._verified.get(token)
        if claims is None:
            try:
                claimed = jwt.decode(token, options={"verify_signature": False})
                header = jwt.get_unverified_header(token)
            except jwt.PyJWTError:
                return None
            if claimed.get("iss") != self.issuer.url:
                return None
            claims = self._verified.remember(token, await self._verify(token, header))
        now = self.world.now()
        if now >= claims["exp"]:
            raise InvalidToken("oidc: verify token: oidc: token is expired")
        if now + LEEWAY < claims.get("nbf", 0):
            raise InvalidToken("oidc: verify token: current time is before the nbf (not before) time")
        return Identity(self.issuer.mappings.user(claims))

    async def _verify(self, token: str, header: dict[str, Any]) -> dict[str, Any]:
        algorithm = header.get("alg") or ""
        if algorithm not in self.issuer.algorithms:
            text = f"expected {list(self.issuer.algorithms)} got {algorithm!r}"
            raise InvalidToken(f"oidc: verify token: id token signed with unsupported algorithm, {text}")
        key = await self.keys.key(header.get("kid") or "")
        unchecked: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "require": ["exp", "iss", "aud"]}
        try:
            claims = jwt.decode(
                token, key, algorithms=[algorithm], audience=list(self.issuer.audiences), issuer=self.issuer.url,
                options=unchecked,
            )  # fmt: skip
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            raise InvalidToken(f"oidc: verify token: {error}") from None
        if not isinstance(claims["exp"], int | float) or not isinstance(claims.get("nbf", 0), int | float):
            raise InvalidToken("oidc: verify token: exp and nbf must be numbers")
        return claims


def http_fetch(ca: str) -> Fetch:
    """Fetches by HTTPS, trusting ``ca`` (PEM) or else the system's CAs. Raises ssl.SSLError for a bad CA."""
    import ssl

    context = ssl.create_default_context(cadata=ca or None)

    async def fetch(url: str) -> bytes:
        import aiohttp

        try:
            timeout = aiohttp.ClientTimeout(total=30)
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, ssl=context) as answer:
                if answer.status != 200:
                    raise OSError(f"GET {url}: HTTP {answer.status}")
                return await answer.content.read(1 << 20)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise OSError(f"GET {url}: {error or 'no answer in time'}") from None

    return fetch
