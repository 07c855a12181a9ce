"""The summaries of nodes: asked of their agents, at most once a second each, and by all who want one together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import orjson

from apiserver.cache.cache import Cache
from apiserver.http.agents import Agents
from apiserver.resourcemetrics.shapes import WINDOW, Summary, declared_summary
from navarch.api.errors import StatusError
from navarch.api.selectors import parse_field_selector
from navarch.api.times import format_time
from navarch.api.usage import WINDOW_HEADER
from navarch.client.transport import TransportError
from navarch.world import World

log = logging.getLogger(__name__)
Tree = dict[str, Any]
PATH = "/stats/summary"
FRESH = 1.0  # seconds for which an answer is good
PATIENCE = 10.0
AT_ONCE = 64  # agents that are asked at a time


class Summaries:
    """:meth:`of` gives those of some nodes."""

    def __init__(self, world: World, cache: Cache, agents: Agents) -> None:
        self.world, self.cache, self._agents = world, cache, agents
        self._cached: dict[str, tuple[float, Summary]] = {}
        self._running: dict[str, asyncio.Future[None]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def of(self, nodes: Sequence[Tree]) -> dict[str, Summary]:
        """By the node's name; a node whose agent does not answer is left out."""
        self._forget()
        async with self.world.task_group() as group:
            for node in nodes:
                group.start(self._learn(node), "summary")
        return {name: self._cached[name][1] for n in nodes if (name := n["metadata"]["name"]) in self._cached}

    def _forget(self) -> None:
        now = self.world.monotonic()
        for name in [name for name, (until, _) in self._cached.items() if until <= now]:
            del self._cached[name]

    async def _learn(self, node: Tree) -> None:
        name = node["metadata"]["name"]
        if name in self._cached:
            return
        if (running := self._running.get(name)) is not None:
            await asyncio.wait([running])
            return
        done = self._running[name] = asyncio.get_running_loop().create_future()
        try:
            async with self._slots:
                summary = await self._ask(node)
            if summary is not None:
                self._cached[name] = self.world.monotonic() + FRESH, summary
        finally:
            del self._running[name]
            done.set_result(None)

    async def _ask(self, node: Tree) -> Summary | None:
        name, status = node["metadata"]["name"], node.get("status") or {}
        if not (status.get("daemonEndpoints") or {}).get("kubeletEndpoint"):
            # Nobody is there to be asked: a simulated node. Its pods say in their annotations what they use.
            selector = parse_field_selector(f"spec.nodeName={name}")
            pods = [e.tree() for e in self.cache.list("/registry/pods/", fields=selector).entries]
            return declared_summary(pods, format_time(self.world.now()))
        try:
            async with asyncio.timeout(PATIENCE):
                agent = self._agents.of_node(name)
                answer = await agent.request("GET", PATH, query=[("only_cpu_and_memory", "true")])
            if answer.status != 200:
                raise TransportError(f"status {answer.status}: {answer.body[:200].decode(errors='replace')}")
            tree, window = orjson.loads(answer.body), float(answer.headers.get(WINDOW_HEADER.lower()) or WINDOW)
            return Summary(tree, window)
        except (StatusError, TransportError, TimeoutError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("no summary of node %s: %s", name, error or type(error).__name__)
            return None
