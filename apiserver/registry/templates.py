"""Objects of one template are worked out once: pods of a ReplicaSet have the same spec but for the name of a token volume.

A kind takes part by :meth:`apiserver.registry.strategy.Strategy.form`. Two things are remembered, each of a spec in which
nothing was wrong and of which nobody was warned: what pruning and defaults make of it as it was sent, and that what
admission made of it can be decoded, is valid, and has all defaults. Everything else (metadata, admission itself, quotas,
ownership) is done for each object.
"""

from __future__ import annotations

from typing import Any

import orjson

from apiserver.registry.strategy import Strategy

Tree = dict[str, Any]
MAX_SPECS = 256  # that are remembered as they were sent
MAX_FORMS = 1024  # that were found right
MAX_SPEC_BYTES = 16 * 1024  # bytes of a spec that is worth remembering


class Templates:
    """The specs of one kind that were seen before."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._ready: dict[bytes, bytes] = {}  # a spec as sent -> pruned and with its defaults
        self._right: set[bytes] = set()

    def sent(self, obj: Tree) -> bytes | None:
        """The spec of a body, to ask :meth:`ready` with; None if there is nothing to remember."""
        spec = obj.get("spec")
        if not self._strategy.forms or type(spec) is not dict:
            return None
        try:
            sent = orjson.dumps(spec)
        except orjson.JSONEncodeError:  # too deep
            return None
        return sent if len(sent) <= MAX_SPEC_BYTES else None

    def ready(self, sent: bytes) -> Tree | None:
        """The spec, pruned and with its defaults, if it was seen before."""
        spec = self._ready.get(sent)
        return orjson.loads(spec) if spec is not None else None

    def remember(self, sent: bytes, spec: Tree) -> None:
        """``sent`` had nothing wrong and became ``spec``."""
        if len(self._ready) >= MAX_SPECS:
            self._ready.clear()
        self._ready[sent] = orjson.dumps(spec)

    def form(self, obj: Tree) -> bytes | None:
        """The part that equal objects share, as a digest; None for a kind whose objects have nothing in common."""
        return self._strategy.form(obj) if self._strategy.forms else None

    def right(self, form: bytes | None) -> bool:
        """Whether an object of this form was found right."""
        return form in self._right

    def found_right(self, form: bytes) -> None:
        if len(self._right) >= MAX_FORMS:
            self._right.clear()
        self._right.add(form)
