"""Whether a cluster has come to rest: which workloads are not as they are meant to be, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from lab.experiments.state import State, condition, is_live
from lab.twin.cluster import is_daemon
from lab.twin.snapshot import Tree
from navarch.api.pods import TERMINAL_PHASES

KINDS = {"deployments": "Deployment", "statefulsets": "StatefulSet", "daemonsets": "DaemonSet", "replicasets": "ReplicaSet",
         "replicationcontrollers": "ReplicationController"}  # fmt: skip


def name_of(resource: str, tree: Tree) -> str:
    """``Deployment default/web``."""
    meta = tree["metadata"]
    return f"{KINDS[resource]} {meta['namespace']}/{meta['name']}"


def unfinished(resource: str, tree: Tree) -> str:
    """Says what a workload lacks; "" if it is as its spec says."""
    spec, status, meta = tree.get("spec", {}), tree.get("status", {}), tree["metadata"]
    if int(status.get("observedGeneration", 0)) < int(meta.get("generation", 1)):
        return "its controller has not seen its newest spec"
    if resource == "daemonsets":
        desired, ready = int(status.get("desiredNumberScheduled", 0)), int(status.get("numberReady", 0))
        updated = int(status.get("updatedNumberScheduled", 0))
        if (spec.get("updateStrategy") or {}).get("type") == "OnDelete":
            updated = desired
    else:
        desired, ready = int(spec.get("replicas", 1)), int(status.get("readyReplicas", 0))
        updated = desired
        if resource == "deployments" and not spec.get("paused"):
            updated, ready = int(status.get("updatedReplicas", 0)), int(status.get("availableReplicas", 0))
        elif resource == "statefulsets":
            strategy = spec.get("updateStrategy") or {}
            partition = int((strategy.get("rollingUpdate") or {}).get("partition", 0))
            if strategy.get("type") != "OnDelete" and status.get("currentRevision") != status.get("updateRevision"):
                updated = int(status.get("updatedReplicas", 0)) + min(partition, desired)
        if int(status.get("replicas", 0)) > desired:
            return f"{status['replicas']} pods, of which {desired} are wanted"
    if updated < desired:
        return f"{updated} of {desired} updated"
    if ready < desired:
        return f"{ready} of {desired} available"
    return ""


def restless(state: State, drained: Iterable[str] = (), lost: Iterable[str] = ()) -> dict[str, str]:
    """Why it has not come to rest, by workload and node; empty if it has. ``drained``, ``lost``: nodes."""
    out: dict[str, str] = {}
    for resource in KINDS:
        for tree in state.all(resource):
            if any(o.get("controller") for o in tree["metadata"].get("ownerReferences") or ()):
                continue  # its owner tells
            if why := unfinished(resource, tree):
                out[name_of(resource, tree)] = why
    nodes = {n["metadata"]["name"]: n for n in state.all("nodes")}
    for name in lost:
        if name in nodes and condition(nodes[name], "Ready") == "True":
            out[f"Node {name}"] = "nobody has noticed that it is gone"
    if nodes and (drained or lost):
        there: dict[str, list[Tree]] = {}
        for pod in state.all("pods"):
            there.setdefault(pod["spec"].get("nodeName", ""), []).append(pod)
        for name in drained:
            remaining = [
                p
                for p in there.get(name, ())
                if not is_daemon(p) and p.get("status", {}).get("phase") not in TERMINAL_PHASES
            ]
            if remaining:
                out[f"Node {name}"] = f"{len(remaining)} pods are still there: {_few(remaining)}"
        for name in lost:
            remaining = [p for p in there.get(name, ()) if not is_daemon(p) and is_live(p)]
            if remaining:
                out.setdefault(f"Node {name}", f"{len(remaining)} of its pods are not replaced yet: {_few(remaining)}")
    return out


def _few(pods: list[Tree]) -> str:
    names = [p["metadata"]["name"] for p in pods]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
