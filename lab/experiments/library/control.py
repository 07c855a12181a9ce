"""Measures of the control plane: changes that were stored, requests that components made, Events."""

from __future__ import annotations

from lab.experiments.expressions import ExpressionError, meant
from lab.experiments.library.base import Base, unit
from lab.experiments.series import Span
from navarch.api import kinds

_RESOURCES = frozenset(kind.resource for kind in kinds.BY_GVK.values())


class Control(Base):
    @unit("changes")
    def writes(self, resource: str = "", span: Span | None = None) -> int:
        """Changes of objects of a resource such as "pods", or of all."""
        if resource not in _RESOURCES and (hint := meant(resource, _RESOURCES)):  # one of a CustomResourceDefinition may be
            raise ExpressionError(f"there is no resource {resource!r}{hint}")
        changes = self.recording.of(resource) if resource else iter(self.recording.changes)
        return sum(1 for c in changes if span is None or span.begin < c.time <= span.end)

    @unit("requests")
    def requests(self, component: str, verb: str = "writes", span: Span | None = None) -> float:
        """Requests that a component ("scheduler", "controllers", "nodes") made to the API server: "writes", or "reads" (watches
        count once). Between two marks, or in the whole run."""
        if verb not in ("writes", "reads"):
            raise ExpressionError(f"{verb!r} is neither writes nor reads")
        points = [(s.time, s.values) for s in self.recording.samples if s.name == f"requests/{component}"]
        if not points:
            names = sorted({s.name[9:] for s in self.recording.samples if s.name.startswith("requests/")})
            raise ExpressionError(f"no requests of {component!r} were counted; counted: {', '.join(names) or 'none'}")

        def until(time: float) -> float:
            return max((float(values.get(verb, 0)) for at, values in points if at <= time), default=0.0)

        return until(span.end) - until(span.begin) if span else until(self.recording.end)

    @unit("events")
    def events(self, reason: str) -> int:
        """How often an Event of this reason was told, with its repeats."""
        counts: dict[str, int] = {}
        for change in self.recording.of("events"):
            if change.object.get("reason") == reason and change.type != "DELETED":
                counts[change.key] = int(change.object.get("count") or 1)
        return sum(counts.values())
