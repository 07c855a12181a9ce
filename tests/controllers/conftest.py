"""Fixtures of this folder: ``cluster`` is a cluster's control plane with hollow nodes, on virtual time."""

from __future__ import annotations

import pytest

from tests.controllers.cluster import run_cluster
from tests.within import Within


@pytest.fixture
def cluster() -> Within:
    return Within(run_cluster)
