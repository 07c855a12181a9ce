"""Checks of security contexts."""

from __future__ import annotations

import re

from apiserver.kinds.cells import Tree
from apiserver.kinds.checks import MAX_INT32
from navarch.api import names
from navarch.api.errors import Cause, duplicate, invalid, not_supported, required

IPC_SYSCTLS = ("kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue.")  # each IPC namespace has its own
PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_SYSCTL = re.compile(r"[a-z0-9]([-_a-z0-9]*[a-z0-9])?([./][a-z0-9]([-_a-z0-9]*[a-z0-9])?)*", re.ASCII)


def _ids(context: Tree, path: str, fields: tuple[str, ...]) -> list[Cause]:
    out = []
    for field in fields:
        value = context.get(field)
        if value is not None and not 0 <= value <= MAX_INT32:
            out.append(invalid(f"{path}.{field}", value, names.in_range(0, MAX_INT32)))
    return out


def _profile(profile: Tree | None, path: str) -> list[Cause]:
    if profile is None:
        return []
    type_, local = profile.get("type"), profile.get("localhostProfile")
    if not type_:
        return [required(f"{path}.type", "type is required when seccompProfile is set")]
    if type_ not in PROFILES:
        return [not_supported(f"{path}.type", type_, PROFILES)]
    if type_ == "Localhost":
        return [] if local else [required(f"{path}.localhostProfile", "must be set when seccomp type is Localhost")]
    if local is not None:
        return [invalid(f"{path}.localhostProfile", local, "can only be set when seccomp type is Localhost")]
    return []


def _dotted(name: str) -> str:
    """A sysctl with dots between its parts: in net/ipv4.conf the slash separates, and the dot belongs to a name."""
    separator = name.find("/")
    if separator < 0 or 0 <= name.find(".") < separator:
        return name
    return name.translate(str.maketrans("./", "/."))


def validate_pod_security(spec: Tree, context: Tree | None, path: str) -> list[Cause]:
    out: list[Cause] = []
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        text = "ShareProcessNamespace and HostPID cannot both be enabled"
        out.append(invalid("spec.shareProcessNamespace", True, text))
    if context is None:
        return out
    out += _ids(context, path, ("fsGroup", "runAsUser", "runAsGroup"))
    for i, group in enumerate(context.get("supplementalGroups") or ()):
        if not 0 <= group <= MAX_INT32:
            out.append(invalid(f"{path}.supplementalGroups[{i}]", group, names.in_range(0, MAX_INT32)))
    policy = context.get("fsGroupChangePolicy")
    if policy is not None and policy not in ("Always", "OnRootMismatch"):
        out.append(not_supported(f"{path}.fsGroupChangePolicy", policy, ("Always", "OnRootMismatch")))
    out += _profile(context.get("seccompProfile"), f"{path}.seccompProfile")
    names_before: set[str] = set()
    for i, sysctl in enumerate(context.get("sysctls") or ()):
        name, at = sysctl.get("name") or "", f"{path}.sysctls[{i}].name"
        if not name:
            out.append(required(at))
        elif len(name) > 253 or not _SYSCTL.fullmatch(name):
            text = f"must have at most 253 characters and match regex ^{_SYSCTL.pattern}$"
            out.append(invalid(at, name, text))
        elif name in names_before:
            out.append(duplicate(at, name))
        names_before.add(name)
        dotted = _dotted(name)
        if spec.get("hostNetwork") and dotted.startswith("net."):
            out.append(invalid(at, name, "may not be specified when 'hostNetwork' is true"))
        elif spec.get("hostIPC") and dotted.startswith(IPC_SYSCTLS):
            out.append(invalid(at, name, "may not be specified when 'hostIPC' is true"))
    return out


def validate_container_security(context: Tree | None, path: str) -> list[Cause]:
    if context is None:
        return []
    out = _ids(context, path, ("runAsUser", "runAsGroup"))
    if context.get("procMount") not in (None, "Default", "Unmasked"):
        out.append(not_supported(f"{path}.procMount", context["procMount"], ("Default", "Unmasked")))
    out += _profile(context.get("seccompProfile"), f"{path}.seccompProfile")
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            out.append(invalid(path, context, text))
        if "SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            out.append(invalid(path, context, text))
    return out
