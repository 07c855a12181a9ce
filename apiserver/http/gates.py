"""Gates of every request before its answer: who asks, may they, is it their turn, and is it told in the audit log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from apiserver.audit.audit import Audit
from apiserver.authn.identity import Proof
from apiserver.request import RequestInfo, User


class Authenticator(Protocol):
    async def authenticate(self, scope: Mapping[str, Any]) -> User | None:
        """The user of a request; None without credentials. Raises Unauthorized for credentials that are no good."""
        ...

    def proof(self, scope: Mapping[str, Any]) -> Proof | None:
        """The proof of a request that was let in, as it can be looked at again; None if it cannot."""
        ...


class Authorizer(Protocol):
    @property
    def generation(self) -> int:
        """A number that changes whenever an answer of :meth:`every_name` may."""
        ...

    def every_name(self, user: User, info: RequestInfo) -> bool:
        """Whether the user may do this to all objects, whatever their names."""
        ...

    def authorize(self, user: User, info: RequestInfo) -> tuple[bool, str]:
        """Whether the user may do this, and why (not)."""
        ...


class AllowAll:
    """The authorizer of a server without one: tests of the generic path."""

    generation = 0

    def every_name(self, user: User, info: RequestInfo) -> bool:
        return True

    def authorize(self, user: User, info: RequestInfo) -> tuple[bool, str]:
        return True, ""


class NoCredentials:
    """The authenticator of a server without one: only in-process callers, who bring their user along."""

    async def authenticate(self, scope: Mapping[str, Any]) -> User | None:
        return None

    def proof(self, scope: Mapping[str, Any]) -> Proof | None:
        return None


@dataclass
class Gates:
    """Put in place before the server runs; the defaults let everybody pass."""

    authenticator: Authenticator = field(default_factory=NoCredentials)
    authorizer: Authorizer = field(default_factory=AllowAll)
    anonymous: Callable[[str], bool] = lambda path: True  # may a request for a path come without credentials?
    audit: Audit | None = None
    flows: Any = None  # flow control, where there is some: see apiserver/flowcontrol
