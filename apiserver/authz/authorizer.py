"""May this user do this? system:masters may do anything; then the node authorizer, then RBAC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from apiserver.authz.node import NodeAuthorizer, is_node
from apiserver.authz.rbac import Rbac
from apiserver.cache.cache import Cache
from apiserver.request import SYSTEM_MASTERS, RequestInfo, User
from navarch.api.errors import Forbidden, details, resource_forbidden

ALWAYS_ALLOWED = ("/healthz", "/readyz", "/livez")


class Decision(NamedTuple):
    allowed: bool
    reason: str = ""


class Authorizer:
    """Decides from the cache, so it never waits. ``always``: paths that everybody may ask for; * at the end is any."""

    def __init__(self, cache: Cache, always: Sequence[str] = ALWAYS_ALLOWED) -> None:
        self.rbac = Rbac(cache)
        self.node = NodeAuthorizer(cache)
        self._paths = frozenset(path.rstrip("/") for path in always if not path.endswith("*"))
        self._prefixes = tuple(path[:-1] for path in always if path.endswith("*"))

    def authorize(self, user: User, info: RequestInfo) -> Decision:
        if SYSTEM_MASTERS in user.groups:
            return Decision(True)
        if not info.is_resource and (info.path.rstrip("/") in self._paths or info.path.startswith(self._prefixes)):
            return Decision(True)
        why = ""
        if is_node(user):
            allowed, why = self.node.authorize(user, info)
            if allowed:
                return Decision(True, why)
        allowed, reason = self.rbac.authorize(user, info)
        return Decision(allowed, reason if allowed else ", ".join(r for r in (why, reason) if r))

    @property
    def generation(self) -> int:
        """A number that changes whenever an answer of :meth:`every_name` may."""
        return self.rbac.generation

    def every_name(self, user: User, info: RequestInfo) -> bool:
        """Whether the user may do this to all objects, whatever their names. What a node may do depends on them."""
        return SYSTEM_MASTERS in user.groups or self.rbac.every_name(user, info)

    def close(self) -> None:
        self.rbac.close()


def forbidden(user: User, info: RequestInfo, reason: str = "") -> Forbidden:
    """The refusal of a request."""
    tail = f": {reason}" if reason else ""
    if not info.is_resource:
        text = f'User "{user.name}" cannot {info.verb} path "{info.path}"{tail}'
        return Forbidden(f"forbidden: {text}", details("", "", ""))
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    # A request for a Namespace is about a cluster-scoped object, although its path has a namespace.
    where = f'in the namespace "{info.namespace}"' if info.namespace else "at the cluster scope"
    text = f'User "{user.name}" cannot {info.verb} resource "{resource}" in API group "{info.group}" {where}{tail}'
    return resource_forbidden(info.resource, info.group, info.name, text)
