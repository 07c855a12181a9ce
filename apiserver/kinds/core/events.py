"""Events: one stored object, in the shape of core/v1, served as core and as events.k8s.io too."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import kind, meta_of, name_cell
from apiserver.kinds.checks import immutable
from apiserver.registry.codec import TreeCodec
from apiserver.registry.strategy import NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names
from navarch.api.durations import age
from navarch.api.errors import Cause, invalid, not_supported, required
from navarch.api.kinds import BY_GVK, Kind, group_version

DEFAULT_TTL = 3600.0  # seconds
TYPES = ("Normal", "Warning")
REFERENCE = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
# events.k8s.io name -> core name, where they differ.
RENAMED = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
IMMUTABLE_FIELDS = ("eventTime", "reportingInstance", "action", "reason", "related", "type")
COLUMNS = (
    Column("Last Seen"), Column("Type"), Column("Reason"), Column("Object"), Column("Subobject", priority=1),
    Column("Source", priority=1), Column("Message"), Column("First Seen", priority=1),
    Column("Count", "integer", priority=1), NAME_COLUMN._replace(priority=1),
)  # fmt: skip


def to_core(obj: Tree) -> Tree:
    """The core/v1 shape of an events.k8s.io Event."""
    return {RENAMED.get(k, k): v for k, v in obj.items()} | {"apiVersion": "v1"}


_BACK = {v: k for k, v in RENAMED.items()}


def from_core(obj: Tree) -> Tree:
    """The events.k8s.io shape of a core/v1 Event."""
    return {_BACK.get(k, k): v for k, v in obj.items()} | {"apiVersion": "events.k8s.io/v1"}


def event_fields(obj: Tree) -> dict[str, str]:
    """Selectable fields of both kinds, from the stored shape: there is one entry in the cache for both."""
    about, source = obj.get("involvedObject") or {}, obj.get("source") or {}
    out: dict[str, str] = {}
    for field in REFERENCE:
        out[f"involvedObject.{field}"] = out[f"regarding.{field}"] = about.get(field) or ""
    return out | {
        "reason": obj.get("reason") or "",
        "reportingComponent": obj.get("reportingComponent") or "",
        "reportingController": obj.get("reportingComponent") or "",
        "source": source.get("component") or obj.get("reportingComponent") or "",
        "type": obj.get("type") or "",
    }


def event_cells(obj: Tree, now: float) -> list[Any]:
    """The row, from the stored shape."""
    about, source, series = obj.get("involvedObject") or {}, obj.get("source") or {}, obj.get("series")
    first = obj.get("firstTimestamp") or obj.get("eventTime")
    last, count = obj.get("lastTimestamp") or first, obj.get("count") or 1
    if series is not None:
        last, count = series.get("lastObservedTime"), series.get("count") or 0
    target = (about.get("kind") or "").lower()
    if about.get("name"):
        target += "/" + about["name"]
    component, host = source.get("component") or obj.get("reportingComponent") or "", source.get("host")
    return [
        age(last, now), obj.get("type") or "", obj.get("reason") or "", target, about.get("fieldPath") or "",
        f"{component}, {host}" if host else component, (obj.get("message") or "").strip(), age(first, now), count,
        name_cell(obj),
    ]  # fmt: skip


def _scope(about: Tree) -> Kind | None:
    return BY_GVK.get((*group_version(about.get("apiVersion") or "v1"), about.get("kind") or ""))


def _namespace(obj: Tree, field: str) -> list[Cause]:
    """An event lives where its object does; events about cluster-scoped objects live in default or kube-system."""
    about, namespace = obj.get(field) or {}, meta_of(obj).get("namespace")
    own = about.get("namespace") or ""
    if own == namespace:
        return []
    scope = _scope(about)
    text = "does not match event.namespace"
    if not own:
        if namespace in ("default", "kube-system") or (scope is not None and not scope.namespaced):
            return []
        return [invalid(f"{field}.namespace", own, text)]
    return [invalid(f"{field}.namespace", own, text)]


class _Events(Strategy):
    """Rules of both kinds. ``ttl``: seconds that an event is there, 0: for ever."""

    generation = False
    create_on_update = True
    default_propagation = ""
    columns = COLUMNS

    def __init__(self, ttl: float = DEFAULT_TTL) -> None:
        self.ttl = ttl

    def fields(self, obj: Tree) -> dict[str, str]:
        return event_fields(obj)

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return event_cells(obj if "involvedObject" in obj else to_core(obj), now)


class EventStrategy(_Events):
    kind = kind("v1", "Event")
    selectable_fields = (
        *(f"involvedObject.{f}" for f in REFERENCE), "reason", "reportingComponent", "source", "type",
    )  # fmt: skip

    def default(self, obj: Tree) -> None:
        for field in ("involvedObject", "source"):
            if obj.get(field) is None:
                obj[field] = {}
        for field in ("reportingComponent", "reportingInstance"):
            if obj.get(field) is None:
                obj[field] = ""

    def validate(self, obj: Tree) -> list[Cause]:
        return _namespace(obj, "involvedObject")


class _NewEvents(TreeCodec):
    def served_tree(self, obj: Tree) -> Tree:
        return from_core(obj)

    def stored(self, obj: Tree) -> Tree:
        return to_core(obj)


class NewEventStrategy(_Events):
    """events.k8s.io/v1: stricter, and stored as the core shape."""

    codec = _NewEvents()
    kind = kind("events.k8s.io/v1", "Event")
    selectable_fields = (
        *(f"regarding.{f}" for f in REFERENCE), "reason", "reportingController", "type",
    )  # fmt: skip

    def prepare_create(self, context: Context, obj: Tree) -> None:
        if obj.get("type") is None:
            obj["type"] = "Normal"

    def validate(self, obj: Tree) -> list[Cause]:
        out = _namespace(obj, "regarding")
        if not obj.get("eventTime"):
            out.append(required("eventTime"))
        series = obj.get("series")
        if series is not None:
            if (series.get("count") or 0) < 2:
                out.append(invalid("series.count", series.get("count") or 0, "should be at least 2"))
            if not series.get("lastObservedTime"):
                out.append(required("series.lastObservedTime"))
        controller = obj.get("reportingController") or ""
        if not controller:
            out.append(required("reportingController"))
        else:
            out += [invalid("reportingController", controller, m) for m in names.qualified_name(controller)]
        for field in ("reportingInstance", "action", "reason"):
            text = obj.get(field) or ""
            if not text:
                out.append(required(field))
            elif len(text) > 128:
                out.append(invalid(field, "", "can have at most 128 characters"))
        if len(obj.get("note") or "") > 1024:
            out.append(invalid("note", "", "can have at most 1024 characters"))
        if obj.get("type") not in TYPES:
            out.append(not_supported("type", obj.get("type") or "", TYPES))
        return out

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        """Only the series may go on; an event made by the older API is taken as it is."""
        if not old.get("eventTime"):
            return []
        fixed = (*IMMUTABLE_FIELDS, *RENAMED)
        return self.validate(obj) + [c for f in fixed for c in immutable(obj.get(f), old.get(f), f)]
