"""Startup, liveness and readiness probes.

:class:`Counter` is the pure part: answers in, verdict out. :class:`Prober` asks one pod's containers, one task a
probe, and calls back when a verdict changes; events about single failures are told as they happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from navarch.api.types import core_v1
from navarch.world import TaskGroup, World
from nodeagent.config import VERSION
from nodeagent.pods import handlers, httpget
from nodeagent.pods.handlers import Outcome
from nodeagent.pods.httpget import Warned
from nodeagent.pods.mishaps import words
from nodeagent.pods.observed import AnyContainer, ProbeView
from nodeagent.runtime.runtime import Container, Runtime

USER_AGENT = "kube-probe/" + VERSION.removeprefix("v").rsplit(".", 1)[0]
ATTEMPTS = 3  # at a question that cannot be put, as kubelet has it
FIRST_DELAY = 0.2  # seconds: a process that has just been started is given time to listen before the first question
Tell = Callable[[str, str, str, AnyContainer], None]


@dataclass
class Counter:
    """Consecutive answers against the thresholds. ``verdict`` changes only when a threshold is reached."""

    success_threshold: int = 1
    failure_threshold: int = 3
    verdict: bool | None = None
    _last: bool | None = None
    _count: int = 0

    def answer(self, success: bool) -> bool:
        """Takes one answer in; True if the verdict changed."""
        self._count = self._count + 1 if success == self._last else 1
        self._last = success
        if self._count < (self.success_threshold if success else self.failure_threshold):
            return False
        changed = self.verdict != success
        self.verdict = success
        return changed

    @staticmethod
    def of(probe: core_v1.Probe, verdict: bool | None = None) -> Counter:
        return Counter(probe.success_threshold or 1, probe.failure_threshold or 3, verdict)


@dataclass
class _Tracked:
    spec: AnyContainer
    container: Container
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    startup: Counter | None = None
    liveness: Counter | None = None
    readiness: Counter | None = None
    started: asyncio.Event = field(default_factory=asyncio.Event)


class Prober:
    """The probes of one pod. ``changed()`` is called when a view changes, ``tell`` with each event."""

    def __init__(
        self,
        runtime: Runtime,
        world: World,
        group: TaskGroup,
        changed: Callable[[], None],
        tell: Tell,
        odd: Callable[[str, Exception], None],
    ) -> None:
        """``odd(doing, error)`` is told what nobody has foreseen."""
        self._odd = odd
        self._runtime, self._world, self._group = runtime, world, group
        self._changed, self._tell = changed, tell
        self._tracked: dict[str, _Tracked] = {}
        self.ip = ""

    def view(self, container_id: str) -> ProbeView:
        """The results of the probes of a container."""
        t = self._tracked.get(container_id)
        if t is None:
            return ProbeView()
        failed = ""
        if t.startup is not None and t.startup.verdict is False:
            failed = "Startup"
        elif t.liveness is not None and t.liveness.verdict is False:
            failed = "Liveness"
        return ProbeView(
            started=t.startup.verdict if t.startup else None,
            ready=t.readiness.verdict if t.readiness else None,
            failed=failed,
        )

    def track(self, spec: AnyContainer, container: Container, ip: str, before: tuple[bool, bool] | None = None) -> None:
        """Begins to probe a running container; ``before`` is (started, ready) as an earlier agent left it."""
        self.ip = ip or self.ip
        if container.id in self._tracked:
            return
        t = self._tracked[container.id] = _Tracked(spec, container)
        was_started, was_ready = before or (False, False)
        if spec.startup_probe is not None:
            t.startup = Counter.of(spec.startup_probe, True if was_started else None)
        if t.startup is None or was_started:
            t.started.set()
        else:
            self._start(t, "Startup", spec.startup_probe, t.startup)
        if spec.liveness_probe is not None:
            t.liveness = Counter.of(spec.liveness_probe)
            self._start(t, "Liveness", spec.liveness_probe, t.liveness)
        if spec.readiness_probe is not None:
            t.readiness = Counter.of(spec.readiness_probe, True if was_ready else None)
            self._start(t, "Readiness", spec.readiness_probe, t.readiness)

    def drop(self, container_id: str) -> None:
        """The container is dead: no more questions."""
        t = self._tracked.pop(container_id, None)
        for task in t.tasks if t else ():
            task.cancel()

    def only_readiness(self) -> None:
        """The pod is terminating: nothing is restarted any more, but readiness still counts."""
        for t in self._tracked.values():
            for task in t.tasks:
                if not task.get_name().startswith("Readiness"):
                    task.cancel()
            t.startup = t.startup if t.startup and t.startup.verdict else None
            t.liveness = None
            t.started.set()

    def close(self) -> None:
        for container_id in list(self._tracked):
            self.drop(container_id)

    def _start(self, t: _Tracked, kind: str, probe: core_v1.Probe | None, counter: Counter) -> None:
        if probe is not None:
            name = f"{kind} probe of {t.container.id}"
            t.tasks.append(self._group.start(self._loop(t, kind, probe, counter), name=name))

    async def _loop(self, t: _Tracked, kind: str, probe: core_v1.Probe, counter: Counter) -> None:
        if kind != "Startup":
            await t.started.wait()
        running_for = self._world.now() - (t.container.started or t.container.created)
        wait = (probe.initial_delay_seconds or 0) - running_for
        await self._world.sleep(max(FIRST_DELAY, wait))
        period = float(probe.period_seconds or 10)
        while True:
            began = self._world.monotonic()
            success = await self._ask(t, kind, probe)
            if success is not None and counter.answer(success):
                self._changed()
                if kind == "Startup":
                    if success:
                        t.started.set()
                    return
                if kind == "Liveness" and not success:
                    return  # the container will be stopped
            await self._world.sleep(max(0.0, period - (self._world.monotonic() - began)))

    async def _ask(self, t: _Tracked, kind: str, probe: core_v1.Probe) -> bool | None:
        """The answer; None if the question could not be put, which says nothing about the container."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._request(t, probe)
                return True
            except Warned as warning:
                self._tell("Warning", "ProbeWarning", f"{kind} probe warning: {warning.output}", t.spec)
                return True
            except Outcome as outcome:
                if not outcome.broken:
                    self._tell("Warning", "Unhealthy", f"{kind} probe failed: {outcome.output}", t.spec)
                    return False
                output = outcome.output
            except Exception as error:  # nobody has foreseen it: the other probes go on
                self._odd("probe container", error)
                output = words(error)
            if attempt == ATTEMPTS:
                text = f"{kind} probe errored and resulted in unknown state: {output}"
                self._tell("Warning", "Unhealthy", text, t.spec)
        return None

    async def _request(self, t: _Tracked, probe: core_v1.Probe) -> None:
        timeout = float(probe.timeout_seconds or 1)
        if probe.exec is not None:
            await handlers.run_command(self._runtime, t.container.id, probe.exec.command or [], timeout)
        elif probe.http_get is not None:
            await httpget.probe(probe.http_get, t.spec, self.ip, timeout, USER_AGENT)
        elif probe.tcp_socket is not None:
            await handlers.tcp_connect(probe.tcp_socket, t.spec, self.ip, timeout)
        elif probe.grpc is not None:
            await handlers.grpc_health(probe.grpc, self.ip, timeout)
