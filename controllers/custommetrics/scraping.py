"""Reads the pages of pods, each every period; one that fails is read less and less often. What it takes is bounded: time, bytes
and series of a page, series in all. Redirects are not followed: this process stands outside of the pods' network policies.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import aiohttp
from yarl import URL

from controllers.custommetrics.exposition import BadPage, read
from controllers.custommetrics.samples import Samples
from controllers.custommetrics.targets import NoTarget, Outcome, Target, target
from navarch.api import pods as podrules
from navarch.api.types import core_v1
from navarch.client.informer import Informer
from navarch.client.queue import WorkQueue
from navarch.world import World, describe

log = logging.getLogger(__name__)
MAX_BYTES = 4 << 20  # of a page
MAX_SERIES = 5_000  # of a page
WORKERS = 16
PATIENCE = 10.0  # seconds for a page
LARGE = 64 << 10  # bytes of a page that is parsed beside the event loop
HEADERS = {"Accept": "text/plain;version=0.0.4,*/*;q=0.1", "Accept-Encoding": "identity"}


class Scraper:
    """Follows the pods of ``pods``; ``period`` is in seconds, ``networks`` as in :func:`target`."""

    def __init__(
        self, world: World, pods: Informer[core_v1.Pod], samples: Samples, period: float, networks: Sequence[str] = ()
    ) -> None:
        self._world, self._pods, self._samples, self._period, self._networks = world, pods, samples, period, networks
        self._queue: WorkQueue[str] = WorkQueue(world)
        self._outcomes: dict[str, Outcome] = {}  # by uid
        pods.add_handler(self._changed)

    def trouble(self, pod: core_v1.Pod) -> str:
        """Why the pod's page is not read; "" if it is."""
        try:
            where = target(pod, self._networks)
        except NoTarget as error:
            return str(error)
        outcome = self._outcomes.get(pod.metadata.uid or "")
        if outcome is None or not outcome.fault:
            return ""
        wait = max(0.0, outcome.due - self._world.monotonic())
        often = f"{outcome.failures} times in a row" if outcome.failures > 1 else "once"
        return f"{where}: {outcome.fault} ({often}; the next look is in {wait:.0f} s)"

    def _changed(self, kind: str, old: core_v1.Pod | None, new: core_v1.Pod) -> None:
        uid, key = new.metadata.uid or "", self._pods.key(new)
        if kind == "DELETED" or (old is not None and old.metadata.uid != uid):
            earlier = (old or new).metadata.uid or ""
            self._samples.drop(earlier)
            self._outcomes.pop(earlier, None)
        if kind == "DELETED":
            return
        if old is None or self._where(old) != self._where(new) or podrules.is_ready(old) != podrules.is_ready(new):
            self._outcomes.pop(uid, None)  # what failed may work now
            self._queue.add(key)

    def _where(self, pod: core_v1.Pod) -> Target | None:
        try:
            return target(pod, self._networks) if podrules.is_active(pod) and pod.status.phase == "Running" else None
        except NoTarget:
            return None

    async def run(self) -> None:
        """Scrapes until cancelled."""
        await self._pods.wait_synced()
        # A pod's page is up to 4 MiB of somebody else's text; cookies, proxies and compression have no business here.
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=PATIENCE), connector=aiohttp.TCPConnector(ssl=False, limit=WORKERS),
            cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, headers=HEADERS,
        ) as session, self._world.task_group() as group:  # fmt: skip
            for number in range(WORKERS):
                group.start(self._work(session), f"scrape {number}")

    async def _work(self, session: aiohttp.ClientSession) -> None:
        while True:
            key = await self._queue.get()
            try:
                pod = self._pods.get_key(key)
                if pod is not None and (where := self._where(pod)) is not None:
                    await self._look(session, pod, where)
                    self._queue.add_after(key, self._outcomes[pod.metadata.uid or ""].delay(self._period))
            finally:
                self._queue.done(key)

    async def _look(self, session: aiohttp.ClientSession, pod: core_v1.Pod, where: Target) -> None:
        uid, began = pod.metadata.uid or "", self._world.now()
        outcome = self._outcomes.setdefault(uid, Outcome())
        fault = ""
        try:
            body, content_type = await self._fetch(session, where)
            arguments = body, content_type, MAX_SERIES
            series = await self._world.blocking(read, *arguments) if len(body) > LARGE else read(*arguments)
            current = self._pods.get_key(self._pods.key(pod))
            if current is not None and current.metadata.uid == uid and not self._samples.take(uid, began, series):
                fault = "there are too many series of all pods together"
        except BadPage as error:
            fault = str(error)
        except TimeoutError:
            fault = f"no answer within {PATIENCE:.0f} s"
        except aiohttp.ClientConnectorError as error:
            fault = os.strerror(error.os_error.errno) if error.os_error.errno else describe(error.os_error)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            fault = describe(error)
        if fault and not outcome.fault:
            log.warning("pod %s: %s: %s", self._pods.key(pod), where, fault)
        outcome.looks += 1
        outcome.failures, outcome.fault = (outcome.failures + 1 if fault else 0), fault
        outcome.due = self._world.monotonic() + outcome.delay(self._period)
        self._outcomes[uid] = outcome

    async def _fetch(self, session: aiohttp.ClientSession, where: Target) -> tuple[bytes, str]:
        """The page and its type. Raises BadPage, ClientError, OSError, TimeoutError."""
        url = URL.build(scheme=where.scheme, host=where.host, port=where.port, path=where.path)
        async with session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise BadPage(f"status {response.status}")
            body = bytearray()
            async for piece in response.content.iter_chunked(LARGE):
                body += piece
                if len(body) > MAX_BYTES:
                    raise BadPage(f"more than {MAX_BYTES >> 20} MiB")
            return bytes(body), response.headers.get("Content-Type", "")
