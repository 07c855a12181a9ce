"""From client-side to server-side apply: what the annotation of the first says to the second.

``kubectl apply`` keeps what it applied in an annotation. When kubectl then applies on the server, it would conflict with
its old self: so fields that are as they were last applied are free for it to take. And as long as the annotation is there,
an apply by kubectl keeps it up to date, so that one can go back. Other managers have no part in this.
"""

from __future__ import annotations

from typing import Any

import orjson

from navarch.api import wellknown
from navarch.api.patch import Tree, fieldsets
from navarch.api.patch.fieldsets import FieldSet
from navarch.api.schema import Node

ANNOTATION = wellknown.LAST_APPLIED
KUBECTL = "kubectl"
LIMIT = 256 * 1024  # bytes; a larger configuration is not written down
_HTML = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})  # as Go writes JSON


def _annotation(tree: Tree) -> str:
    annotation: Any = (tree.get("metadata", {}).get("annotations") or {}).get(ANNOTATION)
    return annotation if isinstance(annotation, str) else ""


def unchanged(live: Tree, schema: Node, manager: str) -> FieldSet:
    """The fields of ``live`` that are as they were last applied by a client, as far as they matter to ``manager``."""
    text = _annotation(live)
    if manager != KUBECTL or not text:
        return {}
    try:
        last = orjson.loads(text)
        if not isinstance(last, dict) or last.get("apiVersion") != live.get("apiVersion"):
            return {}
        changes = fieldsets.compare(last, live, schema)
        fields = fieldsets.ownable_set(last, schema)
    except (orjson.JSONDecodeError, fieldsets.FieldSetError, AttributeError):
        return {}
    return fieldsets.without(fieldsets.difference(fields, changes.written), changes.removed)


def follow(new: Tree, config: Tree, manager: str) -> None:
    """Notes ``config`` in the annotation of ``new``, if it has one and "kubectl" applied."""
    if manager != KUBECTL or not _annotation(new):
        return
    metadata = {k: v for k, v in config.get("metadata", {}).items() if k != "managedFields"}
    if ANNOTATION in (metadata.get("annotations") or {}):
        metadata["annotations"] = {k: v for k, v in metadata["annotations"].items() if k != ANNOTATION}
    text = orjson.dumps({**config, "metadata": metadata}, option=orjson.OPT_SORT_KEYS).decode().translate(_HTML) + "\n"
    new["metadata"]["annotations"][ANNOTATION] = text if len(text) <= LIMIT else ""
