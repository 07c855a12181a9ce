"""Fixtures of this folder: ``ask`` is a caller of a fresh server of everything."""

from __future__ import annotations

import pytest

from tests.apiserver.kinds.test_served import on_server
from tests.within import Within


@pytest.fixture
def ask() -> Within:
    return Within(on_server)
