"""The adapter without its server: an informer of pods, their samples, and answers; with a scraper in the real world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from controllers.custommetrics.answers import Answers
from controllers.custommetrics.samples import Samples
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.informer import Informer
from navarch.world import World

if TYPE_CHECKING:
    from controllers.custommetrics.scraping import Scraper

MAX_SERIES = 200_000
"""Series of all pods together."""
PERIOD = 15.0


class Adapter:
    """``scrapes``: pods are asked for their pages; otherwise only what annotations declare is known, as in a simulation."""

    def __init__(
        self, client: Client, world: World, *, scrapes: bool, period: float = PERIOD, networks: Sequence[str] = ()
    ) -> None:
        self._world = world
        self.pods = Informer(client[core_v1.Pod])
        self.samples = Samples(MAX_SERIES)
        self.scraper: Scraper | None = None
        if scrapes:
            from controllers.custommetrics.scraping import Scraper  # with aiohttp

            self.scraper = Scraper(world, self.pods, self.samples, period, networks)
        self._answers = Answers(client, world, self.pods, self.samples, self._trouble)

    def _trouble(self, pod: core_v1.Pod) -> str:
        return self.scraper.trouble(pod) if self.scraper is not None else "its annotations declare no such metric"

    async def run(self) -> None:
        """Works until cancelled."""
        async with self._world.task_group() as group:
            group.start(self.pods.run(), "pods")
            if self.scraper is not None:
                group.start(self.scraper.run(), "scraper")

    async def answer(self, path: str, query: Mapping[str, str]) -> Any:
        """As :meth:`Answers.answer`."""
        await self.pods.wait_synced()
        return await self._answers.answer(path, query)
