"""The probes of one simulated container: every field counts, and time passes only where something can change.

The agent's own rules (nodeagent/pods/probes.py): a first question 0.2 s after the start or after ``initialDelaySeconds``, then
one each ``periodSeconds``; an answer that takes longer than ``timeoutSeconds`` is a failure; thresholds of answers in a row;
liveness and readiness wait for the startup probe. What the answers are follows from the container's stages. As long as they
stay the same and the verdict is known, the questions in between are left out.
"""

from __future__ import annotations

import random

from navarch.api.types import core_v1
from nodeagent.pods.observed import AnyContainer, ProbeView
from nodeagent.pods.probes import FIRST_DELAY, Counter
from nodeagent.runtime.stages import Drawn

_EPS = 1e-6


class _Probe:
    """One probe. Times are Unix seconds; it succeeds from ``good`` until ``bad``."""

    def __init__(
        self, probe: core_v1.Probe, first: float, good: float, bad: float, declared: Drawn, chance: random.Random,
        verdict: bool | None = None,
    ) -> None:  # fmt: skip
        self.counter = Counter.of(probe, verdict)
        self._period = float(probe.period_seconds or 10)
        timeout = float(probe.timeout_seconds or 1)
        self._late = declared.answer > timeout
        self._takes = min(declared.answer, timeout)
        self._good, self._bad, self._flaky, self._chance = good, bad, declared.flaky, chance
        self._probe_at = first
        self.ended = False

    @property
    def due(self) -> float | None:
        """When the next answer that matters comes; None if none does."""
        return None if self.ended else self._probe_at + self._takes

    def _answer(self, at: float) -> bool:
        if self._flaky and self._chance.random() < self._flaky:
            return False
        return not self._late and self._good - _EPS <= at < self._bad - _EPS

    def step(self) -> None:
        """The answer that is due comes."""
        at = self._probe_at
        self.counter.answer(answer := self._answer(at))
        self._probe_at = at + max(self._period, self._takes)
        if self._flaky or self.counter.verdict != answer:
            return
        turn = self._bad if answer else self._good if at < self._good and not self._late else None
        if turn is None or turn == float("inf"):
            self.ended = True  # it stays like this for ever
        elif turn - _EPS > self._probe_at:
            self._probe_at += -((self._probe_at - turn + _EPS) // self._period) * self._period


class Probing:
    """The probes of a running container that was ``started`` at a Unix time; ``before``: (started, ready) as an earlier agent
    left it."""

    def __init__(
        self, spec: AnyContainer, declared: Drawn, started: float, chance: random.Random,
        before: tuple[bool, bool] | None = None, now: float | None = None,
    ) -> None:  # fmt: skip
        self._spec, self._declared, self._began, self._chance = spec, declared, started, chance
        self._bad = float("inf") if declared.hang is None else started + declared.hang
        self._was_ready = bool(before and before[1])
        self._startup: _Probe | None = None
        self._liveness: _Probe | None = None
        self._readiness: _Probe | None = None
        self._from = started if now is None else now
        if spec.startup_probe is not None and not (before and before[0]):
            self._startup = self._make(spec.startup_probe, declared.startup, self._from)
        else:
            self._begin(self._from)

    def _make(self, probe: core_v1.Probe, good: float, since: float, verdict: bool | None = None) -> _Probe:
        wait = (probe.initial_delay_seconds or 0) - (since - self._began)
        first = since + max(FIRST_DELAY, wait)
        return _Probe(probe, first, self._began + good, self._bad, self._declared, self._chance, verdict)

    def _begin(self, at: float) -> None:
        """The container has started up."""
        spec, declared = self._spec, self._declared
        if spec.liveness_probe is not None:
            self._liveness = self._make(spec.liveness_probe, declared.startup, at)
        if spec.readiness_probe is not None:
            self._readiness = self._make(spec.readiness_probe, declared.ready, at, True if self._was_ready else None)

    def _running(self) -> list[_Probe]:
        return [p for p in (self._startup, self._liveness, self._readiness) if p is not None and not p.ended]

    @property
    def wake(self) -> float | None:
        """When to look again (Unix); None if nothing changes any more."""
        return min((p.due for p in self._running() if p.due is not None), default=None)

    def view(self, now: float) -> ProbeView:
        """The results of the probes at this time."""
        while (due := self.wake) is not None and due <= now + _EPS:
            probe = next(p for p in self._running() if p.due == due)
            probe.step()
            if probe is self._startup and probe.counter.verdict is not None:
                probe.ended = True
                if probe.counter.verdict:
                    self._begin(due)
            elif probe is self._liveness and probe.counter.verdict is False:
                probe.ended = True  # the container is stopped
        startup, liveness, readiness = self._startup, self._liveness, self._readiness
        failed = "Startup" if startup and startup.counter.verdict is False else ""
        if liveness and liveness.counter.verdict is False:
            failed = "Liveness"
        waits = self._spec.readiness_probe is not None
        started = None
        if self._spec.startup_probe is not None:
            started = startup.counter.verdict if startup else True
        ready = readiness.counter.verdict if readiness else None
        return ProbeView(started=started, ready=ready if waits else None, failed=failed)
