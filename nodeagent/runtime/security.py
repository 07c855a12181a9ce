"""Security settings of containers: capabilities, what of /proc and /sys is hidden, devices, seccomp.

The default sets are those that container runtimes have in common (moby's default capabilities, the masked paths of
the OCI examples). The seccomp profile RuntimeDefault is our own, shorter: it denies what containers have no business
with and allows the rest, where others list what is allowed.
"""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterable
from functools import cache
from typing import Any

from navarch.api.types import core_v1

CAPABILITIES = (  # in the order of their numbers
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip

DEFAULT_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
)  # fmt: skip

MASKED_PATHS = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_DENIED_CALLS = (
    "acct", "add_key", "bpf", "clock_adjtime", "clock_settime", "create_module", "delete_module", "fanotify_init",
    "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "get_kernel_syms", "init_module", "ioperm", "iopl",
    "kcmp", "kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie", "mount", "mount_setattr", "move_mount",
    "move_pages", "name_to_handle_at", "nfsservctl", "open_by_handle_at", "open_tree", "perf_event_open",
    "pivot_root", "process_vm_readv", "process_vm_writev", "ptrace", "query_module", "quotactl", "quotactl_fd",
    "reboot", "request_key", "setns", "settimeofday", "stime", "swapoff", "swapon", "sysfs", "umount", "umount2",
    "unshare", "uselib", "userfaultfd", "ustat", "vm86", "vm86old",
)  # fmt: skip
# Calls that a capability (if granted) makes legitimate.
_GRANTED_CALLS = {
    "CAP_SYS_ADMIN": (
        "bpf", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie", "mount", "mount_setattr",
        "move_mount", "name_to_handle_at", "open_tree", "perf_event_open", "quotactl", "quotactl_fd", "setns", "umount",
        "umount2", "unshare",
    ),
    "CAP_SYS_PTRACE": ("kcmp", "process_vm_readv", "process_vm_writev", "ptrace"),
    "CAP_SYS_MODULE": ("delete_module", "finit_module", "init_module"),
    "CAP_SYS_TIME": ("clock_adjtime", "clock_settime", "settimeofday", "stime"),
    "CAP_SYS_BOOT": ("reboot", "kexec_load", "kexec_file_load"),
    "CAP_SYS_PACCT": ("acct",),
    "CAP_SYS_RAWIO": ("ioperm", "iopl"),
    "CAP_SYS_NICE": ("move_pages",),
    "CAP_DAC_READ_SEARCH": ("open_by_handle_at",),
    "CAP_BPF": ("bpf",),
    "CAP_PERFMON": ("perf_event_open",),
}  # fmt: skip


@cache
def available_capabilities() -> frozenset[str]:
    """The capabilities that we can give: the agent's own bounding set (a lab in a container may lack some)."""
    with open("/proc/self/status") as file:
        mask = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd:"))
    return frozenset(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1)


@cache
def can_install_device_rules(unified: bool) -> bool:
    """On cgroup2 they are BPF programs, for which crun insists on lifting a limit: not everybody may."""
    unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] == resource.RLIM_INFINITY
    return not unified or unlimited or "CAP_SYS_RESOURCE" in available_capabilities()


def open_files() -> int:
    """How many open files a container may have: all that we may, but no more than a million, since there are programs
    that go through every number when they start."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1 << 20 if most == resource.RLIM_INFINITY else min(most, 1 << 20)


def capabilities(security: core_v1.SecurityContext | None) -> list[str]:
    """The capabilities of a container, in a fixed order."""
    names = dict.fromkeys(DEFAULT_CAPABILITIES)
    if security is not None and security.privileged:
        names = dict.fromkeys(CAPABILITIES)
    elif security is not None and security.capabilities is not None:
        drop = [_name(c) for c in security.capabilities.drop or ()]
        add = [_name(c) for c in security.capabilities.add or ()]
        if "CAP_ALL" in add:
            names = dict.fromkeys(CAPABILITIES)
        if "CAP_ALL" in drop:
            names = {}
        for name in add:
            if name in CAPABILITIES:
                names[name] = None
        for name in drop:
            if name not in add:
                names.pop(name, None)
    return [name for name in names if name in available_capabilities()]


def _name(capability: str) -> str:
    upper = capability.upper()
    return upper if upper.startswith("CAP_") else f"CAP_{upper}"


def no_new_privileges(security: core_v1.SecurityContext | None) -> bool:
    """allowPrivilegeEscalation: false, which privileged containers and CAP_SYS_ADMIN (by API rule) never have."""
    return security is not None and security.allow_privilege_escalation is False


def device_node(path: str, info: os.stat_result) -> dict[str, Any]:
    """A device node of these numbers at ``path``, in the OCI config's form."""
    return {
        "path": path,
        "type": "c" if stat.S_ISCHR(info.st_mode) else "b",
        "major": os.major(info.st_rdev),
        "minor": os.minor(info.st_rdev),
        "fileMode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
    }


def all_devices() -> list[dict[str, Any]]:
    """Every device node of the machine, for privileged containers. Terminals and /dev/shm are the container's own."""
    devices = []
    for directory, names, files in os.walk("/dev"):
        names[:] = sorted(n for n in names if n not in ("pts", "shm", "mqueue", "fd", ".lxc", ".lxd-mounts", ".udev"))
        for name in sorted(files):
            path = f"{directory}/{name}"
            try:
                info = os.lstat(path)
            except OSError:
                continue
            if path == "/dev/console" or not (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)):
                continue
            devices.append(device_node(path, info))
    return devices


def default_seccomp(granted: Iterable[str]) -> dict[str, Any]:
    """RuntimeDefault for a container with these capabilities, in the OCI config's form."""
    allowed = {call for capability in granted for call in _GRANTED_CALLS.get(capability, ())}
    rules: list[dict[str, Any]] = [
        {"names": [c for c in _DENIED_CALLS if c not in allowed], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    ]
    if "CAP_SYS_ADMIN" not in frozenset(granted):
        # No new user namespaces: clone with CLONE_NEWUSER fails, clone3 (whose flags cannot be seen) pretends to be new.
        new_user = {"index": 0, "value": 0x10000000, "valueTwo": 0x10000000, "op": "SCMP_CMP_MASKED_EQ"}
        rules.append({"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": [new_user]})
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38})
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
