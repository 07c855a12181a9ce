"""Checks of the containers of a pod spec."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apiserver.kinds.cells import Tree
from apiserver.kinds.checks import named, non_negative, one_of, range_cause
from apiserver.kinds.core.pods.resources import validate_resize_policy, validate_resources
from apiserver.kinds.core.pods.security import validate_container_security
from navarch.api import names
from navarch.api.errors import Cause, duplicate, forbidden, invalid, not_found, not_supported, required

PULL_POLICIES = ("Always", "IfNotPresent", "Never")
PROTOCOLS = ("TCP", "UDP", "SCTP")
SCHEMES = ("HTTP", "HTTPS")
HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
ENV_FIELDS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
    "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
RESOURCE_FIELDS = (
    "limits.cpu", "limits.ephemeral-storage", "limits.memory",
    "requests.cpu", "requests.ephemeral-storage", "requests.memory",
)  # fmt: skip
ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef")
MOUNT_PROPAGATIONS = ("Bidirectional", "HostToContainer", "None")
_SUBSCRIPT = re.compile(r"(metadata\.(?:labels|annotations))\['(.*)'\]")


class Scope:
    """The state that the containers of one pod share: its volumes, its names and ports taken so far."""

    def __init__(self, spec: Tree, volumes: Mapping[str, Tree]) -> None:
        self.volumes = volumes
        self.host_network = bool(spec.get("hostNetwork"))
        self.grace = spec.get("terminationGracePeriodSeconds")
        self.restart_policy = spec.get("restartPolicy") or ""
        self.names: set[str] = set()
        self.host_ports: set[str] = set()


def validate_containers(containers: list[Tree], path: str, scope: Scope) -> list[Cause]:
    if not containers:
        return [required(path)]
    out: list[Cause] = []
    for i, container in enumerate(containers):
        at = f"{path}[{i}]"
        out += _common(container, at, scope)
        if container.get("restartPolicy"):
            out.append(forbidden(f"{at}.restartPolicy", "may not be set for non-init containers"))
        out += _lifecycle(container.get("lifecycle"), f"{at}.lifecycle", scope)
        out += _probes(container, at, scope)
    return out


def validate_init_containers(containers: list[Tree], path: str, scope: Scope) -> list[Cause]:
    out: list[Cause] = []
    for i, container in enumerate(containers):
        at = f"{path}[{i}]"
        out += _common(container, at, scope)
        policy = container.get("restartPolicy")
        if policy and policy != "Always":
            out.append(not_supported(f"{at}.restartPolicy", policy, ("Always",)))
        if policy == "Always":
            out += _lifecycle(container.get("lifecycle"), f"{at}.lifecycle", scope)
            out += _probes(container, at, scope)
        else:
            for field in ("lifecycle", *PROBES):
                if container.get(field) is not None:
                    text = "may not be set for init containers without restartPolicy=Always"
                    out.append(forbidden(f"{at}.{field}", text))
    return out


_EPHEMERAL_FORBIDDEN = ("ports", "resources", "resizePolicy", "restartPolicy", "lifecycle", *PROBES)


def validate_ephemeral_containers(containers: list[Tree], path: str, scope: Scope, others: Sequence[str]) -> list[Cause]:
    """``others`` are the names of the pod's containers proper, which one may target."""
    out: list[Cause] = []
    scope.names.update(others)
    for i, container in enumerate(containers):
        at = f"{path}[{i}]"
        out += _common({k: v for k, v in container.items() if k not in _EPHEMERAL_FORBIDDEN}, at, scope)
        target = container.get("targetContainerName")
        if target and target not in others:
            out.append(not_found(f"{at}.targetContainerName", target))
        text = "cannot be set for an Ephemeral Container"
        out += [forbidden(f"{at}.{field}", text) for field in _EPHEMERAL_FORBIDDEN if container.get(field)]
        for j, mount in enumerate(container.get("volumeMounts") or ()):
            for field in ("subPath", "subPathExpr"):
                if mount.get(field):
                    out.append(forbidden(f"{at}.volumeMounts[{j}].{field}", text))
    return out


def _common(container: Tree, at: str, scope: Scope) -> list[Cause]:
    out = named(container.get("name"), f"{at}.name", names.dns_label)
    name = container.get("name")
    if name:
        if name in scope.names:
            out.append(duplicate(f"{at}.name", name))
        scope.names.add(name)
    image = container.get("image") or ""
    if not image:
        out.append(required(f"{at}.image"))
    elif image != image.strip():
        out.append(invalid(f"{at}.image", image, "must not have leading or trailing whitespace"))
    out += one_of(
        container.get("terminationMessagePolicy"),
        f"{at}.terminationMessagePolicy",
        ("File", "FallbackToLogsOnError"),
    )
    out += _ports(container.get("ports") or (), f"{at}.ports", scope)
    out += _env(container.get("env") or (), f"{at}.env")
    out += _env_from(container.get("envFrom") or (), f"{at}.envFrom")
    out += _mounts(container, at, scope)
    out += one_of(container.get("imagePullPolicy"), f"{at}.imagePullPolicy", PULL_POLICIES)
    out += validate_resources(container.get("resources"), f"{at}.resources")
    out += validate_resize_policy(container.get("resizePolicy") or (), f"{at}.resizePolicy", scope.restart_policy)
    out += validate_container_security(container.get("securityContext"), f"{at}.securityContext")
    return out


def _ports(ports: Any, path: str, scope: Scope) -> list[Cause]:
    out: list[Cause] = []
    names_before: set[str] = set()
    for i, port in enumerate(ports):
        at, name = f"{path}[{i}]", port.get("name")
        if name:
            wrong = names.port_name(name)
            out += [invalid(f"{at}.name", name, m) for m in wrong]
            if not wrong and name in names_before:
                out.append(duplicate(f"{at}.name", name))
            names_before.add(name)
        number, host = port.get("containerPort") or 0, port.get("hostPort") or 0
        if not number:
            out.append(required(f"{at}.containerPort"))
        else:
            out += range_cause(number, f"{at}.containerPort", names.port_number)
        if host:
            out += range_cause(host, f"{at}.hostPort", names.port_number)
            if scope.host_network and host != number:
                text = "must match `hostPort` when `hostNetwork` is true"
                out.append(invalid(f"{at}.containerPort", number, text))
            key = f"{port.get('protocol')}/{port.get('hostIP') or ''}/{host}"
            if key in scope.host_ports:
                out.append(duplicate(f"{at}.hostPort", key))
            scope.host_ports.add(key)
        out += one_of(port.get("protocol"), f"{at}.protocol", PROTOCOLS)
    return out


def _env(entries: Any, path: str) -> list[Cause]:
    out: list[Cause] = []
    for i, entry in enumerate(entries):
        at, source = f"{path}[{i}]", entry.get("valueFrom")
        out += named(entry.get("name"), f"{at}.name", names.env_name)
        if source is None:
            continue
        at += ".valueFrom"
        sources = [s for s in ENV_SOURCES if source.get(s) is not None]
        if source.get("fieldRef") is not None:
            out += field_ref(source["fieldRef"], f"{at}.fieldRef", ENV_FIELDS)
        if source.get("resourceFieldRef") is not None:
            out += resource_field_ref(source["resourceFieldRef"], f"{at}.resourceFieldRef", False)
        for ref in ("configMapKeyRef", "secretKeyRef"):
            if source.get(ref) is not None:
                if not source[ref].get("name"):
                    out.append(required(f"{at}.{ref}.name"))
                out += named(source[ref].get("key"), f"{at}.{ref}.key", names.config_key)
        if not sources:
            listed = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
            out.append(invalid(at, "", f"must specify one of: {listed}"))
        elif entry.get("value"):
            out.append(invalid(at, "", "may not be specified when `value` is not empty"))
        if len(sources) > 1:
            out.append(invalid(at, "", "may not have more than one field specified at a time"))
    return out


def _env_from(entries: Any, path: str) -> list[Cause]:
    out: list[Cause] = []
    for i, entry in enumerate(entries):
        at = f"{path}[{i}]"
        if entry.get("prefix"):
            out += [invalid(f"{at}.prefix", entry["prefix"], m) for m in names.env_name(entry["prefix"])]
        sources = [s for s in ("configMapRef", "secretRef") if entry.get(s) is not None]
        for ref in sources:
            if not entry[ref].get("name"):
                out.append(required(f"{at}.{ref}.name"))
        if not sources:
            out.append(invalid(at, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(sources) > 1:
            out.append(invalid(at, "", "may not have more than one field specified at a time"))
    return out


def field_ref(ref: Tree, at: str, supported: tuple[str, ...]) -> list[Cause]:
    """A field of the pod, for env and downward API volumes."""
    path = ref.get("fieldPath") or ""
    if not ref.get("apiVersion"):
        return [required(f"{at}.apiVersion")]
    if not path:
        return [required(f"{at}.fieldPath")]
    subscripted = _SUBSCRIPT.fullmatch(path)
    if subscripted:
        key = subscripted[2]
        checked = key.lower() if subscripted[1] == "metadata.annotations" else key
        return [invalid(at, key, m) for m in names.qualified_name(checked)]
    whole = ("metadata.labels", "metadata.annotations")
    if path not in {*ENV_FIELDS, *supported, *whole}:
        return [invalid(f"{at}.fieldPath", path, f"error converting fieldPath: field label not supported: {path}")]
    return [] if path in supported else [not_supported(f"{at}.fieldPath", path, supported)]


def resource_field_ref(ref: Tree, at: str, volume: bool) -> list[Cause]:
    """A container's request or limit, for env and downward API volumes."""
    resource = ref.get("resource") or ""
    if volume and not ref.get("containerName"):
        return [required(f"{at}.containerName")]
    if not resource:
        return [required(f"{at}.resource")]
    huge = resource.startswith(("limits.hugepages-", "requests.hugepages-"))
    return [] if huge or resource in RESOURCE_FIELDS else [not_supported(f"{at}.resource", resource, RESOURCE_FIELDS)]


def _mounts(container: Tree, at: str, scope: Scope) -> list[Cause]:
    out: list[Cause] = []
    targets: set[str] = set()
    privileged = bool((container.get("securityContext") or {}).get("privileged"))
    for i, mount in enumerate(container.get("volumeMounts") or ()):
        here, name, target = f"{at}.volumeMounts[{i}]", mount.get("name"), mount.get("mountPath")
        if not name:
            out.append(required(f"{here}.name"))
        if name not in scope.volumes:
            out.append(not_found(f"{here}.name", name or ""))
        if not target:
            out.append(required(f"{here}.mountPath"))
        elif target in targets:
            out.append(invalid(f"{here}.mountPath", target, "must be unique"))
        targets.add(target or "")
        for field in ("subPath", "subPathExpr"):
            if mount.get(field):
                out += descending_path(mount[field], f"{here}.{field}")
        if mount.get("subPath") and mount.get("subPathExpr"):
            text = "subPathExpr and subPath are mutually exclusive"
            out.append(invalid(f"{here}.subPathExpr", mount["subPathExpr"], text))
        mode = mount.get("mountPropagation")
        if mode and mode not in MOUNT_PROPAGATIONS:
            out.append(not_supported(f"{here}.mountPropagation", mode, MOUNT_PROPAGATIONS))
        elif mode == "Bidirectional" and not privileged:
            text = "Bidirectional mount propagation is available only to privileged containers"
            out.append(forbidden(f"{here}.mountPropagation", text))
    return out


def descending_path(path: str, at: str) -> list[Cause]:
    """Relative, and never upwards."""
    out = []
    if path.startswith("/"):
        out.append(invalid(at, path, "must be a relative path"))
    if ".." in path.split("/"):
        out.append(invalid(at, path, "must not contain '..'"))
    return out


def _probes(container: Tree, at: str, scope: Scope) -> list[Cause]:
    out: list[Cause] = []
    for field in PROBES:
        probe = container.get(field)
        if probe is None:
            continue
        here = f"{at}.{field}"
        out += _handler(probe, here, HANDLERS[:4], scope)
        for number in (
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ):
            out += non_negative(probe.get(number), f"{here}.{number}")
        grace = probe.get("terminationGracePeriodSeconds")
        if grace is not None and grace <= 0:
            out.append(invalid(f"{here}.terminationGracePeriodSeconds", grace, "must be greater than 0"))
        if field == "readinessProbe":
            if grace is not None:
                text = "must not be set for readinessProbes"
                out.append(invalid(f"{here}.terminationGracePeriodSeconds", grace, text))
        elif probe.get("successThreshold") != 1:
            out.append(invalid(f"{here}.successThreshold", probe.get("successThreshold"), "must be 1"))
    return out


def _lifecycle(lifecycle: Tree | None, at: str, scope: Scope) -> list[Cause]:
    out: list[Cause] = []
    for hook in ("postStart", "preStop"):
        if (lifecycle or {}).get(hook) is not None:
            out += _handler((lifecycle or {})[hook], f"{at}.{hook}", ("exec", "httpGet", "tcpSocket", "sleep"), scope)
    return out


def _handler(action: Tree, at: str, allowed: tuple[str, ...], scope: Scope) -> list[Cause]:
    handlers = [h for h in allowed if action.get(h) is not None]
    if not handlers:
        return [required(at, "must specify a handler type")]
    out = [forbidden(f"{at}.{extra}", "may not specify more than 1 handler type") for extra in handlers[1:]]
    checks: dict[str, Callable[[Tree, str], list[Cause]]] = {"exec": _exec, "httpGet": _http, "tcpSocket": _tcp}
    first = handlers[0]
    if first in checks:
        out += checks[first](action[first], f"{at}.{first}")
    elif first == "grpc":
        out += range_cause(action["grpc"].get("port") or 0, f"{at}.grpc.port", names.port_number)
    else:
        seconds = action["sleep"].get("seconds") or 0
        if scope.grace is not None and not 0 <= seconds <= scope.grace:
            text = f"must be non-negative and less than terminationGracePeriodSeconds ({scope.grace})"
            out.append(invalid(f"{at}.sleep", seconds, text))
    return out


def _exec(action: Tree, at: str) -> list[Cause]:
    return [] if action.get("command") else [required(f"{at}.command")]


def _http(action: Tree, at: str) -> list[Cause]:
    out = [] if action.get("path") else [required(f"{at}.path")]
    out += _port(action.get("port"), f"{at}.port")
    scheme = action.get("scheme")
    if scheme not in SCHEMES:
        out.append(not_supported(f"{at}.scheme", scheme, SCHEMES))
    for header in action.get("httpHeaders") or ():
        name = header.get("name", "")
        out += [invalid(f"{at}.httpHeaders", name, m) for m in names.http_header_name(name)]
    return out


def _tcp(action: Tree, at: str) -> list[Cause]:
    return _port(action.get("port"), f"{at}.port")


def _port(port: Any, at: str) -> list[Cause]:
    if isinstance(port, int):
        return range_cause(port, at, names.port_number)
    return [invalid(at, port or "", m) for m in names.port_name(port or "")]
