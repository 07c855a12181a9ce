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


@pytest.mark.parametrize("program", ["helm3", "helm4"])
def test_release(kubectl: Kubectl, program: str, tmp_path: Path) -> None:
    group = f"{program}.example.com"
    for name, text in CHART.items():
        path = tmp_path / "web" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("GROUP", group))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        folders = {f"HELM_{kind}_HOME": str(tmp_path / kind) for kind in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run(
            [tool(program), "-n", kubectl.namespace, *words],
            env=kubectl.lab.environment | folders,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def helm(*words: str) -> str:
        done = run(*words)
        assert done.returncode == 0, done
        return done.stdout

    def revisions() -> list[tuple[int, str]]:
        return [(r["revision"], r["status"]) for r in json.loads(helm("history", "web", "-o", "json"))]

    def environment() -> list[str]:
        path = "jsonpath={.spec.template.spec.containers[0].env[*].name}"
        return kubectl("get", "deploy", "web", "-o", path).split()

    chart = str(tmp_path / "web")
    try:
        assert "STATUS: deployed" in helm("install", "web", chart, "--wait", "--timeout=50s")
        assert kubectl.get("deploy", "web")["status"]["readyReplicas"] == 1
        assert kubectl.get("gadget", "web")["spec"] == {"size": 1}
        assert kubectl.get("jobs")["items"] == [], "the hook ran and went"
        assert "still in use" in run("install", "web", chart).stderr

        # What others change in the cluster and the chart does not, stays; what the chart changes and drops, follows it.
        kubectl("label", "deploy", "web", "by=hand")
        changed = ("--set", "replicas=2,greeting=bye,grow=false")
        assert "size: 2" in helm("upgrade", "web", chart, *changed, "--dry-run=server")
        assert revisions() == [(1, "deployed")]
        assert environment() == ["FIXED", "GREETING"]
        helm("upgrade", "web", chart, *changed, "--wait", "--timeout=50s")
        deployment = kubectl.get("deploy", "web")
        assert (deployment["status"]["readyReplicas"], deployment["metadata"]["labels"]["by"]) == (2, "hand")
        assert environment() == ["FIXED"]
        assert "not found" in kubectl.fails("get", "secret", "web-more")
        assert "tested" in helm("test", "web", "--logs")

        helm("rollback", "web", "1", "--wait", "--timeout=50s")
        assert revisions() == [(1, "superseded"), (2, "superseded"), (3, "deployed")]
        assert environment() == ["FIXED", "GREETING"]
        assert kubectl("get", "cm", "web", "-o", "jsonpath={.data.greeting}") == "hello"

        # A release that fails is recorded as failed, and says what the server said.
        bad = run("upgrade", "web", chart, "--set", "replicas=-1")
        assert bad.returncode == 1 and "spec.replicas: Invalid value: -1" in bad.stderr, bad
        assert revisions()[-1] == (4, "failed")

        stored = kubectl.get("secret", "sh.helm.release.v1.web.v3")
        assert stored["type"] == "helm.sh/release.v1"
        release = base64.b64decode(base64.b64decode(stored["data"]["release"]))
        assert json.loads(gzip.decompress(release))["info"]["status"] == "deployed"
        assert [r["name"] for r in json.loads(helm("list", "-o", "json"))] == ["web"]
        helm("uninstall", "web", "--wait", "--timeout=50s")
        assert run("status", "web").returncode == 1
        left = "deploy,svc,gadget,jobs,secrets"
        wait_for(lambda: not kubectl.get(left, "-l", "!kept")["items"], "all of it is gone")
    finally:
        kubectl("delete", "crd", f"gadgets.{group}", "--ignore-not-found")
