"""One pod's state machine: spec + what is observed + now -> the next actions and the new status.

No I/O happens here and no clock is read, so every path of a pod's life can be tested as plain data. The worker calls
:meth:`PodMachine.decide` whenever something may have changed and carries out what comes back; deciding twice about the
same things gives the same actions, and the worker leaves out those that it is already doing. What the machine keeps
between calls is only what the runtime cannot tell it: back-off, failed attempts, and when the termination began.

A pod's life::

    running      sandbox -> init containers one by one (sidecars stay) -> main containers, restarted as the policy says
    terminating  main containers are stopped all at once, then sidecars in reverse order; then the sandbox
    ended        everything is dead; the status is final; the API object may go if it was being deleted
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from navarch.api.pods import TERMINAL_PHASES
from navarch.api.times import parse_time
from navarch.api.types import core_v1
from nodeagent.pods import podstatus
from nodeagent.pods.backoff import BackoffTable
from nodeagent.pods.observed import CONTAINER_HASH, AnyContainer, Observed, Role, Waiting, duration, pod_key, roles
from nodeagent.runtime.runtime import CREATED, EXITED, RUNNING, Container, Sandbox

RETRY = 10.0  # seconds between attempts at what failed for another reason than the container's own exit
DEFAULT_GRACE = 30.0
MIN_SIDECAR_GRACE = 2.0


@dataclass(frozen=True)
class CreateSandbox:
    attempt: int
    changed: bool = False  # an earlier sandbox is gone


@dataclass(frozen=True)
class StopSandbox:
    id: str


@dataclass(frozen=True)
class RemoveSandbox:
    id: str


@dataclass(frozen=True)
class StartContainer:
    """Pull, create and start. ``attempt`` is the restart count; ``kind`` is the container's role."""

    name: str
    attempt: int
    sandbox_id: str
    kind: str = "main"


@dataclass(frozen=True)
class StopContainer:
    """Stop gracefully until ``deadline`` (Unix seconds), then kill. ``why`` is the text of the Killing event."""

    id: str
    name: str
    deadline: float
    why: str


@dataclass(frozen=True)
class RemoveContainer:
    id: str


@dataclass(frozen=True)
class Tell:
    """An event about the pod. ``once``: a key under which it is told a single time."""

    type: str
    reason: str
    message: str
    once: str = ""


Action = CreateSandbox | StopSandbox | RemoveSandbox | StartContainer | StopContainer | RemoveContainer | Tell


@dataclass
class Decision:
    """``wake``: decide again at this Unix time even if nothing happens. ``ended``: the pod is over on this node."""

    actions: list[Action] = field(default_factory=list)
    status: core_v1.PodStatus = field(default_factory=core_v1.PodStatus)
    wake: float | None = None
    ended: bool = False

    def wake_at(self, when: float) -> None:
        self.wake = when if self.wake is None else min(self.wake, when)


def container_hash(container: AnyContainer) -> str:
    """A hash of what must not change while a container runs: its name and image."""
    return hashlib.sha256(f"{container.name}\0{container.image}".encode()).hexdigest()[:8]


class PodMachine:
    """The state machine of one pod uid: what the worker reports goes in, :meth:`decide` says what is to be done.

    ``qos``: the pod's quality-of-service class. ``restart_backoff``: when each container may be started again. Times are
    seconds since the epoch. ``failures`` and ``sandbox_failure`` are the last attempts that failed, until one succeeds;
    ``verdict`` is final. Nothing else is remembered: all that can be seen of the pod is observed anew each time.
    """

    def __init__(self, *, qos: str = "", restart_backoff: BackoffTable | None = None) -> None:
        self.qos = qos
        self.restarts = restart_backoff or BackoffTable()
        self.failures: dict[str, Waiting] = {}  # container -> the last failed attempt to start it
        self.sandbox_failure: Waiting | None = None
        self.verdict: tuple[str, str] | None = None  # (reason, message) once the node fails the pod
        self.rejected = False  # it never ran here
        self.disruption: str | None = None  # message of the DisruptionTarget condition, if the node disrupts the pod
        self.verdict_grace: float | None = None  # seconds that the pod gets to end, if not its own grace period
        self.terminating_since: float | None = None
        self.start_time: str | None = None
        self._grace = DEFAULT_GRACE
        self._finished_by_itself = False

    # --- what the worker reports ---

    def failed(self, name: str, reason: str, message: str, now: float, retry_in: float = RETRY) -> None:
        """An attempt to start container ``name`` failed."""
        self.failures[name] = Waiting(reason, message, now + retry_in)

    def sandbox_failed(self, message: str, now: float, retry_in: float = RETRY) -> None:
        """The sandbox, or the volumes that must be there before it, could not be made."""
        self.sandbox_failure = Waiting("FailedCreatePodSandBox", message, now + retry_in)

    def started(self, name: str) -> None:
        self.failures.pop(name, None)

    def retry_now(self) -> None:
        """Something that attempts failed for may be there now (a configMap was created, the pod was changed)."""
        self.failures = {n: Waiting(f.reason, f.message, 0.0) for n, f in self.failures.items()}
        self.sandbox_failure = None

    def fail(self, reason: str, message: str, grace: float | None = None, disruption: str | None = None) -> None:
        """The node fails the pod: it will be stopped, and its phase becomes Failed with this reason.

        ``grace``: seconds that it gets, where these are not its own; ``disruption``: message of a DisruptionTarget condition.
        """
        if self.verdict is None:
            self.verdict, self.verdict_grace, self.disruption = (reason, message), grace, disruption

    def reject(self, reason: str, message: str) -> None:
        """The node does not take the pod."""
        self.rejected = True
        self.fail(reason, message)

    def check(self, decision: Decision | None = None) -> None:
        """Raises AssertionError if what is remembered, or decided by it, contradicts itself; for tests, after any step."""
        assert self.verdict or not self.rejected, "rejected without a reason"
        assert self._grace >= 0, "time runs forward"
        assert all(failure.reason for failure in self.failures.values()), "a failure without a reason"
        if decision is None:
            return
        making = [a for a in decision.actions if isinstance(a, CreateSandbox | StartContainer)]
        assert len(decision.actions) == len(dict.fromkeys(decision.actions)), "the same thing twice"
        if self.terminating or self.verdict or decision.ended:
            assert not making, f"the pod ends, and {making} is to be made"
        assert sum(isinstance(a, CreateSandbox) for a in making) <= 1, "two sandboxes"
        starts = [a.name for a in making if isinstance(a, StartContainer)]
        assert len(starts) == len(set(starts)), "a container is started twice"
        stopped = {a.id for a in decision.actions if isinstance(a, StopSandbox)}
        assert not any(a.sandbox_id in stopped for a in making if isinstance(a, StartContainer)), "started where all stops"

    @property
    def terminating(self) -> bool:
        return self.terminating_since is not None

    # --- deciding ---

    def decide(self, pod: core_v1.Pod, observation: Observed, now: float) -> Decision:
        """Decides what to do now for ``pod`` given what is observed."""
        decision = Decision()
        self._deadline(pod, now, decision)
        waiting: dict[str, Waiting] = {}
        if not self._must_end(pod, observation):
            self._run(pod, observation, now, decision, waiting)
        if self._must_end(pod, observation):
            decision = Decision()
            self._end(pod, observation, now, decision)
            waiting = {n: w for n, w in self.failures.items() if observation.latest(n) is None}
        decision.actions.extend(_garbage(pod, observation, decision.ended and observation.is_gone))
        decision.status = podstatus.build(
            pod,
            observation,
            waiting,
            now,
            ended=decision.ended,
            verdict=self.verdict,
            rejected=self.rejected,
            qos=self.qos,
            start_time=self.start_time,
            disruption=self.disruption,
        )
        self.start_time = self.start_time or decision.status.start_time
        return decision

    def _must_end(self, pod: core_v1.Pod, observation: Observed) -> bool:
        return bool(
            observation.is_gone
            or pod.metadata.deletion_timestamp
            or self.verdict
            or self._finished_by_itself
            or pod.status.phase in TERMINAL_PHASES
        )

    def _deadline(self, pod: core_v1.Pod, now: float, decision: Decision) -> None:
        limit = pod.spec.active_deadline_seconds
        began = pod.status.start_time or self.start_time
        if limit is None or began is None or pod.status.phase in TERMINAL_PHASES or self._finished_by_itself:
            return
        due = parse_time(began) + limit
        if now >= due:
            self.fail("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        else:
            decision.wake_at(due)

    # --- a pod that runs ---

    def _run(
        self, pod: core_v1.Pod, observation: Observed, now: float, decision: Decision, waiting: dict[str, Waiting]
    ) -> None:
        sandbox = observation.sandbox
        for old in observation.sandboxes:
            if old.ready and old is not sandbox:
                decision.actions.append(StopSandbox(old.id))
        if sandbox is None or not sandbox.ready:
            self._without_sandbox(pod, observation, now, decision, sandbox)
            return
        self.sandbox_failure = None
        initialized = self._init(pod, observation, sandbox, now, decision, waiting)
        if self._finished_by_itself:
            return
        alive = False
        for role in roles(pod.spec):
            if role.kind not in ("main", "ephemeral") or (role.kind == "main" and not initialized):
                continue
            runs = self._container(pod, role, observation, sandbox, now, decision, waiting)
            alive = alive or (runs and role.kind == "main")
        if initialized and not alive:
            self._finished_by_itself = True

    def _without_sandbox(
        self, pod: core_v1.Pod, observation: Observed, now: float, decision: Decision, old: Sandbox | None
    ) -> None:
        names = [r.container.name for r in roles(pod.spec) if r.kind == "main"]
        last = {name: observation.latest(name) for name in names}
        if old is not None and any(c is not None and c.state != CREATED for c in last.values()):
            to_run = [n for n, c in last.items() if c is None or _restarts(pod.spec.restart_policy, c)]
            if pod.spec.restart_policy == "Never":
                to_run = []
            if not to_run and not observation.alive:
                self._finished_by_itself = True
                return
        if old is not None:
            # Its containers' network is gone with it: they cannot stay.
            decision.actions.append(StopSandbox(old.id))
        failure = self.sandbox_failure
        if failure is not None and failure.retry_at > now:
            decision.wake_at(failure.retry_at)
            return
        attempt = old.config.attempt + 1 if old is not None else 0
        decision.actions.append(CreateSandbox(attempt, changed=old is not None))

    def _init(
        self,
        pod: core_v1.Pod,
        observation: Observed,
        sandbox: Sandbox,
        now: float,
        decision: Decision,
        waiting: dict[str, Waiting],
    ) -> bool:
        """Brings init containers forward. True when the main containers may run."""
        here = [c for c in observation.containers if c.sandbox_id == sandbox.id and c.state != CREATED]
        main = {r.container.name for r in roles(pod.spec) if r.kind == "main"}
        past = any(c.name in main for c in here)  # main containers have run: only sidecars matter now
        chain = [r for r in roles(pod.spec) if r.kind in ("init", "sidecar")]
        names = [r.container.name for r in chain]
        reached = max((i for i, n in enumerate(names) if any(c.name == n for c in here)), default=-1)
        for i, role in enumerate(chain):
            latest = next((c for c in observation.of(role.container.name) if c.sandbox_id == sandbox.id), None)
            if role.kind == "sidecar":
                self._container(pod, role, observation, sandbox, now, decision, waiting)
                ready = latest is not None and latest.state == RUNNING and _started(role, latest, observation)
                if not ready and not past and i >= reached:
                    return False
            elif not past:
                if latest is not None and latest.state == EXITED and latest.exit_code == 0:
                    continue
                if not self._container(pod, role, observation, sandbox, now, decision, waiting):
                    self._finished_by_itself = True  # an init container that failed and may not be restarted
                return False
        return True

    def _container(
        self,
        pod: core_v1.Pod,
        role: Role,
        observation: Observed,
        sandbox: Sandbox,
        now: float,
        decision: Decision,
        waiting: dict[str, Waiting],
    ) -> bool:
        """One container's next step. False when it has ended and stays so."""
        name = role.container.name
        latest = observation.latest(name)
        if latest is not None and latest.state == CREATED:
            decision.actions.append(RemoveContainer(latest.id))  # a start that was interrupted
            latest = next((c for c in observation.of(name) if c.state != CREATED), None)
        if latest is not None and latest.state not in (EXITED,):
            self._alive(pod, role, latest, observation, now, decision)
            return True
        elsewhere = latest is not None and latest.sandbox_id != sandbox.id
        policy = "Never" if role.kind == "ephemeral" else pod.spec.restart_policy
        if role.kind == "sidecar":
            policy = "Always"
        elif role.kind == "init" and policy == "Always":
            policy = "OnFailure"
        again = latest is not None and not (elsewhere and role.kind in ("init", "sidecar"))
        if again and latest is not None and not _restarts(policy, latest):
            return False
        if self._held_back(pod, name, latest if again else None, now, decision, waiting):
            return True
        attempt = latest.attempt + 1 if latest is not None else _next_attempt(pod, name)
        decision.actions.append(StartContainer(name, attempt, sandbox.id, role.kind))
        if name in self.failures:
            waiting[name] = self.failures[name]
        return True

    def _alive(
        self, pod: core_v1.Pod, role: Role, running: Container, observation: Observed, now: float, decision: Decision
    ) -> None:
        name = role.container.name
        probes = observation.probes.get(running.id)
        grace = _grace_of(pod)
        current_hash = container_hash(role.container)
        if running.labels.get(CONTAINER_HASH, current_hash) != current_hash:
            why = f"Container {name} definition changed, will be restarted"
        elif probes is not None and probes.failed:
            why = f"Container {name} failed {probes.failed.lower()} probe, will be restarted"
            probe = role.container.liveness_probe if probes.failed == "Liveness" else role.container.startup_probe
            if probe is not None and probe.termination_grace_period_seconds is not None:
                grace = float(probe.termination_grace_period_seconds)
        else:
            return
        decision.actions.append(StopContainer(running.id, name, now + grace, why))

    def _held_back(
        self,
        pod: core_v1.Pod,
        name: str,
        ended: Container | None,
        now: float,
        decision: Decision,
        waiting: dict[str, Waiting],
    ) -> bool:
        """Whether a back-off forbids to start the container now."""
        failure = self.failures.get(name)
        if failure is not None and failure.retry_at > now:
            waiting[name] = failure
            decision.wake_at(failure.retry_at)
            return True
        if ended is None:
            return False
        key = f"{name}/{ended.labels.get(CONTAINER_HASH, '')}"
        until = self.restarts.until(key, ended.finished)
        if until <= now:
            return False
        delay = duration(self.restarts.delay(key))
        message = f"back-off {delay} restarting failed container={name} pod={pod_key(pod)}"
        waiting[name] = Waiting("CrashLoopBackOff", message, until)
        text = f"Back-off restarting failed container {name} in pod {pod_key(pod)}"
        decision.actions.append(Tell("Warning", "BackOff", text, once=f"{ended.id}"))
        decision.wake_at(until)
        return True

    def restarted(self, container: AnyContainer, ended: Container | None, now: float) -> None:
        """The worker started ``container`` again after ``ended``: counts for its back-off.

        To be told together with the new container: before that, the old one would seem to be held back.
        """
        if ended is not None:
            key = f"{container.name}/{ended.labels.get(CONTAINER_HASH, '')}"
            self.restarts.next(key, ended.finished, now)

    # --- a pod that ends ---

    def _end(self, pod: core_v1.Pod, observation: Observed, now: float, decision: Decision) -> None:
        if self.terminating_since is None:
            self.terminating_since = now
            self._grace = _grace_of(pod)
        if self.verdict_grace is not None:  # counted from the verdict, however long the pod has been ending already
            self._grace = min(self._grace, now - self.terminating_since + self.verdict_grace)
            self.verdict_grace = None
        self._grace = min(self._grace, _grace_of(pod))  # a grace period only ever gets shorter
        deadline = self.terminating_since + self._grace
        alive = observation.alive
        sidecars = [r.container.name for r in roles(pod.spec) if r.kind == "sidecar"]
        first = [c for c in alive if c.name not in sidecars]
        if first:
            decision.actions.extend(
                StopContainer(c.id, c.name, deadline, f"Stopping container {c.name}") for c in first
            )
            return
        for name in reversed(sidecars):
            still = [c for c in alive if c.name == name]
            if still:
                late = max(deadline, min(now, deadline) + MIN_SIDECAR_GRACE)
                decision.actions.extend(StopContainer(c.id, c.name, late, f"Stopping container {name}") for c in still)
                return
        for sandbox in observation.sandboxes:
            if sandbox.ready:
                decision.actions.append(StopSandbox(sandbox.id))
        decision.ended = not any(s.ready for s in observation.sandboxes)


def _grace_of(pod: core_v1.Pod) -> float:
    grace = pod.metadata.deletion_grace_period_seconds
    if grace is None:
        grace = pod.spec.termination_grace_period_seconds
    return DEFAULT_GRACE if grace is None else float(max(grace, 1))


def _started(role: Role, container: Container, observation: Observed) -> bool:
    return container.id not in observation.hooked and podstatus.health(role, container, observation)[0]


def _restarts(policy: str | None, ended: Container) -> bool:
    if policy == "Never":
        return False
    return policy != "OnFailure" or ended.exit_code != 0


def _next_attempt(pod: core_v1.Pod, name: str) -> int:
    """The restart count of a container that the runtime does not know but the API status may (after a power loss)."""
    for group in (pod.status.container_statuses, pod.status.init_container_statuses):
        for status in group or ():
            if status.name == name:
                ran = status.state is not None and (status.state.running or status.state.terminated)
                return status.restart_count + 1 if ran else status.restart_count
    return 0


def _garbage(pod: core_v1.Pod, observation: Observed, everything: bool) -> Iterator[Action]:
    """Dead containers beyond the newest two of a name, and sandboxes that hold nothing any more.

    The newest dead one beside a running one is what ``logs --previous`` reads.
    """
    removed = set()
    names = dict.fromkeys(c.name for c in observation.containers)
    for name in names:
        runs = [c for c in observation.of(name) if c.state != CREATED or everything]
        for container in runs if everything else runs[2:]:
            if container.state == EXITED or everything:
                removed.add(container.id)
                yield RemoveContainer(container.id)
    newest = observation.sandbox
    for sandbox in observation.sandboxes:
        if sandbox.ready or (sandbox is newest and not everything):
            continue
        if not any(c.sandbox_id == sandbox.id and c.id not in removed for c in observation.containers):
            yield RemoveSandbox(sandbox.id)
