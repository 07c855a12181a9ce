"""A controller that also answers over HTTPS, as a process of its own beside the controller manager: what an add-on is."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from aiohttp import web

from navarch.client.client import Client
from navarch.world import RealWorld, World


async def serve(
    options: argparse.Namespace, world: World, client: Client, application: web.Application, context: ssl.SSLContext,
    tasks: Mapping[str, Coroutine[Any, Any, None]],
) -> None:  # fmt: skip
    """Serves at ``options.host`` and ``options.port`` while the tasks run; until SIGTERM or SIGINT. Closes the client."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(application, access_log=None)
    async with contextlib.AsyncExitStack() as stack, world.task_group() as group:
        stack.push_async_callback(client.close)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, options.host, options.port, ssl_context=context).start()
        for name, task in tasks.items():
            group.start(task, name)
        await stop.wait()
        group.cancel()


def run(body: Callable[[World], Awaitable[None]]) -> int:
    """Runs it in real time, with its log on standard error. Returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    world = RealWorld()
    world.run(lambda: body(world))
    return 0
