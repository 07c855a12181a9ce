"""fieldRef, resourceFieldRef and $(NAME) references: a pod's own data as text. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from navarch.api import quantity
from navarch.api.types import core_v1
from nodeagent.pods.observed import AnyContainer

_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['(.*)'\]$")


class ConfigError(Exception):
    """A container cannot be configured (CreateContainerConfigError); the message is kubelet's."""


@dataclass(frozen=True)
class Facts:
    """The data that fields may refer to besides the pod. ``allocatable`` stands in for limits that are not set."""

    host_ip: str = ""
    pod_ip: str = ""
    node_name: str = ""
    allocatable: Mapping[str, quantity.Quantity] | None = None


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replaces ``$(NAME)``; ``$$`` is a plain dollar sign, and names that are not known stay as they are."""
    if "$" not in text:
        return text
    out: list[str] = []
    i = 0
    while i < len(text):
        if text[i] != "$" or i + 1 == len(text):
            out.append(text[i])
            i += 1
        elif text[i + 1] == "$":
            out.append("$")
            i += 2
        elif text[i + 1] == "(" and (end := text.find(")", i + 2)) >= 0:
            name = text[i + 2 : end]
            out.append(variables.get(name, f"$({name})"))
            i = end + 1
        else:
            out.append(text[i : i + 2])
            i += 2
    return "".join(out)


def field_value(pod: core_v1.Pod, path: str, facts: Facts) -> str:
    """The text of a fieldRef. Raises ConfigError for a path that is not supported."""
    meta = pod.metadata
    if match := _SUBSCRIPT.match(path):
        entries = (meta.labels if match[1] == "labels" else meta.annotations) or {}
        return entries.get(match[2], "")
    values: dict[str, str | None] = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "spec.nodeName": pod.spec.node_name or facts.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name,
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
    }
    if path in ("metadata.labels", "metadata.annotations"):
        entries = (meta.labels if path == "metadata.labels" else meta.annotations) or {}
        return "\n".join(f"{k}={json.dumps(entries[k], ensure_ascii=False)}" for k in sorted(entries))
    if path not in values:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return values[path] or ""


def resource_value(selector: core_v1.ResourceFieldSelector, container: AnyContainer, facts: Facts) -> str:
    """The text of a resourceFieldRef: the amount divided by the divisor, rounded up."""
    side, _, name = selector.resource.partition(".")
    if side not in ("limits", "requests") or not name:
        raise ConfigError(f"unsupported container resource : {selector.resource}")
    resources = container.resources or core_v1.ResourceRequirements()
    listed = (resources.limits if side == "limits" else resources.requests) or {}
    amount = listed.get(name)
    if amount is None and side == "limits":
        amount = (facts.allocatable or {}).get(name)
    divisor = selector.divisor if selector.divisor not in (None, "", "0", 0) else "1"
    share = quantity.parse(amount if amount is not None else "0") / quantity.parse(divisor or "1")
    return str(-(-share.numerator // share.denominator))
