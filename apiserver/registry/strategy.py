"""Strategies: the hooks that the generic verbs (resource.py) call, in which one kind differs from another.

All hooks work on plain JSON trees that already passed the schema: unknown fields pruned, nulls dropped, types right,
quantities canonical. A hook that only reads may look at the tree as a typed struct (:meth:`Strategy.typed`).
Order of a write: prune -> default -> prepare -> mutating admission -> default -> validate -> validating admission
-> store.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from apiserver.registry.codec import SAME, Codec
from apiserver.request import Context
from navarch.api import names
from navarch.api.durations import age
from navarch.api.errors import Cause
from navarch.api.kinds import Kind
from navarch.api.schema import BOOL, INT32, INT64, OBJECT, Node, schema_of
from navarch.api.types.base import Struct

Tree = dict[str, Any]


class Column(NamedTuple):
    """One column of ``kubectl get``. ``priority`` above 0 shows with -o wide only."""

    name: str
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""


class ScalePaths(NamedTuple):
    """Where a kind keeps what its Scale shows. ``selector`` is the path of a text; () for the LabelSelector of
    spec.selector."""

    spec: tuple[str, ...] = ("spec", "replicas")
    status: tuple[str, ...] = ("status", "replicas")
    selector: tuple[str, ...] | None = ()


NAME_COLUMN = Column("Name", "string", "name")
AGE_COLUMN = Column("Age", "string", "")


class Strategy:
    """The rules of one kind. Subclass per kind; the base is right for a kind with nothing special (ConfigMap)."""

    kind: Kind
    stored: str = ""  # group/version in which objects are stored, "" for the kind's own
    codec: Codec = SAME  # between the stored and the served shape. The stored kind's fields() has both kinds' fields

    # Requests
    verbs: tuple[str, ...] = (
        "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch",
    )  # fmt: skip
    deprecation: str = ""  # a warning to everybody who uses the kind

    # Subresources
    has_status: bool = False  # serves the status subresource
    status_subresources: tuple[str, ...] = ("status",)  # those that write status, if there is one
    part_subresources: tuple[str, ...] = ()  # further ones that get, update and patch a part of the object
    scale_path: bool = False  # serves the scale subresource
    scale_paths: ScalePaths = ScalePaths()  # where it finds the replicas

    # Writing
    create_on_update: bool = False  # PUT of an absent object creates it
    unconditional_update: bool = True  # PUT without resourceVersion is allowed
    generation: bool = True  # metadata.generation follows spec
    forms: bool = False  # many objects have the same spec: see :meth:`form`
    defaults_spec: bool = False  # :meth:`default` looks at nothing but spec, so it need not run if spec did not change
    strict_types: bool = True  # a wrong type anywhere is a bad request; custom resources leave it to validate
    strategic_patch: bool = True  # custom resources have no strategic merge patch
    ttl: float = 0  # seconds an object lives (events: 3600)

    # Deleting
    default_propagation: str = "Background"  # of a delete that names none; Orphan: dependents stay; "": they are not tracked
    deletion_warning: str = ""  # to who deletes without a propagation policy

    # Selecting and showing
    selectable_fields: tuple[str, ...] = ()  # besides metadata.name and metadata.namespace
    indexed_field: str = ""  # the selectable field that most watches ask for (pods: spec.nodeName)
    columns: Sequence[Column] = (NAME_COLUMN, AGE_COLUMN)

    @property
    def schema(self) -> Node:
        """The compiled schema of the kind."""
        return schema_of(self.kind.type)

    def zero_status(self) -> Tree | None:
        """The least that a status has: what Go writes though nobody set it. None for custom resources, whose status may
        be absent."""
        return dict(self._zeros)

    @functools.cached_property
    def _zeros(self) -> Tree:
        """The required numbers and truth values of the status."""
        status = self.schema.fields.get("status")
        if not self.has_status or status is None or status.kind != OBJECT:
            return {}
        zeros = {INT32: 0, INT64: 0, BOOL: False}
        return {name: zeros[kind] for name in status.required if (kind := status.fields[name].kind) in zeros}

    @property
    def prefix(self) -> str:
        """Where the store keeps the objects; ends in a slash."""
        return f"/registry/{self.kind.resource}/"

    def default(self, obj: Tree) -> None:
        """Fills in Kubernetes' defaults, in place."""

    def form(self, obj: Tree) -> bytes:
        """For a kind with :attr:`forms`: a digest of the part of a new object that equal objects share. :meth:`default`,
        :meth:`validate` and :meth:`warnings` must give the same for two new objects of one form."""
        raise NotImplementedError

    def prepare_create(self, context: Context, obj: Tree) -> None:
        """Before validation of a new object: drop status, set system fields. May be called again; idempotent."""

    def prepare_update(self, context: Context, obj: Tree, old: Tree) -> None:
        """Before validation of a change by the main resource: the generic code has put old's status back already."""

    def prepare_status(self, context: Context, obj: Tree, old: Tree) -> None:
        """Before validation of a change by the status subresource: spec and labels are old's already."""

    def only_part(self, subresource: str, obj: Tree, old: Tree) -> Tree:
        """A write through one of :attr:`part_subresources`: ``old`` with nothing but that part of ``obj``. Changes neither."""
        raise NotImplementedError

    def validate_part(self, subresource: str, obj: Tree, old: Tree) -> list[Cause]:
        """All that is wrong with such a change."""
        raise NotImplementedError

    def validate(self, obj: Tree) -> list[Cause]:
        """All that is wrong with a new object beyond the schema; metadata is checked by the generic code."""
        return []

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        """All that is wrong with the change; includes :meth:`validate` unless overridden otherwise."""
        return self.validate(obj)

    def validate_status(self, obj: Tree, old: Tree) -> list[Cause]:
        return []

    def name_causes(self, name: str, prefix: bool) -> list[str]:
        """Validates metadata.name; ``prefix`` for generateName. DNS subdomain unless overridden."""
        return names.dns_subdomain(name.rstrip("-") if prefix else name)

    def fields(self, obj: Tree) -> dict[str, str]:
        """Values of selectable_fields, "" when absent. Looks at nothing else: the tree may hold only these paths."""
        return {}

    def cells(self, obj: Tree, now: float) -> list[Any]:
        """The row of ``kubectl get``, one value a column."""
        metadata = obj["metadata"]
        return [metadata.get("name", ""), age(metadata.get("creationTimestamp"), now)]

    def graceful_seconds(self, obj: Tree, seconds: int | None) -> int:
        """Seconds of grace a delete gets; 0 deletes at once. Pods override it."""
        return 0

    def check_delete(self, context: Context, obj: Tree) -> None:
        """Raises a StatusError if the object may not be deleted."""

    def begin_delete(self, obj: Tree) -> None:
        """Changes the object as its deletion begins but cannot end yet (a Namespace becomes Terminating)."""

    def is_held(self, obj: Tree) -> bool:
        """Whether something besides metadata.finalizers keeps a deleted object (a Namespace's spec.finalizers)."""
        return False

    async def begin_create(self, context: Context, obj: Tree, dry_run: bool) -> Callable[[bool], Any] | None:
        """Takes what the object needs from an allocator (cluster IPs, node ports), setting it in ``obj``.

        Returns a function called with True when the object was stored, False to give everything back.
        """
        return None

    async def begin_update(self, context: Context, obj: Tree, old: Tree, dry_run: bool) -> Callable[[bool], Any] | None:
        return None

    async def after_delete(self, obj: Tree) -> None:
        """Gives back what the object held; called once after it left the store."""

    def typed(self, obj: Tree) -> Struct:
        """A read-only typed view of the tree (about 8 us)."""
        return msgspec.convert(obj, self.kind.type)

    def warnings(self, obj: Tree, old: Tree | None) -> list[str]:
        """Deprecations and doubtful values to tell the client."""
        return []


Catalog = Mapping[tuple[str, str], Strategy]
"""(group, resource) -> the strategy of its served version."""
