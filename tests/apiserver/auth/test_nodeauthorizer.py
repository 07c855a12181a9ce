"""The node authorizer: one row a rule of upstream's 1.34 (plugin/pkg/auth/authorizer/node)."""

from __future__ import annotations

from typing import Any

from apiserver.authz.authorizer import Authorizer
from apiserver.request import RequestInfo, User
from tests.apiserver.auth.support import cluster

NODE = User("system:node:n1", ("system:nodes",))
NO_NAME = User("system:node:", ("system:nodes",))
NO_GROUP = User("system:node:n1")
OBJECTS = """
{apiVersion: v1, kind: Node, metadata: {name: n1}}
---
apiVersion: v1
kind: Pod
metadata: {name: mine, namespace: a}
spec:
  nodeName: n1
  serviceAccountName: robot
  imagePullSecrets: [{name: pull}]
  containers:
  - {name: c, env: [{name: E, valueFrom: {secretKeyRef: {name: env, key: k}}}], envFrom: [{configMapRef: {name: from}}]}
  volumes:
  - {name: v, secret: {secretName: mounted}}
  - {name: w, projected: {sources: [{configMap: {name: projected}}, {secret: {name: hidden}}]}}
  - {name: x, persistentVolumeClaim: {claimName: claim}}
  - {name: e, ephemeral: {volumeClaimTemplate: {}}}
---
apiVersion: v1
kind: Pod
metadata: {name: theirs, namespace: a}
spec: {nodeName: n2, volumes: [{name: v, secret: {secretName: t}}]}
---
{apiVersion: v1, kind: PersistentVolume, metadata: {name: pv}, spec: {claimRef: {namespace: a, name: claim}}}
---
{apiVersion: v1, kind: PersistentVolume, metadata: {name: other}, spec: {claimRef: {namespace: a, name: another}}}
---
{apiVersion: storage.k8s.io/v1, kind: VolumeAttachment, metadata: {name: va}, spec: {nodeName: n1}}
---
{apiVersion: storage.k8s.io/v1, kind: VolumeAttachment, metadata: {name: vb}, spec: {nodeName: n2}}
"""
NO_TIE = "no relationship found between node 'n1' and this object"
ONLY_READ, ONLY_GET = "can only read resources of this type", "can only get individual resources of this type"
TOKENS = "can only create tokens for individual service accounts"
COORDINATION, STORAGE = "coordination.k8s.io", "storage.k8s.io"

Row = tuple[str, str, str, str, str, str]
ROWS: list[Row] = [
    # verb, group, resource/subresource, namespace, name, why not ("" if allowed, "*" if for no special reason)
    *[("get", "", "secrets", "a", name, "") for name in ("pull", "env", "mounted", "hidden")],
    *[(verb, "", "secrets", "a", "env", "") for verb in ("list", "watch")],
    *[("get", "", "configmaps", "a", name, "") for name in ("from", "projected")],
    ("get", "", "secrets", "a", "t", NO_TIE),
    ("get", "", "secrets", "b", "env", NO_TIE),
    ("get", "", "configmaps", "a", "env", NO_TIE),
    ("list", "", "secrets", "a", "", "No Object name found"),
    ("list", "", "secrets", "", "", "can only read namespaced object of this type"),
    *[(verb, "", "secrets", "a", "env", ONLY_READ) for verb in ("create", "update", "patch", "delete", "deletecollection")],
    ("get", "", "secrets/x", "a", "env", "cannot read subresource"),
    ("get", "", "persistentvolumeclaims", "a", "claim", ""),
    ("get", "", "persistentvolumeclaims", "a", "mine-e", ""),
    ("get", "", "persistentvolumeclaims", "a", "another", NO_TIE),
    ("list", "", "persistentvolumeclaims", "a", "", ONLY_GET),
    ("update", "", "persistentvolumeclaims", "a", "claim", ONLY_GET),
    ("get", "", "persistentvolumeclaims/x", "a", "claim", "cannot get subresource"),
    *[(verb, "", "persistentvolumeclaims/status", "a", "claim", "") for verb in ("update", "patch")],
    ("delete", "", "persistentvolumeclaims/status", "a", "claim", "can only get/update/patch this type"),
    ("patch", "", "persistentvolumeclaims/status", "a", "another", NO_TIE),
    ("get", "", "persistentvolumes", "", "pv", ""),
    ("get", "", "persistentvolumes", "", "other", NO_TIE),
    ("list", "", "persistentvolumes", "", "", ONLY_GET),
    ("get", STORAGE, "volumeattachments", "", "va", ""),
    ("get", STORAGE, "volumeattachments", "", "vb", NO_TIE),
    ("list", STORAGE, "volumeattachments", "", "", ONLY_GET),
    ("create", "", "serviceaccounts/token", "a", "robot", ""),
    ("get", "", "serviceaccounts", "a", "robot", ""),
    ("create", "", "serviceaccounts/token", "a", "default", NO_TIE),
    ("get", "", "serviceaccounts", "a", "default", NO_TIE),
    ("list", "", "serviceaccounts", "a", "", TOKENS),
    ("create", "", "serviceaccounts", "a", "robot", TOKENS),
    *[(verb, COORDINATION, "leases", "kube-node-lease", "n1", "") for verb in ("get", "update", "patch", "delete", "create")],
    ("get", COORDINATION, "leases", "kube-node-lease", "n2", "can only access node lease with the same name"),
    ("get", COORDINATION, "leases", "a", "n1", 'can only access leases in the "kube-node-lease" system namespace'),
    ("list", COORDINATION, "leases", "kube-node-lease", "", "can only get, create, update, patch, or delete a node lease"),
    *[(verb, STORAGE, "csinodes", "", "n1", "") for verb in ("get", "update", "patch", "delete", "create")],
    ("get", STORAGE, "csinodes", "", "n2", "can only access CSINode with the same name"),
    ("list", STORAGE, "csinodes", "", "", "can only get, create, update, patch, or delete a CSINode"),
    ("get", STORAGE, "csinodes/x", "", "n1", "cannot authorize CSINode subresources"),
    *[(verb, "", "nodes", "", "n1", "") for verb in ("get", "list", "watch", "create", "update", "patch")],
    ("get", "", "nodes", "", "n2", "node 'n1' cannot read 'n2', only its own Node object"),
    ("list", "", "nodes", "", "", "node 'n1' cannot read all nodes, only its own Node object"),
    *[(verb, "", "nodes/status", "", "n1", "") for verb in ("update", "patch")],
    ("delete", "", "nodes", "", "n1", "*"),
    ("get", "", "nodes/proxy", "", "n1", "*"),
    ("get", "", "pods", "a", "mine", ""),
    ("get", "", "pods", "a", "theirs", NO_TIE),
    ("list", "", "pods", "", "", "can only list/watch pods with spec.nodeName field selector"),
    ("create", "", "pods", "a", "", ""),
    ("delete", "", "pods", "a", "mine", ""),
    ("update", "", "pods", "a", "mine", "*"),
    ("patch", "", "pods/status", "a", "mine", ""),
    ("create", "", "pods/eviction", "a", "mine", ""),
    *[("create", "", f"pods/{part}", "a", "mine", "*") for part in ("exec", "binding", "attach", "portforward")],
    ("create", "", "events", "a", "", ""),
    ("list", "", "services", "", "", ""),
    ("list", "node.k8s.io", "runtimeclasses", "", "", ""),
    ("list", STORAGE, "csidrivers", "", "", ""),
    ("create", "certificates.k8s.io", "certificatesigningrequests", "", "", ""),
    ("update", "certificates.k8s.io", "certificatesigningrequests/approval", "", "x", "*"),
    ("create", "authentication.k8s.io", "tokenreviews", "", "", ""),
    ("create", "authorization.k8s.io", "subjectaccessreviews", "", "", ""),
    *[("get", "apps", resource, "a", "x", "*") for resource in ("deployments", "replicasets", "daemonsets")],
    ("get", "rbac.authorization.k8s.io", "roles", "a", "x", "*"),
]  # fmt: skip


def info(verb: str, group: str, resource: str, namespace: str, name: str, **more: Any) -> RequestInfo:
    kind, _, part = resource.partition("/")
    return RequestInfo(verb, "", True, group, "v1", kind, part, namespace, name, **more)


async def test_rules() -> None:
    async with cluster() as made:
        await made.put(OBJECTS)
        authorizer = Authorizer(made.cache)
        for *asked, why in ROWS:
            allowed, reason = authorizer.authorize(NODE, info(*asked))
            assert allowed == (not why), (asked, reason)
            assert why in ("", "*") or why in reason, (asked, reason)
            assert not authorizer.authorize(NO_GROUP, info(*asked))[0], asked
            allowed, reason = authorizer.authorize(NO_NAME, info(*asked))
            assert not allowed and 'unknown node for user "system:node:"' in reason, asked
        for selector, good in (("spec.nodeName=n1", True), ("spec.nodeName=n1,status.phase=Running", True),
                               ("spec.nodeName=n2", False), ("spec.nodeName!=n1", False), ("status.phase=Running", False),
                               ("spec.nodeName==n1", True), ("x=", False)):  # fmt: skip
            for verb in ("list", "watch"):
                found, _ = authorizer.authorize(NODE, info(verb, "", "pods", "", "", field_selector=selector))
                assert found == good, (verb, selector)
        authorizer.close()
