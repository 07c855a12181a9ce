"""Measures of the node autoscaler's groups: how many nodes there are, for how long, and at which price."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lab.experiments.expressions import ExpressionError
from lab.experiments.library.base import Base, unit
from lab.experiments.series import Series, Span


class NodeGroups(Base):
    @unit("nodes over time")
    def group_size(self, group: str = "", what: str = "nodes") -> Series:
        """Nodes of a group of the autoscaler, or of all, with those that boot; of these alone with "booting"."""
        if what not in ("nodes", "booting"):
            raise ExpressionError(f"{what!r} is neither nodes nor booting")
        return self._groups(group, lambda values: float(values[what]))

    @unit("hours")
    def node_hours(self, group: str = "", span: Span | None = None) -> float:
        """The times of the nodes of a group, or of all, from the order of a machine until it is given back, summed up."""
        return self.group_size(group).integral(self._span(span)) / 3600

    @unit("as the prices")
    def cost(self, group: str = "", span: Span | None = None) -> float:
        """As `node_hours`, each at the price of its group."""
        prices = self._groups(group, lambda values: float(values["nodes"]) * float(values["price"]))
        return prices.integral(self._span(span)) / 3600

    def _span(self, span: Span | None) -> Span:
        return span or Span(self.recording.mark("begin") or 0.0, self.recording.end)

    def _groups(self, group: str, weigh: Callable[[Mapping[str, float]], float]) -> Series:
        names = sorted({s.name[11:] for s in self.recording.samples if s.name.startswith("nodegroups/")})
        if not names or (group and group not in names):
            raise ExpressionError(f"the node autoscaler has no group {group!r}; it has: {', '.join(names) or 'none'}")
        total = Series.of([(0.0, 0.0)])
        for name in [group] if group else names:
            points = [(s.time, weigh(s.values)) for s in self.recording.samples if s.name == f"nodegroups/{name}"]
            total = total + Series.of(points)
        return total
