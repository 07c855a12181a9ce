from __future__ import annotations

from collections.abc import Mapping

import pytest

from apiserver.authz.authorizer import Authorizer
from apiserver.authz.policy import cluster_role_bindings, cluster_roles, role_bindings, roles
from apiserver.authz.rules import compile_rules, uncovered
from apiserver.request import ANONYMOUS, LOOPBACK, RequestInfo, User
from navarch.world import RealWorld
from tests.apiserver.auth.support import Cluster, cluster

RBAC = "apiVersion: rbac.authorization.k8s.io/v1"
JANE, NODE = User("jane", ("dev", "system:authenticated")), User("system:node:n1", ("system:nodes", "system:authenticated"))
ROBOT = User("system:serviceaccount:ns:robot", ("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"))


def ask(
    verb: str, resource: str, namespace: str = "", name: str = "", group: str = "", fields: str = ""
) -> RequestInfo:
    resource, _, subresource = resource.partition("/")
    return RequestInfo(verb, "/", True, group, "v1", resource, subresource, namespace, name, fields)


async def defaults(made: Cluster) -> None:
    import yaml

    await made.put(yaml.safe_dump_all([*cluster_roles(), *cluster_role_bindings(), *roles(), *role_bindings()]))


def account(name: str) -> User:
    groups = ("system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated")
    return User(f"system:serviceaccount:kube-system:{name}", groups)


ROLES = f"""
{RBAC}
kind: Role
metadata: {{name: reader, namespace: ns}}
rules:
- {{apiGroups: [""], resources: [pods, pods/log], verbs: [get, list]}}
- {{apiGroups: [""], resources: [configmaps], resourceNames: [one], verbs: [get]}}
---
{RBAC}
kind: RoleBinding
metadata: {{name: readers, namespace: ns}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}}
subjects: [{{kind: Group, name: dev}}, {{kind: ServiceAccount, name: robot}}]
"""


def test_rbac() -> None:
    async def main() -> None:
        async with cluster() as made:
            authorizer = Authorizer(made.cache)

            def may(user: User, info: RequestInfo) -> bool:
                return authorizer.authorize(user, info).allowed

            assert not may(JANE, ask("get", "pods", "ns"))
            await made.put(ROLES)
            for user in (JANE, ROBOT):
                assert may(user, ask("get", "pods", "ns", "p")) and may(user, ask("get", "pods/log", "ns", "p"))
                assert not may(user, ask("get", "pods", "other")) and not may(user, ask("delete", "pods", "ns", "p"))
                assert not may(user, ask("list", "pods")) and not may(user, ask("get", "pods/exec", "ns", "p"))
                assert may(user, ask("get", "configmaps", "ns", "one")) and not may(user, ask("get", "configmaps", "ns", "two"))
            assert may(LOOPBACK, ask("delete", "nodes"))
            await made.drop("rolebindings/ns/readers")
            assert not may(JANE, ask("get", "pods", "ns"))
            await made.put(ROLES.replace("name: reader}\nsubjects", "name: gone}\nsubjects"))
            assert authorizer.authorize(JANE, ask("get", "pods", "ns")) == (
                False, 'RBAC: role.rbac.authorization.k8s.io "gone" not found',
            )  # fmt: skip
            authorizer.close()

    RealWorld().run(main)


JANE_EDITS = f"""
{RBAC}
kind: RoleBinding
metadata: {{name: jane, namespace: ns}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}}
subjects: [{{kind: User, name: jane}}]
---
{RBAC}
kind: ClusterRole
metadata: {{name: more, labels: {{rbac.authorization.k8s.io/aggregate-to-edit: "true"}}}}
rules: [{{apiGroups: [shop], resources: [carts], verbs: [create]}}]
"""
BY_DEFAULT: list[tuple[User, RequestInfo, bool]] = [
    (JANE, ask("create", "deployments", "ns", group="apps"), True),
    (JANE, ask("list", "pods", "ns"), True),
    (JANE, ask("create", "carts", "ns", group="shop"), True),
    (JANE, ask("create", "rolebindings", "ns", group="rbac.authorization.k8s.io"), False),
    (JANE, ask("create", "selfsubjectaccessreviews", group="authorization.k8s.io"), True),
    (JANE, RequestInfo("get", "/apis/apps"), True),
    (ANONYMOUS, RequestInfo("get", "/healthz"), True),
    (ANONYMOUS, RequestInfo("get", "/apis"), False),
    (ANONYMOUS, ask("list", "pods", "ns"), False),
    (User("system:kube-scheduler"), ask("create", "pods/binding", "ns", "p"), True),
    (User("system:kube-scheduler"), ask("get", "secrets", "ns", "s"), False),
    (User("system:kube-controller-manager"), ask("delete", "anything", "ns", "x", group="g"), True),
    (User("system:kube-proxy"), ask("watch", "endpointslices", group="discovery.k8s.io"), True),
    (User("system:kube-proxy"), ask("list", "secrets"), False),
    (account("job-controller"), ask("update", "jobs/status", "ns", "j", "batch"), True),
    (account("job-controller"), ask("update", "deployments/status", "ns", "d", "apps"), False),
    (account("disruption-controller"), ask("get", "anything/scale", "ns", "x", group="g"), True),
    (account("token-cleaner"), ask("delete", "secrets", "kube-system", "s"), True),
    (account("token-cleaner"), ask("delete", "secrets", "ns", "s"), False),
    (account("bootstrap-signer"), ask("update", "configmaps", "kube-public", "cluster-info"), True),
    (User("system:kube-scheduler"), ask("update", "leases", "kube-system", "x", "coordination.k8s.io"), True),
    (User("system:kube-scheduler"), ask("get", "configmaps", "kube-system",
                                        "extension-apiserver-authentication"), True),
]


async def test_default_roles() -> None:
    async with cluster() as made:
        await defaults(made)
        authorizer = Authorizer(made.cache)
        await made.put(JANE_EDITS)
        for user, info, expected in BY_DEFAULT:
            assert authorizer.authorize(user, info).allowed is expected, (user.name, info)


CONTROLLERS = """attachdetach-controller certificate-controller clusterrole-aggregation-controller cronjob-controller
daemon-set-controller deployment-controller disruption-controller endpoint-controller endpointslice-controller
endpointslicemirroring-controller ephemeral-volume-controller expand-controller generic-garbage-collector
horizontal-pod-autoscaler job-controller legacy-service-account-token-cleaner namespace-controller node-controller
persistent-volume-binder pod-garbage-collector pv-protection-controller pvc-protection-controller replicaset-controller
replication-controller resource-claim-controller resourcequota-controller root-ca-cert-publisher route-controller
selinux-warning-controller service-account-controller service-cidrs-controller service-controller statefulset-controller
ttl-after-finished-controller ttl-controller validatingadmissionpolicy-status-controller
volumeattributesclass-protection-controller"""
APPROVERS = ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown")
COMPONENTS = """aggregate-to-admin aggregate-to-edit aggregate-to-view auth-delegator basic-user discovery heapster
kube-aggregator kube-controller-manager kube-dns kube-scheduler kubelet-api-admin monitoring node node-bootstrapper
node-problem-detector node-proxier persistent-volume-provisioner public-info-viewer service-account-issuer-discovery
volume-scheduler"""


def test_default_roles_are_complete() -> None:
    """Those of Kubernetes 1.34, and none under their names that it does not have (but for metrics-server's)."""
    controllers = {f"system:controller:{name}" for name in CONTROLLERS.split()}
    signing = {f"system:certificates.k8s.io:{name}-approver" for name in APPROVERS}
    requests = {f"system:certificates.k8s.io:certificatesigningrequests:{n}" for n in ("nodeclient", "selfnodeclient")}
    components = {f"system:{name}" for name in COMPONENTS.split()} | {"system:aggregated-metrics-reader"}
    expected = controllers | signing | requests | components | {"cluster-admin", "admin", "edit", "view"}
    made = {role["metadata"]["name"] for role in cluster_roles()}
    assert {name for name in made if not name.startswith("navarch:")} == expected
    bound = {binding["roleRef"]["name"] for binding in cluster_role_bindings()}
    assert controllers <= bound <= made
    for binding in cluster_role_bindings():
        if (name := binding["roleRef"]["name"]) in controllers:
            account = {"kind": "ServiceAccount", "namespace": "kube-system", "name": name.rpartition(":")[2]}
            assert binding["subjects"] == [account]
    assert len(roles()) == len(role_bindings()) == 7
    for obj in (*cluster_roles(), *cluster_role_bindings(), *roles(), *role_bindings()):
        assert obj["metadata"]["labels"]["kubernetes.io/bootstrapping"] == "rbac-defaults"
        assert obj["metadata"]["annotations"] == {"rbac.authorization.kubernetes.io/autoupdate": "true"}


def test_default_roles_grant_what_version_1_34_grants() -> None:
    """Rules that differ between versions: in 1.36 the two volume controllers lost services, for example."""
    rules = {role["metadata"]["name"]: compile_rules(role.get("rules")) for role in cluster_roles()}

    def granted(role: str, verb: str, group: str, resource: str) -> bool:
        return any(r.covers(verb, group, resource, None) for r in rules[role])

    for name in ("expand-controller", "persistent-volume-binder"):
        assert granted(f"system:controller:{name}", "get", "", "services")
        assert not granted(f"system:controller:{name}", "list", "", "services")
    assert granted("system:kube-scheduler", "deletecollection", "coordination.k8s.io", "leasecandidates")
    assert granted("system:kube-aggregator", "watch", "", "endpoints")
    assert not granted("system:kube-aggregator", "get", "discovery.k8s.io", "endpointslices")
    assert not granted("system:controller:pvc-protection-controller", "update", "", "persistentvolumeclaims/status")


NODES_AND_THEIRS = """
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: ns}
spec:
  nodeName: n1
  serviceAccountName: sa
  volumes:
  - {name: a, secret: {secretName: mine}}
  - {name: b, csi: {driver: d, nodePublishSecretRef: {name: published}}}
  - {name: c, projected: {sources: [{secret: {name: projected}}]}}
  - {name: d, iscsi: {secretRef: {name: chap}}}
  containers: [{name: c, image: i, envFrom: [{configMapRef: {name: conf}}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: q, namespace: ns}
spec: {nodeName: n2, containers: [], volumes: [{name: a, secret: {secretName: theirs}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: r, namespace: ns}
spec:
  nodeName: n1
  containers: []
  volumes: [{name: a, persistentVolumeClaim: {claimName: data}}, {name: b, ephemeral: {volumeClaimTemplate: {}}}]
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: v1}
spec: {claimRef: {namespace: ns, name: data}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: v2}
spec: {claimRef: {namespace: ns, name: other}}
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttachment
metadata: {name: here}
spec: {nodeName: n1}
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttachment
metadata: {name: there}
spec: {nodeName: n2}
"""
OF_NODE_1: list[tuple[RequestInfo, bool]] = [
    (ask("get", "secrets", "ns", "mine"), True),
    *((ask("get", "secrets", "ns", name), True) for name in ("published", "projected", "chap")),
    (ask("get", "configmaps", "ns", "published"), False),
    (ask("get", "secrets", "ns", "theirs"), False),
    (ask("get", "secrets", "other", "mine"), False),
    (ask("list", "secrets", "ns"), False),
    (ask("update", "secrets", "ns", "mine"), False),
    (ask("watch", "configmaps", "ns", "conf"), True),
    (ask("create", "serviceaccounts/token", "ns", "sa"), True),
    (ask("create", "serviceaccounts/token", "ns", "default"), False),
    (ask("patch", "nodes/status", "", "n1"), True),
    (ask("get", "nodes", "", "n1"), True),
    (ask("get", "nodes", "", "n2"), False),
    (ask("watch", "nodes", "", "n1"), True),
    (ask("list", "nodes"), False),
    (ask("create", "nodes"), True),
    (ask("delete", "nodes", "", "n1"), False),
    (ask("get", "pods", "ns", "p"), True),
    (ask("watch", "pods", "ns", "p"), True),
    (ask("get", "pods", "ns", "q"), False),
    (ask("get", "pods", "ns", "none"), False),
    (ask("get", "pods/log", "ns", "p"), False),
    (ask("list", "pods", "ns"), False),
    (ask("list", "pods", fields="spec.nodeName=n1"), True),
    (ask("watch", "pods", fields="status.phase!=Failed,spec.nodeName==n1"), True),
    (ask("list", "pods", fields="spec.nodeName=n2"), False),
    (ask("list", "pods", fields="spec.nodeName!=n1"), False),
    (ask("list", "pods", fields="nonsense"), False),
    (ask("deletecollection", "pods", fields="spec.nodeName=n1"), False),
    (ask("patch", "pods/status", "ns", "p"), True),
    (ask("create", "pods/eviction", "ns", "p"), True),
    (ask("get", "leases", "kube-node-lease", "n2", "coordination.k8s.io"), False),
    (ask("get", "leases", "kube-system", "n1", "coordination.k8s.io"), False),
    (ask("list", "leases", "kube-node-lease", "n1", "coordination.k8s.io"), False),
    (ask("update", "leases", "kube-node-lease", "n1", "coordination.k8s.io"), True),
    (ask("delete", "deployments", "ns", "d", "apps"), False),
    (ask("get", "persistentvolumeclaims", "ns", "data"), True),
    (ask("get", "persistentvolumeclaims", "ns", "r-b"), True),
    (ask("get", "persistentvolumeclaims", "ns", "other"), False),
    (ask("list", "persistentvolumeclaims", "ns"), False),
    (ask("patch", "persistentvolumeclaims/status", "ns", "data"), True),
    (ask("patch", "persistentvolumeclaims", "ns", "data"), False),
    (ask("get", "persistentvolumes", "", "v1"), True),
    (ask("get", "persistentvolumes", "", "v2"), False),
    (ask("get", "persistentvolumes", "", "v3"), False),
    (ask("get", "volumeattachments", "", "here", "storage.k8s.io"), True),
    (ask("get", "volumeattachments", "", "there", "storage.k8s.io"), False),
    (ask("list", "volumeattachments", group="storage.k8s.io"), False),
    (ask("create", "csinodes", group="storage.k8s.io"), True),
    (ask("patch", "csinodes", "", "n1", "storage.k8s.io"), True),
    (ask("patch", "csinodes", "", "n2", "storage.k8s.io"), False),
    (ask("list", "csidrivers", group="storage.k8s.io"), True),
    (ask("create", "certificatesigningrequests", group="certificates.k8s.io"), True),
]
REASONS = [
    (ask("list", "nodes"), "node 'n1' cannot read all nodes, only its own Node object"),
    (ask("get", "nodes", "", "n2"), "node 'n1' cannot read 'n2', only its own Node object"),
    (ask("list", "pods"), "can only list/watch pods with spec.nodeName field selector"),
    (ask("get", "secrets", "ns", "theirs"), "no relationship found between node 'n1' and this object"),
]


async def test_node() -> None:
    async with cluster() as made:
        authorizer = Authorizer(made.cache)
        await made.put(NODES_AND_THEIRS)
        for info, expected in OF_NODE_1:
            assert authorizer.authorize(NODE, info).allowed is expected, info
        for info, reason in REASONS:
            assert authorizer.authorize(NODE, info).reason == reason


@pytest.mark.parametrize(
    "owned, wanted, missing",
    [
        ([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
         [{"verbs": ["get"], "apiGroups": ["a"], "resources": ["b/c"]}], 0),
        ([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
         [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}], 1),
        ([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}],
         [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}], 1),
        ([{"verbs": ["get"], "nonResourceURLs": ["/a/*"]}], [{"verbs": ["get"], "nonResourceURLs": ["/a/b", "/b"]}], 1),
    ],
)  # fmt: skip
def test_escalation(owned: list[Mapping[str, object]], wanted: list[Mapping[str, object]], missing: int) -> None:
    assert len(uncovered(compile_rules(owned), wanted)) == missing
