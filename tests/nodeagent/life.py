"""A pod on a make-believe node: carries out what the state machine says, as data. For tests of the pure core."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from navarch.api.types import core_v1
from nodeagent.pods.journal import RecordedMachine
from nodeagent.pods.machine import (
    CreateSandbox,
    Decision,
    RemoveContainer,
    RemoveSandbox,
    StartContainer,
    StopContainer,
    StopSandbox,
    Tell,
    container_hash,
)
from nodeagent.pods.observed import CONTAINER_HASH, Observed, ProbeView, roles
from nodeagent.runtime.runtime import EXITED, RUNNING, Container, Sandbox, SandboxConfig


def pod(spec: dict[str, Any], **meta: Any) -> core_v1.Pod:
    tree = {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u1", "generation": 1, **meta},
        "spec": {"nodeName": "n1", **spec},
    }
    return msgspec.convert(tree, core_v1.Pod)


class Life:
    """``step`` decides once and does everything at once; ``settle`` repeats until nothing is left to do."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.pod = pod(spec)
        self.machine = RecordedMachine()
        self.now = 1_000_000.0
        self.sandboxes: dict[str, Sandbox] = {}
        self.containers: dict[str, Container] = {}
        self.probes: dict[str, ProbeView] = {}
        self.gone = False
        self.started: list[str] = []
        self.stopping: dict[str, float] = {}
        self.told: list[str] = []
        self.decision = Decision()
        self.obedient = True  # containers die when they are told to
        self.starting_fails: dict[str, tuple[str, str]] = {}

    def observed(self) -> Observed:
        return Observed(
            sandboxes=list(self.sandboxes.values()),
            containers=list(self.containers.values()),
            probes=self.probes,
            host_ip="10.0.0.1",
            is_gone=self.gone,
        )

    def step(self) -> bool:
        self.decision = self.machine.decide(self.pod, self.observed(), self.now)
        self.machine.check(self.decision)
        self.pod = msgspec.structs.replace(self.pod, status=self.decision.status)
        done = False
        for action in self.decision.actions:
            done = self._do(action) or done
        return done

    def settle(self) -> core_v1.PodStatus:
        for _ in range(50):
            if not self.step():
                return self.decision.status
        raise AssertionError(f"never settles: {self.decision.actions}")

    def _do(self, action: Any) -> bool:
        if isinstance(action, Tell):
            self.told.append(action.message)
            return False
        if isinstance(action, CreateSandbox):
            config = SandboxConfig("u1", "ns", "p", attempt=action.attempt)
            made = Sandbox(f"s{action.attempt}", config, True, self.now, ip=f"10.1.0.{action.attempt + 1}")
            self.sandboxes[made.id] = made
        elif isinstance(action, StopSandbox):
            self.sandboxes[action.id] = replace(self.sandboxes[action.id], ready=False)
            for c in list(self.containers.values()):
                if c.sandbox_id == action.id and c.state == RUNNING:
                    self.exit(c.name, 137)
        elif isinstance(action, RemoveSandbox):
            del self.sandboxes[action.id]
        elif isinstance(action, RemoveContainer):
            del self.containers[action.id]
        elif isinstance(action, StopContainer):
            again = self.stopping.get(action.id)
            if again is not None and again <= action.deadline:
                return False
            self.stopping[action.id] = action.deadline
            if not self.obedient:
                return False
            self.exit(action.name, 143)
        elif isinstance(action, StartContainer):
            return self._start(action)
        return True

    def _start(self, action: StartContainer) -> bool:
        spec = next(r.container for r in roles(self.pod.spec) if r.container.name == action.name)
        if action.name in self.starting_fails:
            self.machine.failed(action.name, *self.starting_fails[action.name], self.now)
            return False
        alive = [c for c in self.containers.values() if c.name == action.name and c.state == RUNNING]
        assert not alive, "started twice"
        ended = next((c for c in self.observed().of(action.name) if c.state == EXITED), None)
        self.machine.restarted(spec, ended, self.now)
        identity = f"{action.sandbox_id}-{action.name}-{action.attempt}"
        assert identity not in self.containers, "the same attempt twice"
        labels = {CONTAINER_HASH: container_hash(spec)}
        self.containers[identity] = Container(
            identity, action.sandbox_id, action.name, action.attempt, spec.image or "", "sha256:1", RUNNING,
            created=self.now, started=self.now, labels=labels,
        )  # fmt: skip
        self.machine.started(action.name)
        self.started.append(action.name)
        return True

    # --- what happens to it ---

    def running(self) -> list[str]:
        return [c.name for c in self.containers.values() if c.state == RUNNING]

    def exit(self, name: str, code: int) -> None:
        c = next(c for c in self.containers.values() if c.name == name and c.state == RUNNING)
        self.containers[c.id] = replace(c, state=EXITED, exit_code=code, finished=self.now)
        self.stopping.pop(c.id, None)

    def probe(self, name: str, **view: Any) -> None:
        c = next(c for c in self.containers.values() if c.name == name and c.state == RUNNING)
        self.probes[c.id] = ProbeView(**view)

    def delete(self, grace: int | None = None) -> None:
        meta = msgspec.structs.replace(
            self.pod.metadata,
            deletion_timestamp="2026-01-01T00:00:00Z",
            deletion_grace_period_seconds=30 if grace is None else grace,
        )
        self.pod = msgspec.structs.replace(self.pod, metadata=meta)

    def condition(self, type_: str) -> core_v1.PodCondition:
        return next(c for c in self.decision.status.conditions or () if c.type == type_)
