"""From what is observed to the PodStatus that the API shows: container states, phase, conditions. Pure.

The rules are kubelet's (pod lifecycle, "Pod phase" and "Pod conditions" in the concept docs); reasons and messages
are interface, because people and tools read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from navarch.api.pods import TERMINAL_PHASES, is_sidecar
from navarch.api.times import format_time
from navarch.api.types import core_v1
from nodeagent.pods.observed import IMAGE_NAME, AnyContainer, Observed, Role, Waiting, roles
from nodeagent.runtime.runtime import CREATED, EXITED, RUNNING, Container

UNKNOWN_REASON = "ContainerStatusUnknown"
MAX_MESSAGES = 12 * 1024  # bytes of the termination messages of all containers of a pod
DISRUPTION = "DisruptionTarget"  # ours only if the node disrupts the pod; else that of who evicts it by the API
OWNED = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


def build(
    pod: core_v1.Pod,
    observation: Observed,
    waiting: Mapping[str, Waiting],
    now: float,
    *,
    ended: bool = False,
    verdict: tuple[str, str] | None = None,
    rejected: bool = False,
    qos: str = "",
    start_time: str | None = None,
    disruption: str | None = None,
) -> core_v1.PodStatus:
    """The whole new status. ``ended``: nothing of the pod runs and nothing will; the phase must be a final one.

    ``verdict`` is (reason, message) of a pod that the node itself fails (DeadlineExceeded, OutOfcpu, ...).
    ``rejected``: the node never took it, so that there is nothing to be said of its containers (nor later, when only its
    stored status tells). ``start_time`` is when the node first took the pod in. ``disruption``: message of the
    DisruptionTarget condition, if the node itself ends the pod for want of something.
    """
    old = pod.status
    init, main, ephemeral = _statuses(pod, observation, waiting)
    initialized = has_initialized(pod.spec, init, main)
    if ended:
        main = [_settled(s, initialized and not verdict) for s in main]
        init = _settle_init(init, not verdict)
    new_phase = phase(pod.spec, init, main, initialized=initialized, ended=ended)
    if verdict:
        new_phase = "Failed" if ended else (old.phase or "Pending")
    if ended and new_phase not in TERMINAL_PHASES:
        new_phase = "Failed"
    if not ended and new_phase in TERMINAL_PHASES:
        new_phase = old.phase or "Running"  # final only when the last container is dead
    if old.phase in TERMINAL_PHASES:
        new_phase = old.phase  # never leaves a final phase
    if new_phase in TERMINAL_PHASES:
        main, init = ([_at_rest(s) for s in x] for x in (main, init))
    if rejected or (old.phase in TERMINAL_PHASES and not observation.containers and not _has_statuses(old)):
        main, init, ephemeral = [], [], []
    status = core_v1.PodStatus(
        phase=new_phase,
        init_container_statuses=init or None,
        container_statuses=main or None,
        ephemeral_container_statuses=ephemeral or None,
        qos_class=old.qos_class or qos or None,
        start_time=old.start_time or start_time or format_time(now),
        nominated_node_name=old.nominated_node_name,
        observed_generation=pod.metadata.generation,
    )
    for shown in (*init, *main, *ephemeral):
        _shorten(shown, MAX_MESSAGES // max(1, len(init) + len(main) + len(ephemeral)))
    if verdict:
        status.reason, status.message = verdict
    elif new_phase in TERMINAL_PHASES:
        status.reason, status.message = old.reason, old.message
    _addresses(pod, observation, status)
    status.conditions = conditions(pod, status, observation, now, initialized, disruption)
    return status


def _has_statuses(status: core_v1.PodStatus) -> bool:
    return bool(status.container_statuses or status.init_container_statuses or status.ephemeral_container_statuses)


def _addresses(pod: core_v1.Pod, observation: Observed, status: core_v1.PodStatus) -> None:
    old = pod.status
    if observation.host_ip:
        status.host_ip, status.host_ips = observation.host_ip, [core_v1.HostIP(ip=observation.host_ip)]
    sandbox = observation.sandbox
    ip = ""
    if sandbox is not None:
        ip = observation.host_ip if pod.spec.host_network else sandbox.ip
    if not ip and (sandbox is None or not sandbox.ready) and status.phase in TERMINAL_PHASES:
        ip = old.pod_ip or ""  # a finished pod keeps showing the address it had
    if ip:
        status.pod_ip, status.pod_ips = ip, [core_v1.PodIP(ip=ip)]


# --- containers ------------------------------------------------------------------------------------------------------


def _statuses(
    pod: core_v1.Pod, observation: Observed, waiting: Mapping[str, Waiting]
) -> tuple[list[core_v1.ContainerStatus], list[core_v1.ContainerStatus], list[core_v1.ContainerStatus]]:
    out: dict[str, list[core_v1.ContainerStatus]] = {"init": [], "main": [], "ephemeral": []}
    old = {
        s.name: s
        for group in (
            pod.status.init_container_statuses,
            pod.status.container_statuses,
            pod.status.ephemeral_container_statuses,
        )
        for s in group or ()
    }
    for role in roles(pod.spec):
        where = "init" if role.kind == "sidecar" else role.kind
        name = role.container.name
        out[where].append(_container(pod.spec, role, observation, waiting.get(name), old.get(name)))
    return out["init"], out["main"], out["ephemeral"]


def _container(
    spec: core_v1.PodSpec,
    role: Role,
    observation: Observed,
    waiting: Waiting | None,
    old: core_v1.ContainerStatus | None,
) -> core_v1.ContainerStatus:
    container = role.container
    status = core_v1.ContainerStatus(
        name=container.name, image=container.image or "", image_id="", ready=False, restart_count=0, started=False
    )
    status.volume_mounts = _mounts(container)
    runs = [c for c in observation.of(container.name) if c.state != CREATED]
    newest = runs[0] if runs else None
    if newest is None:
        _never_ran(spec, role, status, waiting, old)
        return status
    status.image = newest.annotations.get(IMAGE_NAME) or newest.image or status.image
    status.image_id = newest.image_id
    status.restart_count = newest.attempt
    status.container_id = _shown_id(newest)
    previous = next((c for c in runs[1:] if c.state == EXITED), None)
    if previous is not None:
        status.last_state = core_v1.ContainerState(terminated=terminated(previous, observation.messages))
    elif old is not None and old.last_state is not None and old.restart_count == newest.attempt:
        status.last_state = old.last_state
    if newest.state == RUNNING:
        started_at = format_time(newest.started or newest.created)
        status.state = core_v1.ContainerState(running=core_v1.ContainerStateRunning(started_at=started_at))
        if newest.id not in observation.hooked:
            status.started, status.ready = health(role, newest, observation)
        return status
    if newest.state != EXITED:
        status.state = core_v1.ContainerState(waiting=core_v1.ContainerStateWaiting(reason=_before(spec, role)))
        return status
    end = terminated(newest, observation.messages)
    if waiting is not None:
        # It has run and is to run again: what holds it back is its state, how it ended its last state.
        status.state = core_v1.ContainerState(
            waiting=core_v1.ContainerStateWaiting(reason=waiting.reason, message=waiting.message)
        )
        status.last_state = core_v1.ContainerState(terminated=end)
        return status
    status.state = core_v1.ContainerState(terminated=end)
    # A completed init container counts as ready.
    status.ready = role.kind == "init" and newest.exit_code == 0
    return status


def _shorten(status: core_v1.ContainerStatus, size: int) -> None:
    """Cuts termination messages to so many bytes."""
    for name in ("state", "last_state"):
        state: core_v1.ContainerState | None = getattr(status, name)
        end = state.terminated if state else None
        if end is not None and end.message and len(text := end.message.encode()) > size:
            cut = msgspec.structs.replace(end, message=text[:size].decode(errors="ignore"))
            setattr(status, name, core_v1.ContainerState(terminated=cut))


def _never_ran(
    spec: core_v1.PodSpec,
    role: Role,
    status: core_v1.ContainerStatus,
    waiting: Waiting | None,
    old: core_v1.ContainerStatus | None,
) -> None:
    """The state of a container that the runtime does not know."""
    reason, message = (waiting.reason, waiting.message) if waiting else (_before(spec, role), None)
    if role.kind == "ephemeral" and waiting is None:
        reason = "ContainerCreating"
    status.state = core_v1.ContainerState(waiting=core_v1.ContainerStateWaiting(reason=reason, message=message or None))
    if old is None or old.state is None:
        return
    if old.state.terminated is not None:
        status.state, status.ready = old.state, old.ready
        status.restart_count, status.container_id = old.restart_count, old.container_id
        status.image_id, status.last_state = old.image_id, old.last_state
    elif old.state.running is not None:
        # It ran before the node lost it, in a power loss perhaps: the exit code is not known.
        status.last_state = core_v1.ContainerState(
            terminated=core_v1.ContainerStateTerminated(
                exit_code=137,
                reason=UNKNOWN_REASON,
                message="The container could not be located when the pod was deleted.  "
                "The container used to be Running",
                container_id=old.container_id,
            )
        )
        status.restart_count = old.restart_count + 1
    else:
        status.restart_count, status.last_state = old.restart_count, old.last_state


def _before(spec: core_v1.PodSpec, role: Role) -> str:
    return "PodInitializing" if spec.init_containers else "ContainerCreating"


def _shown_id(container: Container) -> str:
    return container.id if "://" in container.id else f"{container.runtime}://{container.id}"


def _mounts(container: AnyContainer) -> list[core_v1.VolumeMountStatus] | None:
    out = [
        core_v1.VolumeMountStatus(
            name=m.name,
            mount_path=m.mount_path,
            read_only=m.read_only or None,
            recursive_read_only="Disabled" if m.read_only else None,
        )
        for m in container.volume_mounts or ()
    ]
    return out or None


def terminated(container: Container, messages: Mapping[str, str]) -> core_v1.ContainerStateTerminated:
    """How a dead container ended."""
    reason = container.reason or ("Completed" if container.exit_code == 0 else "Error")
    return core_v1.ContainerStateTerminated(
        exit_code=container.exit_code,
        signal=container.signal or None,
        reason=reason,
        message=": ".join(filter(None, (container.message, messages.get(container.id)))) or None,
        started_at=format_time(container.started) if container.started else None,
        finished_at=format_time(container.finished) if container.finished else None,
        container_id=_shown_id(container),
    )


def health(role: Role, container: Container, observation: Observed) -> tuple[bool, bool]:
    """(started, ready) of a running container."""
    probes = observation.probes.get(container.id)
    spec = role.container
    started = True
    if spec.startup_probe is not None:
        started = bool(probes and probes.started)
    ready = started
    if spec.readiness_probe is not None:
        ready = started and bool(probes and probes.ready)
    if role.kind in ("init", "ephemeral"):
        ready = False
    return started, ready


def _settled(status: core_v1.ContainerStatus, initialized: bool) -> core_v1.ContainerStatus:
    """A container of a pod that is over: one without an end gets an unknown one, if the pod came that far."""
    if not initialized or (status.state and status.state.terminated):
        return status
    last = status.last_state.terminated if status.last_state else None
    status.state = core_v1.ContainerState(terminated=last or _unknown_end())
    if last is not None:
        status.last_state = None
    return status


def _settle_init(statuses: list[core_v1.ContainerStatus], has_cause: bool) -> list[core_v1.ContainerStatus]:
    """Init containers up to the last one that has run must all have an end."""
    last = max((i for i, s in enumerate(statuses) if s.container_id or s.last_state), default=-1)
    return [_settled(s, has_cause) if i <= last else s for i, s in enumerate(statuses)]


def _at_rest(status: core_v1.ContainerStatus) -> core_v1.ContainerStatus:
    """In a pod of a final phase no main container is started or ready."""
    status.started = False
    done = status.state.terminated if status.state else None
    status.ready = status.ready and done is not None and done.exit_code == 0
    return status


def _unknown_end() -> core_v1.ContainerStateTerminated:
    return core_v1.ContainerStateTerminated(
        exit_code=137,
        reason=UNKNOWN_REASON,
        message="The container could not be located when the pod was terminated",
    )


# --- phase -----------------------------------------------------------------------------------------------------------


def has_initialized(
    spec: core_v1.PodSpec, init: Sequence[core_v1.ContainerStatus], main: Sequence[core_v1.ContainerStatus]
) -> bool:
    """Whether the main containers may run or have run."""
    if any(s.container_id or s.last_state for s in main):
        return True
    return not _incomplete(spec, init)


def _incomplete(spec: core_v1.PodSpec, init: Sequence[core_v1.ContainerStatus]) -> list[str]:
    """Names of init containers that still hold the main ones back."""
    by_name = {s.name: s for s in init}
    out = []
    for container in spec.init_containers or ():
        status = by_name.get(container.name)
        state = status.state if status else None
        if is_sidecar(container):
            done = bool(status and status.started)
        else:
            done = bool(state and state.terminated and state.terminated.exit_code == 0)
        if not done:
            out.append(container.name)
    return out


def phase(
    spec: core_v1.PodSpec,
    init: Sequence[core_v1.ContainerStatus],
    main: Sequence[core_v1.ContainerStatus],
    *,
    initialized: bool,
    ended: bool = False,
) -> str:
    """The phase that the container states add up to."""
    never = spec.restart_policy == "Never"
    sidecars = {c.name for c in spec.init_containers or () if is_sidecar(c)}
    for status in init:
        end = status.state.terminated if status.state else None
        if never and status.name not in sidecars and end is not None and end.exit_code != 0:
            return "Failed"
    waiting = running = stopped = succeeded = 0
    for status in main:
        state = status.state or core_v1.ContainerState()
        if state.running is not None:
            running += 1
        elif state.terminated is not None:
            stopped += 1
            succeeded += state.terminated.exit_code == 0
        elif status.last_state is not None and status.last_state.terminated is not None:
            stopped += 1
        else:
            waiting += 1
    if not initialized or waiting:
        return "Pending"
    if running or not stopped:
        return "Running" if running else "Pending"
    if ended:
        return "Succeeded" if stopped == succeeded else "Failed"
    if spec.restart_policy in (None, "Always"):
        return "Running"
    if stopped == succeeded:
        return "Succeeded"
    return "Failed" if never else "Running"


# --- conditions ------------------------------------------------------------------------------------------------------


def conditions(
    pod: core_v1.Pod,
    status: core_v1.PodStatus,
    observation: Observed,
    now: float,
    initialized: bool,
    disruption: str | None = None,
) -> list[core_v1.PodCondition]:
    """Kubelet's conditions, newest first as it writes them, and behind them those that others own."""
    old = {c.type: c for c in pod.status.conditions or ()}
    sandbox = observation.sandbox
    networked = sandbox is not None and sandbox.ready and bool(sandbox.ip or pod.spec.host_network)
    containers = _containers_ready(pod.spec, status)
    ready = _ready(pod, status, containers, old)
    fresh = [
        _condition("PodReadyToStartContainers", networked),
        _initialized(pod.spec, status, initialized),
        ready,
        containers,
        _condition("PodScheduled", True),
    ]
    if disruption is not None:
        fresh.append(_condition(DISRUPTION, True, "TerminationByKubelet", disruption))
    stamp = format_time(now)
    for condition in fresh:
        before = old.get(condition.type)
        same = before is not None and before.status == condition.status
        condition.last_transition_time = (before.last_transition_time if before and same else None) or stamp
        condition.observed_generation = pod.metadata.generation
    ours = {c.type for c in fresh}
    return fresh + [c for c in pod.status.conditions or () if c.type not in ours]


def _condition(type_: str, true: bool, reason: str | None = None, message: str | None = None) -> core_v1.PodCondition:
    return core_v1.PodCondition(type=type_, status="True" if true else "False", reason=reason, message=message)


def _listed(names: Iterable[str]) -> str:
    return "[" + " ".join(names) + "]"


def _initialized(spec: core_v1.PodSpec, status: core_v1.PodStatus, initialized: bool) -> core_v1.PodCondition:
    if status.phase == "Succeeded":
        return _condition("Initialized", True, "PodCompleted")
    missing = [] if initialized else _incomplete(spec, status.init_container_statuses or ())
    if missing:
        message = f"containers with incomplete status: {_listed(missing)}"
        return _condition("Initialized", False, "ContainersNotInitialized", message)
    return _condition("Initialized", True)


def _containers_ready(spec: core_v1.PodSpec, status: core_v1.PodStatus) -> core_v1.PodCondition:
    if status.phase == "Succeeded":
        return _condition("ContainersReady", False, "PodCompleted")
    if status.phase == "Failed":
        return _condition("ContainersReady", False, "PodFailed")
    by_name = {s.name: s for s in (*(status.init_container_statuses or ()), *(status.container_statuses or ()))}
    names = [r.container.name for r in roles(spec) if r.kind in ("sidecar", "main")]
    unready = [n for n in names if not by_name[n].ready]
    if unready:
        message = f"containers with unready status: {_listed(unready)}"
        return _condition("ContainersReady", False, "ContainersNotReady", message)
    return _condition("ContainersReady", True)


def _ready(
    pod: core_v1.Pod,
    status: core_v1.PodStatus,
    containers: core_v1.PodCondition,
    old: Mapping[str, core_v1.PodCondition],
) -> core_v1.PodCondition:
    if containers.status != "True":
        return _condition("Ready", False, containers.reason, containers.message)
    messages = []
    for gate in pod.spec.readiness_gates or ():
        condition = old.get(gate.condition_type)
        if condition is None:
            messages.append(f'corresponding condition of pod readiness gate "{gate.condition_type}" does not exist.')
        elif condition.status != "True":
            messages.append(
                f'the status of pod readiness gate "{gate.condition_type}" is not "True", but {condition.status}'
            )
    if messages:
        return _condition("Ready", False, "ReadinessGatesNotReady", ", ".join(messages))
    return _condition("Ready", True)
