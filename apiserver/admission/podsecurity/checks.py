"""The checks of the Pod Security Standards, each as it was since a minor version of Kubernetes. Pure.

A check looks at a pod (or a template) as a JSON tree and returns what it has against it: a short reason, and a detail
that names containers and values. None is approval.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from apiserver.admission.podsecurity.levels import BASELINE, PRIVILEGED, Standard
from navarch.api import wellknown

Tree = dict[str, Any]
NEWEST = 34
"""The minor version behind ``latest``."""


class Objection(NamedTuple):
    reason: str
    detail: str


Check = Callable[[Tree, Tree], Objection | None]
"""Takes metadata and spec."""


class Objections(list[Objection]):
    @property
    def reasons(self) -> str:
        return ", ".join(o.reason for o in self)

    @property
    def details(self) -> str:
        return ", ".join(f"{o.reason} ({o.detail})" if o.detail else o.reason for o in self)


def check(standard: Standard, metadata: Tree, spec: Tree) -> Objections:
    """All that a standard has against a pod."""
    if standard.level == PRIVILEGED:
        return Objections()
    checks = _chosen(standard.level, min(standard.minor, NEWEST))
    return Objections(objection for one in checks if (objection := one(metadata, spec)) is not None)


@functools.lru_cache(maxsize=256)
def _chosen(level: str, minor: int) -> tuple[Check, ...]:
    """The checks of a standard, in the order in which messages name them: baseline's by name, then restricted's."""
    baseline = {name: one for name, versions in _BASELINE.items() if (one := _at(versions, minor))}
    if level == BASELINE:
        return tuple(baseline[name] for name in sorted(baseline))
    restricted = {name: one for name, versions in _RESTRICTED.items() if (one := _at(versions, minor))}
    covered = {_COVERS[name] for name in restricted if name in _COVERS}
    return (
        *(baseline[name] for name in sorted(baseline) if name not in covered),
        *(restricted[name] for name in sorted(restricted)),
    )


def _at(versions: dict[int, Check], minor: int) -> Check | None:
    since = max((v for v in versions if v <= minor), default=None)
    return None if since is None else versions[since]


# --- looking at pods --------------------------------------------------------------------------------------------------


def _containers(spec: Tree) -> Iterator[Tree]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(field) or ()


def _context(holder: Tree) -> Tree:
    return holder.get("securityContext") or {}


def _names(containers: Iterable[Tree]) -> list[str]:
    return [c.get("name") or "" for c in containers]


def _quoted(texts: Iterable[str]) -> str:
    return ", ".join(f'"{t}"' for t in texts)


def _plural(one: str, number: int) -> str:
    return one if number == 1 else one + "s"


def _listed(word: str, texts: list[str]) -> str:
    return f"{_plural(word, len(texts))} {_quoted(texts)}"


def _setters(pod: bool, containers: list[str]) -> str:
    """``pod and containers "a", "b"``."""
    parts = ["pod"] if pod else []
    if containers:
        parts.append(_listed("container", containers))
    return " and ".join(parts)


def _on_windows(spec: Tree) -> bool:
    return (spec.get("os") or {}).get("name") == "windows"


def _not_on_windows(one: Check) -> Check:
    return lambda metadata, spec: None if _on_windows(spec) else one(metadata, spec)


# --- baseline ---------------------------------------------------------------------------------------------------------

_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


def _apparmor(metadata: Tree, spec: Tree) -> Objection | None:
    def wrong(holder: Tree) -> str:
        kind = (_context(holder).get("appArmorProfile") or {}).get("type")
        return kind if kind not in (None, "RuntimeDefault", "Localhost") else ""

    values = {text} if (text := wrong(spec)) else set()
    setters = ["pod"] if values else []
    if bad := [c for c in _containers(spec) if wrong(c)]:
        values |= {wrong(c) for c in bad}
        setters.append(_listed("container", _names(bad)))
    noted = sorted(
        f"{key}={json.dumps(value)}"
        for key, value in (metadata.get("annotations") or {}).items()
        if key.startswith(_APPARMOR) and value not in ("", "runtime/default") and not value.startswith("localhost/")
    )
    if noted:
        setters.append(_plural("annotation", len(noted)))
    if not setters:
        return None
    shown = [*sorted(values), *noted]
    detail = f"{' and '.join(setters)} must not set AppArmor profile type to {_quoted(shown)}"
    return Objection(_plural("forbidden AppArmor profile", len(shown)), detail)


_CAPABILITIES = frozenset((
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID",
    "SETPCAP", "SETUID", "SYS_CHROOT",
))  # fmt: skip


def _added(container: Tree, allowed: Iterable[str]) -> set[str]:
    return set((_context(container).get("capabilities") or {}).get("add") or ()) - set(allowed)


def _capabilities_baseline(metadata: Tree, spec: Tree) -> Objection | None:
    bad = [c for c in _containers(spec) if _added(c, _CAPABILITIES)]
    if not bad:
        return None
    values = sorted({v for c in bad for v in _added(c, _CAPABILITIES)})
    where = "in securityContext.capabilities.add"
    return Objection(
        "non-default capabilities", f"{_listed('container', _names(bad))} must not include {_quoted(values)} {where}"
    )


def _host_namespaces(metadata: Tree, spec: Tree) -> Objection | None:
    fields = [field for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    return Objection("host namespaces", ", ".join(f"{f}=true" for f in fields)) if fields else None


def _host_path(metadata: Tree, spec: Tree) -> Objection | None:
    names = _names(v for v in spec.get("volumes") or () if v.get("hostPath") is not None)
    return Objection("hostPath volumes", _listed("volume", names)) if names else None


def _uses(containers: list[str], word: str, values: list[str], shown: str) -> str:
    verb = "uses" if len(containers) == 1 else "use"
    return f"{_listed('container', containers)} {verb} {_plural(word, len(values))} {shown}"


def _host_ports(metadata: Tree, spec: Tree) -> Objection | None:
    bad = [(c, {str(p["hostPort"]) for p in c.get("ports") or () if p.get("hostPort")}) for c in _containers(spec)]
    names = _names(c for c, ports in bad if ports)
    if not names:
        return None
    every = sorted({p for _, ports in bad for p in ports})
    return Objection("hostPort", _uses(names, "hostPort", every, ", ".join(every)))


def _hosts(container: Tree) -> set[str]:
    handlers = [container.get(f) for f in ("livenessProbe", "readinessProbe", "startupProbe")]
    handlers += [(container.get("lifecycle") or {}).get(f) for f in ("postStart", "preStop")]
    actions = [h.get(f) for h in handlers if h for f in ("httpGet", "tcpSocket")]
    return {a["host"] for a in actions if a and a.get("host")}


def _probe_hosts(metadata: Tree, spec: Tree) -> Objection | None:
    bad = [(c, hosts) for c in _containers(spec) if (hosts := _hosts(c))]
    if not bad:
        return None
    names, every = sorted(set(_names(c for c, _ in bad))), sorted({h for _, host_list in bad for h in host_list})
    return Objection("probe or lifecycle host", _uses(names, "probe or lifecycle host", every, _quoted(every)))


def _privileged(metadata: Tree, spec: Tree) -> Objection | None:
    bad = _names(c for c in _containers(spec) if _context(c).get("privileged"))
    if not bad:
        return None
    return Objection("privileged", f"{_listed('container', bad)} must not set securityContext.privileged=true")


def _proc_mount(metadata: Tree, spec: Tree) -> Objection | None:
    bad = [c for c in _containers(spec) if _context(c).get("procMount") not in (None, "Default")]
    if not bad:
        return None
    values = sorted({_context(c)["procMount"] for c in bad})
    return Objection(
        "procMount", f"{_listed('container', _names(bad))} must not set securityContext.procMount to {_quoted(values)}"
    )


def _selinux(*types: str) -> Check:
    def one(metadata: Tree, spec: Tree) -> Objection | None:
        def wrong(holder: Tree) -> set[str]:
            options = _context(holder).get("seLinuxOptions") or {}
            out = {"user"} if options.get("user") else set()
            out |= {"role"} if options.get("role") else set()
            kind = options.get("type") or ""
            return out | ({f"type {kind}"} if kind and kind not in types else set())

        bad = [c for c in _containers(spec) if wrong(c)]
        values = wrong(spec).union(*(wrong(c) for c in bad))
        if not values:
            return None
        kinds = sorted(f.removeprefix("type ") for f in values if f.startswith("type "))
        parts = [_listed("type", kinds)] if kinds else []
        parts += [f"{field} may not be set" for field in ("user", "role") if field in values]
        who = _setters(bool(wrong(spec)), _names(bad))
        return Objection("seLinuxOptions", f"{who} set forbidden securityContext.seLinuxOptions: {'; '.join(parts)}")

    return one


_SECCOMP_POD = wellknown.SECCOMP_POD
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"


def _seccomp_annotations(metadata: Tree, spec: Tree) -> Objection | None:
    notes = metadata.get("annotations") or {}
    keys = [_SECCOMP_POD, *(_SECCOMP_CONTAINER + name for name in _names(_containers(spec)))]
    bad = sorted({
        f"{key}={json.dumps(notes[key])}"
        for key in keys
        if key in notes
        and notes[key] not in ("runtime/default", "docker/default")
        and not notes[key].startswith("localhost/")
    })  # fmt: skip
    return Objection("seccompProfile", f"forbidden {_plural('annotation', len(bad))} {', '.join(bad)}") if bad else None


def _profile(holder: Tree) -> str | None:
    profile = _context(holder).get("seccompProfile")
    return None if profile is None else profile.get("type") or ""


def _seccomp_wrong(holder: Tree) -> bool:
    return _profile(holder) not in (None, "RuntimeDefault", "Localhost")


def _seccomp_baseline(metadata: Tree, spec: Tree) -> Objection | None:
    bad = [c for c in _containers(spec) if _seccomp_wrong(c)]
    if not bad and not _seccomp_wrong(spec):
        return None
    values = sorted({_profile(h) or "" for h in (spec, *bad) if _seccomp_wrong(h)})
    who = _setters(_seccomp_wrong(spec), _names(bad))
    return Objection("seccompProfile", f"{who} must not set securityContext.seccompProfile.type to {_quoted(values)}")


_SYSCTLS_0 = frozenset((
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
))  # fmt: skip
_SYSCTLS_27 = _SYSCTLS_0 | {"net.ipv4.ip_local_reserved_ports"}
_SYSCTLS_29 = _SYSCTLS_27 | {
    f"net.ipv4.tcp_{name}" for name in ("keepalive_time", "fin_timeout", "keepalive_intvl", "keepalive_probes")
}
_SYSCTLS_32 = _SYSCTLS_29 | {"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}


def _sysctls(allowed: frozenset[str]) -> Check:
    def one(metadata: Tree, spec: Tree) -> Objection | None:
        names = [s.get("name") or "" for s in _context(spec).get("sysctls") or ()]
        bad = [name for name in names if name not in allowed]
        return Objection("forbidden sysctls", ", ".join(bad)) if bad else None

    return one


def _host_process(metadata: Tree, spec: Tree) -> Objection | None:
    def wrong(holder: Tree) -> bool:
        return bool((_context(holder).get("windowsOptions") or {}).get("hostProcess"))

    bad = _names(c for c in _containers(spec) if wrong(c))
    if not bad and not wrong(spec):
        return None
    who = _setters(wrong(spec), bad)
    return Objection("hostProcess", f"{who} must not set securityContext.windowsOptions.hostProcess=true")


# --- restricted -------------------------------------------------------------------------------------------------------


def _escalation(metadata: Tree, spec: Tree) -> Objection | None:
    bad = _names(c for c in _containers(spec) if _context(c).get("allowPrivilegeEscalation") is not False)
    if not bad:
        return None
    who = _listed("container", bad)
    return Objection(
        "allowPrivilegeEscalation != false", f"{who} must set securityContext.allowPrivilegeEscalation=false"
    )


def _capabilities_restricted(metadata: Tree, spec: Tree) -> Objection | None:
    def drops(container: Tree) -> bool:
        return "ALL" in ((_context(container).get("capabilities") or {}).get("drop") or ())

    names = _names(c for c in _containers(spec) if not drops(c))
    bad = [c for c in _containers(spec) if _added(c, ("NET_BIND_SERVICE",))]
    parts = []
    if names:
        parts.append(f'{_listed("container", names)} must set securityContext.capabilities.drop=["ALL"]')
    if bad:
        values = sorted({v for c in bad for v in _added(c, ("NET_BIND_SERVICE",))})
        where = "in securityContext.capabilities.add"
        parts.append(f"{_listed('container', _names(bad))} must not include {_quoted(values)} {where}")
    return Objection("unrestricted capabilities", "; ".join(parts)) if parts else None


_VOLUMES = frozenset((
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
))  # fmt: skip
_RESTRICTED_VOLUMES = (
    "hostPath", "gcePersistentDisk", "awsElasticBlockStore", "gitRepo", "nfs", "iscsi", "glusterfs", "rbd", "flexVolume",
    "cinder", "cephfs", "flocker", "fc", "azureFile", "vsphereVolume", "quobyte", "azureDisk", "portworxVolume",
    "photonPersistentDisk", "scaleIO", "storageos", "image",
)  # fmt: skip


def _volumes(metadata: Tree, spec: Tree) -> Objection | None:
    bad = [v for v in spec.get("volumes") or () if not _VOLUMES & v.keys()]
    if not bad:
        return None
    kinds = sorted({next((k for k in _RESTRICTED_VOLUMES if v.get(k) is not None), "unknown") for v in bad})
    verb = "uses" if len(bad) == 1 else "use"
    detail = f"{_listed('volume', _names(bad))} {verb} {_listed('restricted volume type', kinds)}"
    return Objection("restricted volume types", detail)


def _non_root(metadata: Tree, spec: Tree) -> Objection | None:
    def said(holder: Tree) -> bool | None:
        value: bool | None = _context(holder).get("runAsNonRoot")
        return value

    bad = _names(c for c in _containers(spec) if said(c) is False)
    if bad or said(spec) is False:
        who = _setters(said(spec) is False, bad)
        return Objection("runAsNonRoot != true", f"{who} must not set securityContext.runAsNonRoot=false")
    silent = _names(c for c in _containers(spec) if said(c) is None)
    if said(spec) or not silent:
        return None
    return Objection(
        "runAsNonRoot != true", f"pod or {_listed('container', silent)} must set securityContext.runAsNonRoot=true"
    )


def _user(metadata: Tree, spec: Tree) -> Objection | None:
    bad = _names(c for c in _containers(spec) if _context(c).get("runAsUser") == 0)
    pod = _context(spec).get("runAsUser") == 0
    return Objection("runAsUser=0", f"{_setters(pod, bad)} must not set runAsUser=0") if pod or bad else None


def _seccomp_restricted(metadata: Tree, spec: Tree) -> Objection | None:
    if (objection := _seccomp_baseline(metadata, spec)) is not None:
        return objection
    silent = _names(c for c in _containers(spec) if _profile(c) is None)
    if _profile(spec) is not None or not silent:
        return None
    text = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return Objection("seccompProfile", f"pod or {_listed('container', silent)} {text}")


_SELINUX = ("container_t", "container_init_t", "container_kvm_t")
_BASELINE: dict[str, dict[int, Check]] = {
    "appArmorProfile": {0: _apparmor},
    "capabilities_baseline": {0: _capabilities_baseline},
    "hostNamespaces": {0: _host_namespaces},
    "hostPathVolumes": {0: _host_path},
    "hostPorts": {0: _host_ports},
    "hostProbesAndHostLifecycle": {34: _probe_hosts},
    "privileged": {0: _privileged},
    "procMount": {0: _proc_mount},
    "seLinuxOptions": {0: _selinux(*_SELINUX), 31: _selinux(*_SELINUX, "container_engine_t")},
    "seccompProfile_baseline": {0: _seccomp_annotations, 19: _seccomp_baseline},
    "sysctls": {0: _sysctls(_SYSCTLS_0), 27: _sysctls(_SYSCTLS_27), 29: _sysctls(_SYSCTLS_29), 32: _sysctls(_SYSCTLS_32)},
    "windowsHostProcess": {0: _host_process},
}
_RESTRICTED: dict[str, dict[int, Check]] = {
    "allowPrivilegeEscalation": {8: _escalation, 25: _not_on_windows(_escalation)},
    "capabilities_restricted": {22: _capabilities_restricted, 25: _not_on_windows(_capabilities_restricted)},
    "restrictedVolumes": {0: _volumes},
    "runAsNonRoot": {0: _non_root},
    "runAsUser": {23: _user},
    "seccompProfile_restricted": {19: _seccomp_restricted, 25: _not_on_windows(_seccomp_restricted)},
}
_COVERS = {  # checks of restricted that leave nothing for one of baseline's
    "capabilities_restricted": "capabilities_baseline",
    "restrictedVolumes": "hostPathVolumes",
    "seccompProfile_restricted": "seccompProfile_baseline",
}
