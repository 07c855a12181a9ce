"""/healthz, /livez, /readyz and /metrics on a loopback address or a unix socket."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from controllers.manager import Manager

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


def parse_address(text: str) -> tuple[str, int] | str:
    """``127.0.0.1:PORT`` as (host, port), or a socket's path. Raises ValueError for addresses others could reach."""
    if "/" in text:
        return text.removeprefix("unix:")
    host, _, port = text.rpartition(":")
    if host not in LOOPBACK or not port.isdigit():
        raise ValueError(f"{text!r} is neither a loopback HOST:PORT nor the path of a socket")
    return host.strip("[]"), int(port)


def _application(manager: Manager) -> web.Application:
    async def alive(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def ready(request: web.Request) -> web.Response:
        return web.Response(text="ok" if manager.ready else "caches are not synced", status=200 if manager.ready else 500)

    async def metrics(request: web.Request) -> web.Response:
        content_type = "text/plain; version=0.0.4; charset=utf-8"
        return web.Response(body=manager.context.metrics.text(), headers={"Content-Type": content_type})

    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", alive),
            web.get("/livez", alive),
            web.get("/readyz", ready),
            web.get("/metrics", metrics),
        ]
    )
    return app


@contextlib.asynccontextmanager
async def serving(manager: Manager, address: tuple[str, int] | str) -> AsyncIterator[None]:
    """Serves while the context lasts."""
    runner = web.AppRunner(_application(manager), access_log=None)
    await runner.setup()
    try:
        site = web.UnixSite(runner, address) if isinstance(address, str) else web.TCPSite(runner, *address)
        await site.start()
        yield
    finally:
        await runner.cleanup()
