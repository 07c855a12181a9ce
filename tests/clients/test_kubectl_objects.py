"""kubectl apply, diff, get, describe, explain, patch, edit, label, create, delete: everything that is about objects."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from tests.clients.conftest import FOREVER, IMAGE, Kubectl
from tests.e2e.harness import Lab, wait_for

CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata: {name: conf, annotations: {note: x}, creationTimestamp: null}
data: {a: "1", b: "2"}
"""
APP = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: app, labels: {{app: app}}}}
spec:
  replicas: 0
  selector: {{matchLabels: {{app: app}}}}
  template:
    metadata: {{labels: {{app: app}}}}
    spec:
      containers:
      - name: main
        image: {IMAGE}
        env: [{{name: A, value: a}}, {{name: B, value: b}}]
        ports: [{{containerPort: 80, name: http}}]
status: {{}}
"""


def test_apply(kubectl: Kubectl) -> None:
    both = CONFIG.replace(", creationTimestamp: null", "") + "---" + APP
    assert kubectl("apply", "-f", "-", stdin=both) == "configmap/conf created\ndeployment.apps/app created\n"
    assert kubectl("apply", "-f", "-", stdin=both) == "configmap/conf unchanged\ndeployment.apps/app unchanged\n"
    assert kubectl("diff", "-f", "-", stdin=both) == ""
    less = both.replace(', b: "2"', "").replace(", annotations: {note: x}", "").replace(", {name: B, value: b}", "")
    difference = kubectl.run("diff", "-f", "-", stdin=less, check=False)
    assert difference.returncode == 1
    assert {'-  b: "2"', "-    note: x", "-        - name: B"} <= set(difference.stdout.splitlines())
    dry = kubectl("apply", "-f", "-", "--dry-run=server", stdin=less)
    assert dry == "configmap/conf configured (server dry run)\ndeployment.apps/app configured (server dry run)\n"
    assert kubectl.get("cm", "conf")["data"] == {"a": "1", "b": "2"}, "a dry run changes nothing"
    assert kubectl("apply", "-f", "-", stdin=less) == "configmap/conf configured\ndeployment.apps/app configured\n"
    assert kubectl.get("cm", "conf")["data"] == {"a": "1"}
    assert "note" not in kubectl.get("cm", "conf")["metadata"]["annotations"]
    assert kubectl("get", "deploy", "app", "-o", "jsonpath={..env[*].name}") == "A"
    # What others set and the manifest never had stays.
    kubectl("label", "cm", "conf", "by=hand")
    kubectl("scale", "deploy", "app", "--replicas=1")
    kubectl("apply", "-f", "-", stdin=less.replace("  replicas: 0\n", "  revisionHistoryLimit: 3\n"))
    assert kubectl.get("cm", "conf")["metadata"]["labels"] == {"by": "hand"}
    assert "data:" in kubectl("apply", "view-last-applied", "cm/conf")
    pruned = kubectl("apply", "-f", "-", "--prune", "-l", "by=hand", "--prune-allowlist=core/v1/ConfigMap",
                     stdin=CONFIG.replace("name: conf", "name: other, labels: {by: hand}"))  # fmt: skip
    assert pruned == "configmap/other created\nconfigmap/conf pruned\n"


def test_apply_on_the_server(kubectl: Kubectl) -> None:
    mine = CONFIG.replace('b: "2"', 'c: "3"')
    applied = "configmap/conf serverside-applied\n"
    assert kubectl("apply", "--server-side", "-f", "-", stdin=CONFIG) == applied
    assert kubectl("apply", "--server-side", "--field-manager=other", "-f", "-", stdin=mine) == applied
    assert kubectl.get("cm", "conf")["data"] == {"a": "1", "b": "2", "c": "3"}
    refused = kubectl.fails(
        "apply", "--server-side", "--field-manager=other", "-f", "-", stdin=mine.replace('a: "1"', 'a: "9"')
    )
    assert refused.startswith('error: Apply failed with 1 conflict: conflict with "kubectl": .data.a\n')
    forced = ["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-"]
    assert kubectl(*forced, stdin=mine.replace('a: "1"', 'a: "9"')) == applied
    kubectl("apply", "--server-side", "-f", "-", stdin=CONFIG.replace('a: "1", b: "2"', ""))
    assert kubectl.get("cm", "conf")["data"] == {"a": "9", "c": "3"}, "fields that nobody applies any more are gone"


def test_get(kubectl: Kubectl) -> None:
    kubectl.pod("web")
    kubectl("create", "configmap", "conf", "--from-literal=key=value")
    lines = kubectl("get", "pods", "-o", "wide").splitlines()
    assert re.fullmatch(r"NAME +READY +STATUS +RESTARTS +AGE +IP +NODE +NOMINATED NODE +READINESS GATES", lines[0])
    assert re.fullmatch(r"web +1/1 +Running +0 +\d+s +10(\.\d+){3} +node-\d +<none> +<none>", lines[1])
    assert kubectl("get", "pods", "-o", "name") == "pod/web\n"
    assert kubectl("get", "pod/web", "-o", "jsonpath={.status.phase}") == "Running"
    assert kubectl("get", "pod", "web", "-o", "go-template={{.metadata.name}}") == "web"
    assert kubectl("get", "pods", "-o", "custom-columns=N:.metadata.name,P:.status.phase").split() == [
        "N", "P", "web", "Running",
    ]  # fmt: skip
    assert "name: web" in kubectl("get", "pod", "web", "-o", "yaml")
    assert "managedFields" not in kubectl("get", "pod", "web", "-o", "yaml")
    assert "f:metadata" in kubectl("get", "pod", "web", "-o", "yaml", "--show-managed-fields")
    assert json.loads(kubectl("get", "pods,cm", "-o", "json"))["kind"] == "List"
    assert kubectl("get", "pods", "-l", "app=web", "--no-headers").startswith("web ")
    assert kubectl("get", "pods", "-l", "app in (a,b)", "-o", "name") == ""
    assert kubectl("get", "pods", "--field-selector", "status.phase=Running", "-o", "name") == "pod/web\n"
    assert re.search(r"^NAME .* AGE +APP\nweb .* \d+s +web$", kubectl("get", "pods", "-L", "app"), re.MULTILINE)
    assert "app=web" in kubectl("get", "pods", "--show-labels")
    assert "web" in kubectl("get", "pods", "-A", "--sort-by=.metadata.creationTimestamp")
    assert kubectl.run("get", "secrets").stderr == f"No resources found in {kubectl.namespace} namespace.\n"
    assert re.fullmatch(r"NAME +DATA +AGE\nconf +1 +\d+s\n", kubectl("get", "cm", "conf"))
    assert "pod/web" in kubectl("get", "all")
    assert kubectl.fails("get", "pods", "nope") == 'Error from server (NotFound): pods "nope" not found'
    assert kubectl.fails("get", "gizmos") == 'error: the server doesn\'t have a resource type "gizmos"'
    warned = kubectl.run("get", "endpoints").stderr
    assert warned.startswith("Warning: v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\n")


def test_get_watch(kubectl: Kubectl) -> None:
    watching = kubectl.popen("get", "cm", "-w", "-l", "seen", "-o", "name")
    assert watching.stdout is not None
    kubectl("create", "cm", "late")
    kubectl("label", "cm", "late", "seen=1")
    assert watching.stdout.readline() == "configmap/late\n"
    kubectl("label", "cm", "late", "seen=2", "--overwrite")
    assert watching.stdout.readline() == "configmap/late\n"
    watching.kill()
    watching.communicate()
    watching = kubectl.popen("get", "cm", "late", "-w", "--output-watch-events")
    assert watching.stdout is not None
    assert watching.stdout.readline().split() == ["EVENT", "NAME", "DATA", "AGE"]
    assert watching.stdout.readline().split()[:3] == ["ADDED", "late", "0"]
    kubectl("patch", "cm", "late", "-p", '{"data":{"a":"b"}}')
    assert watching.stdout.readline().split()[:3] == ["MODIFIED", "late", "1"]
    kubectl("delete", "cm", "late")
    assert watching.stdout.readline().split()[:3] == ["DELETED", "late", "1"]
    watching.kill()
    watching.communicate()


def test_describe(kubectl: Kubectl) -> None:
    kubectl.pod("web")
    kubectl("apply", "-f", "-", stdin=APP)
    kubectl("expose", "pod", "web", "--port=80", "--target-port=8080")
    kubectl("create", "secret", "generic", "hidden", "--from-literal=password=abc")
    text = wait_for(
        lambda: re.search("(?s).*Started container web.*", kubectl("describe", "pod", "web")), "events"
    ).group()
    for line in (
        r"Name: +web", r"Node: +node-\d/10\..*", r"Labels: +app=web", r"Status: +Running", r"IP: +10\..*",
        rf"    Image: +{re.escape(IMAGE)}", r"    Image ID: +sha256:[0-9a-f]{64}", r"    State: +Running",
        r"  Ready +True ", r"    Type: +Projected \(a volume .*", r"QoS Class: +BestEffort",
        r"  Normal +Scheduled +\d+s +default-scheduler +Successfully assigned .*/web to node-\d",
        r"  Normal +Pulled +\d+s +kubelet +Container image .* already present on machine",
        r"  Normal +Created +\d+s +kubelet +Created container: web",
    ):  # fmt: skip
        assert re.search(f"^{line}$", text, re.MULTILINE), line
    assert "password:  3 bytes" in kubectl("describe", "secret", "hidden")
    assert "Replicas:               0 desired | 0 updated | 0 total" in kubectl("describe", "deploy", "app")
    assert "Controlled By:  Deployment/app" in wait_for(lambda: kubectl("describe", "rs"), "the replica set")
    ready = f"Endpoints:                {kubectl.get('pod', 'web')['status']['podIP']}:8080"
    wait_for(lambda: ready in kubectl("describe", "svc", "web"), "the endpoint")
    assert "kubernetes.io/metadata.name=" in kubectl("describe", "ns", kubectl.namespace)
    assert "Mountable secrets:   <none>" in kubectl("describe", "sa", "default")
    assert "BEGIN CERTIFICATE" in kubectl("describe", "cm", "kube-root-ca.crt")
    node = kubectl("describe", "node", "node-1")
    for word in ("MemoryPressure", "KubeletReady", "InternalIP:", "Allocatable:", "PodCIDR:", "Non-terminated Pods:"):
        assert word in node


def test_explain(lab: Lab) -> None:
    text = lab.kubectl("explain", "pod.spec.containers.image")
    assert text.startswith("KIND:       Pod\nVERSION:    v1\n\nFIELD: image <string>\n")
    assert lab.kubectl("explain", "deploy").startswith("GROUP:      apps\nKIND:       Deployment\nVERSION:    v1\n")
    recursive = lab.kubectl("explain", "deployments.spec", "--recursive")
    assert re.search(r"^ +maxSurge\t<IntOrString>$", recursive, re.MULTILINE)
    assert re.search(r"^  selector\t<LabelSelector> -required-$", recursive, re.MULTILINE)
    assert lab.fails("explain", "deploy.spec.foo").endswith('error: field "foo" does not exist\n')


# Words after create -> the object they make; NAMESPACE stands for the test's own.
CREATED = (
    (["cm", "c", "--from-literal=a=b"], "configmap/c"),
    (["secret", "generic", "s", "--from-literal=a=b"], "secret/s"),
    (["secret", "docker-registry", "d", "--docker-server=x", "--docker-username=u", "--docker-password=p"], "secret/d"),
    (["deployment", "d", f"--image={IMAGE}", "--replicas=0", "--", "sleep", "1"], "deployment.apps/d"),
    (["service", "clusterip", "a", "--tcp=80:8080"], "service/a"),
    (["service", "nodeport", "b", "--tcp=80"], "service/b"),
    (["service", "externalname", "e", "--external-name=example.com"], "service/e"),
    (["service", "loadbalancer", "l", "--tcp=80"], "service/l"),
    (["serviceaccount", "robot"], "serviceaccount/robot"),
    (["role", "reader", "--verb=get,list", "--resource=pods"], "role.rbac.authorization.k8s.io/reader"),
    (["rolebinding", "read", "--role=reader", "--serviceaccount=NAMESPACE:robot"],
     "rolebinding.rbac.authorization.k8s.io/read"),
)  # fmt: skip


def services_have_their_columns(kubectl: Kubectl) -> None:
    assert re.search(
        r"^a +ClusterIP +10\.\d+\.\d+\.\d+ +<none> +80/TCP +\d+s$", kubectl("get", "svc", "a"), re.MULTILINE
    )
    assert re.search(r"80:3\d{4}/TCP", kubectl("get", "svc", "b"))
    assert re.search(r"ExternalName +<none> +example.com +<none>", kubectl("get", "svc", "e"))


def robot_has_its_rights(kubectl: Kubectl, robot: str) -> None:
    assert kubectl("auth", "can-i", "list", "pods", f"--as={robot}") == "yes\n"
    denied = kubectl.run("auth", "can-i", "delete", "pods", f"--as={robot}", check=False)
    assert (denied.returncode, denied.stdout) == (1, "no\n")
    assert re.search(
        r"^pods +\[\] +\[\] +\[get list\]$", kubectl("auth", "can-i", "--list", f"--as={robot}"), re.MULTILINE
    )


def a_token_is_a_user(kubectl: Kubectl, robot: str) -> None:
    """kubectl with the robot's token alone, without the administrator's certificate."""
    token = kubectl("create", "token", "robot", "--duration=30m")
    kubeconfig = Path(kubectl.lab.environment["KUBECONFIG"])
    config = yaml.safe_load(kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    own = kubectl.lab.home / "robot.kubeconfig"
    own.write_text(yaml.safe_dump(config))
    assert robot in kubectl("--kubeconfig", str(own), "auth", "whoami")
    assert kubectl.run("--kubeconfig", str(own), "get", "pods").returncode == 0
    assert kubectl.fails("--kubeconfig", str(own), "get", "secrets") == (
        f'Error from server (Forbidden): secrets is forbidden: User "{robot}" cannot list resource "secrets" in API group "" '
        f'in the namespace "{kubectl.namespace}"'
    )


def test_create(kubectl: Kubectl) -> None:
    for row, said in CREATED:
        words = [word.replace("NAMESPACE", kubectl.namespace) for word in row]
        assert kubectl("create", *words) == f"{said} created\n"
        assert "already exists" in kubectl.fails("create", *words)
    services_have_their_columns(kubectl)
    robot = f"system:serviceaccount:{kubectl.namespace}:robot"
    robot_has_its_rights(kubectl, robot)
    a_token_is_a_user(kubectl, robot)
    assert "may not specify a duration less than 10 minutes" in kubectl.fails(
        "create", "token", "robot", "--duration=1m"
    )
    assert kubectl.fails("create", "token", "nope") == (
        'error: failed to create token: serviceaccounts "nope" not found'
    )


def test_label_annotate_patch_edit(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=CONFIG)
    assert kubectl("label", "cm", "conf", "x=1") == "configmap/conf labeled\n"
    assert kubectl("label", "cm", "conf", "x=1") == "configmap/conf not labeled\n"
    assert kubectl.fails("label", "cm", "conf", "x=2") == "error: 'x' already has a value (1), and --overwrite is false"
    assert kubectl("label", "cm", "conf", "x=2", "--overwrite") == "configmap/conf labeled\n"
    assert kubectl("label", "cm", "conf", "x-") == "configmap/conf unlabeled\n"
    assert "labels" not in kubectl.get("cm", "conf")["metadata"], "an empty map is none"
    assert kubectl("annotate", "cm", "conf", "note-", "more=y") == "configmap/conf annotated\n"
    patched = "configmap/conf patched\n"
    assert kubectl("patch", "cm", "conf", "-p", '{"data":{"b":"3"}}') == patched
    assert kubectl("patch", "cm", "conf", "-p", '{"data":{"b":"3"}}') == "configmap/conf patched (no change)\n"
    assert kubectl("patch", "cm", "conf", "--type=merge", "-p", '{"data":{"a":null}}') == patched
    operations = '[{"op":"test","path":"/data/b","value":"3"},{"op":"add","path":"/data/c","value":"4"}]'
    assert kubectl("patch", "cm", "conf", "--type=json", "-p", operations) == patched
    assert kubectl.get("cm", "conf")["data"] == {"b": "3", "c": "4"}
    assert kubectl("edit", "cm", "conf", editor='sed -i \'s/"4"/"5"/\'') == "configmap/conf edited\n"
    assert kubectl.get("cm", "conf")["data"] == {"b": "3", "c": "5"}
    assert kubectl.run("edit", "cm", "conf", editor="true").stderr == "Edit cancelled, no changes made.\n"
    assert kubectl("set", "env", "-f", "-", "--local", "X=1", "-o", "jsonpath={..env[2].name}", stdin=APP) == "X"
    assert kubectl("replace", "-f", "-", stdin=CONFIG) == "configmap/conf replaced\n"
    assert kubectl("replace", "--force", "-f", "-", stdin=CONFIG) == (
        'configmap "conf" deleted\nconfigmap/conf replaced\n'
    )


def test_delete(kubectl: Kubectl) -> None:
    for i in range(4):
        kubectl("create", "cm", f"c{i}")
    kubectl("label", "cm", "c1", "c2", "gone=soon")
    assert kubectl("delete", "cm", "c0") == 'configmap "c0" deleted\n'
    assert kubectl.fails("delete", "cm", "c0") == 'Error from server (NotFound): configmaps "c0" not found'
    assert kubectl("delete", "cm", "c0", "--ignore-not-found") == ""
    assert kubectl("delete", "cm", "-l", "gone", "--dry-run=server").count("(server dry run)") == 2
    assert kubectl("delete", "cm", "-l", "gone") == 'configmap "c1" deleted\nconfigmap "c2" deleted\n'
    assert kubectl("delete", "-f", "-", stdin=CONFIG.replace("name: conf", "name: c3")) == 'configmap "c3" deleted\n'
    kubectl.pod("slow", "trap '' TERM; while true; do sleep 0.1; done")
    kubectl("delete", "pod", "slow", "--wait=false")
    assert "Terminating" in kubectl("get", "pod", "slow")
    forced = kubectl.run("delete", "pod", "slow", "--force", "--grace-period=0")
    assert forced.stdout == 'pod "slow" force deleted\n' and "Warning: Immediate deletion" in forced.stderr
    kubectl.pod("quick")
    assert kubectl("delete", "pod", "quick", "--now") == 'pod "quick" deleted\n'
    kubectl("apply", "-f", "-", stdin=APP.replace("replicas: 0", "replicas: 1"))
    wait_for(lambda: kubectl.get("pods")["items"], "a pod of the deployment")
    assert kubectl("delete", "deploy", "app", "--cascade=orphan") == 'deployment.apps "app" deleted\n'
    assert len(kubectl.get("rs")["items"]) == 1
    assert kubectl("delete", "rs", "--all", "--cascade=foreground").startswith('replicaset.apps "app-')
    assert kubectl.get("rs")["items"] == []
    kubectl("create", "cm", "kept")
    kubectl("patch", "cm", "kept", "-p", '{"metadata":{"finalizers":["example.com/wait"]}}')
    kubectl("delete", "cm", "kept", "--wait=false")
    assert kubectl.get("cm", "kept")["metadata"]["deletionTimestamp"]
    kubectl("patch", "cm", "kept", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert kubectl("wait", "--for=delete", "cm/kept", "--timeout=10s") == ""


def test_namespace_goes_with_all_in_it(lab: Lab) -> None:
    lab.kubectl("create", "namespace", "brief")
    wait_for(lambda: lab.get("-n", "brief", "sa", "default"), "the service account")
    lab.kubectl("-n", "brief", "run", "web", f"--image={IMAGE}", "--", "sh", "-c", FOREVER)
    lab.kubectl("-n", "brief", "create", "cm", "c")
    assert lab.kubectl("delete", "namespace", "brief") == 'namespace "brief" deleted\n'
    assert lab.fails("get", "ns", "brief") == 'Error from server (NotFound): namespaces "brief" not found\n'
    assert lab.get("-n", "brief", "pods,cm,sa")["items"] == []
    assert lab.fails("delete", "ns", "default") == (
        'Error from server (Forbidden): namespaces "default" is forbidden: this namespace may not be deleted\n'
    )


def test_cluster(lab: Lab) -> None:
    assert "Kubernetes control plane is running at https://127.0.0.1:" in lab.kubectl("cluster-info")
    assert "Server Version: v1.34." in lab.kubectl("version")
    assert {"apps/v1", "v1", "rbac.authorization.k8s.io/v1"} <= set(lab.kubectl("api-versions").split())
    resources = lab.kubectl("api-resources", "-o", "wide")
    assert re.search(
        r"^pods +po +v1 +true +Pod +create,delete,deletecollection,get,list,patch,update,watch +all$",
        resources,
        re.MULTILINE,
    )
    assert "kubernetes-admin" in lab.kubectl("auth", "whoami")
    assert lab.kubectl("get", "--raw", "/readyz") == "ok"
    assert lab.kubectl("get", "--raw", "/api/v1/namespaces/default/services/kubernetes").startswith('{"kind":"Service"')
    assert "RegisteredNode" in lab.kubectl("events", "-A")
    assert (
        lab.kubectl("get", "events", "-A", "--field-selector", "involvedObject.kind=Node").count("RegisteredNode") == 3
    )


def test_proxy(kubectl: Kubectl, tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    proxy = kubectl.popen("proxy", f"--unix-socket={socket}")
    try:
        assert proxy.stdout is not None and "Starting to serve on" in proxy.stdout.readline()
        done = kubectl.lab.run("curl", "-s", "--unix-socket", str(socket), "http://localhost/api/v1/namespaces/default")
        assert json.loads(done.stdout)["metadata"]["name"] == "default"
    finally:
        proxy.kill()
        proxy.communicate()


def test_what_is_not_served_is_said_clearly(kubectl: Kubectl) -> None:
    unknown = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\n"
    assert kubectl.fails("apply", "-f", "-", stdin=unknown) == (
        'error: resource mapping not found for name: "w" namespace: "" from "STDIN": no matches for kind "Widget" in '
        'version "example.com/v1"\nensure CRDs are installed first'
    )
