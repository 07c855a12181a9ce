"""Between objects as the store has them and as one version of a kind serves them.

Two kinds may be one stored object in two shapes (core and events.k8s.io Event), under the same keys; a custom resource is
stored in one of its versions. Rules always run on the served shape: objects are turned at the store's edge, after all
rules have run, and after reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import orjson

Tree = dict[str, Any]


class ConversionWebhook(Protocol):
    """A webhook that turns objects from one version into another."""

    storage: str
    """The API version in which objects are stored."""

    async def convert(self, objects: Sequence[Tree], api_version: str) -> list[Tree]:
        """The objects in ``api_version``, in order. Raises StatusError."""
        ...


class Codec:
    """``same``: stored and served objects never differ, so that callers may take bytes as they are. ``webhook``: who has to
    be asked about objects that :meth:`needs_webhook`, before any other method sees them."""

    same: bool = True
    webhook: ConversionWebhook | None = None

    def served(self, data: bytes, revision: int) -> bytes:
        """An object as clients see it; the very same bytes if that is as it is stored."""
        return data

    def served_tree(self, obj: Tree) -> Tree:
        """The same, decoded; may change ``obj``."""
        return obj

    def stored(self, obj: Tree) -> Tree:
        """The shape in which an object is stored; does not change ``obj``."""
        return obj

    def needs_rewrite(self, data: bytes) -> bool:
        """Whether a stored object is in another version than objects are stored in now: any write brings it over."""
        return False

    def needs_webhook(self, data: bytes) -> bool:
        """Whether only the webhook can turn a stored object into the served version."""
        return False


SAME = Codec()


class TreeCodec(Codec):
    """A shape of its own that is not the stored one: subclasses say :meth:`served_tree` and :meth:`stored`."""

    same = False

    def served(self, data: bytes, revision: int) -> bytes:
        return orjson.dumps(self.served_tree(orjson.loads(data)))
