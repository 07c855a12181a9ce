"""Past templates of a set, kept as ControllerRevisions: found again by their content, numbered by their last use."""

from __future__ import annotations

from typing import Any

import msgspec

from controllers.controller import BY_CONTROLLER, by_controller
from navarch.api.errors import AlreadyExists, NotFound
from navarch.api.hashes import content_hash
from navarch.api.types import apps_v1, meta_v1
from navarch.client.client import Client
from navarch.client.informer import Informer

Revision = apps_v1.ControllerRevision
HASH = "controller-revision-hash"
INDEX = {BY_CONTROLLER: by_controller}
MAX_COLLISIONS = 8
"""Names that are tried in one go for one revision."""


def data_of(template: Any) -> dict[str, Any]:
    """The data kept of a template: a strategic merge patch that brings it back (kubectl rollout undo applies it).

    The null is Kubernetes' own: a time that is not set was not left out when these data were first written, and clients compare
    them byte for byte.
    """
    tree = msgspec.to_builtins(template)
    metadata = {"creationTimestamp": None, **tree.get("metadata", {})}
    return {"spec": {"template": _sorted({**tree, "metadata": metadata, "$patch": "replace"})}}


def _sorted(value: Any) -> Any:
    """With the keys of objects in the order of Go's maps: revisions are compared byte for byte by others."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def oldest_first(revisions: list[Revision]) -> list[Revision]:
    return sorted(revisions, key=lambda r: (r.revision, r.metadata.creation_timestamp or "", r.metadata.name or ""))


async def current(
    client: Client, informer: Informer[Revision], owner: Any, reference: meta_v1.OwnerReference
) -> tuple[Any, Revision, list[Revision]]:
    """The owner, the revision of its template, made or renumbered if need be, and the others, oldest first.

    The owner is another one than before if the revision's name belongs to another template: its status has a collision count
    then, from which the next name follows.
    """
    data = data_of(owner.spec.template)
    revisions = oldest_first(informer.by_index(BY_CONTROLLER, owner.metadata.uid or ""))
    last = revisions[-1].revision if revisions else 0
    same = [r for r in revisions if r.data == data]
    if same:
        revision = same[-1]
        if revision.revision < last:
            revision = await client[Revision].update(msgspec.structs.replace(revision, revision=last + 1))
        return owner, revision, [r for r in revisions if r.metadata.uid != revision.metadata.uid]
    for _ in range(MAX_COLLISIONS):
        new = _named(owner, reference, data, last + 1)
        try:
            return owner, await client[Revision].create(new), revisions
        except AlreadyExists as error:
            other = await client[Revision].get(new.metadata.name or "", owner.metadata.namespace)
            if other.data == data:  # the cache is behind
                return owner, other, revisions
            collision = error
        status = msgspec.structs.replace(owner.status, collision_count=(owner.status.collision_count or 0) + 1)
        owner = await client[type(owner)].update_status(msgspec.structs.replace(owner, status=status))
    raise collision


def _named(owner: Any, reference: meta_v1.OwnerReference, data: dict[str, Any], number: int) -> Revision:
    collision = owner.status.collision_count
    digest = content_hash([data, collision] if collision else data)
    labels = {**(owner.spec.template.metadata.labels or {}), HASH: digest}
    meta = meta_v1.ObjectMeta(
        name=f"{owner.metadata.name}-{digest}", namespace=owner.metadata.namespace, labels=labels,
        owner_references=[reference], annotations=owner.metadata.annotations,
    )  # fmt: skip
    return Revision(metadata=meta, data=data, revision=number)


async def truncate(client: Client, old: list[Revision], live: set[str], limit: int) -> None:
    """Forgets the oldest revisions that no pod has, beyond ``limit``."""
    spare = [r for r in old if (r.metadata.labels or {}).get(HASH) not in live]
    for revision in spare[: max(0, len(spare) - limit)]:
        try:
            await client[Revision].delete(revision.metadata.name or "", revision.metadata.namespace)
        except NotFound:
            continue
