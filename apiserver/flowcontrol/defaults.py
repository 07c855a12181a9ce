"""The priority levels and flow schemas that every cluster has from the start.

Two of each are mandatory: what becomes of the others, the system's own masters get through, and whoever matches nothing
else is served somehow.
"""

from __future__ import annotations

from typing import Any

Tree = dict[str, Any]

API_VERSION = "flowcontrol.apiserver.k8s.io/v1"
AUTOUPDATE = "apf.kubernetes.io/autoupdate-spec"
EXEMPT, CATCH_ALL = "exempt", "catch-all"
MANDATORY = (EXEMPT, CATCH_ALL)

_EVERYBODY = ("system:unauthenticated", "system:authenticated")
_MANAGER, _SCHEDULER, _SYSTEM = "system:kube-controller-manager", "system:kube-scheduler", "kube-system"
_USER, _NAMESPACE = "ByUser", "ByNamespace"


def priority_levels() -> list[Tree]:
    """name, shares, lendable percent, queues, hand size."""
    limited = (
        (CATCH_ALL, 5, 0, 0, 0), ("system", 30, 33, 64, 6), ("node-high", 40, 25, 64, 6), ("leader-election", 10, 0, 16, 4),
        ("workload-high", 40, 50, 128, 6), ("workload-low", 100, 90, 128, 6), ("global-default", 20, 50, 128, 6),
    )  # fmt: skip
    exempt = {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}
    return [_object("PriorityLevelConfiguration", EXEMPT, exempt), *(_limited(*one) for one in limited)]


def _limited(name: str, shares: int, lendable: int, queues: int, hand: int) -> Tree:
    response: Tree = {"type": "Reject"}
    if queues:
        queuing = {"queues": queues, "handSize": hand, "queueLengthLimit": 50}
        response = {"type": "Queue", "queuing": queuing}
    limits = {"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}
    return _object("PriorityLevelConfiguration", name, {"type": "Limited", "limited": limits})


def flow_schemas() -> list[Tree]:
    leases = _resources(["get", "create", "update"], "coordination.k8s.io", "leases")
    endpoints = _resources(["get", "create", "update"], "", "endpoints")
    own_nodes = _resources(["*"], "", "nodes", "nodes/status", cluster=True)
    node_leases = _resources(["*"], "coordination.k8s.io", "leases")
    probes = {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}
    controllers = [*_users(_MANAGER), *_accounts("endpoint-controller", "endpointslicemirroring-controller")]
    leaders = [*_users(_MANAGER, _SCHEDULER), *_accounts("*")]
    return [
        _schema(EXEMPT, EXEMPT, 1, "", _everything(_groups("system:masters"))),
        _schema("probes", EXEMPT, 2, "", {"subjects": _groups(*_EVERYBODY), "nonResourceRules": [probes]}),
        _schema("system-leader-election", "leader-election", 100, _USER, {"subjects": leaders, "resourceRules": [leases]}),
        _schema("endpoint-controller", "workload-high", 150, _USER, {"subjects": controllers, "resourceRules": [endpoints]}),
        _schema(
            "workload-leader-election", "leader-election", 200, _USER,
            {"subjects": _accounts("*"), "resourceRules": [leases]},
        ),
        _schema(
            "system-node-high", "node-high", 400, _USER,
            {"subjects": _groups("system:nodes"), "resourceRules": [own_nodes, node_leases]},
        ),
        _schema("system-nodes", "system", 500, _USER, _everything(_groups("system:nodes"))),
        _schema("kube-controller-manager", "workload-high", 800, _NAMESPACE, _everything(_users(_MANAGER))),
        _schema("kube-scheduler", "workload-high", 800, _NAMESPACE, _everything(_users(_SCHEDULER))),
        _schema("kube-system-service-accounts", "workload-high", 900, _NAMESPACE, _everything(_accounts("*"))),
        _schema("service-accounts", "workload-low", 9000, _USER, _everything(_groups("system:serviceaccounts"))),
        _schema("global-default", "global-default", 9900, _USER, _everything(_groups(*_EVERYBODY))),
        _schema(CATCH_ALL, CATCH_ALL, 10000, _USER, _everything(_groups(*_EVERYBODY))),
    ]  # fmt: skip


def _object(kind: str, name: str, spec: Tree) -> Tree:
    metadata = {"name": name, "annotations": {AUTOUPDATE: "true"}}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _schema(name: str, level: str, precedence: int, method: str, rule: Tree) -> Tree:
    spec: Tree = {
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rule],
    }  # fmt: skip
    if method:
        spec["distinguisherMethod"] = {"type": method}
    return _object("FlowSchema", name, spec)


def _everything(subjects: list[Tree]) -> Tree:
    resources = _resources(["*"], "*", "*", cluster=True)
    return {
        "subjects": subjects, "resourceRules": [resources],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }  # fmt: skip


def _resources(verbs: list[str], group: str, *resources: str, cluster: bool = False) -> Tree:
    rule: Tree = {"verbs": verbs, "apiGroups": [group], "resources": list(resources), "namespaces": ["*"]}
    return rule | {"clusterScope": True} if cluster else rule


def _groups(*names: str) -> list[Tree]:
    return [{"kind": "Group", "group": {"name": name}} for name in names]


def _users(*names: str) -> list[Tree]:
    return [{"kind": "User", "user": {"name": name}} for name in names]


def _accounts(*names: str) -> list[Tree]:
    return [{"kind": "ServiceAccount", "serviceAccount": {"name": n, "namespace": _SYSTEM}} for n in names]
