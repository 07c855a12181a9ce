"""The roles and bindings that every cluster has. Pure data; :mod:`apiserver.bootstrap.objects` makes the cluster agree with it.

Those named ``system:*``, and cluster-admin, admin, edit and view, are Kubernetes' own at version 1.34, rule by rule (roles
behind features that are off by default are left out; system:aggregated-metrics-reader is metrics-server's). Where
navarch's components need more, they have it from roles named ``navarch:*``.
"""

from __future__ import annotations

from typing import Any

from apiserver.authz.controllerpolicy import CONTROLLERS, DRA, EVENTS, READ
from apiserver.authz.node import NODE_RULES, rule
from navarch.api import wellknown

Tree = dict[str, Any]
GROUP = "rbac.authorization.k8s.io"
LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
AUTOUPDATE = {wellknown.RBAC_AUTOUPDATE: "true"}
AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"

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
    rule("extensions", "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses "
         "ingresses/status networkpolicies replicasets replicasets/scale replicasets/status "
         "replicationcontrollers/scale", READ),
    rule("policy", "poddisruptionbudgets poddisruptionbudgets/status", READ),
    rule("networking.k8s.io", "ingresses ingresses/status networkpolicies", READ),
    rule(DRA, "resourceclaims resourceclaims/status resourceclaimtemplates", READ),
]  # fmt: skip
EDITED = [
    rule("core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy", READ),
    rule("core", "serviceaccounts", "impersonate"),
    rule("core", "pods pods/attach pods/exec pods/portforward pods/proxy", WRITE),
    rule("core", "pods/eviction", "create"),
    rule("core", "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets "
         "serviceaccounts services services/proxy", WRITE),
    rule("core", "serviceaccounts/token", "create"),
    rule("apps", "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale "
         "statefulsets statefulsets/scale", WRITE),
    rule("autoscaling", "horizontalpodautoscalers", WRITE),
    rule("batch", "cronjobs jobs", WRITE),
    rule("extensions", "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies "
         "replicasets replicasets/scale replicationcontrollers/scale", WRITE),
    rule("policy", "poddisruptionbudgets", WRITE),
    rule("networking.k8s.io", "ingresses networkpolicies", WRITE),
    rule("coordination.k8s.io", "leases", ALL),
    rule(DRA, "resourceclaims resourceclaimtemplates", WRITE),
]  # fmt: skip
ADMINISTERED = [
    rule("authorization.k8s.io", "localsubjectaccessreviews", "create"),
    rule(GROUP, "rolebindings roles", ALL),
]
CSR = "certificates.k8s.io"
REVIEWS = [
    rule("authentication.k8s.io", "tokenreviews", "create"),
    rule("authorization.k8s.io", "subjectaccessreviews", "create"),
]


def _lease(holder: str, verbs: str) -> list[Tree]:
    leases = "coordination.k8s.io", "leases"
    return [rule(*leases, "create"), rule(*leases, verbs) | {"resourceNames": [holder]}]


CONTROLLER_MANAGER_RULES = [
    EVENTS,
    *_lease("kube-controller-manager", "get update"),
    rule("core", "secrets serviceaccounts", "create"),
    rule("core", "secrets", "delete"),
    rule("core", "configmaps namespaces secrets serviceaccounts", "get"),
    rule("core", "secrets serviceaccounts", "update"),
    *REVIEWS,
    rule("*", "*", "list watch"),
    rule("core", "serviceaccounts/token", "create"),
]
# All controllers are one user in navarch, and some write where upstream's do not: one role says all that they do.
NAVARCH_CONTROLLER_RULES = [
    rule("core", "namespaces", "get update patch delete"),
    rule("core", "namespaces/finalize namespaces/status", "update patch"),
    rule("core", "nodes nodes/status", "get update patch delete"),
    rule("core", "pods", ALL),
    rule("core", "pods/status pods/eviction pods/finalizers", "create patch update"),
    rule("core", "configmaps endpoints secrets serviceaccounts services services/status", ALL),
    rule("core", "persistentvolumeclaims", ALL),
    # The binder patches where upstream's updates; the provisioner of local paths is a controller here.
    rule("core", "persistentvolumes", "create delete get patch"),
    rule("core", "persistentvolumes/status persistentvolumeclaims/status", "patch"),
    rule("storage.k8s.io", "volumeattachments", "create"),
    rule("networking.k8s.io", "ipaddresses", "create"),
    rule("core", "resourcequotas/status", "patch update"),
    rule("discovery.k8s.io", "endpointslices", ALL),
    rule("apps", "deployments deployments/status deployments/scale deployments/finalizers replicasets "
         "replicasets/status replicasets/scale replicasets/finalizers controllerrevisions", ALL),
    rule("batch", "jobs jobs/status jobs/finalizers", ALL),
    rule("policy", "poddisruptionbudgets/status", "patch update"),
    rule(GROUP, "clusterroles", "get update patch"),
    rule(CSR, "certificatesigningrequests", "get delete"),
    rule(CSR, "certificatesigningrequests/approval certificatesigningrequests/status", "update patch"),
    rule(CSR, "signers", "approve sign") | {"resourceNames": [
        wellknown.SIGNER_CLIENT, wellknown.SIGNER_KUBELET_CLIENT,
        wellknown.SIGNER_KUBELET_SERVING,
    ]},
    # The garbage collector and the namespace controller delete objects of kinds that nobody knows in advance.
    rule("*", "*", "delete deletecollection get patch update"),
    rule("coordination.k8s.io", "leases", "create get patch update delete"),
]  # fmt: skip

SCHEDULER_RULES = [
    EVENTS,
    *_lease("kube-scheduler", "get list update watch"),
    rule("coordination.k8s.io", "leasecandidates", ALL),
    rule("core", "nodes", READ),
    rule("core", "pods", "delete get list watch"),
    rule("core", "bindings pods/binding", "create"),
    rule("core", "pods/status", "patch update"),
    rule("core", "replicationcontrollers services", READ),
    rule("apps extensions", "replicasets", READ),
    rule("apps", "statefulsets", READ),
    rule("policy", "poddisruptionbudgets", READ),
    rule("core", "persistentvolumeclaims persistentvolumes", READ),
    *REVIEWS,
    rule("storage.k8s.io", "csinodes", READ),
    rule("storage.k8s.io", "volumeattachments", READ),
    rule("core", "namespaces", READ),
    rule("storage.k8s.io", "csidrivers", READ),
    rule("storage.k8s.io", "csistoragecapacities", READ),
    rule(DRA, "deviceclasses", READ),
    rule(DRA, "resourceclaims", "get list patch update watch"),
    rule(DRA, "resourceclaims/status", "get list patch update watch"),
    rule("core", "pods/finalizers", "get list patch update watch"),
    rule(DRA, "resourceslices", READ),
]
PROXY_RULES = [
    rule("core", "endpoints services", "list watch"),
    rule("core", "nodes", READ),
    EVENTS,
    rule("networking.k8s.io", "servicecidrs", "list watch"),
    rule("discovery.k8s.io", "endpointslices", "list watch"),
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
    "system:auth-delegator": REVIEWS,
    "system:heapster": [rule("core", "events namespaces nodes pods", READ), rule("extensions", "deployments", READ)],
    "system:kubelet-api-admin": [
        rule("core", "nodes", READ), rule("core", "nodes", "proxy"),
        rule("core", "nodes/log nodes/metrics nodes/proxy nodes/stats", "*"),
        rule("core", "nodes/configz nodes/healthz nodes/pods", "*"),
    ],
    "system:service-account-issuer-discovery": [
        _urls("/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/"),
    ],
    "system:aggregated-metrics-reader": [rule("metrics.k8s.io", "nodes pods", READ)],  # metrics-server's
    "system:node-bootstrapper": [rule(CSR, "certificatesigningrequests", "create get list watch")],
    "system:node-problem-detector": [
        rule("core", "nodes", "get"), rule("core", "nodes/status", "patch"), EVENTS,
    ],
    "system:persistent-volume-provisioner": [
        rule("core", "persistentvolumes", "create delete get list watch"),
        rule("core", "persistentvolumeclaims", "get list update watch"),
        rule("storage.k8s.io", "storageclasses", READ), rule("core", "events", "watch"), EVENTS,
    ],
    "system:kube-aggregator": [rule("core", "endpoints services", READ)],
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
    "system:kube-controller-manager": CONTROLLER_MANAGER_RULES,
    "system:kube-dns": [rule("core", "endpoints services", "list watch")],
    **{f"system:controller:{name}": rules for name, rules in CONTROLLERS.items()},
    "navarch:controllers": NAVARCH_CONTROLLER_RULES,
    "navarch:scheduler": [
        rule("core", "pods", "patch"),
        rule("storage.k8s.io", "storageclasses", READ),
        rule("scheduling.x-k8s.io", "podgroups", READ),  # where they are installed, for gang scheduling
        rule("coordination.k8s.io", "leases", "create get update"),  # of schedulers with names of their own
    ],
    "navarch:node-proxier": [  # it is the cluster's DNS and enforces policies, too
        rule("core", "namespaces pods", READ),
        rule("networking.k8s.io", "networkpolicies", READ),
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
    "system:node": ("system:node", []),  # the node authorizer is in its place
    "system:node-proxier": ("system:node-proxier", [("User", "system:kube-proxy")]),
    "system:kube-scheduler": ("system:kube-scheduler", [("User", "system:kube-scheduler")]),
    "system:volume-scheduler": ("system:volume-scheduler", [("User", "system:kube-scheduler")]),
    "system:kube-controller-manager": ("system:kube-controller-manager", [("User", "system:kube-controller-manager")]),
    "system:kube-dns": ("system:kube-dns", [("ServiceAccount", "kube-dns")]),
    **{f"system:controller:{name}": (f"system:controller:{name}", [("ServiceAccount", name)]) for name in CONTROLLERS},
    "navarch:controllers": ("navarch:controllers", [("User", "system:kube-controller-manager")]),
    "navarch:scheduler": ("navarch:scheduler", [("User", "system:kube-scheduler")]),
    "navarch:node-proxier": ("navarch:node-proxier", [("User", "system:kube-proxy")]),
}

_SECRETS = rule("core", "secrets", READ)
_ELECTION = [
    rule("coordination.k8s.io", "leases", "create get list update watch"),
    rule("coordination.k8s.io", "leasecandidates", "create get list update watch"),
]
_AUTHENTICATION = "extension-apiserver-authentication"
# (namespace, name) -> rules of a Role, and who has it.
NAMESPACED: dict[tuple[str, str], tuple[list[Tree], list[tuple[str, str]]]] = {
    ("kube-public", "system:controller:bootstrap-signer"): (
        [
            rule("core", "configmaps", READ),
            rule("core", "configmaps", "update") | {"resourceNames": ["cluster-info"]},
            EVENTS,
        ],
        [("ServiceAccount", "bootstrap-signer")],
    ),
    ("kube-system", f"{_AUTHENTICATION}-reader"): (
        [rule("core", "configmaps", READ) | {"resourceNames": [_AUTHENTICATION]}],
        [("User", "system:kube-controller-manager"), ("User", "system:kube-scheduler")],
    ),
    ("kube-system", "system::leader-locking-kube-controller-manager"): (
        _ELECTION,
        [
            ("User", "system:kube-controller-manager"),
            ("ServiceAccount", "kube-controller-manager"),
            ("ServiceAccount", "leader-election-controller"),
        ],
    ),
    ("kube-system", "system::leader-locking-kube-scheduler"): (
        _ELECTION,
        [("User", "system:kube-scheduler"), ("ServiceAccount", "kube-scheduler")],
    ),
    ("kube-system", "system:controller:bootstrap-signer"): ([_SECRETS], [("ServiceAccount", "bootstrap-signer")]),
    ("kube-system", "system:controller:cloud-provider"): (
        [rule("core", "configmaps", "create get list watch")],
        [("ServiceAccount", "cloud-provider")],
    ),
    ("kube-system", "system:controller:token-cleaner"): (
        [rule("core", "secrets", "delete get list watch"), EVENTS],
        [("ServiceAccount", "token-cleaner")],
    ),
}
_BINDING_NAMES = {f"{_AUTHENTICATION}-reader": f"system::{_AUTHENTICATION}-reader"}  # others are named like their role


def _meta(name: str, *into: str) -> Tree:
    labels = LABELS | {AGGREGATE + target: "true" for target in into}
    return {"name": name, "labels": labels, "annotations": dict(AUTOUPDATE)}


def cluster_roles() -> list[Tree]:
    """All default ClusterRoles, as objects."""
    head = {"apiVersion": f"{GROUP}/v1", "kind": "ClusterRole"}
    out: list[Tree] = [
        head | {"metadata": _meta(name, *_INTO.get(name, ())), "rules": rules} for name, rules in ROLES.items()
    ]
    for name in AGGREGATED:
        aggregation = {"clusterRoleSelectors": [{"matchLabels": {AGGREGATE + name: "true"}}]}
        out.append(head | {"metadata": _meta(name, *_INTO.get(name, ())), "aggregationRule": aggregation})
    return out


def cluster_role_bindings() -> list[Tree]:
    """All default ClusterRoleBindings, as objects."""
    head = {"apiVersion": f"{GROUP}/v1", "kind": "ClusterRoleBinding"}
    return [
        head | {"metadata": _meta(name), "roleRef": _reference("ClusterRole", role)} | _subjects(subjects)
        for name, (role, subjects) in BINDINGS.items()
    ]


def roles() -> list[Tree]:
    """All default Roles, as objects."""
    head = {"apiVersion": f"{GROUP}/v1", "kind": "Role"}
    return [
        head | {"metadata": _meta(name) | {"namespace": namespace}, "rules": rules}
        for (namespace, name), (rules, _) in NAMESPACED.items()
    ]


def role_bindings() -> list[Tree]:
    """All default RoleBindings, as objects."""
    head = {"apiVersion": f"{GROUP}/v1", "kind": "RoleBinding"}
    out = []
    for (namespace, role), (_, subjects) in NAMESPACED.items():
        metadata = _meta(_BINDING_NAMES.get(role, role)) | {"namespace": namespace}
        out.append(head | {"metadata": metadata, "roleRef": _reference("Role", role)} | _subjects(subjects))
    return out


def _reference(kind: str, name: str) -> Tree:
    return {"apiGroup": GROUP, "kind": kind, "name": name}


def _subjects(subjects: list[tuple[str, str]]) -> Tree:
    listed = [
        {"kind": kind, "name": name} | ({"namespace": "kube-system"} if kind == "ServiceAccount" else {"apiGroup": GROUP})
        for kind, name in subjects
    ]
    return {"subjects": listed} if listed else {}
