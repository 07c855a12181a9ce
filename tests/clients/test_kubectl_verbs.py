"""The rest of kubectl's verbs: every one of ``kubectl --help`` that no other file here has, and other versions of it."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.clients.conftest import IMAGE, Kubectl, tool
from tests.e2e.harness import Lab, wait_for
from tests.sampling import sample

CONF = """apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}, labels: {{set: one}}}}
data: {{x: "1"}}
"""


def key_and_request(name: str) -> tuple[bytes, bytes]:
    """A private key and a certificate request for a user, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return pem, request.public_bytes(serialization.Encoding.PEM)


# Words after create -> the object they make; UNIQUE stands for the namespace.
CREATED = (
    (["clusterrole", "UNIQUE-a", "--verb=get", "--resource=pods"], "clusterrole.rbac.authorization.k8s.io/UNIQUE-a"),
    (["clusterrole", "UNIQUE-b", "--aggregation-rule=a=b"], "clusterrole.rbac.authorization.k8s.io/UNIQUE-b"),
    (["clusterrole", "UNIQUE-c", "--verb=get", "--non-resource-url=/logs"], "clusterrole.rbac.authorization.k8s.io/UNIQUE-c"),
    (["clusterrolebinding", "UNIQUE", "--clusterrole=UNIQUE-a", "--user=u"],
     "clusterrolebinding.rbac.authorization.k8s.io/UNIQUE"),
    (["cronjob", "c", f"--image={IMAGE}", "--schedule=0 0 1 1 *", "--", "true"], "cronjob.batch/c"),
    (["job", "j", f"--image={IMAGE}", "--", "true"], "job.batch/j"),
    (["job", "j2", "--from=cronjob/c"], "job.batch/j2"),
    (["ingress", "i", "--rule=a.example.com/x*=svc:80,tls=t", "--class=nginx", "--default-backend=d:http"],
     "ingress.networking.k8s.io/i"),
    (["poddisruptionbudget", "p", "--selector=a=b", "--min-available=1"], "poddisruptionbudget.policy/p"),
    (["priorityclass", "UNIQUE", "--value=10"], "priorityclass.scheduling.k8s.io/UNIQUE"),
    (["quota", "q", "--hard=pods=5,configmaps=20"], "resourcequota/q"),
)  # fmt: skip


def test_create_the_rest(kubectl: Kubectl, tmp_path: Path) -> None:
    unique = kubectl.namespace
    try:
        for words, said in CREATED:
            made = kubectl("create", *[word.replace("UNIQUE", unique) for word in words])
            assert made == f"{said.replace('UNIQUE', unique)} created\n"
        kubectl("wait", "--for=condition=complete", "job/j", "job/j2", "--timeout=40s")
        used = kubectl.get("quota", "q")["status"]
        assert used["hard"] == {"pods": "5", "configmaps": "20"}
        assert "a.example.com" in kubectl("get", "ingress", "i")
        key, _ = key_and_request("x")
        (tmp_path / "file.txt").write_bytes(b"\xff\x00")
        kubectl("create", "cm", "files", f"--from-file={tmp_path / 'file.txt'}", "--from-literal=a=b")
        assert set(kubectl.get("cm", "files")["binaryData"]) == {"file.txt"}
        (tmp_path / "env").write_text("A=1\n# no\nB=2\n")
        kubectl("create", "secret", "generic", "s", f"--from-env-file={tmp_path / 'env'}", "--type=example.com/x")
        assert set(kubectl.get("secret", "s")["data"]) == {"A", "B"}
        (tmp_path / "key").write_bytes(key)
        (tmp_path / "crt").write_bytes(key)
        assert "failed" in kubectl.fails(
            "create", "secret", "tls", "t", f"--cert={tmp_path}/crt", f"--key={tmp_path}/key"
        )
    finally:
        for kind in ("clusterrole", "clusterrolebinding", "priorityclass"):
            names = [f"{unique}-a", f"{unique}-b", f"{unique}-c"] if kind == "clusterrole" else [unique]
            kubectl("delete", kind, *names, "--ignore-not-found")


def test_last_applied_and_prune(kubectl: Kubectl, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(CONF.format(name=name))
    folder, one = str(tmp_path), str(tmp_path / "one.yaml")
    assert kubectl("apply", "-f", folder) == "configmap/one created\nconfigmap/two created\n"
    assert '\n  x: "1"\n' in kubectl("apply", "view-last-applied", "cm/one")
    (tmp_path / "one.yaml").write_text(CONF.format(name="one").replace('"1"', '"2"'))
    assert kubectl("apply", "set-last-applied", "-f", one) == "configmap/one configured\n"
    assert '"x": "2"' in kubectl("apply", "view-last-applied", "cm/one", "-o", "json")
    assert kubectl.get("cm", "one")["data"] == {"x": "1"}, "only the annotation changes"
    edited = kubectl("apply", "edit-last-applied", "cm/one", editor='sed -i \'s/x: "2"/x: "3"/\'')
    assert edited == "configmap/one edited\n"
    assert '"x": "3"' in kubectl("apply", "view-last-applied", "cm/one", "-o", "json")
    (tmp_path / "two.yaml").unlink()
    pruned = kubectl("apply", "-f", folder, "-l", "set=one", "--prune", "--prune-allowlist=core/v1/ConfigMap")
    assert pruned == "configmap/one configured\nconfigmap/two pruned\n"
    # ApplySets: the newer way to prune, by labels and a parent object.
    lab = kubectl.lab
    (tmp_path / "three.yaml").write_text(CONF.format(name="three").replace("set: one", "set: two"))

    def apply_set() -> str:
        words = ("apply", "--prune", "--applyset=parent", "-f", folder, "--server-side", "--force-conflicts")
        return lab.run("env", "KUBECTL_APPLYSET=true", "kubectl", "-n", kubectl.namespace, *words).stdout

    assert "configmap/three serverside-applied" in apply_set()
    (tmp_path / "three.yaml").unlink()
    assert "configmap/three pruned" in apply_set()


def test_kustomize(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "conf.yaml").write_text(CONF.format(name="conf"))
    (tmp_path / "kustomization.yaml").write_text(
        "{namePrefix: my-, resources: [conf.yaml], configMapGenerator: [{name: made, literals: [a=b]}]}"
    )
    folder = str(tmp_path)
    assert "name: my-conf" in kubectl("kustomize", folder)
    assert re.fullmatch(r"configmap/my-conf created\nconfigmap/my-made-\w+ created\n", kubectl("apply", "-k", folder))
    assert kubectl("diff", "-k", folder) == ""
    assert len(kubectl("get", "-k", folder, "-o", "name").split()) == 2
    assert kubectl("delete", "-k", folder).count("deleted") == 2


def test_certificate(kubectl: Kubectl) -> None:
    name = kubectl.namespace
    for user, word, shown in ((f"{name}-a", "approve", "Approved"), (f"{name}-b", "deny", "Denied")):
        request = base64.b64encode(key_and_request(user)[1]).decode()
        kubectl("apply", "-f", "-", stdin=f"""
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {{name: {user}}}
spec: {{request: {request}, signerName: example.com/none, usages: [client auth], expirationSeconds: 3600}}
""")  # fmt: skip
        try:
            assert "Pending" in kubectl("get", "csr", user)
            said = {"approve": "approved", "deny": "denied"}[word]
            assert (
                kubectl("certificate", word, user) == f"certificatesigningrequest.certificates.k8s.io/{user} {said}\n"
            )
            assert re.search(
                rf"{user} +\d+s +example.com/none +kubernetes-admin +60m +{shown}", kubectl("get", "csr", user)
            )
            assert re.search(rf"^Status: +{shown}$", kubectl("describe", "csr", user), re.MULTILINE)
        finally:
            kubectl("delete", "csr", user)


def test_an_approved_certificate_is_issued_and_lets_in(kubectl: Kubectl, tmp_path: Path) -> None:
    user = kubectl.namespace
    key, request = key_and_request(user)
    (tmp_path / "key").write_bytes(key)
    kubectl("apply", "-f", "-", stdin=f"""
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {{name: {user}}}
spec: {{request: {base64.b64encode(request).decode()}, signerName: kubernetes.io/kube-apiserver-client, usages: [client auth]}}
""")  # fmt: skip
    try:
        kubectl("certificate", "approve", user)
        kubectl("wait", "csr", user, "--for=jsonpath={.status.certificate}", "--timeout=20s")
        assert re.search(r"Approved,Issued\n", kubectl("get", "csr", user))
        (tmp_path / "crt").write_bytes(base64.b64decode(kubectl.get("csr", user)["status"]["certificate"]))
    finally:
        kubectl("delete", "csr", user)
    cluster = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))["clusters"][0]["cluster"]
    (tmp_path / "ca").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    files = (f"--{option}={tmp_path}/{file}" for option, file in (
        ("certificate-authority", "ca"), ("client-certificate", "crt"), ("client-key", "key")))  # fmt: skip
    who = kubectl("--kubeconfig=/dev/null", "-s", cluster["server"], *files, "auth", "whoami", "-o", "json")
    assert json.loads(who)["status"]["userInfo"]["username"] == user


def test_reconcile_roles(kubectl: Kubectl) -> None:
    role = f"""
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: r, namespace: {kubectl.namespace}}}
rules: [{{apiGroups: [""], resources: [pods], verbs: [get]}}]
"""
    first = kubectl.run("auth", "reconcile", "-f", "-", stdin=role)
    assert first.stdout == "role.rbac.authorization.k8s.io/r reconciled\n"
    assert "\treconciliation required create\n" in first.stderr
    again = kubectl.run("auth", "reconcile", "-f", "-", stdin=role.replace("[get]", "[list]"))
    assert "reconciliation required update" in again.stderr
    verbs = [rule["verbs"] for rule in kubectl.get("role", "r")["rules"]]
    assert verbs == [["get"], ["list"]], "reconciling takes nothing away"


def test_outputs(kubectl: Kubectl) -> None:
    nodes = ["node-1", "node-2", "node-3"]
    text = "{{range .items}}{{.metadata.name}} {{end}}"
    assert kubectl("get", "nodes", "-o", f"go-template={text}").split() == nodes
    assert kubectl("get", "nodes", "-o", "custom-columns=N:.metadata.name").split() == ["N", *nodes]
    assert kubectl("get", "nodes", "-o", "jsonpath-as-json={.items[*].metadata.name}").split()[1:-1] == [
        '"node-1",', '"node-2",', '"node-3"',
    ]  # fmt: skip
    assert kubectl("get", "nodes", "-o", "name").split() == [f"node/{n}" for n in nodes]
    assert kubectl("get", "nodes", "--sort-by=.metadata.creationTimestamp", "--no-headers").count("Ready") == 3
    assert "kind: List" in kubectl("get", "cm,sa", "-o", "yaml", "--show-managed-fields")
    kubectl("create", "deployment", "d", f"--image={IMAGE}", "--replicas=0")
    scale = kubectl.get("deploy", "d", "--subresource=scale")
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert kubectl("patch", "deploy", "d", "--subresource=scale", "--type=merge", "-p", '{"spec":{"replicas":0}}') == (
        "scale.autoscaling/d patched (no change)\n"
    )
    status = '{"status":{"conditions":[{"type":"Mine","status":"True"}]}}'
    assert kubectl("patch", "deploy", "d", "--subresource=status", "-p", status) == "deployment.apps/d patched\n"
    edited = kubectl("edit", "deploy", "d", "--subresource=status", editor="sed -i 's/type: Mine/type: Ours/'")
    assert edited == "deployment.apps/d edited\n"
    assert kubectl("autoscale", "deploy", "d", "--max=3", "--min=1", "--cpu-percent=50") == (
        "horizontalpodautoscaler.autoscaling/d autoscaled\n"
    )
    assert "Deployment/d" in kubectl("get", "hpa")
    waiting = kubectl.popen("wait", "--for=create", "cm/late", "--timeout=30s")
    kubectl("create", "cm", "late")
    assert waiting.communicate(timeout=30)[0] == "configmap/late condition met\n"


def test_every_kind_is_shown_described_and_explained(lab: Lab) -> None:
    served = lab.kubectl("api-resources", "--verbs=list", "-o", "name").split()
    assert {"pods", "nodes", "customresourcedefinitions.apiextensions.k8s.io"} <= set(served)
    everything = ("-A", ",".join(served))
    assert "clusterrole.rbac.authorization.k8s.io/cluster-admin" in lab.kubectl("get", "-o", "wide", *everything)
    # kubectl 1.32 describes these two by their v1beta1, which Kubernetes 1.34 does not serve either.
    beta = ("ipaddresses.networking.k8s.io", "servicecidrs.networking.k8s.io")
    lab.kubectl("describe", "-A", ",".join(name for name in served if name not in beta))
    for name in sample(served, len(served) // 3, "explain"):
        plural, _, group = name.partition(".")
        if group != "metrics.k8s.io":  # an aggregated API that publishes no schema
            text = lab.kubectl("explain", plural, f"--api-version={group}/v1".replace("=/", "="), "--recursive")
            assert text.startswith(("GROUP:", "KIND:")), name
            below = r"^  metadata\t<ObjectMeta>.*\n(?s:.*)^    resourceVersion\t<string>$"
            assert re.search(below, text, re.MULTILINE), name


def test_cluster_dump_top_and_configuration(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl.pod("web")
    kubectl("cluster-info", "dump", f"--output-directory={tmp_path}", f"--namespaces={kubectl.namespace}")
    assert "started" in (tmp_path / kubectl.namespace / "web" / "logs.txt").read_text()
    wait_for(
        lambda: re.search(r"^node-1 +\d+m +\d+% +\d+Mi +\d+% *$", kubectl("top", "nodes"), re.MULTILINE), "metrics"
    )
    measured = re.compile(r"^web +web +\d+m +\d+Mi *$", re.MULTILINE)
    wait_for(
        lambda: measured.search(kubectl.run("top", "pods", "--containers", check=False).stdout), "metrics of the pod"
    )
    assert "namespace" not in kubectl("config", "view", "--minify")
    assert kubectl("config", "current-context") == "navarch-clients\n"
    assert "__start_kubectl" in kubectl("completion", "bash")
    completing = ("kubectl", "__complete", "-n", kubectl.namespace, "get", "pods", "w")
    assert kubectl.lab.run(*completing).stdout.splitlines()[0] == "web"
    assert "serverVersion:" in kubectl("version", "-o", "yaml")
    assert "unable to find any kubectl plugins" in kubectl.fails("plugin", "list")


@pytest.mark.parametrize("program", sample(["kubectl-oldest", "kubectl-newest"], 1, "versions"))
def test_other_versions(kubectl: Kubectl, program: str) -> None:
    """1.28, which knows no WebSocket, and 1.37, which lists by watching."""

    def run(*words: str, stdin: str = "") -> str:
        return kubectl.lab.run(tool(program), "-n", kubectl.namespace, *words, stdin=stdin, timeout=60).stdout

    conf = CONF.format(name="conf")
    assert run("apply", "-f", "-", stdin=conf) == "configmap/conf created\n"
    assert run("apply", "-f", "-", stdin=conf) == "configmap/conf unchanged\n"
    assert run("apply", "--server-side", "-f", "-", stdin=conf) == "configmap/conf serverside-applied\n"
    assert run("explain", "pod.spec.nodeName").startswith("KIND:       Pod\nVERSION:    v1\n\nFIELD: nodeName <string>")
    run("create", "deployment", "web", f"--image={IMAGE}", "--", "sh", "-c", "echo said; exec sleep 1000")
    assert "successfully rolled out" in run("rollout", "status", "deploy/web", "--timeout=40s")
    assert run("logs", "deploy/web") == "said\n"
    assert run("exec", "-i", "deploy/web", "--", "cat", stdin="hello\n") == "hello\n"
    assert run("scale", "deploy/web", "--replicas=2") == "deployment.apps/web scaled\n"
    run("rollout", "status", "deploy/web", "--timeout=40s")
    assert re.search(r"^web +2/2 +2 +2 +\d+s$", run("get", "deploy"), re.MULTILINE)
    assert "NewReplicaSet:   web-" in run("describe", "deploy", "web")
    assert run("set", "image", "deploy/web", "busybox=localhost/busybox:2") == "deployment.apps/web image updated\n"
    run("rollout", "status", "deploy/web", "--timeout=40s")
    assert run("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}") == "kubernetes-admin"
    run("wait", "--for=condition=Available", "deploy/web", "--timeout=40s")
    run("delete", "deploy,cm", "web", "conf", "--ignore-not-found", "--timeout=40s")
    assert run("get", "deploy", "-o", "name") == ""
