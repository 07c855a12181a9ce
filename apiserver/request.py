"""The subject of one request, as every stage of the server sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from navarch.api.kinds import Kind
from navarch.world import World

SYSTEM_MASTERS = "system:masters"
CREATE, UPDATE, DELETE, CONNECT = "CREATE", "UPDATE", "DELETE", "CONNECT"  # what admission is asked about


@dataclass(frozen=True)
class User:
    """The user who asks. ``extra`` as in authentication.k8s.io UserInfo."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, list[str]] = field(default_factory=dict)


def user_info(user: User) -> dict[str, Any]:
    """UserInfo of a user, without what is empty."""
    out = {"username": user.name, "uid": user.uid, "groups": list(user.groups), "extra": user.extra}
    return {k: v for k, v in out.items() if v}


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
LOOPBACK = User("system:apiserver", (SYSTEM_MASTERS, "system:authenticated"))


@dataclass(frozen=True)
class RequestInfo:
    """Kubernetes' request attributes. ``verb``: get list watch create update patch delete deletecollection, or the
    lower-case HTTP method for a path that is not a resource."""

    verb: str
    path: str
    is_resource: bool = False
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    field_selector: str = ""  # of list, watch and deletecollection, as written
    label_selector: str = ""


@dataclass
class Context:
    """One request on its way through the server."""

    world: World
    user: User
    info: RequestInfo
    user_agent: str = ""
    warnings: list[str] = field(default_factory=list)  # become Warning headers
    audit_annotations: dict[str, str] = field(default_factory=dict)  # go into the audit event
    size: int = 0  # bytes of the body that is written

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def own_context(world: World, user: User = LOOPBACK) -> Context:
    """A context for what the server does on its own account."""
    return Context(world, user, RequestInfo("", ""), "kube-apiserver")


Authorize = Callable[[User, RequestInfo], tuple[bool, str]]
"""Whether the user may do this, and why (not)."""


@dataclass(frozen=True)
class WriteOptions:
    """Options of create, update and patch."""

    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = "Warn"  # Ignore, Warn or Strict
    force: bool = False


@dataclass(frozen=True)
class DeleteOptions:
    dry_run: bool = False
    grace_period_seconds: int | None = None
    propagation_policy: str | None = None  # Orphan, Background or Foreground
    orphan_dependents: bool | None = None
    uid: str | None = None  # preconditions
    resource_version: str | None = None
    ignore_store_read_error: bool = False


@dataclass
class Attributes:
    """The parts of a request that admission plugins look at. ``operation``: CREATE, UPDATE, DELETE or CONNECT.

    ``obj`` is the new object's JSON tree (None for DELETE) and may be changed by mutating plugins; ``old`` must not be.
    """

    context: Context
    operation: str
    kind: Kind
    namespace: str
    name: str
    subresource: str = ""
    obj: dict[str, Any] | None = None
    old: dict[str, Any] | None = None
    dry_run: bool = False
    options: Any = None
    undo: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """Functions that give back what admission took, called if the request fails after all."""
    unnamed: bool = False
    """The name is still to be generated; ``name`` is what it will begin with, for messages."""
    round: int = 0
    again: bool = False
    """Set by a plugin that changed the object so much that all plugins should see it once more (in round 1)."""
    memory: dict[str, Any] = field(default_factory=dict)
    """State that plugins keep from round to round, by plugin name."""

    def about(self) -> RequestInfo:
        """The resource that this is about, as an authorizer is asked."""
        kind = self.kind
        return RequestInfo(
            "", "", True, kind.group, kind.version, kind.resource, self.subresource, self.namespace, self.name
        )


class Admission(Protocol):
    """The admission that the verbs ask before they write; see :class:`apiserver.admission.chain.Chain`."""

    def mutates(self, attributes: Attributes) -> bool:
        """Whether :meth:`admit` has anything to call."""
        ...

    async def admit(self, attributes: Attributes) -> None:
        """May change ``attributes.obj``. Raises a StatusError to refuse."""
        ...

    async def validate(self, attributes: Attributes) -> None:
        """Raises a StatusError to refuse."""
        ...

    async def finished(self, attributes: Attributes) -> None:
        """The change was stored."""
        ...

    async def removed(self, kind: Kind, obj: dict[str, Any]) -> None:
        """The object has left the store."""
        ...
