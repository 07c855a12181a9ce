"""The adapter with what surrounds it: its scraper against real servers, its answers and an autoscaler on virtual time."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from controllers.custommetrics import scraping
from controllers.custommetrics.samples import Reading, Samples
from controllers.custommetrics.scraping import Scraper
from navarch.api import kinds
from navarch.api.selectors import EVERYTHING
from navarch.api.types import core_v1
from navarch.world import RealWorld


class Pods:
    """Stands for the informer."""

    def __init__(self) -> None:
        self.pods: dict[str, core_v1.Pod] = {}
        self.handler: Callable[..., None] = lambda *event: None

    def add_handler(self, handler: Callable[..., None]) -> None:
        self.handler = handler

    async def wait_synced(self) -> None:
        pass

    def key(self, pod: core_v1.Pod) -> str:
        return f"d/{pod.metadata.name}"

    def get_key(self, key: str) -> core_v1.Pod | None:
        return self.pods.get(key)

    def put(self, path: str, port: int) -> core_v1.Pod:
        """A running pod whose page is at this path of 127.0.0.1."""
        notes = {"prometheus.io/scrape": "true", "prometheus.io/path": path, "prometheus.io/port": str(port)}
        tree = {
            "metadata": {"name": path.strip("/"), "uid": path, "annotations": notes},
            "status": {"podIP": "127.0.0.1", "phase": "Running"}, "spec": {"containers": [{"name": "c"}]},
        }  # fmt: skip
        pod: core_v1.Pod = kinds.decoder(core_v1.Pod).decode(msgspec.json.encode(tree))
        self.pods[self.key(pod)] = pod
        self.handler("ADDED", None, pod)
        return pod

    def remove(self, pod: core_v1.Pod) -> None:
        del self.pods[self.key(pod)]
        self.handler("DELETED", pod, pod)


async def page(request: web.Request) -> web.StreamResponse:
    match request.path:
        case "/good":
            return web.Response(text="# TYPE hits_total counter\nhits_total 5\nqueue 2\n")
        case "/moved":
            raise web.HTTPFound("/good")
        case "/huge":
            return web.Response(text="a" * (scraping.MAX_BYTES + 1))
        case "/many":
            return web.Response(text="".join(f"a{n} 1\n" for n in range(scraping.MAX_SERIES + 1)))
    raise web.HTTPInternalServerError()


def scraped(scenario: Callable[[Pods, Samples, Scraper, int], Awaitable[None]]) -> None:
    async def main() -> None:
        world, pods, samples = RealWorld(), Pods(), Samples(100)
        scraper = Scraper(world, pods, samples, 0.05)  # type: ignore[arg-type]
        app = web.Application()
        app.router.add_get("/{path}", page)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        async with world.task_group() as group:
            group.start(scraper.run())
            await scenario(pods, samples, scraper, runner.addresses[0][1])
            group.cancel()
        await runner.cleanup()

    RealWorld().run(main)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def test_pages_are_read_and_pods_that_go_are_forgotten() -> None:
    async def scenario(pods: Pods, samples: Samples, scraper: Scraper, port: int) -> None:
        pod = pods.put("/good", port)
        await until(lambda: isinstance(samples.reading("/good", "hits_per_second", EVERYTHING, RealWorld().now()), Reading))
        reading = samples.reading("/good", "queue", EVERYTHING, RealWorld().now())
        assert isinstance(reading, Reading) and reading.value == 2 and scraper.trouble(pod) == ""
        pods.remove(pod)
        assert samples.count == 0

    scraped(scenario)


def test_bad_pages_say_why() -> None:
    async def scenario(pods: Pods, samples: Samples, scraper: Scraper, port: int) -> None:
        reasons = {
            "/moved": "status 302", "/huge": "more than 4 MiB", "/many": "more than 5000 series", "/broken": "status 500",
        }  # fmt: skip
        made = {path: pods.put(path, port) for path in reasons}
        for path, why in reasons.items():
            await until(functools.partial(scraper.trouble, made[path]))
            assert f"http://127.0.0.1:{port}{path}: {why}" in scraper.trouble(made[path])
        closed = pods.put("/closed", 1)
        await until(lambda: "2 times in a row" in scraper.trouble(closed))
        assert "127.0.0.1:1/closed: Connection refused" in scraper.trouble(closed)
        assert samples.count == 0

    scraped(scenario)
