"""Control of objects: adopts those that a selector matches and nobody controls, releases those no longer matching."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from navarch.api.pods import controller_of
from navarch.api.types import meta_v1

JSON = dict[str, Any]


class HasMetadata(Protocol):
    metadata: meta_v1.ObjectMeta


T = TypeVar("T", bound=HasMetadata)


class Claim(NamedTuple, Generic[T]):
    """``mine`` are controlled already; ``adopt`` should become mine; ``release`` should not be mine any more."""

    mine: list[T]
    adopt: list[T]
    release: list[T]


def claim(owner: HasMetadata, matches: Callable[[T], bool], objects: Iterable[T]) -> Claim[T]:
    """Sorts objects of the owner's namespace. An owner that is being deleted neither adopts nor releases."""
    out: Claim[T] = Claim([], [], [])
    leaving = owner.metadata.deletion_timestamp is not None
    for obj in objects:
        ref = controller_of(obj.metadata)
        if ref is not None:
            if ref.uid != owner.metadata.uid:
                continue
            if matches(obj):
                out.mine.append(obj)
            elif not leaving:
                out.release.append(obj)
        elif not leaving and obj.metadata.deletion_timestamp is None and matches(obj):
            out.adopt.append(obj)
    return out


def reference(owner: HasMetadata, api_version: str, kind: str) -> meta_v1.OwnerReference:
    """The owner reference of a controller, blocking its foreground deletion."""
    return meta_v1.OwnerReference(
        api_version=api_version,
        kind=kind,
        name=owner.metadata.name or "",
        uid=owner.metadata.uid or "",
        controller=True,
        block_owner_deletion=True,
    )


def owners_patch(
    obj: HasMetadata, references: list[meta_v1.OwnerReference], finalizers: list[str] | None = None
) -> JSON:
    """Merge patch that gives ``obj`` these owner references in place of its own, and these finalizers unless None."""
    # The whole list goes into a merge patch; the resource version keeps us from undoing what somebody else just did.
    import msgspec

    meta = obj.metadata
    listed = [msgspec.to_builtins(r) for r in references]
    patch: JSON = {
        "metadata": {
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
            "ownerReferences": listed or None,
        }
    }
    if finalizers is not None:
        patch["metadata"]["finalizers"] = finalizers or None
    return patch


def adoption_patch(obj: HasMetadata, ref: meta_v1.OwnerReference, finalizers: Sequence[str] = ()) -> JSON:
    """Merge patch that makes ``ref`` the controller of ``obj``, with the ``finalizers`` that the controller's objects have."""
    mine = obj.metadata.finalizers or []
    with_ours = [*mine, *(f for f in finalizers if f not in mine)]
    return owners_patch(
        obj,
        [*(r for r in obj.metadata.owner_references or () if r.uid != ref.uid), ref],
        with_ours if finalizers else None,
    )


def release_patch(obj: HasMetadata, owner_uid: str, finalizers: Sequence[str] = ()) -> JSON:
    """Merge patch that takes away the reference to ``owner_uid``, and the controller's ``finalizers``, which nobody else
    would ever remove."""
    remaining = [f for f in obj.metadata.finalizers or () if f not in finalizers]
    references = [r for r in obj.metadata.owner_references or () if r.uid != owner_uid]
    return owners_patch(obj, references, remaining if finalizers else None)
