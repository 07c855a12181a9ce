"""metadata.managedFields: who wrote which fields.

:func:`update` keeps the entries for writes that are not an apply, as Kubernetes does: a write owns what it changed, takes it
from all others, and nobody owns what is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from navarch.api.patch import Tree, fieldsets
from navarch.api.patch.fieldsets import Changes, FieldSet
from navarch.api.schema import Node

MAX_UPDATERS = 10
"""Entries of operation Update beyond these are merged, oldest first."""
ANCIENT = "ancient-changes"
MAX_NAME = 128


class Manager(NamedTuple):
    """The key that tells entries apart. An applier is the same in all versions: its ``api_version`` is ""."""

    name: str
    operation: str
    api_version: str
    subresource: str

    def __str__(self) -> str:
        """As conflicts name it."""
        out = f'"{self.name}"'
        if self.subresource:
            out += f' with subresource "{self.subresource}"'
        return f"{out} using {self.api_version}" if self.operation == "Update" else out


@dataclass(frozen=True)
class Entry:
    """One entry of managedFields."""

    fields: FieldSet = field(default_factory=dict)
    time: str = ""
    api_version: str = ""


Entries = dict[Manager, Entry]


def manager_name(field_manager: str | None, user_agent: str | None) -> str:
    """The fieldManager parameter, else the client's program from its User-Agent."""
    name = field_manager or (user_agent or "").split("/", 1)[0]
    if not name.isprintable():
        name = "".join(c for c in name if c.isprintable())
    return name[:MAX_NAME] or "unknown"


def problem(entries: Any) -> str:
    """Why entries that a client or a webhook sent cannot be decoded, "" if they can; the words are upstream's."""
    for i, e in enumerate(entries or ()):
        if not isinstance(e, dict) or e.get("operation") not in ("Apply", "Update"):
            return "operation must be `Apply` or `Update`"
        if not e.get("apiVersion"):
            return "apiVersion must not be empty"
        if e.get("fieldsType") != "FieldsV1":
            kind = e.get("fieldsType")
            return f'invalid fieldsType "{kind}" in managed fields entry {i}' if kind else (
                f"missing fieldsType in managed fields entry {i}"
            )  # fmt: skip
        if why := fieldsets.problem(e.get("fieldsV1", {})):
            return f"error decoding versioned set from {e['apiVersion']}: {why}"
    return ""


def decode(entries: Sequence[Mapping[str, Any]] | None) -> Entries:
    """Entries by manager; what is no FieldsV1 entry is left out."""
    out: Entries = {}
    for e in entries or ():
        operation = e.get("operation")
        if operation not in ("Apply", "Update") or not isinstance(e.get("fieldsV1"), dict):
            continue
        version = e.get("apiVersion", "")
        key = Manager(
            e.get("manager", ""), operation, version if operation == "Update" else "", e.get("subresource", "")
        )
        fields = e["fieldsV1"]
        if key in out:
            fields = fieldsets.union(out[key].fields, fields)
        out[key] = Entry(fields, e.get("time", ""), version)
    return out


def encode(entries: Entries) -> list[Tree]:
    """Entries in Kubernetes' order: Apply before Update, then by time, name, version, subresource."""
    out = []
    for manager, entry in sorted(
        entries.items(), key=lambda p: (p[0].operation, p[1].time, p[0].name, p[1].api_version, p[0])
    ):
        tree: Tree = {"manager": manager.name, "operation": manager.operation, "apiVersion": entry.api_version}
        if entry.time:
            tree["time"] = entry.time
        tree |= {"fieldsType": "FieldsV1", "fieldsV1": entry.fields}
        if manager.subresource:
            tree["subresource"] = manager.subresource
        out.append(tree)
    return out


def current(old: Mapping[str, Any] | None, new: Mapping[str, Any], subresource: str = "") -> Entries | None:
    """The entries to go on from: those that the client sent to the object itself if they can be decoded, else the stored
    ones. None for a reset (``[{}]``)."""
    sent = new.get("metadata", {}).get("managedFields")
    stored = (old or {}).get("metadata", {}).get("managedFields")
    if sent is stored or subresource:
        return decode(stored)
    if sent == [{}]:
        return None
    return (decode(sent) if sent == stored or not problem(sent) else {}) or decode(stored)


def update(
    old: Mapping[str, Any] | None,
    new: Mapping[str, Any],
    schema: Node,
    *,
    manager: str,
    api_version: str,
    now: str,
    subresource: str = "",
) -> list[Tree]:
    """managedFields for ``new`` after a write other than an apply; ``old`` is None when the object is new.

    An object that was stored without entries stays without until someone applies it. Never raises: where an element of
    a list has no identity, the entries stay as they are.
    """
    entries = current(old, new, subresource)
    if entries is None or (old is not None and not entries):
        return []
    try:
        changes = fieldsets.created(new, schema) if old is None else fieldsets.compare(old, new, schema)
    except fieldsets.FieldSetError:
        return encode(entries)
    if changes:
        me = Manager(manager, "Update", api_version, subresource)
        entries = take(entries, changes, me)
        if written := changes.written:
            mine = entries.get(me)
            fields = fieldsets.union(mine.fields, written) if mine else written
            if mine or (changes.added and changes.modified):
                fields = fieldsets.ordered(fields)
            entries[me] = Entry(fields, now, api_version)
            entries = cap(entries)
    return encode(entries)


def take(entries: Entries, changes: Changes, by: Manager) -> Entries:
    """Takes what was removed from everybody, and what was written from everybody but ``by``. Empty entries go."""
    written = changes.written
    out: Entries = {}
    for manager, entry in entries.items():
        fields = fieldsets.without(entry.fields, changes.removed) if changes.removed else entry.fields
        if manager != by and written:
            fields = fieldsets.difference(fields, written)
        if fields:
            out[manager] = replace(entry, fields=fields)
    return out


def cap(entries: Entries) -> Entries:
    """Merges the oldest Update entries of one version into ``ancient-changes`` until there are at most ten."""
    updaters = sorted((m for m in entries if m.operation == "Update"), key=lambda m: (entries[m].time, m.name, m))
    excess = len(updaters) - MAX_UPDATERS
    if excess <= 0:
        return entries
    out = dict(entries)
    buckets: dict[str, Manager] = {}
    for manager in updaters:
        if excess <= 0:
            break
        entry, first = entries[manager], buckets.get(manager.api_version)
        ancient = Manager(ANCIENT, "Update", manager.api_version, "")
        if first is None:
            buckets[manager.api_version] = manager
            continue
        if first != ancient:
            # The first entry of a version becomes ancient only once there is a second to merge with.
            oldest = out.pop(first)
            have = out.get(ancient)
            out[ancient] = Entry(
                fieldsets.union(oldest.fields, have.fields) if have else oldest.fields, oldest.time, oldest.api_version
            )
            buckets[manager.api_version] = ancient
        if manager == ancient:
            continue
        del out[manager]
        whole = fieldsets.ordered(fieldsets.union(out[ancient].fields, entry.fields))
        out[ancient] = Entry(whole, max(entry.time, out[ancient].time), entry.api_version)
        excess -= 1
    return out
