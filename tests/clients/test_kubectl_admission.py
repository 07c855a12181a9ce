"""What admission says to people at kubectl: Pod Security, policies in CEL, RuntimeClasses, storage in use."""

from __future__ import annotations

from tests.clients.conftest import FOREVER, IMAGE, Kubectl
from tests.e2e.harness import wait_for

LABEL = "pod-security.kubernetes.io"
POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: replicas.example.com}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}
  validations:
  - expression: object.spec.replicas <= 2
    messageExpression: "'at most 2 replicas, not ' + string(object.spec.replicas)"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: replicas.example.com}
spec:
  policyName: replicas.example.com
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NAMESPACE}}}
"""


def test_pod_security(kubectl: Kubectl) -> None:
    space = kubectl.namespace
    privileged = (
        '--overrides={"spec":{"containers":[{"name":"NAME","image":"IMAGE","securityContext":{"privileged":true}}]}}'
    ).replace("IMAGE", IMAGE)
    kubectl("run", "p", f"--image={IMAGE}", privileged.replace("NAME", "p"))
    told = kubectl.run("label", "--dry-run=server", "--overwrite", "ns", space, f"{LABEL}/enforce=baseline").stderr
    assert told.splitlines() == [
        f'Warning: existing pods in namespace "{space}" violate the new PodSecurity enforce level "baseline:latest"',
        "Warning: p: privileged",
    ]
    kubectl(
        "label", "ns", space, f"{LABEL}/enforce=baseline", f"{LABEL}/warn=restricted", f"{LABEL}/warn-version=v1.30"
    )
    assert kubectl.fails("run", "q", f"--image={IMAGE}", privileged.replace("NAME", "q")) == (
        'Error from server (Forbidden): pods "q" is forbidden: violates PodSecurity "baseline:latest": '
        'privileged (container "q" must not set securityContext.privileged=true)'
    )
    done = kubectl.run("create", "deployment", "d", f"--image={IMAGE}", "--replicas=0")
    assert done.stderr.startswith(
        'Warning: would violate PodSecurity "restricted:v1.30": allowPrivilegeEscalation != false'
    )


def test_policies(kubectl: Kubectl) -> None:
    policy = POLICY.replace("NAMESPACE", kubectl.namespace)
    try:
        kubectl("apply", "-f", "-", stdin=policy)

        def refused() -> bool:
            words = ("create", "deployment", "d", f"--image={IMAGE}", "--replicas=3", "--dry-run=server")
            return kubectl.run(*words, check=False).returncode != 0

        wait_for(refused, "the policy to be in force")
        assert kubectl.fails("create", "deployment", "d", f"--image={IMAGE}", "--replicas=3") == (
            'error: failed to create deployment: deployments.apps "d" is forbidden: ValidatingAdmissionPolicy '
            "'replicas.example.com' with binding 'replicas.example.com' denied request: at most 2 replicas, not 3"
        )
        kubectl("create", "deployment", "d", f"--image={IMAGE}", "--replicas=1")
        wait_for(
            lambda: "typeChecking" in kubectl.get("validatingadmissionpolicy", "replicas.example.com")["status"],
            "status",
        )
        assert "replicas.example.com   1             <unset>" in kubectl("get", "validatingadmissionpolicies")
    finally:
        kubectl("delete", "-f", "-", stdin=policy)


def test_runtime_classes(kubectl: Kubectl) -> None:
    made = """
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: %s}
handler: %s
overhead: {podFixed: {cpu: 50m, memory: 16Mi}}
"""
    try:
        kubectl("apply", "-f", "-", stdin=made % ("ours", "crun") + "---" + made % ("kata", "kata"))
        kubectl.pod("runs", FOREVER, '--overrides={"spec":{"runtimeClassName":"ours"}}')
        assert kubectl.get("pod", "runs")["spec"]["overhead"] == {"cpu": "50m", "memory": "16Mi"}
        kubectl("run", "waits", f"--image={IMAGE}", '--overrides={"spec":{"runtimeClassName":"kata"}}')
        text = 'failed to get sandbox runtime: no runtime for "kata" is configured'
        wait_for(lambda: text in kubectl("events", "--for", "pod/waits"), "the event")
        refused = kubectl.fails("run", "x", f"--image={IMAGE}", '--overrides={"spec":{"runtimeClassName":"none"}}')
        assert refused.endswith('pods "x" is forbidden: pod rejected: RuntimeClass "none" not found')
    finally:
        kubectl("delete", "runtimeclass", "ours", "kata", "--ignore-not-found")


def test_claims_in_use_stay(kubectl: Kubectl) -> None:
    claim = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c}
spec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Gi}}}
"""
    kubectl("apply", "-f", "-", stdin=claim)
    assert kubectl.get("pvc", "c")["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    kubectl("delete", "pvc", "c", "--timeout=20s")
