"""The answer of one way to authenticate, and the names that all of them share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from apiserver.request import User

AUTHENTICATED, UNAUTHENTICATED = "system:authenticated", "system:unauthenticated"
EXTRA = "authentication.kubernetes.io/"
CREDENTIAL = f"{EXTRA}credential-id"
MAX_IDENTITIES = 4096


@dataclass(frozen=True)
class Identity:
    """A user, and the audiences that the credentials are good for among those that were asked for; None: the API
    server's own, as the credentials know of none."""

    user: User
    audiences: tuple[str, ...] | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)  # for the audit event


class Proof(Protocol):
    """The reason why a request is its user's, for requests with the same credentials later on."""

    @property
    def user(self) -> User: ...

    def holds(self, now: float) -> bool:
        """Whether authentication would surely still find the same at ``now``, in Unix time."""
        ...


class TokenAuthenticator(Protocol):
    """One kind of bearer token."""

    async def token(self, token: str, audiences: tuple[str, ...]) -> Identity | None:
        """Identifies the token's user; None if it is none of this kind. Raises InvalidToken: it is, and is no good."""
        ...


class Recent(OrderedDict[bytes | str, Any]):
    """The last few answers that cost a public-key operation or a parse."""

    def remember(self, key: bytes | str, value: Any) -> Any:
        self[key] = value
        if len(self) > MAX_IDENTITIES:
            self.popitem(last=False)
        return value


def authenticated(user: User) -> User:
    """The user as a member of system:authenticated, as everybody is who proved who they are."""
    if AUTHENTICATED in user.groups or UNAUTHENTICATED in user.groups:
        return user
    return replace(user, groups=(*user.groups, AUTHENTICATED))
