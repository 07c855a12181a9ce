"""Forgets UDP flows, through the conntrack tool."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

log = logging.getLogger(__name__)


async def forget_udp(address: str, port: int, endpoints: Sequence[str]) -> None:
    """Deletes the flows to ``address:port`` ("" for any address) that go to ``endpoints``; to anywhere if none given.

    No such flow is no error.
    """
    base = ["conntrack", "-D", "-p", "udp", "--orig-port-dst", str(port)]
    if address:
        base += ["--orig-dst", address]
    for extra in [["--reply-src", e] for e in endpoints] or [[]]:
        try:
            process = await asyncio.create_subprocess_exec(
                *base, *extra, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
            )
        except FileNotFoundError:
            log.warning("conntrack is not installed: UDP flows may stay with endpoints that are gone")
            return
        await process.wait()
