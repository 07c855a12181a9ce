"""Tells the node's proxy of a new pod's address, and waits until NetworkPolicies are in force for it.

The proxy drops what a pod sends before it knows the pod (docs/decisions.md D63). It would hear of the address from the API
server, a moment too late for the first packet of a quick container; so the agent tells it before there is one.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

log = logging.getLogger(__name__)

PATIENCE = 1.0  # seconds; then the pod starts all the same, and the proxy's rules hold it back until they are ready


async def wait_isolated(socket: Path, namespace: str, name: str, address: str) -> bool:
    """Returns true once the proxy says that it is ready for the pod; false if nobody answers. Does not raise."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(json.dumps({"namespace": namespace, "name": name, "address": address}).encode() + b"\n")
                return await reader.readline() == b"ready\n"
            finally:
                writer.close()
    except TimeoutError:
        log.warning("the proxy is not ready for pod %s/%s (%s) after %.0f s", namespace, name, address, PATIENCE)
    except (OSError, ValueError):
        pass  # no proxy here, or it starts just now
    return False
