"""Fixtures of this folder: ``server`` is a fresh server of everything."""

from __future__ import annotations

import pytest

from tests.apiserver.admission.support import running
from tests.within import Within


@pytest.fixture
def server() -> Within:
    return Within(running)
