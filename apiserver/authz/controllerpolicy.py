"""Rights of each of Kubernetes' controllers: the ClusterRoles ``system:controller:*``, one to a service account of
kube-system. navarch's controllers run as one user (see policy.py); these are for controllers that people bring along,
and for those who bind them."""

from __future__ import annotations

from typing import Any

from apiserver.authz.node import rule

Tree = dict[str, Any]
READ = "get list watch"
EVENTS = rule("core events.k8s.io", "events", "create patch update")
CSR = "certificates.k8s.io"
CLASSES, DRA = "storage.k8s.io", "resource.k8s.io"
ALL_BUT_COLLECTION = "create delete get list patch update watch"


def _signers(names: str, verb: str) -> Tree:
    return rule(CSR, "signers", verb) | {"resourceNames": [f"kubernetes.io/{name}" for name in names.split()]}


_WITH_EVENTS: dict[str, list[Tree]] = {
    "attachdetach-controller": [
        rule("core", "persistentvolumeclaims persistentvolumes", "list watch"),
        rule("core", "nodes", READ), rule("core", "nodes/status", "patch update"), rule("core", "pods", "list watch"),
        rule(CLASSES, "volumeattachments", "create delete get list watch"),
        rule(CLASSES, "csidrivers", READ), rule(CLASSES, "csinodes", READ),
    ],
    "certificate-controller": [
        rule(CSR, "certificatesigningrequests", "delete get list watch"),
        rule(CSR, "certificatesigningrequests/approval certificatesigningrequests/status", "update"),
        _signers("kube-apiserver-client-kubelet", "approve"),
        _signers("kube-apiserver-client kube-apiserver-client-kubelet kubelet-serving legacy-unknown", "sign"),
        rule("authorization.k8s.io", "subjectaccessreviews", "create"),
    ],
    "cronjob-controller": [
        rule("batch", "cronjobs", "get list update watch"), rule("batch", "jobs", ALL_BUT_COLLECTION),
        rule("batch", "cronjobs/status", "update"), rule("batch", "cronjobs/finalizers", "update"),
        rule("core", "pods", "delete list watch"),
    ],
    "daemon-set-controller": [
        rule("apps extensions", "daemonsets", READ), rule("apps extensions", "daemonsets/status", "update"),
        rule("apps extensions", "daemonsets/finalizers", "update"), rule("core", "nodes", "list watch"),
        rule("core", "pods", "create delete list patch watch"), rule("core", "pods/binding", "create"),
        rule("apps", "controllerrevisions", ALL_BUT_COLLECTION),
    ],
    "deployment-controller": [
        rule("apps extensions", "deployments", "get list update watch"),
        rule("apps extensions", "deployments/status", "update"),
        rule("apps extensions", "deployments/finalizers", "update"),
        rule("apps extensions", "replicasets", ALL_BUT_COLLECTION),
        rule("core", "pods", "get list update watch"),
    ],
    "disruption-controller": [
        rule("apps extensions", "deployments", READ), rule("apps extensions", "replicasets", READ),
        rule("core", "replicationcontrollers", READ), rule("policy", "poddisruptionbudgets", READ),
        rule("apps", "statefulsets", READ), rule("policy", "poddisruptionbudgets/status", "update"),
        rule("core", "pods/status", "patch update"), rule("*", "*/scale", "get"),
    ],
    "endpoint-controller": [
        rule("core", "pods services", READ), rule("core", "endpoints", "create delete get list update watch"),
        rule("core", "endpoints/restricted", "create"),
    ],
    "endpointslice-controller": [
        rule("core", "nodes pods services", READ), rule("core", "services/finalizers", "update"),
        rule("discovery.k8s.io", "endpointslices", "create delete get list update watch"),
    ],
    "endpointslicemirroring-controller": [
        rule("core", "endpoints services", READ), rule("core", "services/finalizers", "update"),
        rule("core", "endpoints/finalizers", "update"),
        rule("discovery.k8s.io", "endpointslices", "create delete get list update watch"),
    ],
    "ephemeral-volume-controller": [
        rule("core", "pods", READ), rule("core", "pods/finalizers", "update"),
        rule("core", "persistentvolumeclaims", "create get list watch"),
    ],
    "expand-controller": [
        rule("core", "persistentvolumes", "get list patch update watch"),
        rule("core", "persistentvolumeclaims/status", "patch update"), rule("core", "persistentvolumeclaims", READ),
        rule("core", "services", "get"),
    ],
    "generic-garbage-collector": [rule("*", "*", "delete get list patch update watch")],
    "horizontal-pod-autoscaler": [
        rule("autoscaling", "horizontalpodautoscalers", READ),
        rule("autoscaling", "horizontalpodautoscalers/status", "update"), rule("*", "*/scale", "get update"),
        rule("core", "pods", "list watch"), rule("metrics.k8s.io", "pods", "list watch"),
        rule("custom.metrics.k8s.io", "*", READ), rule("external.metrics.k8s.io", "*", READ),
    ],
    "job-controller": [
        rule("batch", "jobs", "get list patch update watch"), rule("batch", "jobs/status", "update"),
        rule("batch", "jobs/finalizers", "update"), rule("core", "pods", "create delete list patch watch"),
    ],
    "node-controller": [
        rule("core", "nodes", "delete get list patch update watch"), rule("core", "nodes/status", "patch update"),
        rule("core", "pods/status", "patch update"), rule("core", "pods", "delete get list watch"),
    ],
    "persistent-volume-binder": [
        rule("core", "persistentvolumes", "create delete get list update watch"),
        rule("core", "persistentvolumes/status", "update"),
        rule("core", "persistentvolumeclaims", "get list update watch"),
        rule("core", "persistentvolumeclaims/status", "update"), rule("core", "pods", "create delete get list watch"),
        rule(CLASSES, "storageclasses", READ), rule("core", "nodes", "list watch"), rule("core", "events", "watch"),
        rule("core", "services", "get"),
    ],
    "pv-protection-controller": [rule("core", "persistentvolumes", "get list update watch")],
    "pvc-protection-controller": [
        rule("core", "persistentvolumeclaims", "get list update watch"), rule("core", "pods", READ),
    ],
    "replicaset-controller": [
        rule("apps extensions", "replicasets", "get list update watch"),
        rule("apps extensions", "replicasets/status", "update"),
        rule("apps extensions", "replicasets/finalizers", "update"),
        rule("core", "pods", "create delete list patch watch"),
    ],
    "replication-controller": [
        rule("core", "replicationcontrollers", "get list update watch"),
        rule("core", "replicationcontrollers/status", "update"),
        rule("core", "replicationcontrollers/finalizers", "update"),
        rule("core", "pods", "create delete list patch watch"),
    ],
    "resource-claim-controller": [
        rule("core", "pods", READ), rule("core", "pods/finalizers", "update"),
        rule(DRA, "resourceclaims", "create delete get list watch"),
        rule(DRA, "resourceclaims resourceclaims/status", "patch update"), rule("core", "pods/status", "patch update"),
    ],
    "resourcequota-controller": [rule("*", "*", "list watch"), rule("core", "resourcequotas/status", "update")],
    "root-ca-cert-publisher": [rule("core", "configmaps", "create update")],
    "route-controller": [rule("core", "nodes", "list watch"), rule("core", "nodes/status", "patch")],
    "selinux-warning-controller": [
        rule("core", "persistentvolumes", READ), rule("core", "persistentvolumeclaims", READ), rule("core", "pods", READ),
        rule(CLASSES, "csidrivers", READ),
    ],
    "service-account-controller": [rule("core", "serviceaccounts", "create")],
    "service-cidrs-controller": [
        rule("networking.k8s.io", "servicecidrs", "get list patch update watch"),
        rule("networking.k8s.io", "servicecidrs/finalizers", "patch update"),
        rule("networking.k8s.io", "servicecidrs/status", "patch update"), rule("networking.k8s.io", "ipaddresses", READ),
    ],
    "service-controller": [
        rule("core", "services", READ), rule("core", "services/status", "patch update"),
        rule("core", "nodes", "list watch"),
    ],
    "statefulset-controller": [
        rule("core", "pods", "list watch"), rule("apps", "statefulsets", READ),
        rule("apps", "statefulsets/status", "update"), rule("apps", "statefulsets/finalizers", "update"),
        rule("core", "pods", "create delete get patch update"), rule("apps", "controllerrevisions", ALL_BUT_COLLECTION),
        rule("core", "persistentvolumeclaims", "create get list watch"),
        rule("core", "persistentvolumeclaims", "delete update"), rule("core", "pods/finalizers", "update"),
    ],
    "ttl-after-finished-controller": [rule("batch", "jobs", "delete get list watch")],
    "ttl-controller": [rule("core", "nodes", "list patch update watch")],
    "validatingadmissionpolicy-status-controller": [
        rule("admissionregistration.k8s.io", "validatingadmissionpolicies", READ),
        rule("admissionregistration.k8s.io", "validatingadmissionpolicies/status", "get patch update"),
    ],
    "volumeattributesclass-protection-controller": [
        rule("core", "persistentvolumeclaims", READ), rule("core", "persistentvolumes", READ),
        rule(CLASSES, "volumeattributesclasses", "get list update watch"),
    ],
}  # fmt: skip
_WITHOUT: dict[str, list[Tree]] = {
    "clusterrole-aggregation-controller": [
        rule("rbac.authorization.k8s.io", "clusterroles", "escalate get list patch update watch"),
    ],
    "legacy-service-account-token-cleaner": [
        rule("core", "configmaps", "get") | {"resourceNames": ["kube-apiserver-legacy-service-account-token-tracking"]},
        rule("core", "secrets", "delete patch"),
    ],
    "namespace-controller": [
        rule("core", "namespaces", "delete get list watch"),
        rule("core", "namespaces/finalize namespaces/status", "update"),
        rule("*", "*", "delete deletecollection get list watch"),
    ],
    "pod-garbage-collector": [
        rule("core", "pods", "delete list watch"), rule("core", "nodes", READ), rule("core", "pods/status", "patch"),
    ],
}  # fmt: skip
CONTROLLERS: dict[str, list[Tree]] = {name: [*rules, EVENTS] for name, rules in _WITH_EVENTS.items()} | _WITHOUT
"""By the name of the service account."""
