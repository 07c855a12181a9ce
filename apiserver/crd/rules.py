"""Rules in CEL: not built yet, so a schema that has some is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from navarch.api.errors import Cause, forbidden


def compile_rules(schema: Mapping[str, Any]) -> Any:
    return None


def check_rules(schema: Mapping[str, Any], path: str) -> list[Cause]:
    """Refuses rules anywhere in the schema."""
    if "x-kubernetes-validations" in repr(schema):
        return [forbidden(path, "x-kubernetes-validations is not supported")]
    return []
