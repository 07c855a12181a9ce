"""NodeMetrics and PodMetrics, from the summaries of agents: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apiserver.wire.negotiation import META_GROUP
from navarch.api import quantity
from navarch.api.kinds import Kind
from navarch.api.usage import declared

Tree = dict[str, Any]
GROUP, VERSION = "metrics.k8s.io", "v1beta1"
NODES = Kind(GROUP, VERSION, "NodeMetrics", "nodes", False)
PODS = Kind(GROUP, VERSION, "PodMetrics", "pods", True)
VERBS = ["get", "list"]
WINDOW = 10.0  # seconds; over about this long kubelet measures, which does not tell


class Summary:
    """An agent's answer, and over how many seconds it has measured the rates. ``pods``: its parts by pod uid."""

    def __init__(self, tree: Tree, window: float = WINDOW) -> None:
        self.tree, self.window = tree, window
        self.pods: dict[str, Tree] = {part["podRef"].get("uid") or "": part for part in tree.get("pods") or ()}


def discovered() -> Tree:
    """The version in the aggregated discovery document."""
    resources = [
        {
            "resource": kind.resource,
            "responseKind": {"group": GROUP, "version": VERSION, "kind": kind.kind},
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "singularResource": "",
            "verbs": VERBS,
        }
        for kind in (NODES, PODS)
    ]
    return {"version": VERSION, "resources": resources, "freshness": "Current"}


def resource_list() -> Tree:
    """GET /apis/metrics.k8s.io/v1beta1."""
    resources = [
        {"name": k.resource, "singularName": "", "namespaced": k.namespaced, "kind": k.kind, "verbs": VERBS}
        for k in (NODES, PODS)
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{VERSION}", "resources": resources}


def usage(part: Tree) -> dict[str, str] | None:
    """The ResourceList of a part of a summary; None while a rate is not known."""
    nanos, size = (part.get("cpu") or {}).get("usageNanoCores"), (part.get("memory") or {}).get("workingSetBytes")
    if nanos is None or size is None:
        return None
    return {"cpu": quantity.format_nanos(int(nanos)), "memory": quantity.from_value(int(size), "BinarySI")}


def _head(kind: Kind, metadata: Tree, summary: Summary, time: str) -> Tree:
    head = {k: metadata[k] for k in ("name", "namespace", "labels") if metadata.get(k)}
    return {
        "kind": kind.kind, "apiVersion": kind.api_version, "metadata": head | {"creationTimestamp": time},
        "timestamp": time, "window": duration(summary.window),
    }  # fmt: skip


def duration(seconds: float) -> str:
    """As Go writes it, to the millisecond."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"


def node_metrics(node: Tree, summary: Summary) -> Tree | None:
    """The NodeMetrics of a node; None if its agent knows nothing yet."""
    part = summary.tree.get("node") or {}
    used = usage(part)
    if used is None:
        return None
    return _head(NODES, node["metadata"], summary, part["cpu"]["time"]) | {"usage": used}


def pod_metrics(pod: Tree, summary: Summary) -> Tree | None:
    """The PodMetrics of a pod; None if it does not run, or nothing is known of one of its containers."""
    metadata = pod["metadata"]
    part = summary.pods.get(metadata.get("uid") or "") or {}
    containers = []
    for one in part.get("containers") or ():
        used = usage(one)
        if used is None:
            return None
        containers.append({"name": one["name"], "usage": used})
    if not containers:
        return None
    return _head(PODS, metadata, summary, part["containers"][0]["cpu"]["time"]) | {"containers": containers}


def declared_summary(pods: Sequence[Tree], time: str) -> Summary:
    """The summary of a simulated node without an agent: what its running pods declare."""
    parts, cores, size = [], 0, 0
    for pod in pods:
        containers = []
        for one in (pod.get("status") or {}).get("containerStatuses") or ():
            if "running" in (one.get("state") or {}):
                nanos, used = declared(pod["metadata"].get("annotations"), one["name"])
                cores, size = cores + nanos, size + used
                containers.append({"name": one["name"]} | _declared(nanos, used, time))
        parts.append({"podRef": {"uid": pod["metadata"].get("uid")}, "containers": containers})
    return Summary({"node": _declared(cores, size, time), "pods": parts})


def _declared(nanos: int, size: int, time: str) -> Tree:
    return {"cpu": {"time": time, "usageNanoCores": nanos}, "memory": {"time": time, "workingSetBytes": size}}


def listed(kind: Kind, items: Sequence[Tree]) -> Tree:
    return {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": {}, "items": list(items)}


def table(items: Sequence[Tree], version: str, include: str) -> Tree:
    """The Table of objects of one kind."""
    columns = [
        {"name": name, "type": "string", "format": "name" if name == "Name" else "", "description": text, "priority": 0}
        for name, text in (
            ("Name", "Name of the resource"), ("cpu", ""), ("memory", ""), ("Window", "Over how long the rates are measured"),
        )
    ]  # fmt: skip
    rows = []
    for item in items:
        used = _sum([c["usage"] for c in item["containers"]]) if "containers" in item else item["usage"]
        row: Tree = {"cells": [item["metadata"]["name"], used["cpu"], used["memory"], item["window"]]}
        if include == "Metadata":
            row["object"] = {
                "kind": "PartialObjectMetadata", "apiVersion": f"{META_GROUP}/{version}", "metadata": item["metadata"],
            }  # fmt: skip
        elif include == "Object":
            row["object"] = item
        rows.append(row)
    head = {"kind": "Table", "apiVersion": f"{META_GROUP}/{version}", "metadata": {}}
    return head | {"columnDefinitions": columns, "rows": rows}


def _sum(parts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    cpu = sum(quantity.nanos(p["cpu"]) for p in parts)
    memory = sum(quantity.value(p["memory"]) for p in parts)
    return {"cpu": quantity.format_nanos(cpu), "memory": quantity.from_value(memory, "BinarySI")}
