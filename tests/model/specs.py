"""Which specs were in force lately: what a controller that is behind may still act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Specs:
    """The specs of one object over time, newest last."""

    def __init__(self) -> None:
        self._every: list[tuple[float, Mapping[str, Any]]] = []

    def put(self, time: float, spec: Mapping[str, Any]) -> None:
        self._every.append((time, spec))

    @property
    def now(self) -> Mapping[str, Any]:
        return self._every[-1][1]

    def since(self, time: float) -> list[Mapping[str, Any]]:
        """Those in force at ``time`` or later."""
        last = [i for i, (begun, _) in enumerate(self._every) if begun <= time]
        return [spec for _, spec in self._every[last[-1] if last else 0 :]]

    def __bool__(self) -> bool:
        return bool(self._every)
