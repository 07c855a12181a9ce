"""NodeRestriction, and what ServiceAccount says of mirror pods and mountable secrets: one row a rule of upstream's 1.34."""

from __future__ import annotations

import asyncio
import base64
import copy
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from apiserver.request import LOOPBACK, User
from tests.fuzz.support import Fuzzed, fuzzed
from tests.within import Within

Tree = dict[str, Any]
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
NODE = User("system:node:n1", ("system:nodes", "system:authenticated"))
NAMELESS = User("system:node:", ("system:nodes", "system:authenticated"))
SPEC: Tree = {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}
PODS, NODES = "/api/v1/namespaces/default/pods", "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
CSI, CSRS = "/apis/storage.k8s.io/v1/csinodes", "/apis/certificates.k8s.io/v1/certificatesigningrequests"
DRIVERS = "/apis/storage.k8s.io/v1/csidrivers"
TOKEN = "/api/v1/namespaces/default/serviceaccounts/default/token"
UIDS: dict[str, str] = {}  # of what the cluster holds: filled in when it is made, %NAME in the rows


def volume(**source: Any) -> Tree:
    return {"volumes": [{"name": "v", **source}]}


def projected(**source: Any) -> Tree:
    return volume(projected={"sources": [source]})


def mirror(spec: Tree | None = None, owner: Tree | None = None, owners: list[Tree] | None = None) -> Tree:
    reference = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "%n1", "controller": True} | (owner or {})
    return {
        "metadata": {"name": "m", "annotations": {"kubernetes.io/config.mirror": "x"},
                     "ownerReferences": [reference] if owners is None else owners},
        "spec": SPEC | (spec or {}),
    }  # fmt: skip


def env(**source: Any) -> Tree:
    return {"containers": [{"name": "c", "image": "i", "env": [{"name": "E", "valueFrom": source}]}]}


def env_from(**source: Any) -> Tree:
    return {"containers": [{"name": "c", "image": "i", "envFrom": [source]}]}


KEY = {"name": "s", "key": "k"}
OWNER = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "%n1"}

MIRRORS: list[tuple[str, Tree, str]] = [
    ("a mirror pod", mirror(), ""),
    ("with what needs no API", mirror(volume(emptyDir={})), ""),
    ("downward API", mirror(projected(downwardAPI={"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.name"}}]})), ""),
    ("no mirror", {"metadata": {"name": "m"}, "spec": SPEC}, 'pod does not have "kubernetes.io/config.mirror" annotation'),
    ("of another node", mirror({"nodeName": "n2"}), "can only create pods with spec.nodeName set to itself"),
    ("of no node", mirror({"nodeName": None}), "can only create pods with spec.nodeName set to itself"),
    ("two owners", mirror(owners=[OWNER | {"controller": True}, OWNER]), "with a single owner reference set to itself"),
    ("no owner", mirror(owners=[]), "can only create pods with an owner reference set to itself"),
    ("owner of another kind", mirror(owner={"kind": "Pod"}), "with an owner reference set to itself"),
    ("owner of another version", mirror(owner={"apiVersion": "v2"}), "with an owner reference set to itself"),
    ("owner is another node", mirror(owner={"name": "n2"}), "with an owner reference set to itself"),
    ("no controller", mirror(owner={"controller": False}), "with a controller owner reference set to itself"),
    ("controller left out", mirror(owners=[OWNER]), "with a controller owner reference set to itself"),
    ("blocks deletion", mirror(owner={"blockOwnerDeletion": True}), "must not set blockOwnerDeletion"),
    ("uid", mirror(owner={"uid": "other"}), "node n1 UID mismatch: expected %n1 got other"),
    ("service account", mirror({"serviceAccountName": "default"}), "reference service accounts"),
    ("imagePullSecrets", mirror({"imagePullSecrets": [{"name": "s"}]}), "reference secrets"),
    ("secret in env", mirror(env(secretKeyRef=KEY)), "reference secrets"),
    ("secret in envFrom", mirror(env_from(secretRef={"name": "s"})), "reference secrets"),
    ("secret volume", mirror(volume(secret={"secretName": "s"})), "reference secrets"),
    ("projected secret", mirror(projected(secret={"name": "s"})), "reference secrets"),
    ("secret of a CSI volume", mirror(volume(csi={"driver": "d", "nodePublishSecretRef": {"name": "s"}})), "reference secrets"),
    ("config map in env", mirror(env(configMapKeyRef=KEY)), "that reference configmaps"),
    ("config map in envFrom", mirror(env_from(configMapRef={"name": "s"})), "that reference configmaps"),
    ("config map volume", mirror(volume(configMap={"name": "s"})), "that reference configmaps"),
    ("projected config map", mirror(projected(configMap={"name": "s"})), "that reference configmaps"),
    ("claim", mirror(volume(persistentVolumeClaim={"claimName": "c"})), "that reference persistentvolumeclaims"),
    ("ephemeral claim", mirror(volume(ephemeral={"volumeClaimTemplate": {"spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}})), "(via ephemeral volumes)"),
    ("resource claims", mirror({"resourceClaims": [{"name": "r", "resourceClaimName": "x"}]}), "that reference resourceclaims"),
    ("CSI driver", mirror(volume(csi={"driver": "d"})), "csidrivers (via CSI volumes)"),
    ("token", mirror(projected(serviceAccountToken={"path": "t"})), "ServiceAccountToken volume projections"),
    ("trust bundle", mirror(projected(clusterTrustBundle={"name": "b", "path": "p"})), "that reference clustertrustbundles"),
]  # fmt: skip


def status(**fields: Any) -> Tree:
    return {"status": fields}


def labels(**found: str) -> Tree:
    return {"metadata": {"labels": {k.replace("__", "/").replace("_", "."): v for k, v in found.items()}}}


def label(key: str) -> Tree:
    return {"metadata": {"labels": {key: "v"}}}


def token(**spec: Any) -> Tree:
    return {"spec": spec}


def bound(name: str = "mine", uid: str = "%mine", **more: Any) -> Tree:
    return {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid} | more}


def csr(name: str, signer: str = "kubernetes.io/kubelet-serving") -> Tree:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
                         x509.NameAttribute(NameOID.COMMON_NAME, name)])  # fmt: skip
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()
    usages = ["digital signature", "server auth" if "serving" in signer else "client auth"]
    return {"metadata": {"generateName": "r-"}, "spec": {"signerName": signer, "request": pem, "usages": usages}}


ACCOUNT_FORM = {"kind": "Node", "apiVersion": "v1", "name": "n1", "uid": "%n1"}
Row = tuple[str, str, str, Tree, int, str]

ROWS: list[Row] = [
    # what, method (or the patch), path, body, code, text
    ("delete its own pod", "DELETE", f"{PODS}/mine", {}, 200, ""),
    ("delete another's", "DELETE", f"{PODS}/theirs", {}, 403, "can only delete pods with spec.nodeName set to itself"),
    ("delete what is not there", "DELETE", f"{PODS}/none", {}, 404, "not found"),
    ("update a pod", MERGE, f"{PODS}/mine", labels(a="b"), 403, 'unexpected operation "UPDATE", node "n1" can only create'),
    ("status", MERGE, f"{PODS}/mine/status", status(phase="Running"), 200, ""),
    ("status of another's", MERGE, f"{PODS}/theirs/status", status(phase="Running"), 403,
     "can only update pod status for pods"),
    ("claims by status", MERGE, f"{PODS}/mine/status", status(resourceClaimStatuses=[{"name": "r", "resourceClaimName": "x"}]),
     403, "cannot update resource claim statues"),
    ("extended claims by status", MERGE, f"{PODS}/mine/status",
     status(extendedResourceClaimStatus={"resourceClaimName": "x", "requestMappings": []}), 403,
     "cannot update extended resource claim status"),
    ("evict its own", "POST", f"{PODS}/mine/eviction", {"metadata": {"name": "mine"}}, 201, ""),
    ("evict another's", "POST", f"{PODS}/theirs/eviction", {"metadata": {"name": "theirs"}}, 403, "can only evict pods with"),
    ("evict nobody", "POST", f"{PODS}/none/eviction", {"metadata": {"name": "none"}}, 404, "not found"),
    ("bind", "POST", f"{PODS}/free/binding", {"target": {"name": "n1"}}, 403, 'unexpected pod subresource "binding"'),
    ("ephemeral containers", MERGE, f"{PODS}/mine/ephemeralcontainers",
     {"spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}}, 403, 'unexpected pod subresource "ephemeralcontainers"'),
    ("resize", STRATEGIC, f"{PODS}/mine/resize", {"spec": {"containers": [{"name": "c"}]}}, 403,
     'unexpected pod subresource "resize"'),
    # nodes
    ("another node", MERGE, f"{NODES}/n2", labels(a="b"), 403, 'is not allowed to modify node "n2"'),
    ("another node's status", MERGE, f"{NODES}/n2/status", status(phase="Running"), 403, 'not allowed to modify node "n2"'),
    ("delete another node", "DELETE", f"{NODES}/n2", {}, 403, 'is not allowed to modify node "n2"'),
    ("make another node", "POST", NODES, {"metadata": {"name": "n3"}}, 403, 'is not allowed to modify node "n3"'),
    ("own status", MERGE, f"{NODES}/n1/status", status(capacity={"cpu": "1"}), 200, ""),
    ("taints", MERGE, f"{NODES}/n1", {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}, 403, "to modify taints"),
    ("owners", MERGE, f"{NODES}/n1", {"metadata": {"ownerReferences": [OWNER | {"name": "n2"}]}}, 403,
     "is not allowed to modify ownerReferences"),
    ("config source", MERGE, f"{NODES}/n1", {"spec": {"configSource": {"configMap": {
        "name": "c", "namespace": "a", "kubeletConfigKey": "k"}}}}, 403, "is not allowed to update configSource"),
    ("free label", MERGE, f"{NODES}/n1", label("example.com/a"), 200, ""),
    ("label without domain", MERGE, f"{NODES}/n1", label("a"), 200, ""),
    ("hostname", MERGE, f"{NODES}/n1", label("kubernetes.io/hostname"), 200, ""),
    ("zone", MERGE, f"{NODES}/n1", label("topology.kubernetes.io/zone"), 200, ""),
    ("kubelet's domain", MERGE, f"{NODES}/n1", label("kubelet.kubernetes.io/a"), 200, ""),
    ("below kubelet's domain", MERGE, f"{NODES}/n1", label("x.node.kubernetes.io/a"), 200, ""),
    ("restricted label", MERGE, f"{NODES}/n1", label("node-restriction.kubernetes.io/a"), 403, "modify labels"),
    ("below it", MERGE, f"{NODES}/n1", label("x.node-restriction.kubernetes.io/a"), 403, "is not allowed to modify labels"),
    ("role", MERGE, f"{NODES}/n1", label("node-role.kubernetes.io/x"), 403, "labels: node-role.kubernetes.io/x"),
    ("unknown label", MERGE, f"{NODES}/n1", label("kubernetes.io/foo"), 403, "is not allowed to modify labels"),
    ("k8s.io", MERGE, f"{NODES}/n1", label("x.k8s.io/foo"), 403, "is not allowed to modify labels: x.k8s.io/foo"),
    ("take a label away", MERGE, f"{NODES}/n1", {"metadata": {"labels": {"node-restriction.kubernetes.io/given": None}}}, 403,
     "is not allowed to modify labels: node-restriction.kubernetes.io/given"),
    # claims
    ("capacity of a claim", MERGE, f"{CLAIMS}/c/status", status(capacity={"storage": "2Gi"}), 200, ""),
    ("phase of a claim", MERGE, f"{CLAIMS}/c/status", status(phase="Lost"), 403, "fields other than status.quantity"),
    ("annotations of a claim", MERGE, f"{CLAIMS}/c/status", {"metadata": {"annotations": {"a": "b"}}}, 403,
     "fields other than status.quantity and status.conditions"),
    ("a claim itself", MERGE, f"{CLAIMS}/c", labels(a="b"), 403, "may only update PVC status"),
    ("delete a claim", "DELETE", f"{CLAIMS}/c", {}, 403, "may only update PVC status"),
    # tokens
    ("token of a pod", "POST", TOKEN, token(**bound()), 201, ""),
    ("token of the pod's audience", "POST", TOKEN, token(**bound(), audiences=["vault"]), 201, ""),
    ("token of its CSI driver's", "POST", TOKEN, token(**bound(), audiences=["driver"]), 201, ""),
    ("token of its volume's driver's", "POST", TOKEN, token(**bound(), audiences=["driver2"]), 201, ""),
    ("token bound to nothing", "POST", TOKEN, token(), 403, "node requested token not bound to a pod"),
    ("token bound to a node", "POST", TOKEN, token(boundObjectRef=ACCOUNT_FORM), 403, "not bound to a pod"),
    ("token without uid", "POST", TOKEN, token(**bound(uid="")), 403, "with a pod binding without a uid"),
    ("token of another uid", "POST", TOKEN, token(**bound(uid="x")), 403, "the UID in the bound object reference (x)"),
    ("token of no pod", "POST", TOKEN, token(**bound(name="none")), 404, "not found"),
    ("token of another node's pod", "POST", TOKEN, token(**bound("theirs", "%theirs")), 403, "scheduled on a different node"),
    ("two audiences", "POST", TOKEN, token(**bound(), audiences=["vault", "bank"]), 403, "may only request 0 or 1 audiences"),
    # leases, CSINodes
    ("its lease", "POST", LEASES.format("kube-node-lease"), {"metadata": {"name": "n1"}}, 201, ""),
    ("another's lease", "POST", LEASES.format("kube-node-lease"), {"metadata": {"name": "n2"}}, 403,
     "can only access node lease"),
    ("a lease elsewhere", "POST", LEASES.format("default"), {"metadata": {"name": "n1"}}, 403,
     'can only access leases in the "kube-node-lease" system namespace'),
    ("another's lease later", MERGE, LEASES.format("kube-node-lease") + "/n9", {"spec": {}}, 403, "can only access node lease"),
    ("its CSINode", "POST", CSI, {"metadata": {"name": "n1"}, "spec": {"drivers": []}}, 201, ""),
    ("another's CSINode", "POST", CSI, {"metadata": {"name": "n2"}, "spec": {"drivers": []}}, 403,
     "can only access CSINode with"),
    ("another's CSINode later", "DELETE", f"{CSI}/n9", {}, 403, "can only access CSINode with"),
    # certificates
    ("its certificate", "POST", CSRS, csr("system:node:n1"), 201, ""),
    ("its client certificate", "POST", CSRS, csr("system:node:n1", "kubernetes.io/kube-apiserver-client-kubelet"), 201, ""),
    ("another's certificate", "POST", CSRS, csr("system:node:n2"), 403, "can only create a node CSR with CN=system:node:n1"),
    ("another's client certificate", "POST", CSRS, csr("system:node:n2", "kubernetes.io/kube-apiserver-client-kubelet"), 403,
     "can only create a node CSR with CN=system:node:n1"),
    ("another signer's", "POST", CSRS, csr("anybody", "example.com/x"), 201, ""),
]  # fmt: skip


def filled(tree: Any) -> Any:
    """With the uids in place."""
    if isinstance(tree, dict):
        return {k: filled(v) for k, v in tree.items()}
    if isinstance(tree, list):
        return [filled(v) for v in tree]
    if isinstance(tree, str) and "%" in tree:
        for name, uid in UIDS.items():
            tree = tree.replace(f"%{name}", uid)
    return tree


async def prepare(ask: Fuzzed) -> None:
    """Two nodes, pods on both, and what the pods refer to. RBAC allows the node everything: what refuses is admission."""
    made = [
        ("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {
            "metadata": {"name": "all"}, "subjects": [{"kind": "User", "name": n} for n in (NODE.name, NAMELESS.name)],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}}),
        (NODES, {"metadata": {"name": "n1", "labels": {"node-restriction.kubernetes.io/given": "v"}}}),
        (NODES, {"metadata": {"name": "n2"}}),
        ("/api/v1/namespaces", {"metadata": {"name": "kube-node-lease"}}),
        (LEASES.format("kube-node-lease"), {"metadata": {"name": "n9"}, "spec": {}}),
        (CSI, {"metadata": {"name": "n9"}, "spec": {"drivers": []}}),
        (CLAIMS, {"metadata": {"name": "c"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "volumeName": "pv", "resources": {"requests": {"storage": "1Gi"}}}}),
        ("/api/v1/persistentvolumes", {"metadata": {"name": "pv"}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "csi": {"driver": "e", "volumeHandle": "h"}}}),
        (DRIVERS, {"metadata": {"name": "d"}, "spec": {"tokenRequests": [{"audience": "driver"}]}}),
        (DRIVERS, {"metadata": {"name": "e"}, "spec": {"tokenRequests": [{"audience": "driver2"}]}}),
        (PODS, {"metadata": {"name": "mine"}, "spec": SPEC | {"volumes": [
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "p", "audience": "vault"}}]}},
            {"name": "u", "csi": {"driver": "d"}}, {"name": "w", "persistentVolumeClaim": {"claimName": "c"}}]}}),
        (PODS, {"metadata": {"name": "theirs"}, "spec": SPEC | {"nodeName": "n2"}}),
        (PODS, {"metadata": {"name": "free"}, "spec": SPEC | {"nodeName": ""}}),
    ]  # fmt: skip
    for path, tree in made:
        answer = await ask("POST", path, tree)
        assert answer.code in (201, 409), answer.text
        if answer.code == 201:
            UIDS[answer.tree["metadata"]["name"]] = answer.tree["metadata"]["uid"]
    await ask.server.cache.current()


def run(body: Callable[[Fuzzed], Any]) -> None:
    async def main() -> None:
        async with fuzzed() as ask:
            UIDS.clear()
            await prepare(ask)
            await body(ask)

    asyncio.run(main())


@pytest.fixture
def ask() -> Within:
    return Within(run)


async def test_mirror_pods(ask: Fuzzed) -> None:
    for what, pod, text in MIRRORS:
        answer = await ask("POST", PODS, filled(copy.deepcopy(pod)), user=NODE)
        assert answer.code == (403 if text else 201), (what, answer.text)
        assert filled(text) in (answer.tree.get("message") or ""), (what, answer.text)
        await ask("DELETE", f"{PODS}/m", {"gracePeriodSeconds": 0})
        assert (await ask("GET", f"{PODS}/m")).code == 404, what


@pytest.mark.parametrize("first", range(4))
async def test_rules(ask: Fuzzed, first: int) -> None:
    """The rows in four parts, each in another order of servers: no row needs another one."""

    for what, method, path, body, code, text in ROWS[first::4]:
        kind, way = (method, "PATCH") if method in (MERGE, STRATEGIC) else ("application/json", method)
        data = filled(copy.deepcopy(body)) or b""
        answer = await ask(way, path, data, content_type=kind, user=NODE)
        assert answer.code == code and text in (answer.tree.get("message") or ""), (what, answer.text)
        if method == "DELETE" or path.endswith("eviction"):
            await ask("DELETE", f"{PODS}/mine", {"gracePeriodSeconds": 0})
            await prepare(ask)
        others = await ask(
            way, path, b"" if method == "DELETE" else data,
            content_type=kind, query="dryRun=All", user=LOOPBACK,
        )  # fmt: skip
        assert others.code != 403, (what, others.text)  # nobody but a node is restricted


async def test_a_node_without_a_name_may_write_nothing(ask: Fuzzed) -> None:
    answer = await ask("PATCH", f"{NODES}/n1", label("a"), content_type=MERGE, user=NAMELESS)
    assert answer.code == 403 and 'could not determine node from user "system:node:"' in answer.tree["message"]


async def test_rbac_may_allow_an_audience(ask: Fuzzed) -> None:
    at = "/apis/rbac.authorization.k8s.io/v1"
    await ask("DELETE", f"{at}/clusterrolebindings/all")
    rule = {"apiGroups": [""], "resources": ["bank"], "verbs": ["request-serviceaccounts-token-audience"],
            "resourceNames": ["default"]}  # fmt: skip
    await ask("POST", f"{at}/clusterroles", {"metadata": {"name": "bank"}, "rules": [rule]})
    body = filled(token(**bound(), audiences=["bank"]))
    await ask.server.cache.current()
    refused = await ask("POST", TOKEN, body, user=NODE)
    assert refused.code == 403 and 'audience "bank" not found in pod spec volume' in refused.tree["message"]
    await ask("POST", f"{at}/clusterrolebindings", {
        "metadata": {"name": "bank"}, "subjects": [{"kind": "User", "name": NODE.name}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bank"}})  # fmt: skip
    await ask.server.cache.current()
    assert (await ask("POST", TOKEN, body, user=NODE)).code == 201


async def test_a_node_registers_itself(ask: Fuzzed) -> None:
    own = User("system:node:n5", NODE.groups)
    for key in ("node-restriction.kubernetes.io/a", "node-role.kubernetes.io/control-plane"):
        tree = {"metadata": {"name": "n5", "labels": {key: ""}}}
        answer = await ask("POST", NODES, tree, user=own)
        assert answer.code == 403 and f"is not allowed to set the following labels: {key}" in answer.tree["message"]
    source = {"metadata": {"name": "n5"}, "spec": {"configSource": {"configMap": {"name": "c", "namespace": "a"}}}}
    assert "non-nil configSource" in (await ask("POST", NODES, source, user=own)).tree["message"]
    tainted = {"metadata": {"name": "n5", "labels": {"kubernetes.io/os": "linux"}},
               "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}  # fmt: skip
    assert (await ask("POST", NODES, tainted, user=own)).code == 201


# ServiceAccount

STRICT: Tree = {"metadata": {"name": "strict", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
                "secrets": [{"name": "ok"}], "imagePullSecrets": [{"name": "pull"}]}  # fmt: skip
MOUNTS: list[tuple[str, Tree, str]] = [
    ("nothing", {}, ""),
    ("a secret that is listed", volume(secret={"secretName": "ok"}), ""),
    ("another", volume(secret={"secretName": "s"}), 'volume with secret.secretName="s" is not allowed because service account'),
    ("env", env(secretKeyRef=KEY), 'container c with envVar E referencing secret.secretName="s" is not allowed'),
    ("envFrom", env_from(secretRef={"name": "s"}), 'container c with envFrom referencing secret.secretName="s"'),
    ("init", {"initContainers": [{"name": "i", "image": "i", "env": [{"name": "E", "valueFrom": {"secretKeyRef": KEY}}]}]},
     'init container i with envVar E referencing secret.secretName="s"'),
    ("pull", {"imagePullSecrets": [{"name": "pull"}]}, ""),
    ("pull another", {"imagePullSecrets": [{"name": "pull"}, {"name": "s"}]}, 'imagePullSecrets[1].name="s" is not allowed'),
]  # fmt: skip


async def test_mountable_secrets(ask: Fuzzed) -> None:
    await ask("POST", "/api/v1/namespaces/default/serviceaccounts", STRICT)
    for what, spec, text in MOUNTS:
        tree = {"metadata": {"name": "q"}, "spec": SPEC | {"serviceAccountName": "strict"} | spec}
        answer = await ask("POST", PODS, tree)
        assert answer.code == (403 if text else 201) and text in (answer.tree.get("message") or ""), (
            what,
            answer.text,
        )
        tree["spec"]["serviceAccountName"] = "default"
        await ask("DELETE", f"{PODS}/q", {"gracePeriodSeconds": 0})
        assert (await ask("POST", PODS, tree)).code == 201, what
        await ask("DELETE", f"{PODS}/q", {"gracePeriodSeconds": 0})
    await ask("POST", PODS, {"metadata": {"name": "q"}, "spec": SPEC | {"serviceAccountName": "strict"}})
    debug = {"name": "e", "image": "i", "envFrom": [{"secretRef": {"name": "s"}}]}
    answer = await ask(
        "PATCH", f"{PODS}/q/ephemeralcontainers", {"spec": {"ephemeralContainers": [debug]}}, content_type=MERGE
    )
    assert answer.code == 403 and "ephemeral container e with envFrom" in answer.tree["message"]


async def test_a_webhook_does_not_smuggle_an_account_or_a_secret(ask: Fuzzed) -> None:
    smuggled = [{"op": "add", "path": "/spec/volumes", "value": [{"name": "v", "secret": {"secretName": "s"}}]}]
    await ask.mutate_with(lambda request: smuggled if request["kind"]["kind"] == "Pod" else [])
    answer = await ask("POST", PODS, filled(mirror()), user=NODE)
    assert answer.code == 403 and "reference secrets" in answer.tree["message"]
    smuggled[0] = {"op": "add", "path": "/spec/serviceAccountName", "value": "none"}
    answer = await ask("POST", PODS, {"metadata": {"name": "q"}, "spec": SPEC})
    assert answer.code == 403 and 'serviceaccount "none" not found' in answer.tree["message"]
