"""A container's OCI config.json, from the pod's wishes, the image's settings and the sandbox's namespaces. Pure, but for
reading the image's passwd file and the machine's devices.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from navarch.api.types import core_v1
from nodeagent.images.store import Settings
from nodeagent.runtime import devicenodes, security, users
from nodeagent.runtime.runtime import ContainerConfig, RuntimeError_, SandboxConfig

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROPAGATION = {"None": "rprivate", "HostToContainer": "rslave", "Bidirectional": "rshared"}


@dataclass(frozen=True)
class Surroundings:
    """The node's offer to a container: paths of its sandbox's namespaces (absent: the node's own), and limits."""

    namespaces: Mapping[str, str]  # OCI's name of a namespace -> file to join, "" for a new one
    shm: str  # directory to mount at /dev/shm
    cgroup: str = ""
    oom_score_floor: int = -1000  # lowest value that we may set
    swap_limit: bool = False  # whether the kernel counts swap
    open_files: int = 1 << 20  # limit of open files
    device_rules: bool = True  # whether crun can install them
    seccomp_directory: Path | None = None
    extra_mounts: Sequence[dict[str, Any]] = field(default_factory=tuple)


def command_line(config: ContainerConfig, image: Settings) -> list[str]:
    """The command to run. A command of the pod's replaces the image's entrypoint and cmd, args only its cmd."""
    if config.command:
        return [*config.command, *config.args]
    line = [*(image.entrypoint or ()), *(config.args or image.cmd or ())]
    if not line:
        raise RuntimeError_("CreateContainerError", "no command specified")
    return line


def check_non_root(config: ContainerConfig, sandbox: SandboxConfig, image: Settings) -> None:
    """runAsNonRoot: refuses root, and user names of the image, which prove nothing."""
    if not _setting(config, "run_as_non_root"):
        return
    where = f'(pod: "{sandbox.name}_{sandbox.namespace}({sandbox.pod_uid})", container: {config.name})'
    uid = _setting(config, "run_as_user")
    message = ""
    if uid is not None:
        message = "container's runAsUser breaks non-root policy" if uid == 0 else ""
    else:
        user = image.user.partition(":")[0]
        if user in ("", "0"):
            message = "container has runAsNonRoot and image will run as root"
        elif not user.isdigit():
            message = f"container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root"
    if message:
        raise RuntimeError_("CreateContainerConfigError", f"{message} {where}")


def _setting(config: ContainerConfig, name: str) -> Any:
    """A setting that both contexts have: the container's wins."""
    value = getattr(config.security, name, None)
    return value if value is not None else getattr(config.pod_security, name, None)


def identity(config: ContainerConfig, image: Settings, rootfs: Path) -> users.Identity:
    try:
        return users.resolve(rootfs, image.user, _setting(config, "run_as_user"), _setting(config, "run_as_group"))
    except users.UnknownUser as error:
        raise RuntimeError_("CreateContainerError", str(error)) from error


def _groups(config: ContainerConfig, who: users.Identity) -> list[int]:
    pod = config.pod_security
    groups: dict[int, None] = {}
    if pod is None or pod.supplemental_groups_policy != "Strict":
        groups.update(dict.fromkeys(who.groups))
    if pod is not None:
        groups.update(dict.fromkeys(pod.supplemental_groups or ()))
        if pod.fs_group is not None:
            groups[pod.fs_group] = None
    return list(groups)


def environment(
    config: ContainerConfig, sandbox: SandboxConfig, image: Settings, who: users.Identity, node_name: str
) -> list[str]:
    """The image's variables under the pod's, and what every process expects."""
    values: dict[str, str] = {"PATH": PATH, "HOSTNAME": sandbox.hostname or node_name, "HOME": who.home}
    if config.tty:
        values["TERM"] = "xterm"
    for pair in image.env or ():
        key, _, value = pair.partition("=")
        values[key] = value
    values.update(config.env)
    return [f"{key}={value}" for key, value in values.items()]


def _mounts(config: ContainerConfig, around: Surroundings, privileged: bool) -> list[dict[str, Any]]:
    access = "rw" if privileged else "ro"
    mounts: list[dict[str, Any]] = [
        _mount("/proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ]
    mounts.append(_mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"))  # shows the IPC namespace it is in
    mounts.append(_bind("/dev/shm", around.shm, "nosuid", "noexec", "nodev"))
    mounts.append(_mount("/sys", "sysfs", "nosuid", "noexec", "nodev", access))
    mounts.append(_mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", access))
    mounts.extend(around.extra_mounts)
    own: list[dict[str, Any]] = []
    for mount in config.mounts:
        options = ["rbind", _PROPAGATION.get(mount.propagation, "rprivate"), "ro" if mount.read_only else "rw"]
        if not mount.executable:  # told again: a bind mount that is made read-only loses the options of its source
            options += ["noexec", "nosuid", "nodev"]
        own.append({"destination": mount.container_path, "type": "bind", "source": mount.host_path, "options": options})
    # A mount over another's place hides it: outer ones first. What the pod mounts itself replaces ours.
    own.sort(key=lambda m: _depth(m["destination"]))
    occupied = {m["destination"].rstrip("/") for m in own}
    return [m for m in mounts if m["destination"] not in occupied] + own


def _depth(path: str) -> int:
    return len([part for part in path.split("/") if part])


def _mount(destination: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": kind, "options": list(options)}


def _bind(destination: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind", "rprivate", *options]}


def _resources(config: ContainerConfig, around: Surroundings, privileged: bool) -> dict[str, Any]:
    limits = config.resources
    result: dict[str, Any] = {"devices": [{"allow": privileged, "access": "rwm"}]} if around.device_rules else {}
    cpu: dict[str, Any] = {}
    if limits.cpu_shares:
        cpu["shares"] = max(2, limits.cpu_shares)
    if limits.cpu_quota:
        cpu["quota"], cpu["period"] = limits.cpu_quota, limits.cpu_period
    if cpu:
        result["cpu"] = cpu
    if limits.memory_limit:
        result["memory"] = {"limit": limits.memory_limit}
        if around.swap_limit:  # memory and swap together, so none of it may be swap
            result["memory"]["swap"] = limits.memory_limit
    if limits.pids_limit:
        result["pids"] = {"limit": limits.pids_limit}
    return result


def _seccomp(config: ContainerConfig, around: Surroundings, capabilities: list[str]) -> dict[str, Any] | None:
    """Unconfined unless the pod asks for a profile, as Kubernetes does by default."""
    profile: core_v1.SeccompProfile | None = _setting(config, "seccomp_profile")
    if profile is None or profile.type == "Unconfined":
        return None
    if profile.type == "RuntimeDefault":
        return security.default_seccomp(capabilities)
    path = (around.seccomp_directory or Path("/nonexistent")) / (profile.localhost_profile or "")
    try:
        loaded: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RuntimeError_("CreateContainerError", f"cannot load seccomp profile {str(path)!r}: {error}") from error
    return loaded


def build(
    config: ContainerConfig,
    sandbox: SandboxConfig,
    image: Settings,
    rootfs: Path,
    around: Surroundings,
    node_name: str,
) -> dict[str, Any]:
    """The config. Raises RuntimeError_ (CreateContainerError, CreateContainerConfigError)."""
    check_non_root(config, sandbox, image)
    line = command_line(config, image)
    who = identity(config, image, rootfs)
    context = config.security
    privileged = bool(context and context.privileged)
    granted = security.capabilities(context)
    if not around.device_rules and not privileged:
        granted = [name for name in granted if name != "CAP_MKNOD"]  # or any device of the machine could be had
    process: dict[str, Any] = {
        "terminal": config.tty,
        "user": {"uid": who.uid, "gid": who.gid, "additionalGids": _groups(config, who)},
        "args": line,
        "env": environment(config, sandbox, image, who, node_name),
        "cwd": config.working_dir or image.working_dir or "/",
        # Not inheritable: a program's file capabilities stay its own.
        "capabilities": {kind: granted for kind in ("bounding", "effective", "permitted")},
        "noNewPrivileges": security.no_new_privileges(context) and not privileged,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": around.open_files, "hard": around.open_files}],
        "oomScoreAdj": max(config.resources.oom_score_adj, around.oom_score_floor),
    }
    nodes, rules = devicenodes.nodes(config.devices)
    linux: dict[str, Any] = {
        "namespaces": [{"type": k, "path": path} if path else {"type": k} for k, path in around.namespaces.items()],
        "cgroupsPath": around.cgroup,
        "resources": _resources(config, around, privileged),
        "rootfsPropagation": _root_propagation(config),
    }
    if around.device_rules:
        linux["resources"]["devices"] += rules
    if nodes:
        linux["devices"] = nodes
    if privileged:
        own = {node["path"] for node in nodes}
        linux["devices"] = nodes + [node for node in security.all_devices() if node["path"] not in own]
    elif not (context and context.proc_mount == "Unmasked"):
        linux["maskedPaths"] = list(security.MASKED_PATHS)
        linux["readonlyPaths"] = list(security.READONLY_PATHS)
    if not privileged and (profile := _seccomp(config, around, granted)) is not None:
        linux["seccomp"] = profile
    return {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": str(rootfs), "readonly": bool(context and context.read_only_root_filesystem)},
        "mounts": _mounts(config, around, privileged),
        "linux": linux,
    }


def _root_propagation(config: ContainerConfig) -> str:
    propagations = {mount.propagation for mount in config.mounts}
    if "Bidirectional" in propagations:
        return "rshared"
    return "rslave" if "HostToContainer" in propagations else "rprivate"


def exec_process(spec: dict[str, Any], command: Sequence[str], tty: bool) -> dict[str, Any]:
    """The process of an exec: like the container's own, but for its command and terminal."""
    process = dict(spec["process"], args=list(command), terminal=tty)
    if tty and not any(v.startswith("TERM=") for v in process["env"]):
        process["env"] = [*process["env"], "TERM=xterm"]
    return process
