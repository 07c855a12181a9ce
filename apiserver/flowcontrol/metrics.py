"""Metrics of flow control, under Kubernetes' metric names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from apiserver.flowcontrol.flows import Flows
from apiserver.flowcontrol.levels import Level, Schema
from navarch.exposition import head, labels

_START = "apiserver_flowcontrol_"
_OF_SCHEMA: tuple[tuple[str, str, str, Callable[[Schema], float]], ...] = (
    ("dispatched_requests_total", "counter", "Requests that got their seats.", lambda s: s.dispatched),
    ("current_inqueue_requests", "gauge", "Requests that wait in queues.", lambda s: s.waiting),
    ("current_inqueue_seats", "gauge", "Seats that waiting requests will take.", lambda s: s.waiting_seats),
    ("current_executing_requests", "gauge", "Requests that run, or watches that begin.", lambda s: s.running),
    ("current_executing_seats", "gauge", "Seats that running requests take.", lambda s: s.running_seats),
)
_OF_LEVEL: tuple[tuple[str, str, Callable[[Level], float]], ...] = (
    ("nominal_limit_seats", "Seats by the level's share.", lambda v: v.limits.nominal),
    ("lower_limit_seats", "Seats that a level keeps in any case.", lambda v: v.limits.lower),
    ("upper_limit_seats", "The most seats that a level can get.", lambda v: v.limits.upper),
    ("current_limit_seats", "Seats that a level has now.", lambda v: v.seats),
    ("demand_seats_high_watermark", "The highest demand of the last period.", lambda v: v.highest),
    ("demand_seats_average", "The mean demand of the last period.", lambda v: v.mean),
    ("demand_seats_stdev", "The standard deviation of the demand of the last period.", lambda v: v.spread),
    ("demand_seats_smoothed", "Demand that rises at once and falls slowly.", lambda v: v.smooth),
    ("target_seats", "Seats that the last allocation aimed at.", lambda v: v.target),
)


def lines(flows: Flows) -> Iterator[str]:
    """The text for /metrics, line by line."""
    schemas = sorted(flows.schemas.values(), key=lambda s: s.name)
    for name, kind, help_, read in _OF_SCHEMA:
        yield from head(_START + name, kind, help_)
        for s in schemas:
            yield f"{_START}{name}{{{_labels(s)}}} {read(s):g}"
    yield from head(_START + "rejected_requests_total", "counter", "Requests that were refused.")
    for s in schemas:
        for reason, count in sorted(s.rejected.items()):
            yield f"{_START}rejected_requests_total{{{_labels(s)},{labels([('reason', reason)])}}} {count}"
    yield from head(_START + "request_wait_duration_seconds", "histogram", "How long requests waited in queues.")
    for s in schemas:
        # Who did not have to wait is not observed one by one.
        at_once = s.dispatched - sum(s.waits.counts)
        yield from s.waits.lines(_START + "request_wait_duration_seconds", f'{_labels(s)},execute="true"', at_once)
        if any(s.refused_waits.counts):
            yield from s.refused_waits.lines(_START + "request_wait_duration_seconds", f'{_labels(s)},execute="false"')
    yield from head(_START + "request_execution_seconds", "histogram", "How long requests ran; of watches, their beginning.")
    for s in schemas:
        yield from s.runs.lines(_START + "request_execution_seconds", f'{_labels(s)},type="regular"')
    levels: Iterable[Level] = sorted(flows.levels.values(), key=lambda v: v.name)
    for name, help_, value in _OF_LEVEL:
        yield from head(_START + name, "gauge", help_)
        for level in levels:
            yield f"{_START}{name}{{{labels([('priority_level', level.name)])}}} {value(level):g}"
    text = "The fraction of its target that each level got in the last allocation."
    yield from head(_START + "seat_fair_frac", "gauge", text)
    yield f"{_START}seat_fair_frac {flows.fraction:g}"


def _labels(schema: Schema) -> str:
    return labels((("flow_schema", schema.name), ("priority_level", schema.level)))
