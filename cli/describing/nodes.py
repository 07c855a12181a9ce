"""``describe node``: what it is, how it is, and how much of it the pods on it have asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from cli.describing import events
from cli.describing.writer import Writer, annotation_lines, boolean, moment, pairs
from cli.session import Session
from navarch.api import quantity, resources, wellknown
from navarch.api.durations import age
from navarch.api.errors import NotFound
from navarch.api.kinds import BY_GVK
from navarch.api.types import core_v1

Tree = dict[str, Any]
POD, LEASE = BY_GVK["", "v1", "Pod"], BY_GVK["coordination.k8s.io", "v1", "Lease"]
ROLE = "node-role.kubernetes.io/"
FIRST = ("cpu", "memory", "ephemeral-storage")
INFO = (
    ("Machine ID", "machineID"),
    ("System UUID", "systemUUID"),
    ("Boot ID", "bootID"),
    ("Kernel Version", "kernelVersion"),
    ("OS Image", "osImage"),
    ("Operating System", "operatingSystem"),
    ("Architecture", "architecture"),
    ("Container Runtime Version", "containerRuntimeVersion"),
    ("Kubelet Version", "kubeletVersion"),
    ("Kube-Proxy Version", "kubeProxyVersion"),
)


async def describe(session: Session, node: Tree, show_events: bool) -> str:
    name = node["metadata"]["name"]
    client = session.client
    fields = f"spec.nodeName={name},status.phase!=Succeeded,status.phase!=Failed"
    pods = (await client.tree(POD).list(None, field_selector=fields)).items
    try:
        lease = (await client.tree(LEASE).get(name, "kube-node-lease")).get("spec")
    except NotFound:
        lease = None
    node_events = await events.about(session, "Node", node) if show_events else []
    writer = Writer()
    _head(writer, node, lease)
    _state(writer, node)
    pods.sort(key=lambda p: (p["metadata"]["namespace"], p["metadata"]["name"]))
    _pods(writer, node, pods, session.world.now())
    if show_events:
        events.describe(writer, node_events, session.world.now())
    return writer.text()


def _head(writer: Writer, node: Tree, lease: Tree | None) -> None:
    meta, spec = node["metadata"], node.get("spec") or {}
    writer.line(0, "Name:", meta["name"])
    labels = meta.get("labels") or {}
    roles = sorted(
        {k.removeprefix(ROLE) for k in labels if k.startswith(ROLE) and k != ROLE}
        | ({labels[wellknown.NODE_ROLE]} if labels.get(wellknown.NODE_ROLE) else set())
    )
    writer.line(0, "Roles:", ",".join(roles) or "<none>")
    pairs(writer, 0, "Labels", labels)
    annotation_lines(writer, 0, meta.get("annotations"))
    writer.line(0, "CreationTimestamp:", moment(meta.get("creationTimestamp")))
    taints = spec.get("taints") or []
    shown = [f"{t['key']}{'=' + t['value'] if t.get('value') else ''}:{t.get('effect', '')}" for t in taints]
    for index, text in enumerate(sorted(shown) or ["<none>"]):
        writer.line(0, "Taints:" if not index else "", text)
    writer.line(0, "Unschedulable:", boolean(spec.get("unschedulable")))
    writer.line(0, "Lease:")
    lease = lease or {}
    writer.line(1, "HolderIdentity:", lease.get("holderIdentity") or "<unset>")
    writer.line(1, "AcquireTime:", moment(lease.get("acquireTime")))
    writer.line(1, "RenewTime:", moment(lease.get("renewTime")))


def _state(writer: Writer, node: Tree) -> None:
    status, spec = node.get("status") or {}, node.get("spec") or {}
    if status.get("conditions"):
        writer.line(0, "Conditions:")
        writer.line(1, "Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message")
        writer.line(1, "----", "------", "-----------------", "------------------", "------", "-------")
        for each in status["conditions"]:
            cells = (
                each["type"],
                each["status"],
                moment(each.get("lastHeartbeatTime")),
                moment(each.get("lastTransitionTime")),
                each.get("reason") or "",
                each.get("message") or "",
            )
            writer.line(1, *(f"{cell} " for cell in cells[:-1]), cells[-1])
    if status.get("addresses"):
        writer.line(0, "Addresses:")
        for address in status["addresses"]:
            writer.line(1, f"{address['type']}:", address["address"])
    for title in ("capacity", "allocatable"):
        if status.get(title):
            writer.line(0, f"{title.capitalize()}:")
            for name, amount in sorted(status[title].items()):
                writer.line(1, f"{name}:", quantity.canonical(amount))
    writer.line(0, "System Info:")
    info = status.get("nodeInfo") or {}
    for title, field in INFO:
        writer.line(1, f"{title}:", info.get(field) or "")
    if spec.get("podCIDR"):
        writer.line(0, "PodCIDR:", spec["podCIDR"])
    if spec.get("podCIDRs"):
        writer.line(0, "PodCIDRs:", ",".join(spec["podCIDRs"]))
    if spec.get("providerID"):
        writer.line(0, "ProviderID:", spec["providerID"])


class _Sums:
    """Requests and limits of pods, in the units that their manifests used."""

    def __init__(self) -> None:
        self.families: dict[str, quantity.Format] = {}

    def of(self, pod: Tree) -> tuple[dict[str, int], dict[str, int]]:
        spec = pod["spec"]
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
            for side in ("requests", "limits"):
                for name, amount in ((container.get("resources") or {}).get(side) or {}).items():
                    self.families.setdefault(name, quantity.family(amount))
        typed = msgspec.convert(spec, core_v1.PodSpec)
        return dict(resources.pod_requests(typed)), dict(resources.pod_limits(typed))

    def text(self, name: str, amount: int) -> str:
        family = self.families.get(name, "DecimalSI")
        return quantity.from_milli(amount, family) if name == "cpu" else quantity.from_value(amount, family)


def _share(amount: int, of: int) -> str:
    return f"({int(amount / of * 100) if of else 0}%)"


def _pods(writer: Writer, node: Tree, pods: list[Tree], now: float) -> None:
    status = node.get("status") or {}
    listed: Mapping[str, Any] = status.get("allocatable") or status.get("capacity") or {}
    allocatable = resources.amounts(listed)
    sums = _Sums()
    requests: dict[str, int] = {}
    limits: dict[str, int] = {}
    writer.line(0, "Non-terminated Pods:", f"({len(pods)} in total)")
    writer.line(1, "Namespace", "Name", "", "CPU Requests", "CPU Limits", "Memory Requests", "Memory Limits", "Age")
    writer.line(1, "---------", "----", "", "------------", "----------", "---------------", "-------------", "---")
    for pod in pods:
        requested, limited = sums.of(pod)
        resources.add(requests, requested)
        resources.add(limits, limited)
        cells = [
            f"{sums.text(name, side.get(name, 0))} {_share(side.get(name, 0), allocatable.get(name, 0))}"
            for name in ("cpu", "memory")
            for side in (requested, limited)
        ]
        meta = pod["metadata"]
        writer.line(1, meta["namespace"], meta["name"], "", *cells, age(meta.get("creationTimestamp"), now))
    writer.line(0, "Allocated resources:")
    writer.line(1, "(Total limits may be over 100 percent, i.e., overcommitted.)")
    writer.line(1, "Resource", "Requests", "Limits")
    writer.line(1, "--------", "--------", "------")
    for name in _names(allocatable):
        asked_text, limit_text = sums.text(name, requests.get(name, 0)), sums.text(name, limits.get(name, 0))
        if name in FIRST or name.startswith("hugepages-"):
            asked_text += f" {_share(requests.get(name, 0), allocatable.get(name, 0))}"
            limit_text += f" {_share(limits.get(name, 0), allocatable.get(name, 0))}"
        writer.line(1, name, asked_text, limit_text)


def _names(allocatable: Iterable[str]) -> list[str]:
    return [*FIRST, *sorted(name for name in allocatable if name not in (*FIRST, "pods"))]
