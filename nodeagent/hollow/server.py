"""The HTTPS server that answers in the name of all simulated nodes of a process: that there is nothing behind them.

The API server sends requests for logs, exec, attach and port-forward here, as it does to the agents of real nodes.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator

from aiohttp import web

from nodeagent.server.auth import Gate

ANSWERS = {
    "containerLogs": "this pod is on a simulated node: its containers write no logs",
    "exec": "this pod is on a simulated node: its containers have no processes to run a command beside",
    "attach": "this pod is on a simulated node: its containers have no processes to attach to",
    "portForward": "this pod is on a simulated node: it listens on no ports",
}


@contextlib.asynccontextmanager
async def serving(gate: Gate, address: str, port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Serves while the context lasts; gives the port."""

    async def answer(request: web.Request) -> web.Response:
        if request.path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        await gate.check(request)
        text = ANSWERS.get(request.path.split("/")[1], "a simulated node has no such page")
        return web.Response(status=501, text=text)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port, ssl_context=context).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
