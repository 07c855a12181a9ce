"""Objects that several informers of one process share: each event is decoded once, however many watch it.

A simulated cluster has its scheduler, controllers and nodes in one process, and each keeps all pods. They get the same
bytes, and cached objects are never changed, so one object can stand in all caches: that saves a fifth of the memory.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from navarch.api.types.base import Struct
from navarch.client.codec import StructCodec
from navarch.client.undecodable import Undecodable

S = TypeVar("S", bound=Struct)


class Decodings:
    """The last ``most`` objects that were decoded, without their managedFields."""

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self._objects: dict[tuple[object, bytes], Any] = {}

    def decode_one(self, codec: StructCodec[S], data: bytes | msgspec.Raw) -> S | Undecodable:
        """As the codec's own; may give an object that others have, too."""
        key = codec.struct, bytes(data)
        obj: S | Undecodable | None = self._objects.get(key)
        if obj is None:
            obj = codec.decode_one(data)
            if not isinstance(obj, Undecodable):
                codec.drop_managed_fields(obj)
            if len(self._objects) >= self._most:
                del self._objects[next(iter(self._objects))]
            self._objects[key] = obj
        return obj
