"""Marks of whole folders and files, so that `deploy/test --fast` stays under three minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent

# Folders and files whose tests take a real lab, real clients, processes of their own, or many seconds of computing.
SLOW = (
    "clients",
    "cli",
    "e2e",
    "lab",
    "nodeagent/real",
    "nodeagent/runtime",
    "apiserver/aggregation",
    "apiserver/consistency",
    "apiserver/crd/test_kubectl.py",
    "apiserver/auth/test_kubectl.py",
    "apiserver/auth/test_encryption.py",
    "apiserver/http/test_schemathesis.py",
    "apiserver/storage",
    "controllers/test_faults.py",
    "controllers/test_integration.py",
    "scheduler/test_costs.py",
    "scheduler/test_equivalence.py",
    "scheduler/test_processes.py",
    "test_docs.py",
    "test_examples.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = item.path.relative_to(TESTS).as_posix()
        if any(path == entry or path.startswith(entry + "/") for entry in SLOW):
            item.add_marker(pytest.mark.slow)
