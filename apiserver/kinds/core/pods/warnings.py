"""Doubtful things in pods that are accepted all the same: upstream's pod warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from apiserver.kinds.cells import Tree
from navarch.api import names, quantity, wellknown

CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
NO_SELECTOR = "a null labelSelector results in matching no pod"
LABELS = {
    wellknown.BETA_ARCH: f'deprecated since v1.14; use "{wellknown.ARCH}" instead',
    wellknown.BETA_OS: f'deprecated since v1.14; use "{wellknown.OS}" instead',
    wellknown.BETA_REGION: f'deprecated since v1.17; use "{wellknown.REGION}" instead',
    wellknown.BETA_ZONE: f'deprecated since v1.17; use "{wellknown.ZONE}" instead',
    wellknown.BETA_INSTANCE_TYPE: f'deprecated since v1.17; use "{wellknown.INSTANCE_TYPE}" instead',
    "app.kubernetes.io/created-by": "deprecated since v1.9",
    "scheduler.alpha.kubernetes.io/preferAvoidPods": "deprecated since v1.22; use Taints and Tolerations instead",
    "node-role.kubernetes.io/master": 'use "node-role.kubernetes.io/control-plane" instead',
}
"""Old labels of nodes, and what to choose by instead."""
ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": 'non-functional in v1.16+; use the "priorityClassName" field instead',
    "security.alpha.kubernetes.io/sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "security.alpha.kubernetes.io/unsafe-sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
}
SECCOMP = wellknown.SECCOMP_POD
SECCOMP_OF = "container.seccomp.security.alpha.kubernetes.io/"
NO_SECCOMP = 'non-functional in v1.27+; use the "seccompProfile" field instead'
APPARMOR_OF = "container.apparmor.security.beta.kubernetes.io/"
OLD_APPARMOR = 'deprecated since v1.30; use the "appArmorProfile" field instead'
VOLUMES = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
_SHOWN = {"storageos": "storageOS"}  # the path says it in another way than the field
BYTES = ("memory", "ephemeral-storage")
STORAGE_CLASS = wellknown.BETA_STORAGE_CLASS
SIDECAR = "Always"


def pod_warnings(pod: Tree, path: str = "") -> list[str]:
    """Warnings for whoever writes a pod, or, with its ``path``, a template of pods."""
    spec, at = pod.get("spec") or {}, f"{path}.spec" if path else "spec"
    notes = (pod.get("metadata") or {}).get("annotations")
    out = _placement(spec, at)
    if notes:
        out += _annotations(notes, spec, path)
    if volumes := spec.get("volumes"):
        out += _volumes(volumes, at)
    if "hostAliases" in spec or "imagePullSecrets" in spec:
        out += _aliases_and_secrets(spec, at)
    if overhead := spec.get("overhead"):
        out += _fractions(overhead, f"{at}.overhead")
    ports: list[Tree] = []
    for container, here in _containers(spec, at):
        for field, amounts in (container.get("resources") or {}).items():
            if field != "claims":
                out += _fractions(amounts, f"{here}.resources.{field}")
        if len(variables := container.get("env") or ()) > 1:
            out += _variables(variables, here)
        ports += container.get("ports") or ()
    if len(ports) > 1 or any(port.get("hostIP") for port in ports):
        out += _ports(spec, at)
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        text = "must be >= 0; negative values are invalid and will be treated as 1"
        out.append(f"{at}.terminationGracePeriodSeconds: {text}")
    if affinity := spec.get("affinity"):
        out += _pod_affinity(affinity, f"{at}.affinity")
    return out


def _annotations(notes: Tree, spec: Tree, path: str) -> list[str]:
    """Annotations of old, above all those that are fields now and without effect; ``path``: of a template."""
    at = f"{path}.metadata.annotations" if path else "metadata.annotations"
    out = [f"{at}[{key}]: {text}" for key, text in ANNOTATIONS.items() if key in notes]
    of_pod = spec.get("securityContext") or {}
    if SECCOMP in notes and not of_pod.get("seccompProfile"):
        out.append(f"{at}[{SECCOMP}]: {NO_SECCOMP}")
    for container, _ in _containers(spec, ""):
        context, name = container.get("securityContext") or {}, container.get("name") or ""
        if SECCOMP_OF + name in notes and not context.get("seccompProfile"):
            out.append(f"{at}[{SECCOMP_OF}{name}]: {NO_SECCOMP}")
        if path and APPARMOR_OF + name in notes and not (of_pod.get("appArmorProfile") or context.get("appArmorProfile")):
            out.append(f"{at}[{APPARMOR_OF}{name}]: {OLD_APPARMOR}")
    return out


def template_warnings(template: Tree | None, old: Tree | None, path: str) -> list[str]:
    """As :func:`pod_warnings`, of a new or changed template."""
    if not template or (old is not None and old == template):
        return []
    return pod_warnings(template, path)


def claim_warnings(claim: Tree) -> list[str]:
    """Warnings for whoever writes a PersistentVolumeClaim."""
    out = []
    if STORAGE_CLASS in ((claim.get("metadata") or {}).get("annotations") or {}):
        text = 'deprecated since v1.8; use "storageClassName" attribute instead'
        out.append(f"metadata.annotations[{STORAGE_CLASS}]: {text}")
    return out + _claim(claim.get("spec") or {}, "spec")


def _claim(spec: Tree, path: str) -> list[str]:
    return _fractions((spec.get("resources") or {}).get("requests"), f"{path}.resources.requests", ("storage",))


def _fractions(amounts: Tree | None, path: str, fields: tuple[str, ...] = BYTES) -> list[str]:
    """Amounts of bytes that are no whole number."""
    out = []
    for field in fields if amounts else ():
        amount = amounts.get(field)  # type: ignore[union-attr]
        if amount is None or (isinstance(amount, str) and amount.rstrip("kKMGTPEi").isdigit()):
            continue  # most are whole at first sight
        if quantity.milli(amount) % 1000:
            text = "is invalid, must be an integer"
            out.append(f'{path}[{field}]: fractional byte value "{quantity.canonical(amount)}" {text}')
    return out


def _containers(spec: Tree, path: str) -> Iterator[tuple[Tree, str]]:
    for field in CONTAINERS:
        for i, container in enumerate(spec.get(field) or ()):
            yield container, f"{path}.{field}[{i}]"


def _placement(spec: Tree, path: str) -> list[str]:
    out = [f"{path}.nodeSelector[{key}]: {LABELS[key]}" for key in spec.get("nodeSelector") or () if key in LABELS]
    if affinity := (spec.get("affinity") or {}).get("nodeAffinity"):
        out += _node_affinity(affinity, f"{path}.affinity.nodeAffinity")
    for i, constraint in enumerate(spec.get("topologySpreadConstraints") or ()):
        key, here = constraint.get("topologyKey") or "", f"{path}.topologySpreadConstraints[{i}]"
        if key in LABELS:
            out.append(f"{here}.topologyKey: {key} is {LABELS[key]}")
        if constraint.get("labelSelector") is None:
            out.append(f"{here}.labelSelector: {NO_SELECTOR}")
    return out


def _node_affinity(affinity: Tree, path: str) -> list[str]:
    out = []
    field = "requiredDuringSchedulingIgnoredDuringExecution"
    for i, term in enumerate((affinity.get(field) or {}).get("nodeSelectorTerms") or ()):
        out += _node_term(term, f"{path}.{field}.nodeSelectorTerms[{i}]", values=False)  # validation checks these
    field = "preferredDuringSchedulingIgnoredDuringExecution"
    for i, weighted in enumerate(affinity.get(field) or ()):
        out += _node_term(weighted.get("preference") or {}, f"{path}.{field}[{i}].preference", values=True)
    return out


def _node_term(term: Tree, path: str, values: bool) -> list[str]:
    out = []
    for i, expression in enumerate(term.get("matchExpressions") or ()):
        key, here = expression.get("key") or "", f"{path}.matchExpressions[{i}]"
        if key in LABELS:
            out.append(f"{here}.key: {key} is {LABELS[key]}")
        for j, value in enumerate((expression.get("values") or ()) if values else ()):
            out += [f"{here}.values[{j}]: {value} is invalid, {why}" for why in names.label_value(value)]
    return out


def _pod_affinity(affinity: Tree, path: str) -> list[str]:
    out = []
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(kind) or {}
        field = "requiredDuringSchedulingIgnoredDuringExecution"
        terms_by_path = [(term, f"{kind}.{field}[{i}]") for i, term in enumerate(terms.get(field) or ())]
        field = "preferredDuringSchedulingIgnoredDuringExecution"
        for i, weighted in enumerate(terms.get(field) or ()):
            terms_by_path.append((weighted.get("podAffinityTerm") or {}, f"{kind}.{field}[{i}].podAffinityTerm"))
        out += [f"{path}.{at}.labelSelector: {NO_SELECTOR}" for term, at in terms_by_path if term.get("labelSelector") is None]
    return out


def _aliases_and_secrets(spec: Tree, path: str) -> list[str]:
    out = []
    names_before: set[str] = set()
    for i, alias in enumerate(spec.get("hostAliases") or ()):
        address = alias.get("ip") or ""
        if address in names_before:
            out.append(f'{path}.hostAliases[{i}].ip: duplicate ip "{address}"')
        names_before.add(address)
    names_before.clear()
    secrets = [(secret.get("name") or "", f"{path}.imagePullSecrets[{i}].name")
               for i, secret in enumerate(spec.get("imagePullSecrets") or ())]  # fmt: skip
    for name, at in secrets:
        if name in names_before:
            out.append(f'{at}: duplicate name "{name}"')
        names_before.add(name)
    return out + [f'{at}: invalid empty name ""' for name, at in secrets if not name]


def _variables(variables: Sequence[Tree], path: str) -> list[str]:
    """Variables that are there twice, unless the later one makes something of the earlier."""
    out: list[str] = []
    names_before: set[str] = set()
    if len({variable.get("name") or "" for variable in variables}) == len(variables):
        return out
    for i, variable in enumerate(variables):
        name, value = variable.get("name") or "", variable.get("value") or ""
        builds_on = f"$({name})" in value and value != f"$({name})" and not variable.get("valueFrom")
        if name in names_before and not builds_on:
            out.append(f'{path}.env[{i}]: hides previous definition of "{name}", which may be dropped when using apply')
        names_before.add(name)
    return out


def _ports(spec: Tree, path: str) -> list[str]:
    """Ports that say the same, or contradict each other, across all containers."""
    out = []
    by_port: dict[tuple[int, str], list[tuple[Tree, str]]] = {}
    named: dict[str, str] = {}
    again = []
    for container, at in _containers(spec, path):
        lasting = ".initContainers[" not in at or container.get("restartPolicy") == SIDECAR
        for i, port in enumerate(container.get("ports") or ()):
            here, host_ip, host_port = f"{at}.ports[{i}]", port.get("hostIP") or "", port.get("hostPort") or 0
            number, protocol, name = port.get("containerPort") or 0, port.get("protocol") or "", port.get("name") or ""
            if host_ip and not host_port:
                shown = f"{{Name:{name} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{host_ip}}}"
                out.append(f"{here}: hostIP set without hostPort: {shown}")
            others = by_port.setdefault((number, protocol), [])
            for other, there in others:
                ip, other_port = other.get("hostIP") or "", other.get("hostPort") or 0
                if (host_ip, host_port) == (ip, other_port):
                    out.append(f"{here}: duplicate port definition with {there}")
                elif not host_port or not other_port:
                    out.append(f"{here}: overlapping port definition with {there}")
                elif host_port == other_port and bool(host_ip) != bool(ip):
                    out.append(f"{here}: dangerously ambiguous port definition with {there}")
            others.append((port, here))
            if name and lasting and (first := named.setdefault(name, here)) != here:
                text = f"services and probes that select ports by name will use {first}"
                again.append(f'{here}: duplicate port name "{name}" with {first}, {text}')
    return out + again


# Volumes


class _Path(NamedTuple):
    """A file of a volume; ``source`` tells what of a projected volume it comes from."""

    path: str
    source: str = ""

    def __str__(self) -> str:
        return f'"{self.path}"' + (f" ({self.source})" if self.source else "")

    def meets(self, other: _Path) -> bool:
        """Whether both cannot be: they are the same, or one would be a folder of the other."""
        mine, its = f"{self.path}/", f"{other.path}/"
        return bool(self.path and other.path) and (mine.startswith(its) or its.startswith(mine))


def _volumes(volumes: list[Tree], path: str) -> list[str]:
    out = []
    for i, volume in enumerate(volumes):
        at = f"{path}.volumes[{i}]"
        out += [f"{at}.{_SHOWN.get(kind, kind)}: {VOLUMES[kind]}" for kind in volume if kind in VOLUMES]
        if "ephemeral" not in volume:
            continue
        claim = (volume.get("ephemeral") or {}).get("volumeClaimTemplate") or {}
        out += _claim(claim.get("spec") or {}, f"{at}.ephemeral.volumeClaimTemplate.spec")
    for volume in volumes:
        out += _overlaps(volume)
    return out


_MADE_OF: dict[str, Callable[[Tree], str]] = {
    "configMap": lambda source: f'ConfigMap "{source.get("name") or ""}"',
    "secret": lambda source: f'Secret "{source.get("secretName") or source.get("name") or ""}"',
    "downwardAPI": lambda source: "DownwardAPI",
}


def _overlaps(volume: Tree) -> list[str]:
    """Files of one volume that would lie on or in each other."""
    name, out = volume.get("name") or "", []
    for field, title in _MADE_OF.items():
        if (source := volume.get(field)) is not None:
            files = [_Path(item.get("path") or "") for item in source.get("items") or ()]
            out += [f'volume "{name}" ({title(source)}): overlapping paths: {text}' for text in _meetings(files)]
    if (projected := volume.get("projected")) is None:
        return out
    files = []
    for source in projected.get("sources") or ():
        if not source:
            out.append(f'volume "{name}" (Projected) has no sources provided')
        files += _files_of(source)
    return out + [f'volume "{name}" (Projected): overlapping paths: {text}' for text in _meetings(files)]


def _files_of(source: Tree) -> list[_Path]:
    """Files of one source of a projected volume."""
    for field, title in _MADE_OF.items():
        if (part := source.get(field)) is not None and part.get("items"):
            return [_Path(item.get("path") or "", title(part)) for item in part["items"]]
    if (token := source.get("serviceAccountToken")) is not None:
        return [_Path(token.get("path") or "", "ServiceAccountToken")]
    if (bundle := source.get("clusterTrustBundle")) is not None:
        what = bundle.get("name") or bundle.get("signerName") or ""
        return [_Path(bundle.get("path") or "", f'ClusterTrustBundle "{what}"')]
    return []


def _meetings(files: list[_Path]) -> list[str]:
    if len({file.path.partition("/")[0] for file in files}) == len(files):
        return []  # as with the token that every pod gets
    files = [file._replace(path=file.path.rstrip("/")) for file in files]
    return [f"{file} with {earlier}" for i, file in enumerate(files) for earlier in files[:i] if file.meets(earlier)]
