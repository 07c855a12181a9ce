"""From the runtime protocol's configurations to CRI's messages, and from CRI's statuses back. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from navarch.api.types import core_v1
from nodeagent.images.store import Settings
from nodeagent.runtime import security
from nodeagent.runtime.cri.inventory import Streams
from nodeagent.runtime.runtime import (
    CREATED,
    EXITED,
    RUNNING,
    UNKNOWN,
    Container,
    ContainerConfig,
    Resources,
    RuntimeError_,
    Sandbox,
    SandboxConfig,
)
from protos import cri_pb2 as cri

SANDBOX = "navarch.dev/sandbox"  # the whole SandboxConfig: CRI gives back only parts of it
IMAGE = "navarch.dev/image-name"  # the image as the pod asked for it
IMAGE_ID = "navarch.dev/image-id"  # the image as the container's status names it
STREAMS = "navarch.dev/streams"  # "tty", "once", both or none: CRI takes them and does not tell them
OWN = (SANDBOX, IMAGE, IMAGE_ID, STREAMS)  # annotations that only we see

_STATES = (CREATED, RUNNING, EXITED, UNKNOWN)
_PROTOCOLS = {"TCP": cri.TCP, "UDP": cri.UDP, "SCTP": cri.SCTP}
_PROPAGATION = {
    "HostToContainer": cri.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": cri.PROPAGATION_BIDIRECTIONAL,
}
_PROFILES = {
    "RuntimeDefault": cri.SecurityProfile.RuntimeDefault,
    "Unconfined": cri.SecurityProfile.Unconfined,
    "Localhost": cri.SecurityProfile.Localhost,
}
_decode_sandbox = msgspec.json.Decoder(SandboxConfig).decode


# -- sandboxes


def sandbox(config: SandboxConfig, cgroup: str) -> Any:
    """A PodSandboxConfig. ``cgroup`` is the pod's, as an absolute path."""
    linux = cri.LinuxPodSandboxConfig(
        cgroup_parent=cgroup,
        sysctls=config.sysctls,
        security_context=cri.LinuxSandboxSecurityContext(
            namespace_options=_namespaces(config),
            privileged=config.privileged,
            seccomp=cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault),
        ),
        resources=resources(config.resources),
    )
    return cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(
            name=config.name, uid=config.pod_uid, namespace=config.namespace, attempt=config.attempt
        ),
        hostname="" if config.host_network else config.hostname,
        log_directory=config.log_directory,
        port_mappings=[
            cri.PortMapping(
                protocol=_PROTOCOLS[m.protocol], container_port=m.container_port, host_port=m.host_port, host_ip=m.host_ip
            )
            for m in config.port_mappings
        ],
        labels=config.labels,
        annotations={**config.annotations, SANDBOX: msgspec.json.encode(config).decode()},
        linux=linux,
    )


def _namespaces(config: SandboxConfig, target: str = "") -> Any:
    pid = cri.POD if config.share_process_namespace else cri.CONTAINER
    if config.host_pid:
        pid = cri.NODE
    elif target and not config.share_process_namespace:
        pid = cri.TARGET
    return cri.NamespaceOption(
        network=cri.NODE if config.host_network else cri.POD,
        pid=pid,
        ipc=cri.NODE if config.host_ipc else cri.POD,
        target_id=target if pid == cri.TARGET else "",
    )


def sandbox_status(answer: Any) -> tuple[Sandbox, int] | None:
    """The sandbox and the pid of its pause process (0: it has none, or the runtime does not tell); None if it is not ours."""
    status = answer.status
    stored = status.annotations.get(SANDBOX)
    if stored is None:
        return None
    config, pid = _decode_sandbox(stored), _pid(answer.info)
    ready = status.state == cri.SANDBOX_READY
    shared = config.share_process_namespace and not config.host_pid and ready and pid
    ip = "" if config.host_network else status.network.ip
    namespace = f"/proc/{pid}/ns/pid" if shared else ""
    return Sandbox(status.id, config, ready, status.created_at / 1e9, ip, namespace), pid if ready else 0


def _pid(info: Mapping[str, str]) -> int:
    try:
        return int(json.loads(info["info"])["pid"])
    except (KeyError, ValueError, TypeError):
        return 0


# -- containers


def resources(limits: Resources) -> Any:
    return cri.LinuxContainerResources(
        cpu_period=limits.cpu_period if limits.cpu_quota else 0,
        cpu_quota=limits.cpu_quota,
        cpu_shares=max(2, limits.cpu_shares) if limits.cpu_shares else 0,
        memory_limit_in_bytes=limits.memory_limit,
        oom_score_adj=limits.oom_score_adj,
    )


def container(config: ContainerConfig, around: SandboxConfig, image: Settings, image_id: str, profiles: str) -> Any:
    """A ContainerConfig of CRI. ``image_id``: the image as statuses name it; ``profiles``: the folder of seccomp profiles
    that pods may name. Raises RuntimeError_ (CreateContainerError) for what CRI cannot say."""
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=config.name, attempt=config.attempt),
        image=cri.ImageSpec(image=config.image, user_specified_image=config.image_name),
        command=config.command,
        args=config.args,
        working_dir=config.working_dir,
        envs=[cri.KeyValue(key=key, value=value) for key, value in config.env],
        mounts=[
            cri.Mount(
                container_path=mount.container_path,
                host_path=mount.host_path,
                readonly=mount.read_only,
                propagation=_PROPAGATION.get(mount.propagation, cri.PROPAGATION_PRIVATE),
            )
            for mount in config.mounts
        ],
        devices=[
            cri.Device(container_path=d.container_path, host_path=d.host_path, permissions=d.permissions)
            for d in config.devices
        ],
        labels=config.labels,
        annotations={
            **config.annotations,
            IMAGE: config.image_name or config.image,
            IMAGE_ID: image_id,
            STREAMS: " ".join(["tty"] * config.tty + ["once"] * config.stdin_once),
        },
        log_path=config.log_path,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        tty=config.tty,
        linux=cri.LinuxContainerConfig(
            resources=resources(config.resources), security_context=_security(config, around, image, profiles)
        ),
    )


def _security(config: ContainerConfig, around: SandboxConfig, image: Settings, profiles: str) -> Any:
    own = config.security or core_v1.SecurityContext()
    pod = config.pod_security or core_v1.PodSecurityContext()
    if pod.supplemental_groups_policy == "Strict":
        raise RuntimeError_("CreateContainerError", "the runtime does not support supplementalGroupsPolicy: Strict")
    privileged = bool(own.privileged)
    hidden = not privileged and own.proc_mount != "Unmasked"
    groups = dict.fromkeys(pod.supplemental_groups or ())
    if pod.fs_group is not None:
        groups[pod.fs_group] = None
    context = cri.LinuxContainerSecurityContext(
        privileged=privileged,
        namespace_options=_namespaces(around, config.target),
        readonly_rootfs=bool(own.read_only_root_filesystem),
        supplemental_groups=list(groups),
        no_new_privs=security.no_new_privileges(config.security) and not privileged,
        masked_paths=security.MASKED_PATHS if hidden else (),
        readonly_paths=security.READONLY_PATHS if hidden else (),
        seccomp=_seccomp(own.seccomp_profile or pod.seccomp_profile, profiles),
        apparmor=cri.SecurityProfile(profile_type=cri.SecurityProfile.Unconfined),
    )
    if own.capabilities is not None:
        context.capabilities.add_capabilities.extend(own.capabilities.add or ())
        context.capabilities.drop_capabilities.extend(own.capabilities.drop or ())
    _user(context, own, pod, image)
    return context


def _user(context: Any, own: core_v1.SecurityContext, pod: core_v1.PodSecurityContext, image: Settings) -> None:
    user = own.run_as_user if own.run_as_user is not None else pod.run_as_user
    group = own.run_as_group if own.run_as_group is not None else pod.run_as_group
    if user is None and group is None:
        return  # the image's own, its group included
    if group is not None:
        context.run_as_group.value = group
    if user is None:  # CRI takes no group without a user
        name = image.user.partition(":")[0] or "0"
        if not name.isdigit():
            context.run_as_username = name
            return
        user = int(name)
    context.run_as_user.value = user


def _seccomp(profile: core_v1.SeccompProfile | None, profiles: str) -> Any:
    kind = profile.type if profile is not None else "Unconfined"
    path = f"{profiles}/{profile.localhost_profile}" if profile is not None and kind == "Localhost" else ""
    return cri.SecurityProfile(profile_type=_PROFILES[kind], localhost_ref=path)


def container_status(answer: Any, sandbox_id: str, runtime: str) -> Container | None:
    """The container, None if it is not ours. ``runtime``: the runtime's name."""
    status = answer.status
    if IMAGE not in status.annotations:
        return None
    now = _STATES[status.state]
    return Container(
        id=status.id,
        sandbox_id=sandbox_id,
        name=status.metadata.name,
        attempt=status.metadata.attempt,
        image=status.annotations[IMAGE],
        image_id=status.annotations[IMAGE_ID],
        state=now,
        created=status.created_at / 1e9,
        # containerd notes the start once it has been told of it: after the end, of a container that ends at once.
        started=min(status.started_at, status.finished_at or status.started_at) / 1e9,
        finished=status.finished_at / 1e9,
        exit_code=status.exit_code,
        reason=status.reason,
        message=status.message,
        log_path=status.log_path,
        pid=_pid(answer.info) if now == RUNNING else 0,
        runtime=runtime,
        labels=dict(status.labels),
        annotations={key: value for key, value in status.annotations.items() if key not in OWN},
    )


def state(number: int) -> str:
    """A ContainerState as the runtime protocol has it."""
    return _STATES[number]


def streams(answer: Any) -> Streams:
    words = answer.status.annotations.get(STREAMS, "").split()
    return Streams("tty" in words, "once" in words)


def changed_resources(limits: Resources) -> Any:
    """Resources for an update: what has no limit any more must be said."""
    message = resources(limits)
    if not limits.cpu_quota:
        message.cpu_quota = -1
    if not limits.memory_limit:
        message.memory_limit_in_bytes = -1
    return message


# -- the runtime as a whole


def trouble(status: Any) -> str:
    """The reason for which the runtime is not ready, in its own words; "" if it is."""
    ill = [c for c in status.conditions if c.type == "RuntimeReady" and not c.status]
    return ", ".join(c.message or c.reason or "the runtime is not ready" for c in ill)


def handlers(answer: Any) -> tuple[str, ...]:
    """The handlers that RuntimeClasses may name, from a verbose StatusResponse; "" is the default one."""
    names = {handler.name for handler in answer.runtime_handlers if handler.name}
    if not names:
        try:
            names = set(json.loads(answer.info["config"])["containerd"]["runtimes"])
        except (KeyError, ValueError, TypeError):
            names = set()
    return ("", *sorted(names))
