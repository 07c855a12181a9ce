"""What one request is about, as every stage of the server sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from navarch.api.kinds import Kind
from navarch.world import World

SYSTEM_MASTERS = "system:masters"


@dataclass(frozen=True)
class User:
    """Who asks. ``extra`` as in authentication.k8s.io UserInfo."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, list[str]] = field(default_factory=dict)


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

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


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
    """What admission plugins look at. ``operation``: CREATE, UPDATE, DELETE or CONNECT.

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
    """What admission took and has to give back if the request fails after all."""
    unnamed: bool = False
    """The name is still to be generated; ``name`` is what it will begin with, for messages."""
    round: int = 0
    again: bool = False
    """Set by a plugin that changed the object so much that all plugins should see it once more (in round 1)."""
    memory: dict[str, Any] = field(default_factory=dict)
    """What plugins remember from round to round, by their names."""

    def about(self) -> RequestInfo:
        """The resource that this is about, as an authorizer is asked."""
        kind = self.kind
        return RequestInfo(
            "", "", True, kind.group, kind.version, kind.resource, self.subresource, self.namespace, self.name
        )
