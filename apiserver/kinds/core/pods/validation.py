"""Checks of a pod, or of a pod template: they find all that is wrong, not the first thing."""

from __future__ import annotations

import hashlib
import ipaddress

import orjson

from apiserver.kinds.cells import Tree
from apiserver.kinds.checks import (  # fmt: skip
    MAX_INT32,
    one_of,
    optional_name,
    validate_annotations,
    validate_labels,
)
from apiserver.kinds.core.pods.containers import Scope, validate_containers, validate_init_containers
from apiserver.kinds.core.pods.placement import (  # fmt: skip
    validate_affinity,
    validate_gates,
    validate_spread,
    validate_tolerations,
)
from apiserver.kinds.core.pods.security import validate_pod_security
from apiserver.kinds.core.pods.volumes import validate_volumes
from navarch.api import names
from navarch.api.errors import Cause, forbidden, invalid, not_supported, required

RESTART_POLICIES = ("Always", "OnFailure", "Never")
DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
PREEMPTION = ("Never", "PreemptLowerPriority")
OS_NAMES = ("linux", "windows")


def validate_pod(obj: Tree) -> list[Cause]:
    """A new pod."""
    spec = obj.get("spec") or {}
    out = validate_pod_spec(spec, "spec")
    if spec.get("ephemeralContainers"):
        out.append(forbidden("spec.ephemeralContainers", "cannot be set on create"))
    return out


def validate_template(template: Tree, path: str) -> list[Cause]:
    """A pod template: its labels, annotations and spec."""
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    out = validate_labels(metadata.get("labels"), f"{path}.labels")
    out += validate_annotations(metadata.get("annotations"), f"{path}.annotations")
    out += validate_pod_spec(spec, f"{path}.spec")
    if spec.get("ephemeralContainers"):
        text = "ephemeral containers not allowed in pod template"
        out.append(forbidden(f"{path}.spec.ephemeralContainers", text))
    return out


_right: set[bytes] = set()  # forms of specs in which nothing is wrong
FORMS = 1024  # that are remembered
TOKEN_VOLUME = "kube-api-access-"


def validate_pod_spec(spec: Tree, path: str) -> list[Cause]:
    """Everything wrong with a spec. Pods come in sets of equals: a form that was found right is not looked at again."""
    form = form_of(spec)
    if form in _right:
        return []
    out = _spec_causes(spec, path)
    if not out:
        if len(_right) >= FORMS:
            _right.clear()
        _right.add(form)
    return out


def form_of(spec: Tree) -> bytes:
    """The part equal pods share: the spec, without the random name of the volume with the token. The NUL that stands
    for it cannot come from anywhere else, and a spec that is right stays so if that label is replaced by another."""
    data = orjson.dumps(spec)
    for volume in spec.get("volumes") or ():
        name = volume.get("name") or ""
        if name.startswith(TOKEN_VOLUME) and len(name) == len(TOKEN_VOLUME) + 5 and not names.dns_label(name):
            data = data.replace(name.encode(), b"\0")
            break
    return hashlib.blake2b(data, digest_size=16).digest()


def _spec_causes(spec: Tree, path: str) -> list[Cause]:
    volumes, out = validate_volumes(spec.get("volumes"), f"{path}.volumes")
    scope = Scope(spec, volumes)
    out += validate_containers(spec.get("containers") or [], f"{path}.containers", scope)
    out += validate_init_containers(spec.get("initContainers") or [], f"{path}.initContainers", scope)
    out += one_of(spec.get("restartPolicy"), f"{path}.restartPolicy", RESTART_POLICIES)
    out += one_of(spec.get("dnsPolicy"), f"{path}.dnsPolicy", DNS_POLICIES)
    out += validate_labels(spec.get("nodeSelector"), f"{path}.nodeSelector")
    out += validate_pod_security(spec, spec.get("securityContext"), f"{path}.securityContext")
    out += validate_affinity(spec.get("affinity"), f"{path}.affinity")
    out += _dns(spec, path)
    out += validate_gates(spec, path)
    out += validate_spread(spec.get("topologySpreadConstraints"), f"{path}.topologySpreadConstraints")
    out += optional_name(spec.get("serviceAccountName"), f"{path}.serviceAccountName", names.dns_subdomain)
    out += optional_name(spec.get("nodeName"), f"{path}.nodeName", names.dns_subdomain)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= MAX_INT32:
        out.append(invalid(f"{path}.activeDeadlineSeconds", deadline, names.in_range(1, MAX_INT32)))
    out += optional_name(spec.get("hostname"), f"{path}.hostname", names.dns_label)
    out += optional_name(spec.get("subdomain"), f"{path}.subdomain", names.dns_label)
    out += validate_tolerations(spec.get("tolerations"), f"{path}.tolerations")
    out += _host_aliases(spec, path)
    out += optional_name(spec.get("priorityClassName"), f"{path}.priorityClassName", names.dns_subdomain)
    out += optional_name(spec.get("runtimeClassName"), f"{path}.runtimeClassName", names.dns_subdomain)
    preemption = spec.get("preemptionPolicy")
    if preemption and preemption not in PREEMPTION:
        out.append(not_supported(f"{path}.preemptionPolicy", preemption, PREEMPTION))
    if spec.get("os") is not None:
        os_name = spec["os"].get("name")
        if not os_name:
            out.append(required(f"{path}.os.name"))
        elif os_name not in OS_NAMES:
            out.append(not_supported(f"{path}.os.name", os_name, OS_NAMES))
    return out


def _host_aliases(spec: Tree, path: str) -> list[Cause]:
    out: list[Cause] = []
    for i, alias in enumerate(spec.get("hostAliases") or ()):
        at, address = f"{path}.hostAliases[{i}]", alias.get("ip") or ""
        out += [invalid(f"{at}.ip", address, m) for m in names.ip_address(address)]
        for j, host in enumerate(alias.get("hostnames") or ()):
            out += [invalid(f"{at}.hostnames[{j}]", host, m) for m in names.dns_subdomain(host)]
    return out


def _dns(spec: Tree, path: str) -> list[Cause]:
    config, at, out = spec.get("dnsConfig"), f"{path}.dnsConfig", []
    servers = (config or {}).get("nameservers") or []
    if spec.get("dnsPolicy") == "None":
        if config is None:
            return [required(at, "must provide `dnsConfig` when `dnsPolicy` is None")]
        if not servers:
            text = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            return [required(f"{at}.nameservers", text)]
    if len(servers) > 3:
        out.append(invalid(f"{at}.nameservers", servers, "must not have more than 3 nameservers"))
    for i, server in enumerate(servers):
        try:
            ipaddress.ip_address(server)
        except ValueError:
            out += [invalid(f"{at}.nameservers[{i}]", server, m) for m in names.ip_address(server)]
    searches = (config or {}).get("searches") or []
    if len(searches) > 32:
        out.append(invalid(f"{at}.searches", searches, "must not have more than 32 search paths"))
    for i, search in enumerate(searches):
        domain = search.rstrip(".") if search != "." else "a"
        out += [invalid(f"{at}.searches[{i}]", search, m) for m in names.dns_subdomain(domain.replace("_", "-"))]
    for i, option in enumerate((config or {}).get("options") or ()):
        if not option.get("name"):
            out.append(required(f"{at}.options[{i}]", "must not be empty"))
    return out
