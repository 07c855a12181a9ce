"""Measures on a recording: the functions that expressions may call. Pure.

Series (a value over time): ``ready(ref)``, ``desired(ref)``, ``unavailable(ref)``, ``total(ref)``, ``pending(ref)``,
``running_image(ref, image)``, ``nodes_ready()``, ``requested(resource)``, ``allocatable(resource)``, ``nodes_used()``,
``skew(ref, label)`` (the most pods in one value of a node label, less the fewest in another),
``arrived(resource)`` (what all pods that ever came ask for), ``gauge(name)`` (a scheduler plugin's own, see Plugin.gauges).
Of a series, over a span (the whole run by default): ``min``, ``max``, ``mean`` (over time), ``integral`` (unit-seconds),
``seconds`` (for how long it is not 0), ``last``; ``along(y, x, at)``: the mean of y while x rounds to ``at``.

Lists, a number a pod: ``waits(ref)`` (created to bound), ``starts(ref)`` (bound to ready), ``lives(ref)`` (created to
gone), in seconds. Of a list: ``quantile(list, q)``, ``min``, ``max``, ``mean``, ``sum``, ``count``.

Counts: ``bound(ref)``, ``never_bound(ref)``, ``evicted(ref)``, ``restarts(ref)``, ``writes(resource)``, ``events(reason)``,
and of load ``sent(service)``, ``ok(service)``, ``failed(service)``, ``latency(service, q)`` (seconds).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lab.experiments.expressions import Expression, ExpressionError
from lab.experiments.recording import Recording
from lab.experiments.series import Series, Span, along
from lab.experiments.state import State, Tree, is_live, is_ready, relevant
from navarch.api import quantity
from navarch.api.pods import TERMINAL_PHASES


class Life(NamedTuple):
    """One pod's; times in seconds since the start, None for what did not happen."""

    name: str
    node: str
    owner: str
    image: str
    created: float
    bound: float | None
    ready: float | None
    deleted: float | None
    restarts: int
    evicted: bool


class Measures:
    """The functions on one recording. What is worked out once is kept."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._series: dict[tuple[Any, ...], Series] = {}
        self._lives: list[tuple[Life, Tree]] | None = None
        self._final: State | None = None

    # Series

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

    def ready(self, reference: str = "") -> Series:
        return self._counted(("ready", reference), self._where(reference, is_ready))

    def total(self, reference: str = "") -> Series:
        return self._counted(("total", reference), self._where(reference, is_live))

    def pending(self, reference: str = "") -> Series:
        test = self._where(reference, lambda p: is_live(p) and not p["spec"].get("nodeName"))
        return self._counted(("pending", reference), test)

    def running_image(self, reference: str, image: str) -> Series:
        def test(pod: Tree) -> bool:
            return is_live(pod) and any(c.get("image") == image for c in pod["spec"]["containers"])

        return self._counted(("image", reference, image), self._where(reference, test))

    def desired(self, reference: str) -> Series:
        resource = list(relevant(reference))[-1]
        name = reference.rpartition("/")[2]
        return self._counted(
            ("desired", reference),
            lambda o: float(o["spec"].get("replicas", 1)) if o["metadata"]["name"] == name else 0.0,
            resource,
        )

    def unavailable(self, reference: str) -> Series:
        missing = self.desired(reference) - self.ready(reference)
        return Series(missing.times, [max(0.0, v) for v in missing.values])

    def nodes_ready(self) -> Series:
        def test(node: Tree) -> float:
            return float(any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions") or ()))

        return self._counted(("nodes_ready",), test, "nodes")

    def requested(self, resource: str) -> Series:
        """By pods on nodes; in cores, bytes, or units."""
        return self._counted(("requested", resource), lambda p: _requests(p, resource) if _on_node(p) else 0.0)

    def allocatable(self, resource: str) -> Series:
        return self._counted(
            ("allocatable", resource), lambda n: _amount(n["status"].get("allocatable") or {}, resource), "nodes"
        )

    def arrived(self, resource: str) -> Series:
        """By all pods that ever came, on nodes or not; in cores, bytes, or units."""
        key = ("arrived", resource)
        if key not in self._series:
            arrivals: set[str] = set()
            total, points = 0.0, [(0.0, 0.0)]
            for change in self.recording.of("pods"):
                uid = change.object["metadata"].get("uid", change.key)
                if uid not in arrivals:
                    arrivals.add(uid)
                    total += _requests(change.object, resource)
                    points.append((change.time, total))
            self._series[key] = Series.of(points)
        return self._series[key]

    def gauge(self, name: str) -> Series:
        """A number that a scheduler plugin tells after each decision."""
        points = [(s.time, s.values[name]) for s in self.recording.samples if s.name == "gauges" and name in s.values]
        if not points:
            names = sorted({k for s in self.recording.samples if s.name == "gauges" for k in s.values})
            raise ExpressionError(f"no plugin tells a gauge {name!r}; told: {', '.join(names) or 'none'}")
        return Series.of(points)

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

    def nodes_used(self) -> Series:
        """Nodes with at least one pod."""
        counts: dict[str, int] = {}
        where: dict[str, str] = {}
        points = [(0.0, 0.0)]
        for change in self.recording.of("pods"):
            here = _on_node(change.object) and change.type != "DELETED"
            new = change.object["spec"].get("nodeName", "") if here else ""
            old = where.get(change.key, "")
            if new == old:
                continue
            where[change.key] = new
            for node, more in ((old, -1), (new, 1)):
                if node:
                    counts[node] = counts.get(node, 0) + more
            points.append((change.time, float(sum(n > 0 for n in counts.values()))))
        return Series.of(points)

    # Pods

    def lives(self, reference: str = "") -> list[Life]:
        """The pods of a reference, in the order in which they were made."""
        if self._lives is None:
            self._lives = _lives(self.recording)
        belongs = self._state().member(reference)
        return [life for life, tree in self._lives if belongs(tree)]

    def waits(self, reference: str = "") -> list[float]:
        return [p.bound - p.created for p in self.lives(reference) if p.bound is not None]

    def starts(self, reference: str = "") -> list[float]:
        return [p.ready - p.bound for p in self.lives(reference) if p.ready is not None and p.bound is not None]

    def lifetimes(self, reference: str = "") -> list[float]:
        return [p.deleted - p.created for p in self.lives(reference) if p.deleted is not None]

    def bound(self, reference: str = "") -> int:
        return sum(p.bound is not None for p in self.lives(reference))

    def never_bound(self, reference: str = "") -> int:
        return sum(p.bound is None for p in self.lives(reference))

    def evicted(self, reference: str = "") -> int:
        return sum(p.evicted for p in self.lives(reference))

    def restarts(self, reference: str = "") -> int:
        return sum(p.restarts for p in self.lives(reference))

    def writes(self, resource: str = "") -> int:
        """Changes of objects of a resource such as "pods", or of all."""
        return sum(1 for _ in (self.recording.of(resource) if resource else self.recording.changes))

    def events(self, reason: str) -> int:
        """How often an Event of this reason was told, with its repeats."""
        counts: dict[str, int] = {}
        for change in self.recording.of("events"):
            if change.object.get("reason") == reason and change.type != "DELETED":
                counts[change.key] = int(change.object.get("count") or 1)
        return sum(counts.values())

    # Load

    def _load(self, service: str, value: str, span: Span | None) -> float:
        samples = [s for s in self.recording.samples if s.name == f"load/{service}"]
        if not samples:
            raise ExpressionError(f"there is no load on a service {service!r}")
        return sum(s.values.get(value, 0) for s in samples if span is None or span.begin < s.time <= span.end)

    def sent(self, service: str, span: Span | None = None) -> float:
        return self._load(service, "sent", span)

    def ok(self, service: str, span: Span | None = None) -> float:
        return self._load(service, "ok", span)

    def failed(self, service: str, span: Span | None = None) -> float:
        return self._load(service, "failed", span)

    def latency(self, service: str, q: float) -> float:
        """Quantile of the answers that came, from the samples' histograms; in seconds, to within a twentieth."""
        buckets: dict[str, float] = {}
        for sample in self.recording.samples:
            if sample.name == f"load/{service}":
                for name, count in sample.values.items():
                    if name.startswith("le_"):
                        buckets[name] = buckets.get(name, 0) + count
        ordered = sorted((float(name[3:]), count) for name, count in buckets.items())
        rank, total = q * sum(c for _, c in ordered), 0.0
        for bound, count in ordered:
            total += count
            if total >= rank and count:
                return bound
        return math.nan


def _on_node(pod: Tree) -> bool:
    return bool(pod["spec"].get("nodeName")) and pod.get("status", {}).get("phase") not in TERMINAL_PHASES


def _amount(listed: Mapping[str, Any], resource: str) -> float:
    return float(quantity.parse(str(listed[resource]))) if resource in listed else 0.0


def _requests(pod: Tree, resource: str) -> float:
    return sum(_amount((c.get("resources") or {}).get("requests") or {}, resource) for c in pod["spec"]["containers"])


def _lives(recording: Recording) -> list[tuple[Life, Tree]]:
    by_uid: dict[str, dict[str, Any]] = {}
    for change in recording.of("pods"):
        pod = change.object
        uid = pod["metadata"].get("uid", change.key)
        one = by_uid.setdefault(uid, {"created": change.time, "bound": None, "ready": None, "deleted": None, "evicted": False})
        if pod["spec"].get("nodeName") and one["bound"] is None:
            one["bound"] = change.time
        if one["ready"] is None and is_ready(pod):
            one["ready"] = change.time
        if change.type == "DELETED":
            one["deleted"] = change.time
        reasons = {c.get("reason") for c in pod.get("status", {}).get("conditions") or () if c["type"] == "DisruptionTarget"}
        one["evicted"] = one["evicted"] or bool(reasons) or pod.get("status", {}).get("reason") == "Evicted"
        one["tree"] = pod
    out = []
    for one in by_uid.values():
        pod = one["tree"]
        owner = next((o["name"] for o in pod["metadata"].get("ownerReferences") or () if o.get("controller")), "")
        restarts = sum(int(s.get("restartCount", 0)) for s in pod.get("status", {}).get("containerStatuses") or ())
        out.append((
            Life(
                pod["metadata"]["name"], pod["spec"].get("nodeName", ""), owner, pod["spec"]["containers"][0].get("image", ""),
                one["created"], one["bound"], one["ready"], one["deleted"], restarts, one["evicted"],
            ), pod,
        ))  # fmt: skip
    return out


def quantile(values: Iterable[float], q: float) -> float:
    """Linear between the two nearest; nan of nothing."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


METHODS = [n for n, v in vars(Measures).items() if not n.startswith("_") and inspect.isfunction(v)]
REDUCERS = ("min", "max", "mean", "integral", "seconds", "last", "along", "quantile", "sum", "count", "span")
FUNCTIONS = (*METHODS, *REDUCERS)


def _functions(measures: Measures, whole: Span) -> dict[str, Callable[..., Any]]:
    def over(name: str, of_list: Callable[[Sequence[float]], float]) -> Callable[..., Any]:
        def reduce(value: Any, *more: Any) -> Any:
            if isinstance(value, Series):
                return getattr(value, name)(more[0] if more else whole)
            if isinstance(value, list):
                return of_list(value) if value else math.nan
            return of_list([value, *more])

        return reduce

    return {
        **{n: getattr(measures, n) for n in METHODS},
        "min": over("minimum", min),
        "max": over("maximum", max),
        "mean": over("mean", lambda v: math.fsum(v) / len(v)),
        "integral": lambda series, span=whole: series.integral(span),
        "seconds": lambda series, span=whole: series.seconds(span),
        "last": lambda series: series.at(whole.end),
        "along": lambda y, x, at: dict(along(y, x, whole)).get(float(at), math.nan),
        "quantile": quantile,
        "sum": lambda values: math.fsum(values),
        "count": len,
        "span": Span,
    }


def measure(recording: Recording, expressions: Mapping[str, str], series: Mapping[str, str] = {}) -> dict[str, float]:
    """The values of all expressions. Marks are names for their times (nan if they were not reached), ``begin`` and ``finish``
    those of the whole run; ``series`` and earlier measures are names, too. Raises ExpressionError."""
    names, functions = _names(recording, series)
    out: dict[str, float] = {}
    for name, text in expressions.items():
        value = Expression(text).evaluate(functions, names)
        if isinstance(value, Series | list | str):
            raise ExpressionError(f"measure {name!r}: {text!r} is no number; take min, max, mean, last ... of it")
        out[name] = names[name] = float(value)
    return out


def curve(recording: Recording, y: str, x: str, step: float, series: Mapping[str, str] = {}) -> list[tuple[float, float]]:
    """Points of one series over another, or over time (``x`` is ""), in steps of x. Raises ExpressionError."""
    names, functions = _names(recording, series)
    over = Expression(y).evaluate(functions, names)
    whole = Span(names["begin"], names["finish"])
    if not isinstance(over, Series):
        raise ExpressionError(f"{y!r} is no series, so it cannot be drawn")
    if x:
        place = Expression(x).evaluate(functions, names)
        if not isinstance(place, Series):
            raise ExpressionError(f"{x!r} is no series, so nothing can be drawn over it")
        return along(over, place, whole, step)
    count = min(1000, int((whole.end - whole.begin) / step) + 1)
    return [(n * step, over.at(whole.begin + n * step)) for n in range(count)]


def _names(
    recording: Recording, series: Mapping[str, str]
) -> tuple[dict[str, Any], Mapping[str, Callable[..., Any]]]:
    measures = Measures(recording)
    whole = Span(recording.mark("begin") or 0.0, recording.end)
    functions = _functions(measures, whole)
    names: dict[str, Any] = {"begin": whole.begin, "finish": whole.end}
    declared = recording.header.get("marks") or ()
    names |= {name: math.nan if (at := recording.mark(name)) is None else at for name in declared}
    for name, text in series.items():
        names[name] = Expression(text).evaluate(functions, names)
        if not isinstance(names[name], Series):
            raise ExpressionError(f"series {name!r}: {text!r} is a number; it belongs to measure")
    return names, functions
