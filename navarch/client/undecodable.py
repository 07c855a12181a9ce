"""Objects that are JSON and yet do not fit the struct of their kind: what can still be said of them, and how often they came.

The API server checks what it stores; an aggregated server, another version, or an old entry in the store may still hold
such an object. Whoever lists or watches must go on with its neighbours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from navarch.api.types import meta_v1
from navarch.world import describe

DECODE_ERRORS = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)
"""Exceptions of msgspec at bytes that do not fit; invalid UTF-8 is a ValueError, deep nesting a RecursionError."""


class Undecodable(NamedTuple):
    """``metadata`` is None if not even that fits; what is text of it stands in the other fields ("" if it is none)."""

    namespace: str | None
    name: str
    uid: str
    resource_version: str
    metadata: meta_v1.ObjectMeta | None
    reason: str

    @property
    def key(self) -> str:
        """As :func:`navarch.client.informer.key_of` makes it."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    def is_controlled_by(self, uid: str) -> bool:
        """Whether the owner of this uid controls the object."""
        refs = (self.metadata.owner_references if self.metadata else None) or ()
        return any(ref.controller and ref.uid == uid for ref in refs)


def undecodable(data: bytes | msgspec.Raw, error: Exception) -> Undecodable:
    """Reads as much of an object as fits. Raises one of DECODE_ERRORS if ``data`` is no JSON object."""
    tree = msgspec.json.decode(data)
    if not isinstance(tree, dict):
        raise ValueError(f"an object was expected, not {type(tree).__name__}")
    raw = tree.get("metadata")
    meta: dict[str, Any] = raw if isinstance(raw, dict) else {}

    def text(field: str) -> str:
        value = meta.get(field)
        return value if isinstance(value, str) else ""

    try:
        metadata = msgspec.convert(meta, meta_v1.ObjectMeta)
    except DECODE_ERRORS:
        metadata = None
    return Undecodable(
        text("namespace") or None, text("name"), text("uid"), text("resourceVersion"), metadata, describe(error)
    )


class Faults:
    """Answers that a component's informers passed over, by resource; a collector for prometheus_client's registries."""

    def __init__(self) -> None:
        self.undecodable: Counter[str] = Counter()  # versions of objects that could not be decoded
        self.handlers: Counter[str] = Counter()  # events on which a handler or an index raised
        self.followers: Counter[str] = Counter()  # unexpected exceptions of a list or a watch as a whole

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily  # only processes with a metrics page load it

        for name, text, counts in (
            ("navarch_informer_undecodable_objects", "Versions of objects passed over: not decodable", self.undecodable),
            ("navarch_informer_handler_failures", "Events on which a handler or an index raised", self.handlers),
            ("navarch_informer_failures", "Unexpected exceptions of lists and watches", self.followers),
        ):
            family = CounterMetricFamily(name, text, labels=("resource",))
            for resource, count in sorted(counts.items()):
                family.add_metric((resource,), count)
            yield family
