"""managedFields of every write: who owns which field (the rules are in navarch.api.patch.managed)."""

from __future__ import annotations

from typing import Any

import orjson

from navarch.api.kinds import Kind
from navarch.api.patch import managed, same
from navarch.api.schema import Node
from navarch.api.times import format_time
from navarch.world import World

Tree = dict[str, Any]
APPLY = "Apply"


class Tracker:
    """Keeps metadata.managedFields of one kind right."""

    def __init__(self, world: World, kind: Kind, schema: Node) -> None:
        self.world, self.kind, self.schema = world, kind, schema

    def created(self, obj: Tree, manager: str, *, status: bool) -> None:
        """A new object: ``manager`` owns all that it says; not status, unless ``status``."""
        said = obj if status or "status" not in obj else {k: v for k, v in obj.items() if k != "status"}
        self._update(obj, None, said, manager, "")

    def changed(self, obj: Tree, old: Tree, said: Tree, manager: str, operation: str, subresource: str) -> None:
        """``manager`` owns what it changed; nobody owns what is gone. An apply has seen to it already. ``said`` equals
        ``obj``, and shares with ``old`` what is known to be the same."""
        if operation != APPLY:
            self._update(obj, old, said, manager, subresource)

    def _update(self, obj: Tree, old: Tree | None, said: Tree, manager: str, subresource: str) -> None:
        entries = managed.update(
            old, said, self.schema, manager=managed.manager_name(manager, None), api_version=self.kind.api_version,
            now=format_time(self.world.now()), subresource=subresource,
        )  # fmt: skip
        if entries:
            obj["metadata"]["managedFields"] = entries
        else:
            obj["metadata"].pop("managedFields", None)


def differ_in_times(new: Tree, old: Tree) -> bool:
    """Whether nothing changed but the times in managedFields: those of an apply move before defaults, admission and the
    kind's own rules have had their say, which may lead back to what is stored."""
    entries, before = new["metadata"].get("managedFields"), old["metadata"].get("managedFields")
    # Metadata first: it is small, and most writes change it.
    if not same({**new["metadata"], "managedFields": 0}, {**old["metadata"], "managedFields": 0}):
        return False
    if not same({**new, "metadata": 0}, {**old, "metadata": 0}):
        return False
    if same(entries, before) and ("managedFields" in new["metadata"]) == ("managedFields" in old["metadata"]):
        return True
    if not entries or not before or len(entries) != len(before):
        return False
    timeless = [sorted(orjson.dumps({**e, "time": ""}, option=orjson.OPT_SORT_KEYS) for e in es) for es in (entries, before)]
    return timeless[0] == timeless[1]
