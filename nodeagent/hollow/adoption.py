"""State of a simulated node before its fleet's process was started anew, from what the API server knows of it.

A real node's containers live on when its agent dies. Simulated ones are only in the memory of the fleet; so a new process
takes their states from the pods' statuses: the same addresses, start times and restart counts, as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from navarch.api.times import parse_time
from navarch.api.types import core_v1
from nodeagent.pods.machine import container_hash
from nodeagent.pods.observed import CONTAINER_HASH, IMAGE_NAME, Role, roles
from nodeagent.runtime.hollow import HollowNode
from nodeagent.runtime.runtime import EXITED, RUNNING, Container, SandboxConfig
from nodeagent.runtime.stages import Drawn


def adopt(node: HollowNode, pod: core_v1.Pod, stages: Callable[[str, int], Drawn]) -> list[Container]:
    """Puts a pod's sandbox and containers back on the machine; gives those that run. Nothing if none had been started."""
    status, meta = pod.status, pod.metadata
    statuses = {
        s.name: s
        for group in (status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses)
        for s in group or ()
    }
    role_statuses = [(role, statuses[role.container.name]) for role in roles(pod.spec) if role.container.name in statuses]
    started = [(role, s) for role, s in role_statuses if s.container_id and s.state and (s.state.running or s.state.terminated)]
    if not started or not status.pod_ip:
        return []
    host_network = bool(pod.spec.host_network)
    config = SandboxConfig(meta.uid or "", meta.namespace or "", meta.name or "", host_network=host_network)
    created = _time(status.start_time)
    sandbox = node.restore_sandbox(config, created, "" if host_network else status.pod_ip)
    alive = []
    for role, state in started:
        container = _container(role, state, sandbox.id, created)
        node.restore_container(container, stages(role.container.name, container.attempt))
        node.add_image(role.container.image or "")
        if container.state == RUNNING:
            alive.append(container)
    return alive


def _last(status: core_v1.ContainerStatus) -> core_v1.ContainerStatus:
    """The status with the last state of a container that waits to be started again: what lies on the machine has ended."""
    state, last = status.state, status.last_state
    if state is None or state.waiting is None or last is None or last.terminated is None:
        return status
    return msgspec.structs.replace(status, state=last, container_id=status.container_id or last.terminated.container_id)


def _container(role: Role, status: core_v1.ContainerStatus, sandbox_id: str, created: float) -> Container:
    state = status.state
    running, ended = (state.running, state.terminated) if state else (None, None)
    since = _time(running.started_at if running else ended.started_at if ended else None)
    return Container(
        id=(status.container_id or "").rpartition("//")[2],
        sandbox_id=sandbox_id,
        name=role.container.name,
        attempt=status.restart_count,
        image=role.container.image or "",
        image_id=status.image_id or "",
        state=RUNNING if running else EXITED,
        created=created,
        started=since,
        finished=_time(ended.finished_at) if ended else 0.0,
        exit_code=ended.exit_code if ended else 0,
        signal=(ended.signal or 0) if ended else 0,
        reason=(ended.reason or "") if ended else "",
        message=(ended.message or "") if ended else "",
        labels={CONTAINER_HASH: container_hash(role.container)},
        annotations={IMAGE_NAME: role.container.image or ""},
    )


def _time(text: str | None) -> float:
    return parse_time(text) if text else 0.0
