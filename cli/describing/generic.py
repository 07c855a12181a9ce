"""``describe`` for config maps, secrets, namespaces, and any other kind by its fields alone."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from cli.describing import events
from cli.describing.writer import Writer, annotation_lines, pairs
from cli.session import Session

Tree = dict[str, Any]
ACRONYMS = ("API", "URL", "UID", "OSB", "GUID")
SHOWN_ABOVE = ("managedFields", "name", "namespace", "labels", "annotations")


def _head(writer: Writer, meta: Tree, namespaced: bool) -> None:
    writer.line(0, "Name:", meta["name"])
    if namespaced:
        writer.line(0, "Namespace:", meta.get("namespace") or "")
    pairs(writer, 0, "Labels", meta.get("labels"))
    annotation_lines(writer, 0, meta.get("annotations"))


async def config_map(session: Session, tree: Tree, show_events: bool) -> str:
    writer = Writer()
    _head(writer, tree["metadata"], True)
    for title, data in (("Data", tree.get("data")), ("BinaryData", tree.get("binaryData"))):
        writer.line(0, f"\n{title}\n====")
        for key, value in sorted((data or {}).items()):
            if title == "Data":
                writer.line(0, f"{key}:\n----\n{value}\n")
            else:
                writer.line(0, f"{key}: {_size(value)} bytes")
        if title == "BinaryData":
            writer.line(0, "")
    if show_events:
        events.describe(writer, await events.about(session, "ConfigMap", tree), session.world.now())
    return writer.text()


async def secret(session: Session, tree: Tree, show_events: bool) -> str:
    writer = Writer()
    _head(writer, tree["metadata"], True)
    writer.line(0, f"\nType:  {tree.get('type') or ''}")
    writer.line(0, "\nData\n====")
    for key, value in sorted((tree.get("data") or {}).items()):
        writer.line(0, f"{key}:", f"{_size(value)} bytes")
    return writer.text()


def _size(value: str) -> int:
    try:
        return len(base64.b64decode(value))
    except binascii.Error:
        return len(value)


async def namespace(session: Session, tree: Tree, show_events: bool) -> str:
    writer = Writer()
    _head(writer, tree["metadata"], False)
    writer.line(0, "Status:", (tree.get("status") or {}).get("phase") or "")
    conditions = (tree.get("status") or {}).get("conditions")
    if conditions:
        writer.line(0, "Conditions:")
        writer.line(1, "Type", "Status", "LastTransitionTime", "Reason", "Message")
        writer.line(1, "----", "------", "------------------", "------", "-------")
        for each in conditions:
            writer.line(
                1, *(str(each.get(k) or "") for k in ("type", "status", "lastTransitionTime", "reason", "message"))
            )
    return writer.text()


async def anything(session: Session, tree: Tree, show_events: bool) -> str:
    """All fields of an object, their names spelled as words."""
    writer = Writer()
    _head(writer, tree["metadata"], True)
    meta = {k: v for k, v in tree["metadata"].items() if k not in SHOWN_ABOVE}
    _fields(writer, 0, tree | {"metadata": meta})
    if show_events:
        object_events = await events.about(session, tree["kind"], tree)
        events.describe(writer, object_events, session.world.now())
    return writer.text()


def _fields(writer: Writer, level: int, tree: Tree) -> None:
    for key, value in sorted(tree.items()):
        if isinstance(value, dict):
            writer.line(level, f"{_words(key)}:")
            _fields(writer, level + 1, value)
        elif isinstance(value, list):
            writer.line(level, f"{_words(key)}:")
            for each in value:
                if isinstance(each, dict):
                    _fields(writer, level + 1, each)
                else:
                    writer.line(level + 1, _shown(each))
        else:
            writer.line(level, f"{_words(key)}:", _shown(value))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "<nil>" if value is None else str(value)


def _words(key: str) -> str:
    """``lastTransitionTime`` -> ``Last Transition Time``."""
    if not key.isalnum():
        return key
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[A-Z]", key) or [key]
    return " ".join(w.upper() if w.upper() in ACRONYMS else w[:1].upper() + w[1:] for w in words)
