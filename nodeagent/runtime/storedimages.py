"""The image store as the runtime protocol shows it. All of it blocks."""

from __future__ import annotations

from collections.abc import Sequence

from nodeagent.images.reference import InvalidReference
from nodeagent.images.store import ImageInUse, ImageStore, Record, Settings
from nodeagent.runtime.runtime import Image, RuntimeError_


def find(store: ImageStore, reference: str) -> Image | None:
    """The image of a name or id. Raises RuntimeError_ (InvalidImageName)."""
    try:
        record = store.find(reference)
    except InvalidReference as error:
        raise RuntimeError_("InvalidImageName", str(error)) from error
    return _public(store, record, store.names().get(record.id, [])) if record else None


def everything(store: ImageStore) -> list[Image]:
    names = store.names()
    return [_public(store, record, names.get(record.id, [])) for record in store.records()]


def remove(store: ImageStore, image_id: str) -> None:
    """Raises RuntimeError_ (ImageInUse)."""
    try:
        store.remove(image_id)
    except ImageInUse as error:
        raise RuntimeError_("ImageInUse", str(error)) from error


def _public(store: ImageStore, record: Record, names: Sequence[str]) -> Image:
    settings = store.config(record.id).config or Settings()
    return Image(
        id=record.id,
        tags=tuple(names),
        digests=record.digests,
        size=record.size,
        user=settings.user,
        entrypoint=tuple(settings.entrypoint or ()),
        cmd=tuple(settings.cmd or ()),
        env=tuple(settings.env or ()),
        working_dir=settings.working_dir,
        stop_signal=settings.stop_signal,
    )
