"""May this user do this? system:masters may do anything; then the node authorizer, then RBAC."""

from __future__ import annotations

from typing import NamedTuple

from apiserver.authz.node import NodeAuthorizer, node_name
from apiserver.authz.rbac import Rbac
from apiserver.cache.cache import Cache
from apiserver.request import SYSTEM_MASTERS, RequestInfo, User


class Decision(NamedTuple):
    allowed: bool
    reason: str = ""


class Authorizer:
    """Decides from the cache, so it never waits."""

    def __init__(self, cache: Cache) -> None:
        self.rbac = Rbac(cache)
        self.node = NodeAuthorizer(cache)

    def authorize(self, user: User, info: RequestInfo) -> Decision:
        if SYSTEM_MASTERS in user.groups:
            return Decision(True)
        why = ""
        if node_name(user):
            allowed, why = self.node.authorize(user, info)
            if allowed:
                return Decision(True, why)
        allowed, reason = self.rbac.authorize(user, info)
        return Decision(allowed, reason if allowed else ", ".join(r for r in (why, reason) if r))

    def close(self) -> None:
        self.rbac.close()
