"""Fixtures of this folder: ``call`` is a caller of a fresh server."""

from __future__ import annotations

import pytest

from tests.apiserver.registry.widget import serving
from tests.within import Within


@pytest.fixture
def call() -> Within:
    return Within(serving)
