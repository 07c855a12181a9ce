"""Audit annotations that admission adds to a request's event."""

from __future__ import annotations

from apiserver.request import Attributes


def annotate(attributes: Attributes, key: str, value: str) -> None:
    """Adds an annotation to the audit event of the request; the first value of a key stays."""
    attributes.context.audit_annotations.setdefault(key, value)
