"""The events about an object, oldest first, as the last part of every description."""

from __future__ import annotations

from typing import Any

from cli.describing.writer import Writer
from cli.session import Session
from navarch.api.durations import age
from navarch.api.kinds import BY_GVK
from navarch.api.times import parse_time

Tree = dict[str, Any]
EVENT = BY_GVK["", "v1", "Event"]


async def about(session: Session, kind: str, tree: Tree) -> list[Tree]:
    """Events about an object. A node's events carry its name for a uid, so nodes are found by name."""
    meta = tree["metadata"]
    fields = [f"involvedObject.kind={kind}", f"involvedObject.name={meta['name']}"]
    if meta.get("namespace"):
        fields.append(f"involvedObject.namespace={meta['namespace']}")
    if kind != "Node":
        fields.append(f"involvedObject.uid={meta['uid']}")
    page = await session.client.tree(EVENT).list(meta.get("namespace"), field_selector=",".join(fields))
    return page.items


def describe(writer: Writer, events: list[Tree], now: float) -> None:
    if not events:
        writer.line(0, "Events:", "<none>")
        return
    writer.line(0, "Events:")
    writer.line(1, "Type", "Reason", "Age", "From", "Message")
    writer.line(1, "----", "------", "----", "----", "-------")
    for event in sorted(events, key=when):
        source = (event.get("source") or {}).get("component") or event.get("reportingComponent") or ""
        message = str(event.get("message") or "").strip()
        writer.line(1, event.get("type") or "", event.get("reason") or "", age_of(event, now), source, message)


def _last(event: Tree) -> str | None:
    series = event.get("series") or {}
    return series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")


def when(event: Tree) -> float:
    """When it last happened, for sorting."""
    last = _last(event)
    return parse_time(last) if last else 0.0


def age_of(event: Tree, now: float) -> str:
    """``5m``, or ``5m (x3 over 1h)`` for an event that happened several times."""
    count = (event.get("series") or {}).get("count") or event.get("count") or 1
    first = event.get("firstTimestamp") or event.get("eventTime")
    if count > 1:
        return f"{age(_last(event), now)} (x{count} over {age(first, now)})"
    return age(first or _last(event), now)
