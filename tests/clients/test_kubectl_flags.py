"""kubectl's common flags: those that change what is asked of the server and that no other file here gives."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from pathlib import Path

from tests.clients.conftest import FOREVER, IMAGE, Kubectl
from tests.e2e.harness import wait_for

WEB = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, labels: {{app: web}}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: {IMAGE}
        command: [sh, -c, "mkdir -p /tmp/www; hostname >/tmp/www/index.html; echo up; exec httpd -f -p 8080 -h /tmp/www"]
        ports: [{{name: http, containerPort: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80, targetPort: http}}]}}
"""
# Verbs of verbs. Those of config write a file at home and ask no server.
NESTED = ("apply", "auth", "certificate", "cluster-info", "create", "plugin", "rollout", "set", "top")


def commands(*words: str) -> list[str]:
    """The commands, or the subcommands of one, that kubectl's help lists."""
    found, listing = [], False
    done = subprocess.run(["kubectl", *words, "--help"], capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        if line and not line.startswith(" "):
            listing = bool(re.search(r"Commands.*:$", line))
        elif listing and (match := re.match(r"  ([a-z][a-z-]*) +\S", line)):
            found.append(match[1])
    return found


def test_every_verb_is_run() -> None:
    said: set[str] = set()
    for file in Path(__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            words = (
                node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.List | ast.Tuple) else ()
            )
            said.update(w.value for w in words[:2] if isinstance(w, ast.Constant) and isinstance(w.value, str))
    verbs = commands()
    assert len(verbs) > 35
    assert [v for v in verbs if v not in said] == []
    short = {"configmap": "cm", "node": "nodes", "pod": "pods", "deny": "Denied"}
    assert [f"{v} {w}" for v in NESTED for w in commands(v) if w not in said and short.get(w) not in said] == []


def test_get_and_explain(kubectl: Kubectl, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        kubectl("create", "cm", name)
    kubectl("expose", "-f", "-", "--port=80", "--selector=a=b", "--name=svc", stdin=WEB.split("---")[0])
    assert kubectl("get", "cm", "--chunk-size=1", "-o", "name").split() == [
        "configmap/a", "configmap/b", "configmap/c", "configmap/kube-root-ca.crt",
    ]  # fmt: skip
    assert re.match(r"NAME +DATA +AGE\nconfigmap/a +0", kubectl("get", "cm", "a", "--show-kind"))
    assert kubectl("get", "svc", "--field-selector", "spec.type=ClusterIP,metadata.name!=x", "-o", "name") == (
        "service/svc\n"
    )
    assert "field label not supported: spec.x" in kubectl.fails("get", "svc", "--field-selector", "spec.x=1")
    assert kubectl("get", "cm", "nope", "--ignore-not-found") == ""
    (tmp_path / "template").write_text("{range .items[*]}{.metadata.name},{end}")
    assert kubectl("get", "cm", "-o", f"jsonpath-file={tmp_path}/template") == "a,b,c,kube-root-ca.crt,"
    (tmp_path / "columns").write_text("NAME\nmetadata.name\n")
    assert kubectl("get", "cm", "a", "-o", f"custom-columns-file={tmp_path}/columns").split() == ["NAME", "a"]
    text = "{{range .items}}{{.metadata.name}}{{end}}"
    (tmp_path / "go").write_text(text)
    assert kubectl("get", "cm", "-o", f"go-template-file={tmp_path}/go") == "abckube-root-ca.crt"
    assert kubectl("get", "cm", "-o", "template", f"--template={text}") == "abckube-root-ca.crt"
    old = kubectl("explain", "pods.spec.containers.resources", "--output=plaintext-openapiv2")
    assert old.startswith("KIND:     Pod\nVERSION:  v1\n\nRESOURCE: resources <Object>\n")
    path = f"/api/v1/namespaces/{kubectl.namespace}/configmaps"
    body = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"raw"}'
    assert '"name":"raw"' in kubectl("create", "--raw", path, "-f", "-", stdin=body + "}")
    assert '"a":"b"' in kubectl("replace", "--raw", f"{path}/raw", "-f", "-", stdin=body + ',"data":{"a":"b"}}')
    assert '"status":"Success"' in kubectl("delete", "--raw", f"{path}/raw")
    assert kubectl("api-resources", "--api-group=apps", "--verbs=list,get", "--namespaced", "-o", "name").split() == [
        "controllerrevisions.apps", "daemonsets.apps", "deployments.apps", "replicasets.apps", "statefulsets.apps",
    ]  # fmt: skip
    assert "apiservices" in kubectl("api-resources", "--categories=api-extensions", "--sort-by=name", "--no-headers")


# Words, with --dry-run=server -> the line they print.
DRY_RUNS = (
    (["set", "image", "deploy/web", f"web={IMAGE}x"], "deployment.apps/web image updated (server dry run)"),
    (["scale", "deploy/web", "--replicas=9"], "deployment.apps/web scaled (server dry run)"),
    (["label", "cm", "odd", "a=b"], "configmap/odd labeled (server dry run)"),
    (["annotate", "cm", "odd", "a=b"], "configmap/odd annotated (server dry run)"),
    (["patch", "cm", "odd", "-p", '{"data":{"a":"b"}}'], "configmap/odd patched"),
    (["delete", "cm", "odd"], 'configmap "odd" deleted (server dry run)'),
    (["expose", "deploy", "web", "--name=x", "--port=1"], "service/x exposed (server dry run)"),
    (["autoscale", "deploy", "web", "--max=3"], "horizontalpodautoscaler.autoscaling/web autoscaled (server dry run)"),
    (["run", "x", f"--image={IMAGE}"], "pod/x created (server dry run)"),
    (["create", "sa", "x"], "serviceaccount/x created (server dry run)"),
    (["cordon", "node-1"], "node/node-1 cordoned (server dry run)"),
    (["taint", "node", "node-1", "a=b:NoSchedule"], "node/node-1 tainted"),
)  # fmt: skip


def test_dry_runs_and_validation(kubectl: Kubectl) -> None:
    assert kubectl("apply", "-f", "-", "--dry-run=client", stdin=WEB) == (
        "deployment.apps/web created (dry run)\nservice/web created (dry run)\n"
    )
    assert kubectl("create", "-f", "-", "--dry-run=server", stdin=WEB) == (
        "deployment.apps/web created (server dry run)\nservice/web created (server dry run)\n"
    )
    assert kubectl.get("deploy")["items"] == []
    kubectl("create", "-f", "-", "--save-config", stdin=WEB)
    assert kubectl("apply", "-f", "-", stdin=WEB) == "deployment.apps/web unchanged\nservice/web unchanged\n"
    more = WEB.replace("replicas: 2", "replicas: 3")
    done = kubectl.run("diff", "--server-side", "--force-conflicts", "-f", "-", stdin=more, check=False)
    assert done.returncode == 1 and "+  replicas: 3\n" in done.stdout
    assert 'conflict with "kubectl-create"' in kubectl.fails(
        "apply", "--server-side", "--field-manager=me", "-f", "-", stdin=more
    )
    forced = kubectl("apply", "--server-side", "--field-manager=me", "--force-conflicts", "-f", "-", stdin=more)
    assert forced == "deployment.apps/web serverside-applied\nservice/web serverside-applied\n"
    odd = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"odd"},"dat":{}}'
    assert 'strict decoding error: unknown field "dat"' in kubectl.fails(
        "apply", "--validate=strict", "-f", "-", stdin=odd
    )
    assert kubectl.run("apply", "--validate=warn", "-f", "-", stdin=odd).stderr == 'Warning: unknown field "dat"\n'
    assert kubectl.run("apply", "--validate=ignore", "-f", "-", stdin=odd).stderr == ""
    for words, said in DRY_RUNS:
        assert kubectl(*words, "--dry-run=server") == f"{said}\n"
    assert kubectl.get("deploy", "web")["spec"]["replicas"] == 3
    assert "data" not in kubectl.get("cm", "odd")


def test_selected_and_all(kubectl: Kubectl, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        kubectl("create", "cm", name)
    assert kubectl("label", "cm", "--field-selector", "metadata.name=a", "x=1") == "configmap/a labeled\n"
    assert kubectl("label", "cm", "--all", "y=1").count("labeled") == 4
    assert sorted(kubectl("label", "cm", "a", "--list").split()) == ["x=1", "y=1"]
    assert kubectl("annotate", "cm", "-l", "x", "note=n") == "configmap/a annotated\n"
    stale = kubectl.fails("label", "cm", "a", "x=2", "--overwrite", "--resource-version=1")
    assert "the object has been modified" in stale
    (tmp_path / "patch").write_text('{"data":{"k":"v"}}')
    assert kubectl("patch", "cm", "a", f"--patch-file={tmp_path}/patch") == "configmap/a patched\n"
    assert "k: v" in kubectl("patch", "cm", "a", "--patch-file", f"{tmp_path}/patch", "-o", "yaml")
    assert kubectl("delete", "cm", "--field-selector", "metadata.name=c", "--wait=false") == 'configmap "c" deleted\n'
    assert kubectl("delete", "cm", "-l", "x=1", "-o", "name", "--grace-period=1") == "configmap/a\n"
    assert kubectl.fails("delete", "cm", "b", "--all") == "error: name cannot be provided when a selector is specified"
    kubectl("create", "rolebinding", "r", "--clusterrole=view", "--user=u")
    assert kubectl(
        "set", "subject", "rolebinding", "r", "--user=v", f"--serviceaccount={kubectl.namespace}:default"
    ) == ("rolebinding.rbac.authorization.k8s.io/r subjects updated\n")
    assert [s["name"] for s in kubectl.get("rolebinding", "r")["subjects"]] == ["u", "v", "default"]
    token = kubectl.fails("create", "token", "default", "--bound-object-kind=Secret", "--bound-object-name=nope")
    assert token == 'error: failed to create token: secrets "nope" not found'
    node = kubectl("create", "token", "default", "--bound-object-kind=Node", "--bound-object-name=node-1")
    assert node.count(".") == 2
    denied = kubectl.run("auth", "can-i", "get", "pods", "--subresource=log", "--as=jane", check=False)
    assert (denied.returncode, denied.stdout) == (1, "no\n")
    assert kubectl("auth", "can-i", "get", "/healthz", "--as=jane", "--as-group=system:authenticated") == "yes\n"
    assert 'User "jane" cannot list resource "pods"' in kubectl.fails("get", "pods", "--as=jane")
    kubectl("get", "pods", "--as=jane", "--as-group=system:masters", "--as-uid=1")


def test_running_pods(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    kubectl("rollout", "status", "deploy/web", "--timeout=30s")
    assert kubectl("rollout", "status", "deploy/web", "--watch=false") == 'deployment "web" successfully rolled out\n'
    both = kubectl("logs", "deploy/web", "--all-pods").splitlines()
    assert len(both) == 2 and all(re.fullmatch(r"\[pod/web-\S+/web\] up", line) for line in both)
    found = kubectl.run("logs", "svc/web", "--ignore-errors")
    assert found.stdout == "up\n" and found.stderr.startswith("Found 2 pods, using pod/web-")
    assert "use --max-log-requests to increase the limit" in kubectl.fails(
        "logs", "-f", "-l", "app=web", "--max-log-requests=1"
    )
    for option, why in (
        ("tailLines=-5", "tailLines: Invalid value: -5: must be greater than or equal to 0"),
        ("sinceSeconds=0", "sinceSeconds: Invalid value: 0: must be greater than 0"),
    ):
        name = kubectl.get("pods")["items"][0]["metadata"]["name"]
        path = f"/api/v1/namespaces/{kubectl.namespace}/pods/{name}/log?{option}"
        assert kubectl.fails("get", "--raw", path) == f'The PodLogOptions "{name}" is invalid: {why}'
    assert kubectl("exec", "svc/web", "--", "hostname").startswith("web-")
    assert kubectl("exec", "deploy/web", "--", "sh", "-c", "echo $0") == "sh\n"
    forward = kubectl.popen("port-forward", "deploy/web", ":http")
    assert forward.stdout is not None
    port = int(re.findall(r"127\.0\.0\.1:(\d+) -> 8080", forward.stdout.readline())[0])
    assert kubectl.lab.run("curl", "-s", f"http://127.0.0.1:{port}/").stdout.startswith("web-")
    forward.kill()
    forward.communicate()
    assert kubectl("events", "--for", "deploy/web", "--types=Normal", "--no-headers").count("ScalingReplicaSet") == 1
    assert kubectl("get", "events", "--field-selector", "reason=ScalingReplicaSet", "-o", "name").count("event/") == 1
    assert kubectl("wait", "deploy", "--all", "--for=jsonpath={.status.readyReplicas}", "--timeout=10s") == (
        "deployment.apps/web condition met\n"
    )
    assert kubectl("scale", "--all", "deploy", "--replicas=1", "--current-replicas=2") == "deployment.apps/web scaled\n"
    kubectl("rollout", "restart", "deploy", "-l", "app=web")
    assert "revision: 2" not in kubectl("rollout", "history", "deploy/web", "--revision=1", "-o", "yaml")
    replaced = kubectl("replace", "--force", "--grace-period=0", "-f", "-", stdin=WEB)
    assert replaced.endswith("deployment.apps/web replaced\nservice/web replaced\n")


def test_run_with_its_flags(kubectl: Kubectl) -> None:
    words = ("--port=80", "--expose", "--env=A=B", "--labels=x=y", "--annotations=a=b")
    made = kubectl("run", "p", f"--image={IMAGE}", *words, "--", "sh", "-c", FOREVER)
    assert made == "service/p created\npod/p created\n"
    kubectl("wait", "-l", "x=y", "pod", "--for=condition=Ready", "--timeout=30s")
    assert kubectl("exec", "p", "--", "sh", "-c", "echo $A") == "B\n"
    wait_for(lambda: re.search(r"p +10\.\S+:80 ", kubectl("get", "ep", "p")), "the endpoint")
    refused = kubectl.fails("patch", "pod", "p", "--subresource=resize", "-p", json.dumps(
        {"spec": {"containers": [{"name": "p", "resources": {"requests": {"cpu": "20m"}}}]}}))  # fmt: skip
    assert "Pod QOS Class may not change as a result of resizing" in refused


def test_debugging(kubectl: Kubectl) -> None:
    kubectl.pod("web")
    made = kubectl.run("debug", "node/node-1", f"--image={IMAGE}", "--profile=sysadmin", "--", "ls", "/host/proc/1")
    name = re.findall(
        r"Creating debugging pod (\S+) with container debugger on node node-1\.", made.stdout + made.stderr
    )
    kubectl("wait", f"pod/{name[0]}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s")
    assert "cmdline" in kubectl("logs", name[0])
    spec = kubectl.get("pod", name[0])["spec"]
    assert (spec["nodeName"], spec["hostNetwork"], spec["hostPID"]) == ("node-1", True, True)
    kubectl(
        "debug",
        "web",
        "--copy-to=copy",
        "--same-node",
        "--container=web",
        "--profile=general",
        "--",
        "sh",
        "-c",
        FOREVER,
    )
    kubectl("wait", "--for=condition=Ready", "pod/copy", "--timeout=30s")
    assert kubectl.get("pod", "copy")["spec"]["nodeName"] == kubectl.get("pod", "web")["spec"]["nodeName"]


def test_drain_with_its_flags(kubectl: Kubectl) -> None:
    volume = json.dumps({"spec": {"nodeName": "node-3", "containers": [
        {"name": "web", "image": IMAGE, "command": ["sleep", "1000"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "terminationGracePeriodSeconds": 0, "volumes": [{"name": "v", "emptyDir": {}}]}})  # fmt: skip
    kubectl.pod("web", FOREVER, f"--overrides={volume}")
    only = ("drain", "-l", "kubernetes.io/hostname=node-3", "--pod-selector=app=web", "--ignore-daemonsets", "--force")
    try:
        assert "use --delete-emptydir-data to override" in kubectl.fails(*only)
        dry = kubectl(*only, "--delete-emptydir-data", "--dry-run=server")
        assert "evicting pod" in dry and "node/node-3 drained (server dry run)" in dry
        kubectl.get("pod", "web")
        gone = kubectl(*only, "--delete-emptydir-data", "--disable-eviction", "--grace-period=0", "--timeout=30s")
        assert "pod/web deleted" in gone
    finally:
        kubectl("uncordon", "-l", "kubernetes.io/hostname=node-3")
