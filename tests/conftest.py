"""Tests that are coroutines, and marks of whole folders and files, so that `deploy/test --fast` stays under three minutes."""

from __future__ import annotations

import inspect
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from navarch.virtual import SimulatedWorld
from navarch.world import RealWorld
from tests.failures import pytest_terminal_summary  # noqa: F401  # a hook
from tests.lanes import pytest_runtestloop  # noqa: F401  # a hook
from tests.propertyreports import pytest_runtest_setup  # noqa: F401  # a hook
from tests.sampling import pytest_report_header  # noqa: F401  # a hook
from tests.within import Within

TESTS = Path(__file__).parent

os.environ["NAVARCH_EGRESS"] = "off"  # no test reaches the network, however it is started
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background so, and what ignores a signal hands that on to the programs it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Folders and files whose tests take a real lab, real clients, processes of their own, or many seconds of computing.
SLOW = (
    "clients",
    "cli",
    "e2e",
    "lab",
    "model",
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
    "test_contributing.py",
    "test_docs.py",
    "test_examples.py",
    "test_recipes.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = item.path.relative_to(TESTS).as_posix()
        if any(path == entry or path.startswith(entry + "/") for entry in SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def world() -> SimulatedWorld:
    """Virtual time. A test that is a coroutine and takes it runs on it; other coroutines run in real time."""
    return SimulatedWorld()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs ``async def test_...`` on the test's ``world``, or by the fixture that is a :class:`Within`."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}
    for name, value in arguments.items():
        if isinstance(value, Within):
            value.run(lambda given: test(**arguments | {name: given}))  # noqa: B023  # it ends before the loop goes on
            return True
    arguments.get("world", RealWorld()).run(lambda: test(**arguments))
    return True
