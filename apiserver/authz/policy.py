"""The ClusterRoles and bindings that every cluster has: those that people know from Kubernetes, and those that
navarch's own components run with. Pure data; :mod:`apiserver.bootstrap` makes the cluster agree with it."""

from __future__ import annotations

from typing import Any

from apiserver.authz.node import NODE_RULES, rule

Tree = dict[str, Any]
GROUP = "rbac.authorization.k8s.io"
LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
AUTOUPDATE = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"

READ = "get list watch"
WRITE = "create delete deletecollection patch update"
ALL = "create delete deletecollection get list patch update watch"

# What view, edit and admin add to one another (upstream's system:aggregate-to-* roles).
VIEWED = [
    rule("core", "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods "
         "replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status", READ),
    rule("core", "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status "
         "resourcequotas resourcequotas/status", READ),
    rule("core", "namespaces", READ),
    rule("discovery.k8s.io", "endpointslices", READ),
    rule("apps", "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status "
         "replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status", READ),
    rule("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status", READ),
    rule("batch", "cronjobs cronjobs/status jobs jobs/status", READ),
    rule("policy", "poddisruptionbudgets poddisruptionbudgets/status", READ),
    rule("networking.k8s.io", "ingresses ingresses/status networkpolicies", READ),
]  # fmt: skip
EDITED = [
    rule("core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy", READ),
    rule("core", "serviceaccounts", "impersonate"),
    rule("core", "pods pods/attach pods/exec pods/portforward pods/proxy", WRITE),
    rule("core", "pods/eviction", "create"),
    rule("core", "configmaps persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets "
         "serviceaccounts services services/proxy", WRITE),
    rule("core events.k8s.io", "events", WRITE),
    rule("core", "serviceaccounts/token", "create"),
    rule("apps", "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale "
         "statefulsets statefulsets/scale", WRITE),
    rule("autoscaling", "horizontalpodautoscalers", WRITE),
    rule("batch", "cronjobs jobs", WRITE),
    rule("policy", "poddisruptionbudgets", WRITE),
    rule("networking.k8s.io", "ingresses networkpolicies", WRITE),
    rule("coordination.k8s.io", "leases", ALL),
]  # fmt: skip
ADMINISTERED = [
    rule("authorization.k8s.io", "localsubjectaccessreviews", "create"),
    rule(GROUP, "rolebindings roles", ALL),
]
CSR, KUBELET_CLIENT = "certificates.k8s.io", "kubernetes.io/kube-apiserver-client-kubelet"
EVENTS = rule("core events.k8s.io", "events", "create patch update")
LEASES = rule("coordination.k8s.io", "leases", "create get list patch update watch delete")

# Our controllers run as one user each in the real world and as one in a small lab; one role covers them.
CONTROLLER_RULES = [
    rule("core", "namespaces", "get list watch update patch delete"),
    rule("core", "namespaces/finalize namespaces/status", "update patch"),
    rule("core", "nodes nodes/status", "get list watch update patch delete"),
    rule("core", "pods", ALL),
    rule("core", "pods/status pods/eviction pods/finalizers", "create patch update"),
    rule("core", "configmaps endpoints secrets serviceaccounts services services/status", ALL),
    rule("core", "serviceaccounts/token", "create"),
    rule("discovery.k8s.io", "endpointslices", ALL),
    rule("apps", "deployments deployments/status deployments/scale deployments/finalizers replicasets "
         "replicasets/status replicasets/scale replicasets/finalizers", ALL),
    rule("apps", "controllerrevisions", ALL),
    rule("batch", "jobs jobs/status jobs/finalizers", ALL),
    rule("core", "persistentvolumeclaims", ALL),
    rule("core", "resourcequotas/status", "patch update"),
    rule("policy", "poddisruptionbudgets/status", "patch update"),
    rule(GROUP, "clusterroles", "get list watch update patch"),
    rule("authentication.k8s.io", "tokenreviews", "create"),
    rule("authorization.k8s.io", "subjectaccessreviews", "create"),
    rule(CSR, "certificatesigningrequests", "get list watch delete"),
    rule(CSR, "certificatesigningrequests/approval certificatesigningrequests/status", "update patch"),
    rule(CSR, "signers", "approve sign") | {"resourceNames": [
        "kubernetes.io/kube-apiserver-client", KUBELET_CLIENT, "kubernetes.io/kubelet-serving",
    ]},
    # The garbage collector and the namespace controller delete objects of kinds that nobody knows in advance.
    rule("*", "*", "delete deletecollection get list patch update watch"),
    EVENTS,
    LEASES,
]  # fmt: skip

SCHEDULER_RULES = [
    EVENTS,
    LEASES,
    rule("core", "nodes", READ),
    rule("core", "pods", "delete get list watch"),
    rule("core", "bindings pods/binding", "create"),
    rule("core", "pods/status", "patch update"),
    rule("core", "namespaces persistentvolumeclaims persistentvolumes replicationcontrollers services", READ),
    rule("apps", "replicasets statefulsets", READ),
    rule("policy", "poddisruptionbudgets", READ),
    rule("storage.k8s.io", "csidrivers csinodes csistoragecapacities storageclasses", READ),
    rule("scheduling.k8s.io", "priorityclasses", READ),
    rule("scheduling.x-k8s.io", "podgroups", READ),  # where they are installed, for gang scheduling
    rule("authentication.k8s.io", "tokenreviews", "create"),
    rule("authorization.k8s.io", "subjectaccessreviews", "create"),
]

PROXY_RULES = [
    rule("core", "endpoints services", "list watch"),
    rule("core", "nodes", READ),
    rule("core", "namespaces pods", READ),
    rule("discovery.k8s.io", "endpointslices", "list watch"),
    rule("networking.k8s.io", "networkpolicies servicecidrs", "list watch"),
    EVENTS,
]


def _urls(urls: str, verbs: str = "get") -> Tree:
    return {"nonResourceURLs": urls.split(), "verbs": verbs.split()}


HEALTH = _urls("/healthz /livez /readyz /version /version/")
DISCOVERY = _urls("/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/")

ROLES: dict[str, list[Tree]] = {
    "cluster-admin": [rule("*", "*", "*"), _urls("*", "*")],
    "system:discovery": [DISCOVERY],
    "system:public-info-viewer": [HEALTH],
    "system:monitoring": [_urls("/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*")],
    "system:basic-user": [
        rule("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", "create"),
        rule("authentication.k8s.io", "selfsubjectreviews", "create"),
    ],
    "system:auth-delegator": [
        rule("authentication.k8s.io", "tokenreviews", "create"),
        rule("authorization.k8s.io", "subjectaccessreviews", "create"),
    ],
    "system:kubelet-api-admin": [
        rule("core", "nodes", READ),
        rule("core", "nodes/proxy nodes/log nodes/stats nodes/metrics nodes/healthz nodes/pods", "*"),
    ],
    "system:service-account-issuer-discovery": [_urls("/.well-known/openid-configuration /openid/v1/jwks")],
    "system:aggregated-metrics-reader": [rule("metrics.k8s.io", "nodes pods", READ)],
    "system:node-bootstrapper": [rule(CSR, "certificatesigningrequests", "create get list watch")],
    "system:node-problem-detector": [
        rule("core", "nodes", "get"), rule("core", "nodes/status", "patch"),
        rule("core events.k8s.io", "events", "create patch update"),
    ],
    "system:persistent-volume-provisioner": [
        rule("core", "persistentvolumes", "create delete get list watch"),
        rule("core", "persistentvolumeclaims", "get list update watch"),
        rule("storage.k8s.io", "storageclasses", READ), rule("core", "events", "watch"), EVENTS,
    ],
    "system:kube-aggregator": [
        rule("core", "endpoints services", READ), rule("discovery.k8s.io", "endpointslices", READ),
    ],
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": [
        rule(CSR, "certificatesigningrequests/nodeclient", "create"),
    ],
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": [
        rule(CSR, "certificatesigningrequests/selfnodeclient", "create"),
    ],
    **{
        f"system:certificates.k8s.io:{signer}-approver": [
            rule(CSR, "signers", "approve") | {"resourceNames": [f"kubernetes.io/{signer}"]},
        ]
        for signer in ("legacy-unknown", "kubelet-serving", "kube-apiserver-client", "kube-apiserver-client-kubelet")
    },
    "system:aggregate-to-admin": ADMINISTERED,
    "system:aggregate-to-edit": EDITED,
    "system:aggregate-to-view": VIEWED,
    "system:node": NODE_RULES,
    "system:node-proxier": PROXY_RULES,
    "system:kube-scheduler": SCHEDULER_RULES,
    "system:volume-scheduler": [
        rule("core", "persistentvolumes persistentvolumeclaims", "get list patch update watch"),
        rule("storage.k8s.io", "storageclasses", READ),
    ],
    "system:kube-controller-manager": CONTROLLER_RULES,
    "system:kube-dns": [
        rule("core", "endpoints services pods namespaces", "list watch"),
        rule("discovery.k8s.io", "endpointslices", "list watch"),
    ],
}
# Roles whose rules are those of the roles that carry their label; filled in by apiserver/authz/aggregation.py.
AGGREGATED = ("admin", "edit", "view")
# Which role a role is aggregated into, besides the one in its own name.
_INTO = {
    "system:aggregated-metrics-reader": ("view", "edit", "admin"),
    "system:aggregate-to-admin": ("admin",),
    "system:aggregate-to-edit": ("edit",),
    "system:aggregate-to-view": ("view",),
    "edit": ("admin",),
    "view": ("edit",),
}
# Binding -> (role, subjects as (kind, name)).
BINDINGS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "cluster-admin": ("cluster-admin", [("Group", "system:masters")]),
    "system:discovery": ("system:discovery", [("Group", "system:authenticated")]),
    "system:basic-user": ("system:basic-user", [("Group", "system:authenticated")]),
    "system:public-info-viewer": (
        "system:public-info-viewer",
        [("Group", "system:authenticated"), ("Group", "system:unauthenticated")],
    ),
    "system:monitoring": ("system:monitoring", [("Group", "system:monitoring")]),
    "system:service-account-issuer-discovery": (
        "system:service-account-issuer-discovery",
        [("Group", "system:serviceaccounts")],
    ),
    "system:node-proxier": ("system:node-proxier", [("User", "system:kube-proxy"), ("Group", "system:node-proxiers")]),
    "system:kube-scheduler": ("system:kube-scheduler", [("User", "system:kube-scheduler")]),
    "system:volume-scheduler": ("system:volume-scheduler", [("User", "system:kube-scheduler")]),
    "system:kube-controller-manager": ("system:kube-controller-manager", [("User", "system:kube-controller-manager")]),
    "system:kube-dns": ("system:kube-dns", [("User", "system:kube-dns"), ("ServiceAccount", "kube-dns")]),
}


def _meta(name: str) -> Tree:
    labels = dict(LABELS)
    for target in _INTO.get(name, ()):
        labels[AGGREGATE + target] = "true"
    return {"name": name, "labels": labels, "annotations": dict(AUTOUPDATE)}


def cluster_roles() -> list[Tree]:
    """All default ClusterRoles, as objects."""
    head = {"apiVersion": f"{GROUP}/v1", "kind": "ClusterRole"}
    out: list[Tree] = [head | {"metadata": _meta(name), "rules": rules} for name, rules in ROLES.items()]
    for name in AGGREGATED:
        aggregation = {"clusterRoleSelectors": [{"matchLabels": {AGGREGATE + name: "true"}}]}
        out.append(head | {"metadata": _meta(name), "aggregationRule": aggregation})
    return out


def cluster_role_bindings() -> list[Tree]:
    """All default ClusterRoleBindings, as objects."""
    out = []
    for name, (role, subjects) in BINDINGS.items():
        listed = []
        for kind, subject in subjects:
            if kind == "ServiceAccount":
                listed.append({"kind": kind, "name": subject, "namespace": "kube-system"})
            else:
                listed.append({"kind": kind, "apiGroup": GROUP, "name": subject})
        out.append({
            "apiVersion": f"{GROUP}/v1", "kind": "ClusterRoleBinding", "metadata": _meta("binding") | {"name": name},
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role}, "subjects": listed,
        })  # fmt: skip
    return out
