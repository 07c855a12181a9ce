"""A patch as it came over the wire, ready to be applied to as many states of the object as it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from navarch.api.errors import BadRequest, StatusError, UnsupportedMediaType, invalid, resource_invalid
from navarch.api.schema import Node

Tree = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


def supported(strategic: bool) -> list[str]:
    """The patch types of a kind."""
    return [JSON_PATCH, MERGE_PATCH, *([STRATEGIC_PATCH] if strategic else []), APPLY_PATCH]


@dataclass(frozen=True)
class Patch:
    """``body`` is the patch's text, ``tree`` what it decoded to, ``duplicates`` the paths of its duplicate keys."""

    type: str
    body: bytes
    tree: Any
    duplicates: tuple[str, ...] = ()

    def apply(self, old: Tree, schema: Node) -> Tree:
        """The patched object. Raises a StatusError where the patch does not fit."""
        tree = self.tree
        if self.type == JSON_PATCH:
            from navarch.api.patch.json import apply_json

            new = apply_json(old, tree)
        elif self.type == MERGE_PATCH:
            from navarch.api.patch.merge import apply_merge

            new = apply_merge(old, tree)
        elif self.type == STRATEGIC_PATCH:
            from navarch.api.patch.strategic import apply_strategic

            new = apply_strategic(old, tree, schema)
            if isinstance(new, dict):
                # Upstream merges into a typed object: what a patch says of its type counts for nothing. Ansible scales
                # with {kind: Deployment, spec: {replicas: 2}}.
                new |= {key: old[key] for key in ("apiVersion", "kind") if key in old}
        else:
            raise UnsupportedMediaType(f"unknown patch type {self.type}")
        if not isinstance(new, dict):
            raise BadRequest("the patched object is no object")
        return new

    def leaves(self, field: str) -> bool:
        """Whether a field of the object surely stays as it is, so that nobody need compare it."""
        if self.type == MERGE_PATCH:
            return field not in self.tree
        return self.type == STRATEGIC_PATCH and field not in self.tree and not any(key.startswith("$") for key in self.tree)

    def touches_only(self, fields: Sequence[str]) -> bool:
        """Whether the patch surely changes nothing but these fields and, where it may not change, the type."""
        if self.type not in (MERGE_PATCH, STRATEGIC_PATCH):
            return False
        return all([key in fields or key in ("apiVersion", "kind") for key in self.tree])

    def refused(self, old: Tree, schema: Node, why: str) -> StatusError:
        """The error for a patch whose outcome is no object of the kind: of a strategic patch it shows the patch, of the
        others the patched object."""
        strategic = self.type == STRATEGIC_PATCH
        shown = go_text(self.tree) if strategic else orjson.dumps(self.apply(old, schema)).decode()
        return resource_invalid("", "", "", [invalid("patch", shown, why)])


def go_text(value: Any) -> str:
    """A JSON value as Go's fmt prints it with %v."""
    match value:
        case dict():
            return f"map[{' '.join(f'{key}:{go_text(value[key])}' for key in sorted(value))}]"
        case list():
            return f"[{' '.join(map(go_text, value))}]"
        case bool():
            return "true" if value else "false"
        case None:
            return "<nil>"
    return str(value)
