"""Base of all measures: one recording, the objects that ever were in it, and sums over objects as a value over time.

A method that expressions may call says with ``@unit`` which unit its value has; its docstring is its entry in the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lab.experiments.recording import Recording
from lab.experiments.series import Series
from lab.experiments.state import State, Tree
from navarch.api import quantity

F = TypeVar("F", bound=Callable[..., Any])
UNIT = "__unit__"


def unit(name: str) -> Callable[[F], F]:
    """Declares a measure whose values have this unit."""

    def declare(function: F) -> F:
        setattr(function, UNIT, name)
        return function

    return declare


class Base:
    """One recording. What is worked out once is kept."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._series: dict[tuple[Any, ...], Series] = {}
        self._final: State | None = None

    def _counted(self, key: tuple[Any, ...], weigh: Callable[[Tree], float], resource: str = "pods") -> Series:
        """The sum over all objects of a resource of what each weighs."""
        if key not in self._series:
            weights: dict[str, float] = {}
            total, points = 0.0, [(0.0, 0.0)]
            for change in self.recording.of(resource):
                new = 0.0 if change.type == "DELETED" else float(weigh(change.object))
                if new != (old := weights.get(change.key, 0.0)):
                    weights[change.key] = new
                    total += new - old
                    points.append((change.time, total))
            self._series[key] = Series.of(points)
        return self._series[key]

    def _state(self) -> State:
        """All objects that ever were, each as it was last."""
        if self._final is None:
            self._final = State()
            for change in self.recording.changes:
                self._final.apply("MODIFIED", change.key, change.object)
        return self._final

    def _where(self, reference: str, test: Callable[[Tree], Any]) -> Callable[[Tree], float]:
        belongs = self._state().member(reference)
        return lambda pod: float(belongs(pod) and test(pod))


def amount(listed: Mapping[str, Any], resource: str) -> float:
    """In cores, bytes or units; 0 if it is not listed."""
    return float(quantity.parse(str(listed[resource]))) if resource in listed else 0.0


def requests(pod: Tree, resource: str) -> float:
    """The sum of what a pod's containers request."""
    return sum(amount((c.get("resources") or {}).get("requests") or {}, resource) for c in pod["spec"]["containers"])
