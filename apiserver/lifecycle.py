"""Tasks that run before a server is ready and beside it: the parts of a server put themselves down here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Hook = Callable[[], Awaitable[None]]


class Lifecycle:
    """``before_ready``: run one after the other once the cache is filled, as what makes the first objects.
    ``background``: started after those, and cancelled when the server ends. ``stopping``: set when the shutdown begins."""

    def __init__(self) -> None:
        self.before_ready: list[Hook] = []
        self.background: list[Hook] = []
        self.stopping = asyncio.Event()
