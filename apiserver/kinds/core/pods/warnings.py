"""Doubtful things in pods that are accepted all the same: upstream's pod warnings."""

from __future__ import annotations

from collections.abc import Iterator

from apiserver.kinds.cells import Tree

CONTAINERS = ("initContainers", "containers")
NO_SELECTOR = "a null labelSelector results in matching no pod"


def pod_warnings(spec: Tree, path: str) -> list[str]:
    """Warnings for whoever writes a pod, or a template of pods, with this spec."""
    out: list[str] = []
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        text = "must be >= 0; negative values are invalid and will be treated as 1"
        out.append(f"{path}.terminationGracePeriodSeconds: {text}")
    for i, constraint in enumerate(spec.get("topologySpreadConstraints") or ()):
        if constraint.get("labelSelector") is None:
            out.append(f"{path}.topologySpreadConstraints[{i}].labelSelector: {NO_SELECTOR}")
    if affinity := spec.get("affinity"):
        out += _affinity(affinity, f"{path}.affinity")
    seen: set[str] = set()
    for i, secret in enumerate(spec.get("imagePullSecrets") or ()):
        name, here = secret.get("name") or "", f"{path}.imagePullSecrets[{i}]"
        if not name:
            out.append(f'{here}: invalid empty name ""')
        elif name in seen:
            out.append(f'{here}: duplicate name "{name}"')
        seen.add(name)
    ports = 0
    for container, at in _containers(spec, path):
        ports += len(container.get("ports") or ())
        entries = container.get("env") or ()
        if len({env.get("name") or "" for env in entries}) == len(entries):
            continue
        names: set[str] = set()
        for i, env in enumerate(entries):
            name = env.get("name") or ""
            if name in names:
                text = f'hides previous definition of "{name}", which may be dropped when using apply'
                out.append(f"{at}.env[{i}]: {text}")
            names.add(name)
    return out + _ports(spec, path) if ports > 1 else out


def _containers(spec: Tree, path: str) -> Iterator[tuple[Tree, str]]:
    for field in CONTAINERS:
        for i, container in enumerate(spec.get(field) or ()):
            yield container, f"{path}.{field}[{i}]"


def _affinity(affinity: Tree, path: str) -> list[str]:
    out = []
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(kind) or {}
        field = "requiredDuringSchedulingIgnoredDuringExecution"
        found = [(term, f"{kind}.{field}[{i}]") for i, term in enumerate(terms.get(field) or ())]
        field = "preferredDuringSchedulingIgnoredDuringExecution"
        for i, weighted in enumerate(terms.get(field) or ()):
            found.append((weighted.get("podAffinityTerm") or {}, f"{kind}.{field}[{i}].podAffinityTerm"))
        out += [f"{path}.{at}.labelSelector: {NO_SELECTOR}" for term, at in found if term.get("labelSelector") is None]
    return out


def _ports(spec: Tree, path: str) -> list[str]:
    """Ports that say the same, or contradict each other, across all containers."""
    out = []
    known: dict[tuple[int, str], list[tuple[Tree, str]]] = {}
    for container, at in _containers(spec, path):
        for i, port in enumerate(container.get("ports") or ()):
            here, host_ip, host_port = f"{at}.ports[{i}]", port.get("hostIP") or "", port.get("hostPort") or 0
            others = known.setdefault((port.get("containerPort") or 0, port.get("protocol") or ""), [])
            for other, there in others:
                ip, number = other.get("hostIP") or "", other.get("hostPort") or 0
                if (host_ip, host_port) == (ip, number):
                    out.append(f"{here}: duplicate port definition with {there}")
                elif not host_port or not number:
                    out.append(f"{here}: overlapping port definition with {there}")
                elif host_port == number and bool(host_ip) != bool(ip):
                    out.append(f"{here}: dangerously ambiguous port definition with {there}")
            others.append((port, here))
    return out


def template_warnings(template: Tree | None, old: Tree | None, path: str) -> list[str]:
    """As :func:`pod_warnings`, of a new or changed template."""
    if not template or (old is not None and old == template):
        return []
    return pod_warnings(template.get("spec") or {}, f"{path}.spec")
