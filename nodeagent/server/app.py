"""The routes of the agent's server. Paths and answers are kubelet's: the API server proxies log, exec and attach here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec
from aiohttp import web

from navarch.api.pods import container_status
from navarch.api.types import core_v1
from navarch.api.usage import WINDOW_HEADER
from navarch.world import World
from nodeagent.config import Config
from nodeagent.node.sampling import Sampler
from nodeagent.node.storage import LocalStorage
from nodeagent.pods.context import Services
from nodeagent.pods.observed import roles
from nodeagent.pods.worker import PodWorker
from nodeagent.runtime.runtime import EXITED, RUNNING, Container, Process, Runtime, RuntimeError_
from nodeagent.server import fsstats, logs, nodelogs, portforward, remotecommand, stats, streams, upgrade
from nodeagent.server.auth import Gate

log = logging.getLogger(__name__)

# What a reader of logs is told instead of these reasons of a waiting container.
STORAGE_AGE = 60.0  # seconds that the storage in /stats/summary may be old, as with kubelet
PULL_TROUBLE = {"ErrImagePull": "image can't be pulled", "ImagePullBackOff": "trying and failing to pull image"}


class Node(Protocol):
    """The parts of the agent that the server asks."""

    config: Config
    runtime: Runtime
    world: World
    capacity_memory: int
    services: Services

    storage: LocalStorage

    def workers(self) -> list[PodWorker]: ...

    def worker_of(self, namespace: str, name: str) -> PodWorker | None: ...

    def ended(self, container_id: str) -> asyncio.Event:
        """Set once the container is dead."""
        ...

    def healthy(self) -> bool: ...


def _fail(status: type[web.HTTPException], text: str) -> web.HTTPException:
    return status(text=text)


class Server:
    """Builds the aiohttp application; ``gate`` is None only in tests of the routes."""

    def __init__(self, node: Node, gate: Gate | None) -> None:
        self._node, self._gate = node, gate
        self._closing = asyncio.Event()
        self._sampler = Sampler(node.world, lambda: node.runtime.usage())
        self._began = node.world.now()

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/livez", self._healthz),
                web.get("/readyz", self._healthz),
                web.get("/pods", self._pods),
                web.get("/navarch/journal/{namespace}/{pod}", self._journal),
                web.get("/metrics", self._metrics),
                web.get("/metrics/resource", self._resource),
                web.get("/metrics/cadvisor", self._cadvisor),
                web.get("/stats/summary", self._summary),
                web.get("/logs", nodelogs.redirect),
                web.get("/logs/{path:.*}", self._node_logs),
                web.get("/containerLogs/{namespace}/{pod}/{container}", self._logs),
            ]
            + [
                web.route(method, path, handler)
                for method in ("GET", "POST")
                for path, handler in (
                    ("/exec/{namespace}/{pod}/{container}", self._exec),
                    ("/attach/{namespace}/{pod}/{container}", self._attach),
                    ("/portForward/{namespace}/{pod}", self._port_forward),
                )
            ]
        )
        return app

    def close(self) -> None:
        """Streams that follow end."""
        self._closing.set()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self._gate is not None and request.path not in ("/healthz", "/livez", "/readyz"):
            await self._gate.check(request)
        try:
            return await handler(request)
        except RuntimeError_ as error:
            return web.Response(status=500, text=error.message)

    async def _healthz(self, request: web.Request) -> web.Response:
        if self._node.healthy():
            return web.Response(text="ok")
        return web.Response(status=500, text="not ready")

    async def _pods(self, request: web.Request) -> web.Response:
        items = [w.latest for w in self._node.workers()]
        body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    async def _journal(self, request: web.Request) -> web.Response:
        """The journal of what the pod's state machine was told and decided; see nodeagent/pods/journal.py."""
        worker = self._worker(request)
        body = {"uid": worker.uid, "journal": worker.machine.journal}
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    async def _metrics(self, request: web.Request) -> web.Response:
        return _exposition(stats.metrics(self._node.workers(), self._node.services.counters))

    async def _resource(self, request: web.Request) -> web.Response:
        return _exposition(stats.resource(await self._sampler.sample(), self._node.workers()))

    async def _cadvisor(self, request: web.Request) -> web.Response:
        return _exposition(stats.cadvisor(await self._sampler.sample(), self._node.workers(), self._node.config))

    async def _summary(self, request: web.Request) -> web.Response:
        readings = await self._sampler.readings()
        node, workers = self._node, self._node.workers()
        tree = stats.summary(readings, node.config, workers, self._began)
        if request.query.get("only_cpu_and_memory") != "true":
            disk = await node.storage.of(workers, STORAGE_AGE)
            now, folders = readings.later.time, (node.config.root_dir, node.config.image_root)
            disks = await node.world.blocking(lambda: [fsstats.file_system(folder, now) for folder in folders])
            fsstats.add(tree, node.config, workers, disk, readings.later.usage, (disks[0], disks[1]))
        return web.json_response(tree, headers={WINDOW_HEADER: f"{readings.window:.3f}"})

    async def _node_logs(self, request: web.Request) -> web.StreamResponse:
        return await nodelogs.serve(self._node.world, self._node.config.logs_dir.parent, request)

    # --- finding ---

    def _worker(self, request: web.Request) -> PodWorker:
        """The pod that a path names."""
        name = request.match_info["pod"]
        worker = self._node.worker_of(request.match_info["namespace"], name)
        if worker is None:
            raise _fail(web.HTTPNotFound, f'pod "{name}" does not exist')
        return worker

    def _find(self, request: web.Request) -> tuple[PodWorker, str]:
        """The pod and the container name that a path names."""
        worker, container = self._worker(request), request.match_info["container"]
        if not any(r.container.name == container for r in roles(worker.pod.spec)):
            name = request.match_info["pod"]
            raise _fail(web.HTTPNotFound, f'container "{container}" not found in pod "{name}"')
        return worker, container

    def _running(self, worker: PodWorker, name: str, absent: str) -> Container:
        running = [c for c in worker.containers.values() if c.name == name and c.state == RUNNING]
        if not running:
            raise _fail(web.HTTPNotFound, absent)
        return max(running, key=lambda c: c.attempt)

    # --- logs ---

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        worker, name = self._find(request)
        try:
            options = logs.Options.parse(request.query, self._node.world.now())
        except logs.BadOption as error:
            raise _fail(web.HTTPBadRequest, str(error)) from error
        container = self._logged(worker, name, options.previous)
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        response.enable_chunked_encoding()
        ended = self._node.ended(container.id)
        stop = asyncio.Event()
        waiting = [asyncio.ensure_future(e.wait()) for e in (ended, self._closing)]
        for task in waiting:
            task.add_done_callback(lambda _: stop.set())
        if container.state == EXITED:
            stop.set()
        try:
            pieces = logs.read(self._node.world, container.log_path, options, stop)
            await response.prepare(request)
            async for piece in pieces:
                await response.write(piece)
            await response.write_eof()
        except FileNotFoundError:
            if not response.prepared:
                raise
        except ConnectionError:
            pass  # the reader has seen enough
        finally:
            for task in waiting:
                task.cancel()
        return response

    def _logged(self, worker: PodWorker, name: str, previous: bool) -> Container:
        """The container whose log is asked for."""
        pod = worker.pod.metadata.name
        runs = sorted((c for c in worker.containers.values() if c.name == name), key=lambda c: -c.attempt)
        runs = [c for c in runs if c.log_path]
        status = container_status(worker.latest, name)
        waiting = status.state.waiting if status and status.state else None
        if previous:
            # The one before the present one; while the pod waits to restart it, the one that ended last.
            dead = [c for c in runs if c.state == EXITED]
            if dead and (dead[0] is not runs[0] or waiting is not None):
                return dead[0]
            raise _fail(web.HTTPBadRequest, f'previous terminated container "{name}" in pod "{pod}" not found')
        if not runs:
            reason = (waiting.reason if waiting else None) or "ContainerCreating"
            why = PULL_TROUBLE.get(reason, reason)
            raise _fail(web.HTTPBadRequest, f'container "{name}" in pod "{pod}" is waiting to start: {why}')
        return runs[0]

    # --- exec, attach, port-forward ---

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        worker, name = self._find(request)
        container = self._running(worker, name, f'container not found ("{name}")')
        command = request.query.getall("command", [])
        if not command:
            raise _fail(web.HTTPBadRequest, "you must specify at least 1 command")
        kinds = self._stream_kinds(request, _flag(request, "tty"))

        async def begin() -> Process:
            return await self._node.runtime.exec(container.id, command, stdin="stdin" in kinds, tty="resize" in kinds)

        return await self._stream(request, begin, command, kinds)

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        worker, name = self._find(request)
        metadata = worker.pod.metadata
        absent = f"container {name} not found in pod {metadata.name}_{metadata.namespace}"
        container = self._running(worker, name, absent)
        spec: core_v1.Container | core_v1.EphemeralContainer = next(
            r.container for r in roles(worker.pod.spec) if r.container.name == name
        )
        kinds = self._stream_kinds(request, bool(spec.tty))

        async def begin() -> Process:
            return await self._node.runtime.attach(container.id, stdin="stdin" in kinds)

        return await self._stream(request, begin, [], kinds)

    @staticmethod
    def _stream_kinds(request: web.Request, tty: bool) -> list[str]:
        """The streams that the client asks for, under the API's names or kubelet's. "resize" stands for a terminal."""
        named = {"stdin": "input", "stdout": "output", "stderr": "error"}
        kinds = [n for n, other in named.items() if _flag(request, n, other) and not (tty and n == "stderr")]
        if not kinds:
            raise _fail(web.HTTPBadRequest, "you must specify at least 1 of stdin, stdout, stderr")
        return [*kinds, "resize"] if tty else kinds

    async def _stream(
        self,
        request: web.Request,
        begin: Callable[[], Awaitable[Process]],
        command: list[str],
        kinds: list[str],
    ) -> web.StreamResponse:
        if upgrade.wants_spdy(request):
            return await remotecommand.serve(request, self._node.world, begin, command, kinds)
        self._offered(request, streams.PROTOCOLS)
        process = await begin()
        stdin, tty = "stdin" in kinds, "resize" in kinds
        return await streams.serve(request, self._node.world, process, command, stdin=stdin, tty=tty)

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        worker = self._worker(request)
        sandbox = max((s for s in worker.sandboxes.values() if s.ready), key=lambda s: s.config.attempt, default=None)
        if sandbox is None:
            raise _fail(web.HTTPNotFound, f'pod "{worker.pod.metadata.name}" is not running')

        async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await self._node.runtime.port_forward(sandbox.id, port)

        if upgrade.wants_spdy(request):
            return await portforward.serve(request, self._node.world, connect)
        self._offered(request, portforward.CHANNELS)
        return await portforward.serve_channels(request, self._node.world, connect)

    @staticmethod
    def _offered(request: web.Request, protocols: Sequence[str]) -> None:
        """Raises unless it is a WebSocket that speaks one of our protocols."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise _fail(web.HTTPBadRequest, "Upgrade request required")
        offered = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if not any(p in protocols for p in offered):
            raise _fail(web.HTTPForbidden, f"unable to negotiate protocol: client supports {offered}")


def _exposition(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/plain", charset="utf-8")


def _flag(request: web.Request, *names: str) -> bool:
    return any(request.query.get(n, "").lower() in ("1", "true") for n in names)
