"""The nodes and the pods that the scheduler is measured with. Each kind of pod has a label of its own."""

from __future__ import annotations

from typing import Any

Tree = dict[str, Any]
ZONES = 3
REQUIRED, PREFERRED = (f"{k}DuringSchedulingIgnoredDuringExecution" for k in ("required", "preferred"))
PERCENT_FILLED = 10  # of the nodes are full of pods that can be preempted


def node_name(n: int) -> str:
    return f"node-{n:05d}"


def node(n: int) -> Tree:
    labels = {
        "kubernetes.io/hostname": node_name(n),
        "topology.kubernetes.io/zone": f"zone-{n % ZONES}",
        "parity": str(n % 2),
        "part": "full" if n % (100 // PERCENT_FILLED) == 0 else "free",
    }
    amounts = {"cpu": "32", "memory": "64Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node_name(n), "labels": labels},
        "status": {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    }


def spec(kind: str, n: int, nodes: int) -> Tree:
    """The special part of the spec of the ``n``-th pod of a kind, on so many nodes."""
    mine = {"matchLabels": {"app": kind}}
    term = {"labelSelector": mine, "topologyKey": "kubernetes.io/hostname"}
    zone = {"labelSelector": mine, "topologyKey": "topology.kubernetes.io/zone"}
    spread = {**zone, "maxSkew": 5, "whenUnsatisfiable": "DoNotSchedule"}
    weighted = [{"weight": 10, "podAffinityTerm": term}]
    odd = {"key": "parity", "operator": "In", "values": ["1"]}
    one = {"key": "metadata.name", "operator": "In", "values": [node_name(n % nodes)]}
    # Pods of the kinds that need room of their own go where the others do not.
    kinds: dict[str, Tree] = {
        "plain": {},
        "node-affinity": {"affinity": {"nodeAffinity": {REQUIRED: _terms("matchExpressions", odd)}}},
        "spread": {"topologySpreadConstraints": [spread]},
        "preferred-spread": {"topologySpreadConstraints": [spread | {"whenUnsatisfiable": "ScheduleAnyway"}]},
        "anti-affinity": {"affinity": {"podAntiAffinity": {REQUIRED: [term]}}},
        "affinity": {"affinity": {"podAffinity": {REQUIRED: [zone]}}},
        "preferred-affinity": {"affinity": {"podAffinity": {PREFERRED: weighted}}},
        "preferred-anti-affinity": {"affinity": {"podAntiAffinity": {PREFERRED: weighted}}},
        "daemon-set": {"affinity": {"nodeAffinity": {REQUIRED: _terms("matchFields", one)}}},
        "low": {"nodeSelector": {"part": "full"}},
        "preemption": {"nodeSelector": {"part": "full"}, "priorityClassName": "high"},
        "unschedulable": {"nodeSelector": {"no": "such"}},
        "gated": {"schedulingGates": [{"name": "example.com/gate"}]},
    }
    return kinds[kind]


def _terms(where: str, rule: Tree) -> Tree:
    return {"nodeSelectorTerms": [{where: [rule]}]}


CPU = {"low": "8", "preemption": "9"}
HIGH = {
    "apiVersion": "scheduling.k8s.io/v1",
    "kind": "PriorityClass",
    "metadata": {"name": "high"},
    "value": 10,
}


def pod(name: str, kind: str = "plain", n: int = 0, nodes: int = 1, namespace: str = "default") -> Tree:
    resources = {"requests": {"cpu": CPU.get(kind, "100m"), "memory": "100Mi"}}
    container = {"name": "c", "image": "pause:3.9", "resources": resources}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": kind}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, **spec(kind, n, nodes)},
    }


def lows(nodes: int) -> int:
    """How many pods of kind "low" fill their part of the nodes."""
    return 4 * len(range(0, nodes, 100 // PERCENT_FILLED))
