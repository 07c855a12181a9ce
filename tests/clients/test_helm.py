"""Helm 3 (three-way patches made in the client) and Helm 4 (server-side apply) with a chart of every sort of thing: a
definition, its object, workloads, a hook, a test."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import IMAGE, Kubectl, tool
from tests.e2e.harness import wait_for
from tests.sampling import sample

CHART = {
    "Chart.yaml": "{apiVersion: v2, name: web, version: 0.1.0}",
    "values.yaml": f"{{replicas: 1, image: '{IMAGE}', greeting: hello, grow: true}}",
    "crds/gadgets.yaml": """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.GROUP}
spec:
  group: GROUP
  scope: Namespaced
  names: {plural: gadgets, singular: gadget, kind: Gadget}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}}
""",
    "templates/all.yaml": """
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}}
data: {greeting: {{ .Values.greeting | quote }}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: {{ .Values.image }}
        command: [sh, -c, "exec sleep 1000"]
        ports: [{containerPort: 8080, name: http}]
        env: [{name: FIXED, value: "1"}{{ if .Values.grow }}, {name: GREETING, value: {{ .Values.greeting | quote }}}{{ end }}]
---
apiVersion: v1
kind: Service
metadata: {name: {{ .Release.Name }}}
spec: {selector: {app: {{ .Release.Name }}}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: GROUP/v1
kind: Gadget
metadata: {name: {{ .Release.Name }}}
spec: {size: {{ .Values.replicas }}}
{{ if .Values.grow }}
---
apiVersion: v1
kind: Secret
metadata: {name: {{ .Release.Name }}-more}
stringData: {key: value}
{{ end }}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-before
  annotations: {helm.sh/hook: "pre-install,pre-upgrade", helm.sh/hook-delete-policy: "before-hook-creation,hook-succeeded"}
spec:
  template:
    spec: {restartPolicy: Never, containers: [{name: c, image: {{ .Values.image }}, command: ["true"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: {{ .Release.Name }}-test, annotations: {helm.sh/hook: test}}
spec: {restartPolicy: Never, containers: [{name: c, image: {{ .Values.image }}, command: [echo, tested]}]}
""",
}


class Helm:
    """A program of Helm's in kubectl's namespace, with the chart and with folders of its own. It must succeed if called."""

    def __init__(self, kubectl: Kubectl, program: str, folder: Path) -> None:
        self.kubectl, self.program, self.folder = kubectl, program, folder
        self.group = f"{program}.example.com"
        self.chart = str(folder / "web")
        for name, text in CHART.items():
            path = folder / "web" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("GROUP", self.group))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        folders = {f"HELM_{kind}_HOME": str(self.folder / kind) for kind in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run(
            [tool(self.program), "-n", self.kubectl.namespace, *words],
            env=self.kubectl.lab.environment | folders,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def __call__(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done
        return done.stdout

    def revisions(self) -> list[tuple[int, str]]:
        return [(r["revision"], r["status"]) for r in json.loads(self("history", "web", "-o", "json"))]

    def variables(self) -> list[str]:
        """Names of the deployment's environment variables."""
        path = "jsonpath={.spec.template.spec.containers[0].env[*].name}"
        return self.kubectl("get", "deploy", "web", "-o", path).split()


def installs(helm: Helm, kubectl: Kubectl) -> None:
    assert "STATUS: deployed" in helm("install", "web", helm.chart, "--wait", "--timeout=50s")
    assert kubectl.get("deploy", "web")["status"]["readyReplicas"] == 1
    assert kubectl.get("gadget", "web")["spec"] == {"size": 1}
    assert kubectl.get("jobs")["items"] == [], "the hook ran and went"
    assert "still in use" in helm.run("install", "web", helm.chart).stderr


def upgrades(helm: Helm, kubectl: Kubectl) -> None:
    """What others change in the cluster and the chart does not, stays; what the chart changes and drops, follows it."""
    kubectl("label", "deploy", "web", "by=hand")
    changed = ("--set", "replicas=2,greeting=bye,grow=false")
    assert "size: 2" in helm("upgrade", "web", helm.chart, *changed, "--dry-run=server")
    assert helm.revisions() == [(1, "deployed")]
    assert helm.variables() == ["FIXED", "GREETING"]
    helm("upgrade", "web", helm.chart, *changed, "--wait", "--timeout=50s")
    deployment = kubectl.get("deploy", "web")
    assert (deployment["status"]["readyReplicas"], deployment["metadata"]["labels"]["by"]) == (2, "hand")
    assert helm.variables() == ["FIXED"]
    assert "not found" in kubectl.fails("get", "secret", "web-more")
    assert "tested" in helm("test", "web", "--logs")


def rolls_back(helm: Helm, kubectl: Kubectl) -> None:
    helm("rollback", "web", "1", "--wait", "--timeout=50s")
    assert helm.revisions() == [(1, "superseded"), (2, "superseded"), (3, "deployed")]
    assert helm.variables() == ["FIXED", "GREETING"]
    assert kubectl("get", "cm", "web", "-o", "jsonpath={.data.greeting}") == "hello"


def records_a_failure(helm: Helm) -> None:
    """A release that fails is recorded as failed, and says what the server said."""
    bad = helm.run("upgrade", "web", helm.chart, "--set", "replicas=-1")
    assert bad.returncode == 1 and "spec.replicas: Invalid value: -1" in bad.stderr, bad
    assert helm.revisions()[-1] == (4, "failed")


def is_stored_and_goes(helm: Helm, kubectl: Kubectl) -> None:
    stored = kubectl.get("secret", "sh.helm.release.v1.web.v3")
    assert stored["type"] == "helm.sh/release.v1"
    release = base64.b64decode(base64.b64decode(stored["data"]["release"]))
    assert json.loads(gzip.decompress(release))["info"]["status"] == "deployed"
    assert [r["name"] for r in json.loads(helm("list", "-o", "json"))] == ["web"]
    helm("uninstall", "web", "--wait", "--timeout=50s")
    assert helm.run("status", "web").returncode == 1
    left = "deploy,svc,gadget,jobs,secrets"
    wait_for(lambda: not kubectl.get(left, "-l", "!kept")["items"], "all of it is gone")


@pytest.mark.parametrize("program", sample(["helm3", "helm4"], 1, "helm"))
def test_release(kubectl: Kubectl, program: str, tmp_path: Path) -> None:
    helm = Helm(kubectl, program, tmp_path)
    try:
        installs(helm, kubectl)
        upgrades(helm, kubectl)
        rolls_back(helm, kubectl)
        records_a_failure(helm)
        is_stored_and_goes(helm, kubectl)
    finally:
        kubectl("delete", "crd", f"gadgets.{helm.group}", "--ignore-not-found")
