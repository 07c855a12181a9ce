"""custom.metrics.k8s.io and external.metrics.k8s.io in a simulated cluster: the adapter in process, behind no socket."""

from __future__ import annotations

import asyncio

import orjson

from apiserver.http.extension import CURRENT, Extension, GroupVersion, Tree, aggregated_of
from apiserver.request import Context
from apiserver.wire.asgi import Request
from controllers.custommetrics.adapter import Adapter
from controllers.custommetrics.answers import GROUP_VERSIONS
from navarch.api.errors import MethodNotAllowed, NotFound
from navarch.client.client import Client
from navarch.world import World


class CustomMetrics:
    """Has an adapter once :meth:`run` has begun; requests wait for it."""

    def __init__(self) -> None:
        self.adapter: Adapter | None = None
        self._there = asyncio.Event()

    def extensions(self) -> dict[GroupVersion, Extension]:
        return {key: _Version(self, key) for key in GROUP_VERSIONS}

    async def run(self, client: Client, world: World) -> None:
        """Works until cancelled."""
        self.adapter = Adapter(client, world, scrapes=False)
        self._there.set()
        await self.adapter.run()

    async def answer(self, path: str, query: dict[str, str]) -> Tree:
        await self._there.wait()
        assert self.adapter is not None
        tree: Tree = await self.adapter.answer(path, query)
        return tree


class _Version:
    """One group and version, as the API server asks it."""

    def __init__(self, metrics: CustomMetrics, key: GroupVersion) -> None:
        self._metrics, self._key = metrics, key

    async def handle(self, request: Request, context: Context) -> None:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        tree = await self._metrics.answer(request.path, dict(request.query))
        await request.reply(200, orjson.dumps(tree), b"application/json")

    def discovered(self) -> Tree:
        # The names are the pods' own, and change; who wants them asks for the list of resources.
        return aggregated_of({}, self._key[1], self._key[0]) | {"freshness": CURRENT}

    def openapi_url(self) -> str:
        return ""

    def openapi_v2(self) -> tuple[str, Tree]:
        return "", {}

    async def openapi(self, request: Request) -> None:
        raise NotFound("the server could not find the requested resource")
