"""Bootstrap tokens: ``id.secret``, kept in a Secret kube-system/bootstrap-token-ID, with which a new node asks for its
certificate."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from typing import Any

from apiserver.authn.identity import Identity
from apiserver.authn.tokens import InvalidToken
from apiserver.cache.cache import Cache
from apiserver.request import User
from navarch.api import wellknown
from navarch.api.times import parse_time
from navarch.world import World

Tree = dict[str, Any]
NAMESPACE, PREFIX = "kube-system", "bootstrap-token-"
TYPE = wellknown.BOOTSTRAP_TOKEN
GROUP = "system:bootstrappers"
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")


class BootstrapTokens:
    def __init__(self, world: World, cache: Cache) -> None:
        self.world, self.cache = world, cache

    async def token(self, token: str, audiences: tuple[str, ...]) -> Identity | None:
        """See TokenAuthenticator."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        name = PREFIX + match[1]
        entry = self.cache.get("/registry/secrets/", NAMESPACE, name)
        if entry is None:
            await self.cache.current()
            entry = self.cache.get("/registry/secrets/", NAMESPACE, name)
        if entry is None:
            return None
        user = bootstrap_user(entry.tree(), match[1], match[2], self.world.now())
        return None if user is None else Identity(user)


def bootstrap_user(secret: Tree, id: str, word: str, now: float) -> User | None:
    """The user that a Secret makes of a bootstrap token, None if the Secret does not allow it.

    Raises InvalidToken for a group that no such token may give.
    """
    data = secret.get("data") or {}
    if secret["metadata"].get("deletionTimestamp") or secret.get("type") != TYPE:
        return None
    if not hmac.compare_digest(_text(data, "token-secret").encode(), word.encode()) or _text(data, "token-id") != id:
        return None
    if expired(data, now) or _text(data, "usage-bootstrap-authentication") != "true":
        return None
    groups = [GROUP]
    for group in (g.strip() for g in _text(data, "auth-extra-groups").split(",")):
        if group and not _GROUP.fullmatch(group):
            raise InvalidToken(f"bootstrap token with an extra group that is not allowed: {group}")
        if group and group not in groups:
            groups.append(group)
    return User(f"system:bootstrap:{id}", (groups[0], *sorted(groups[1:])))


def expired(data: Tree, now: float) -> bool:
    """Whether a token's time is over; what cannot be read counts as over."""
    text = _text(data, "expiration")
    if not text:
        return False
    try:
        return parse_time(text) < now
    except ValueError:
        return True


def _text(data: Tree, key: str) -> str:
    try:
        return base64.b64decode(data.get(key) or "").decode()
    except (binascii.Error, ValueError):
        return ""
