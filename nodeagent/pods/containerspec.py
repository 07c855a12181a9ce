"""From a pod spec to what the runtime is told: sandbox and container configurations, Linux limits. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from navarch.api import quantity, resources
from navarch.api.pods import is_sidecar
from navarch.api.types import core_v1
from nodeagent.devices.ledger import Gift
from nodeagent.network import netfiles
from nodeagent.pods.fieldrefs import ConfigError, expand
from nodeagent.pods.machine import container_hash
from nodeagent.pods.observed import (
    CONTAINER_HASH,
    CONTAINER_NAME,
    IMAGE_NAME,
    POD_NAME,
    POD_NAMESPACE,
    POD_UID,
    AnyContainer,
    pod_key,
)
from nodeagent.pods.sources import NODE_CRITICAL
from nodeagent.runtime.runtime import ContainerConfig, Image, Mount, PortMapping, Resources, SandboxConfig

MIN_SHARES = 2
CPU_PERIOD = 100_000
MIN_QUOTA = 1_000
GUARANTEED_OOM = -997
BEST_EFFORT_OOM = 1000


def shares(milli: int) -> int:
    return max(MIN_SHARES, milli * 1024 // 1000)


def quota(milli: int, node: int) -> int:
    """Microseconds a period for a limit, 0 for none. ``node``: millicores that the node has, 0 if it is not bound to them.

    A limit above that is cut: version 1 of cgroups refuses (EINVAL) a quota above that of the cgroup around it. A kubelet's
    ``kubepods`` has none, our node has.
    """
    return max(MIN_QUOTA, (min(milli, node) if node else milli) * CPU_PERIOD // 1000) if milli else 0


def oom_score(pod: core_v1.Pod, container: AnyContainer, memory_capacity: int, qos: str) -> int:
    """How early the kernel should kill the container: the less of its own request a pod has, the earlier."""
    if pod.spec.priority_class_name == NODE_CRITICAL or qos == "Guaranteed":
        return GUARANTEED_OOM
    if qos == "BestEffort":
        return BEST_EFFORT_OOM
    request = _memory_request(container) + _remaining_memory(pod)
    score = 1000 - 1000 * request // max(memory_capacity, 1)
    if isinstance(container, core_v1.Container) and is_sidecar(container):
        # A sidecar goes no earlier than the main container that asks for least.
        least = min(_memory_request(c) for c in pod.spec.containers)
        score = min(score, 1000 - 1000 * least // max(memory_capacity, 1))
    return min(max(score, 1000 + GUARANTEED_OOM), BEST_EFFORT_OOM - 1)


def _memory_request(container: AnyContainer) -> int:
    return quantity.value(((container.resources.requests if container.resources else None) or {}).get("memory", 0))


def _remaining_memory(pod: core_v1.Pod) -> int:
    """The share of a container in what the pod as a whole requests beyond the sum of its containers' requests."""
    whole = ((pod.spec.resources.requests if pod.spec.resources else None) or {}).get("memory")
    if whole is None:
        return 0
    containers = [*pod.spec.containers, *(c for c in pod.spec.init_containers or () if is_sidecar(c))]
    return max(0, quantity.value(whole) - sum(_memory_request(c) for c in containers)) // len(containers)


def container_resources(
    pod: core_v1.Pod, container: AnyContainer, memory_capacity: int, qos: str, cpu_capacity: int = 0
) -> Resources:
    """The Linux limits of one container. Capacities of the node: memory in bytes, CPU in millicores (see :func:`quota`)."""
    own = container.resources or core_v1.ResourceRequirements()
    requests, limits = resources.amounts(own.requests), resources.amounts(own.limits)
    return Resources(
        cpu_shares=shares(requests.get("cpu", limits.get("cpu", 0))),
        cpu_quota=quota(limits.get("cpu", 0), cpu_capacity),
        cpu_period=CPU_PERIOD,
        memory_limit=limits.get("memory", 0),
        oom_score_adj=oom_score(pod, container, memory_capacity, qos),
    )


def pod_resources(pod: core_v1.Pod, cpu_capacity: int = 0) -> Resources:
    """The limits of the pod's own cgroup: a side is limited only if every container is, or the pod as a whole. The
    overhead of its RuntimeClass comes on top."""
    requests, limits = resources.pod_requests(pod), resources.pod_limits(pod)
    every = [c.resources.limits or {} if c.resources else {} for c in [*pod.spec.containers]]
    every += [c.resources.limits or {} if c.resources else {} for c in pod.spec.init_containers or ()]
    whole = (pod.spec.resources.limits if pod.spec.resources else None) or {}
    cpu, memory = (name in whole or all(name in c for c in every) for name in ("cpu", "memory"))
    return Resources(
        cpu_shares=shares(requests.get("cpu", 0)),
        cpu_quota=quota(limits.get("cpu", 0), cpu_capacity) if cpu else 0,
        cpu_period=CPU_PERIOD,
        memory_limit=limits.get("memory", 0) if memory else 0,
    )


def pod_cgroup(uid: str, qos: str) -> str:
    """The pod's cgroup below the node's pod root."""
    return f"pod{uid}" if qos == "Guaranteed" else f"{qos.lower()}/pod{uid}"


def log_directory(root: Path, pod: core_v1.Pod) -> Path:
    return root / f"{pod.metadata.namespace}_{pod.metadata.name}_{pod.metadata.uid}"


def sandbox_config(
    pod: core_v1.Pod, attempt: int, *, node_name: str, logs: Path, domain: str, qos: str, max_pids: int = 0,
    cpu_capacity: int = 0,
) -> SandboxConfig:  # fmt: skip
    """The arguments of ``run_sandbox``. ``max_pids``: how many processes the pod may have (0: no limit of its own);
    ``cpu_capacity``: millicores of the node (0: it is not bound to them)."""
    spec, meta = pod.spec, pod.metadata
    uid = meta.uid or ""
    full = netfiles.fqdn(pod, domain)
    every = [*(spec.init_containers or ()), *spec.containers, *(spec.ephemeral_containers or ())]
    sysctls = (spec.security_context.sysctls if spec.security_context else None) or ()
    mappings = [
        PortMapping(port.container_port, port.host_port, port.protocol or "TCP", port.host_ip or "")
        for container in [*(spec.init_containers or ()), *spec.containers]
        for port in container.ports or ()
        if port.host_port and not spec.host_network
    ]
    return SandboxConfig(
        pod_uid=uid,
        namespace=meta.namespace or "",
        name=meta.name or "",
        attempt=attempt,
        hostname=full if spec.set_hostname_as_fqdn and full else netfiles.hostname(pod, node_name),
        host_network=bool(spec.host_network),
        host_pid=bool(spec.host_pid),
        host_ipc=bool(spec.host_ipc),
        share_process_namespace=bool(spec.share_process_namespace),
        log_directory=str(log_directory(logs, pod)),
        cgroup=pod_cgroup(uid, qos),
        resources=replace(pod_resources(pod, cpu_capacity), pids_limit=max_pids),
        port_mappings=tuple(mappings),
        privileged=any(c.security_context is not None and bool(c.security_context.privileged) for c in every),
        sysctls={s.name: s.value for s in sysctls},
        labels=(meta.labels or {}) | _labels(pod),
        annotations=dict(meta.annotations or {}),
    )


def _labels(pod: core_v1.Pod) -> dict[str, str]:
    meta = pod.metadata
    return {POD_NAME: meta.name or "", POD_NAMESPACE: meta.namespace or "", POD_UID: meta.uid or ""}


def container_config(
    pod: core_v1.Pod,
    container: AnyContainer,
    *,
    attempt: int,
    image: Image,
    env: Sequence[tuple[str, str]],
    mounts: Sequence[Mount],
    limits: Resources,
    target: str = "",
) -> ContainerConfig:
    """The configuration for ``create_container``. Raises ConfigError."""
    _check_user(pod, container, image)
    variables = dict(env)
    return ContainerConfig(
        name=container.name,
        attempt=attempt,
        image=image.id,
        image_name=container.image or "",
        command=[expand(word, variables) for word in container.command or ()],
        args=[expand(word, variables) for word in container.args or ()],
        working_dir=container.working_dir or "",
        env=list(env),
        mounts=list(mounts),
        resources=limits,
        stdin=bool(container.stdin),
        stdin_once=bool(container.stdin_once),
        tty=bool(container.tty),
        log_path=f"{container.name}/{attempt}.log",
        target=target,
        security=container.security_context,
        pod_security=pod.spec.security_context,
        labels=_labels(pod) | {CONTAINER_NAME: container.name, CONTAINER_HASH: container_hash(container)},
        annotations={IMAGE_NAME: container.image or ""},
    )


def with_gift(config: ContainerConfig, gift: Gift) -> ContainerConfig:
    """The configuration with what device plugins add. Where the pod itself mounts something, its own mount stays."""
    places = {mount.container_path for mount in config.mounts}
    return replace(
        config,
        mounts=[*config.mounts, *(m for m in gift.mounts if m.container_path not in places)],
        devices=gift.devices,
        cdi_devices=gift.cdi,
        annotations=gift.annotations | config.annotations,
    )


def _check_user(pod: core_v1.Pod, container: AnyContainer, image: Image) -> None:
    """runAsNonRoot against the user that the container would have."""
    own, whole = container.security_context, pod.spec.security_context
    guarded = own.run_as_non_root if own else None
    if guarded is None:
        guarded = whole.run_as_non_root if whole else None
    if not guarded:
        return
    user = own.run_as_user if own else None
    if user is None:
        user = whole.run_as_user if whole else None
    where = f'(pod: "{pod_key(pod)}", container: {container.name})'
    if user is not None:
        if user == 0:
            raise ConfigError(f"container's runAsUser breaks non-root policy {where}")
        return
    name = image.user.split(":", 1)[0]
    if name in ("", "0", "root"):
        raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")
    if not name.isdigit():
        raise ConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {where}"
        )


def volume_mounts(
    container: AnyContainer,
    volumes: Mapping[str, Path],
    variables: Mapping[str, str],
    sub_path: Callable[[int, Path, str], Path],
    read_only_kinds: frozenset[str] = frozenset(),
    images: frozenset[str] = frozenset(),
) -> list[Mount]:
    """The mounts of a container's volumeMounts; ``read_only_kinds`` names volumes that are never writable,
    ``images`` those in which nothing can be executed.

    ``sub_path(number of the mount, volume, path in it)`` gives what to mount for a part of a volume. Raises ConfigError.
    """
    out = []
    for number, mount in enumerate(container.volume_mounts or ()):
        path = volumes.get(mount.name)
        if path is None:
            raise ConfigError(f'volume "{mount.name}" is not mounted')
        relative = mount.sub_path or ""
        if mount.sub_path_expr:
            relative = expand(mount.sub_path_expr, variables)
            if "$(" in relative:
                raise ConfigError(f"failed to expand subPathExpr {mount.sub_path_expr!r}")
        if relative:
            try:
                path = sub_path(number, path, relative)
            except (ConfigError, OSError) as error:
                where = f'volumeMount "{mount.name}" of container "{container.name}"'
                raise ConfigError(f"failed to prepare subPath for {where}: {error}") from error
        out.append(
            Mount(
                host_path=str(path),
                container_path=mount.mount_path,
                read_only=bool(mount.read_only) or mount.name in read_only_kinds,
                propagation=mount.mount_propagation or "None",
                executable=mount.name not in images,
            )
        )
    return out
