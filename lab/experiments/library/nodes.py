"""Measures of nodes: how much of them is used, how evenly, and how much of what is free is of use."""

from __future__ import annotations

import math
from collections.abc import Callable

from lab.experiments.expressions import ExpressionError
from lab.experiments.library.base import Base, amount, requests, unit
from lab.experiments.series import Series, Span
from lab.experiments.state import Tree, is_live
from navarch.api.pods import TERMINAL_PHASES


class Nodes(Base):
    @unit("nodes over time")
    def nodes_ready(self) -> Series:
        """Nodes that are Ready."""

        def test(node: Tree) -> float:
            return float(any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions") or ()))

        return self._counted(("nodes_ready",), test, "nodes")

    @unit("nodes over time")
    def nodes_used(self) -> Series:
        """Nodes with at least one pod."""
        return self._over_nodes(("nodes_used",), "pods", lambda used, free: float(sum(n > 0 for n in used.values())))

    @unit("cores, bytes or units over time")
    def requested(self, resource: str) -> Series:
        """Requests of the pods on nodes."""
        return self._counted(("requested", resource), lambda p: requests(p, resource) if _on_node(p) else 0.0)

    @unit("cores, bytes or units over time")
    def allocatable(self, resource: str) -> Series:
        """The sum of what all nodes offer."""
        return self._counted(
            ("allocatable", resource), lambda n: amount(n["status"].get("allocatable") or {}, resource), "nodes"
        )

    @unit("share over time")
    def utilisation(self, resource: str) -> Series:
        """`requested` over `allocatable`, of all nodes together."""
        return self.requested(resource) / self.allocatable(resource)

    @unit("share over time")
    def imbalance(self, resource: str) -> Series:
        """Standard deviation, over the nodes, of the share of each that is requested."""

        def deviation(used: dict[str, float], offered: dict[str, float]) -> float:
            shares = [used.get(n, 0.0) / size for n, size in offered.items() if size]
            mean = math.fsum(shares) / len(shares) if shares else 0.0
            return math.sqrt(math.fsum((s - mean) ** 2 for s in shares) / len(shares)) if shares else 0.0

        return self._over_nodes(("imbalance", resource), resource, deviation)

    @unit("cores, bytes or units over time")
    def stranded(self, resource: str, size: float) -> Series:
        """The free amount of nodes that have less than `size` of it free: nothing of this size fits there."""

        def remains(used: dict[str, float], offered: dict[str, float]) -> float:
            free = (all_ - used.get(n, 0.0) for n, all_ in offered.items())
            return math.fsum(f for f in free if 0 < f < size)

        return self._over_nodes(("stranded", resource, size), resource, remains)

    @unit("share over time")
    def fragmentation(self, resource: str, size: float) -> Series:
        """`stranded` over all that is free: 0 if something of this size fits wherever anything is free."""
        return self.stranded(resource, size) / (self.allocatable(resource) - self.requested(resource))

    @unit("share, a number a node")
    def by_node(self, resource: str, span: Span | None = None) -> list[float]:
        """The share of each node that is requested, in the mean over time; in the order of their names."""
        over = span or Span(self.recording.mark("begin") or 0.0, self.recording.end)
        offered = {o["metadata"]["name"]: o for o in self._state().all("nodes")}
        out = []
        for name, node in sorted(offered.items()):
            size = amount(node["status"].get("allocatable") or {}, resource)

            def weigh(pod: Tree, name: str = name) -> float:
                return requests(pod, resource) if _on_node(pod) and pod["spec"].get("nodeName") == name else 0.0

            used = self._counted(("on", name, resource), weigh)
            out.append(used.mean(over) / size if size else 0.0)
        return out

    @unit("resource-seconds, a number a value")
    def shares(self, resource: str, label: str = "") -> list[float]:
        """Requests of the pods of each value of a label, summed over time; without a label, of each namespace."""
        totals: dict[str, float] = {}
        since: dict[str, tuple[str, float, float]] = {}  # by key of a pod: whose, how much, from when
        for change in self.recording.of("pods"):
            meta = change.object["metadata"]
            whose = str((meta.get("labels") or {}).get(label)) if label else meta["namespace"]
            totals.setdefault(whose, 0.0)
            before, much, at = since.pop(change.key, (whose, 0.0, change.time))
            totals[before] += much * (change.time - at)
            if change.type != "DELETED" and _on_node(change.object):
                since[change.key] = whose, requests(change.object, resource), change.time
        for whose, much, at in since.values():
            totals[whose] += much * (self.recording.end - at)
        return [totals[name] for name in sorted(totals)]

    @unit("pods over time")
    def skew(self, reference: str, label: str) -> Series:
        """The most pods in one value of a node label, less the fewest in another: how unevenly they lie in the zones."""
        domains = {o["metadata"]["name"]: (o["metadata"].get("labels") or {}).get(label) for o in self._state().all("nodes")}
        counts = {d: 0 for d in domains.values() if d is not None}
        belongs, where = self._state().member(reference), dict[str, str]()
        points = [(0.0, 0.0)]
        for change in self.recording.of("pods"):
            here = change.type != "DELETED" and is_live(change.object) and belongs(change.object)
            new = domains.get(change.object["spec"].get("nodeName", "")) if here else None
            old = where.pop(change.key, None)
            if new is not None:
                where[change.key] = new
            for domain, more in ((old, -1), (new, 1)) if new != old else ():
                if domain is not None:
                    counts[domain] += more
            points.append((change.time, float(max(counts.values(), default=0) - min(counts.values(), default=0))))
        return Series.of(points)

    @unit("whatever the plugin tells, over time")
    def gauge(self, name: str) -> Series:
        """A number that a scheduler plugin tells after each decision (Plugin.gauges)."""
        points = [(s.time, s.values[name]) for s in self.recording.samples if s.name == "gauges" and name in s.values]
        if not points:
            names = sorted({k for s in self.recording.samples if s.name == "gauges" for k in s.values})
            raise ExpressionError(f"no plugin tells a gauge {name!r}; told: {', '.join(names) or 'none'}")
        return Series.of(points)

    def _over_nodes(
        self, key: tuple[object, ...], resource: str, reduce: Callable[[dict[str, float], dict[str, float]], float]
    ) -> Series:
        """A function of what is used and what is offered, by node, after every change; of "pods" each pod counts 1."""
        if key not in self._series:
            used: dict[str, float] = {}
            offered: dict[str, float] = {}
            where: dict[str, tuple[str, float]] = {}
            points = [(0.0, 0.0)]
            for change in self.recording.changes:
                kind = change.key.split("/", 3)[2]
                if kind == "nodes":
                    name = change.object["metadata"]["name"]
                    size = amount(change.object["status"].get("allocatable") or {}, resource)
                    if change.type == "DELETED":
                        offered.pop(name, None)
                    elif offered.get(name) != size:
                        offered[name] = size
                    else:
                        continue
                elif kind == "pods":
                    here = _on_node(change.object) and change.type != "DELETED"
                    much = (1.0 if resource == "pods" else requests(change.object, resource)) if here else 0.0
                    new = (change.object["spec"]["nodeName"], much) if here else ("", 0.0)
                    old = where.get(change.key, ("", 0.0))
                    if new == old:
                        continue
                    where[change.key] = new
                    for node, more in ((old[0], -old[1]), new):
                        if node:
                            used[node] = used.get(node, 0.0) + more
                else:
                    continue
                points.append((change.time, reduce(used, offered)))
            self._series[key] = Series.of(points)
        return self._series[key]


def _on_node(pod: Tree) -> bool:
    return bool(pod["spec"].get("nodeName")) and pod.get("status", {}).get("phase") not in TERMINAL_PHASES
