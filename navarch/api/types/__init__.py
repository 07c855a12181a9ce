"""Typed structs of the Kubernetes API, one module a group version, imported when first used: ``types.core_v1.Pod``."""

from __future__ import annotations

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"navarch.api.types.{name}")
    except ModuleNotFoundError as error:
        raise AttributeError(name) from error
