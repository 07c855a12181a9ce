"""managedFields of every write: who owns which field."""

from __future__ import annotations

from typing import Any

from navarch.api.kinds import Kind
from navarch.api.schema import Node
from navarch.world import World

Tree = dict[str, Any]


class Tracker:
    """Keeps metadata.managedFields of one kind right."""

    def __init__(self, world: World, kind: Kind, schema: Node) -> None:
        self.world, self.kind, self.schema = world, kind, schema

    def created(self, obj: Tree, manager: str, *, status: bool) -> None:
        """A new object: ``manager`` owns all that it says; not status, unless ``status``."""

    def changed(self, obj: Tree, old: Tree, manager: str, operation: str, subresource: str) -> None:
        """``manager`` owns what it changed; nobody owns what is gone."""
