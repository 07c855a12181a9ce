"""Which kernel parameters a pod may set: the safe ones, and those that the node's owner allows (--allowed-unsafe-sysctls).

Safe are those that change nothing for others (kubelet's list of 1.34). All others may hang or starve the machine, though
they belong to a namespace of the pod. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from navarch.api.types import core_v1

SAFE = (
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
)  # fmt: skip
# Those that a namespace has of its own; others would be the whole machine's.
_IPC, _NET = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."), ("net.",)


def normalized(name: str) -> str:
    """With dots between its parts. Where the first separator is a slash, slashes separate and dots belong to names."""
    first = min((at for at in (name.find("."), name.find("/")) if at >= 0), default=-1)
    return name.translate(str.maketrans("./", "/.")) if first >= 0 and name[first] == "/" else name


def file_of(name: str) -> str:
    """Its path below /proc/sys."""
    return normalized(name).translate(str.maketrans("./", "/."))


def namespace_of(name: str) -> str:
    """"ipc" or "net", "" for a parameter that no namespace has of its own. ``name`` is normalized."""
    return "ipc" if name.startswith(_IPC) else "net" if name.startswith(_NET) else ""


def check_patterns(patterns: Iterable[str]) -> None:
    """Raises ValueError for a pattern that allows what no namespace has of its own."""
    for pattern in patterns:
        if not namespace_of(normalized(pattern.removesuffix("*"))):
            raise ValueError(f'the sysctls "{pattern}" are not known to be namespaced')


def forbidden(spec: core_v1.PodSpec, allowed: Sequence[str]) -> str:
    """Why the node does not take a pod with these sysctls, in kubelet's words; "" if it does."""
    for sysctl in (spec.security_context.sysctls if spec.security_context else None) or ():
        name = normalized(sysctl.name)
        where = namespace_of(name)
        if name not in SAFE and not any(_matches(name, normalized(pattern)) for pattern in allowed):
            return f'forbidden sysctl: "{name}" not allowlisted'
        if (where == "net" and spec.host_network) or (where == "ipc" and spec.host_ipc) or not where:
            return f'forbidden sysctl: "{name}" not allowed with host {where or "namespaces"} enabled'
    return ""


def _matches(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
