"""Fixtures that exist only while an event loop runs: a server, a cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple


class Within(NamedTuple):
    """The value of such a fixture: ``run`` starts an event loop, makes the thing, calls the test with it and clears up.

    A test that is a coroutine gets the thing itself (tests/conftest.py calls it so); any other gets the Within.
    """

    run: Callable[[Callable[[Any], Awaitable[None]]], Any]
