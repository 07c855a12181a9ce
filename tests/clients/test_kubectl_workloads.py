"""kubectl on Deployments and nodes: scale, set, rollout, wait, expose, cordon, drain, taint."""

from __future__ import annotations

import re

from tests.clients.conftest import FOREVER, IMAGE, Kubectl
from tests.e2e.harness import wait_for

SECOND = "localhost/busybox:2"


def make(kubectl: Kubectl, replicas: int = 2) -> None:
    kubectl("create", "deployment", "app", f"--image={IMAGE}", f"--replicas={replicas}", "--", "sh", "-c", FOREVER)
    assert kubectl("rollout", "status", "deploy/app", "--timeout=30s").endswith(
        'deployment "app" successfully rolled out\n'
    )


def image(kubectl: Kubectl) -> str:
    return kubectl("get", "deploy", "app", "-o", "jsonpath={.spec.template.spec.containers[0].image}")


def test_scale_and_wait(kubectl: Kubectl) -> None:
    make(kubectl, 1)
    assert kubectl("scale", "deploy", "app", "--replicas=3") == "deployment.apps/app scaled\n"
    kubectl("rollout", "status", "deploy/app", "--timeout=30s")
    assert re.search(r"^app +3/3 +3 +3 +\d+s", kubectl("get", "deploy"), re.MULTILINE)
    assert kubectl.fails("scale", "deploy", "app", "--replicas=2", "--current-replicas=5") == (
        "error: Expected replicas to be 5, was 3"
    )
    assert kubectl("wait", "--for=condition=Available", "deploy/app", "--timeout=10s") == (
        "deployment.apps/app condition met\n"
    )
    met = kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pods", "-l", "app=app", "--timeout=10s")
    assert met.count("condition met") == 3
    assert kubectl.fails("wait", "--for=condition=Strange", "deploy/app", "--timeout=1s") == (
        "error: timed out waiting for the condition on deployments/app"
    )
    kubectl("scale", "deploy", "app", "--replicas=0")
    kubectl("wait", "--for=delete", "pods", "-l", "app=app", "--timeout=30s")
    assert kubectl.get("pods")["items"] == []


def test_rollout(kubectl: Kubectl) -> None:
    make(kubectl)
    assert kubectl("set", "image", "deploy/app", f"busybox={SECOND}") == "deployment.apps/app image updated\n"
    kubectl("annotate", "deploy/app", "kubernetes.io/change-cause=second")
    kubectl("rollout", "status", "deploy/app", "--timeout=30s")
    history = [line.split() for line in kubectl("rollout", "history", "deploy/app").splitlines()[1:-1]]
    assert history == [["REVISION", "CHANGE-CAUSE"], ["1", "<none>"], ["2", "second"]]
    assert f"Image:\t{SECOND}" in kubectl("rollout", "history", "deploy/app", "--revision=2")
    assert kubectl("rollout", "undo", "deploy/app") == "deployment.apps/app rolled back\n"
    kubectl("rollout", "status", "deploy/app", "--timeout=30s")
    assert image(kubectl) == IMAGE
    assert [line.split()[0] for line in kubectl("rollout", "history", "deploy/app").splitlines()[2:-1]] == ["2", "3"]
    kubectl("rollout", "undo", "deploy/app", "--to-revision=2")
    assert image(kubectl) == SECOND
    assert kubectl.fails("rollout", "undo", "deploy/app", "--to-revision=99") == (
        "error: unable to find specified revision 99 in history"
    )
    kubectl("rollout", "status", "deploy/app", "--timeout=30s")
    before = set(kubectl("get", "pods", "-o", "name").split())
    assert kubectl("rollout", "restart", "deploy/app") == "deployment.apps/app restarted\n"
    kubectl("rollout", "status", "deploy/app", "--timeout=30s")
    wait_for(lambda: not before & set(kubectl("get", "pods", "-o", "name").split()), "the old pods are gone")
    assert kubectl("rollout", "pause", "deploy/app") == "deployment.apps/app paused\n"
    assert kubectl.fails("rollout", "pause", "deploy/app") == 'error: deployments.apps "app" is already paused'
    assert "can't restart paused deployment" in kubectl.fails("rollout", "restart", "deploy/app")
    kubectl("set", "image", "deploy/app", f"*={IMAGE}")
    generation = kubectl.get("deploy", "app")["metadata"]["generation"]
    wait_for(lambda: kubectl.get("deploy", "app")["status"]["observedGeneration"] == generation, "it was seen")
    assert len(kubectl.get("rs")["items"]) == 3, "nothing is rolled out while paused"
    assert kubectl("rollout", "resume", "deploy/app") == "deployment.apps/app resumed\n"
    kubectl("rollout", "status", "deploy/app", "--timeout=30s")
    assert len(kubectl.get("rs")["items"]) == 4


def test_rollout_of_a_missing_image(kubectl: Kubectl) -> None:
    make(kubectl)
    kubectl("patch", "deploy", "app", "-p", '{"spec":{"progressDeadlineSeconds":1}}')
    kubectl("set", "image", "deploy/app", "busybox=nowhere.invalid/x:1")
    assert kubectl.fails("rollout", "status", "deploy/app", "--timeout=30s") == (
        'error: deployment "app" exceeded its progress deadline'
    )
    assert "2/2" in kubectl("get", "deploy", "app"), "the old pods go on"


def test_set(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "app", f"--image={IMAGE}", "--replicas=0")
    assert kubectl("set", "env", "deploy/app", "A=1", "B=2") == "deployment.apps/app env updated\n"
    kubectl("set", "env", "deploy/app", "A-")
    assert kubectl("set", "env", "deploy/app", "--list") == "# Deployment app, container busybox\nB=2\n"
    assert kubectl("set", "resources", "deploy/app", "--limits=cpu=100m,memory=32Mi", "--requests=cpu=0.05") == (
        "deployment.apps/app resource requirements updated\n"
    )
    resources = kubectl.get("deploy", "app")["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources == {"limits": {"cpu": "100m", "memory": "32Mi"}, "requests": {"cpu": "50m"}}
    assert kubectl.fails("set", "resources", "deploy/app", "--limits=cpu=1", "--requests=cpu=2").endswith(
        'Deployment.apps "app" is invalid: spec.template.spec.containers[0].resources.requests: Invalid value: "2": '
        "must be less than or equal to cpu limit of 1"
    )
    kubectl("create", "sa", "robot")
    kubectl("set", "serviceaccount", "deploy/app", "robot")
    assert kubectl.get("deploy", "app")["spec"]["template"]["spec"]["serviceAccountName"] == "robot"
    kubectl("expose", "deploy", "app", "--port=80", "--target-port=8080", "--type=NodePort")
    assert kubectl("set", "selector", "svc/app", "a=b") == "service/app selector updated\n"


def test_service_is_reached(kubectl: Kubectl) -> None:
    page = "mkdir -p /tmp/www; hostname >/tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www"
    kubectl("create", "deployment", "web", f"--image={IMAGE}", "--replicas=2", "--", "sh", "-c", page)
    assert (
        kubectl("expose", "deploy", "web", "--port=80", "--target-port=8080", "--type=NodePort")
        == "service/web exposed\n"
    )
    kubectl("rollout", "status", "deploy/web", "--timeout=30s")
    names = {p["metadata"]["name"] + "\n" for p in kubectl.get("pods")["items"]}
    port = kubectl.get("svc", "web")["spec"]["ports"][0]["nodePort"]
    addresses = [n["status"]["addresses"][0]["address"] for n in kubectl.get("nodes")["items"]]
    answers: dict[str, set[str]] = {a: set() for a in addresses}

    def all_answer() -> bool:
        for address in addresses:
            done = kubectl.lab.run("curl", "-s", "-m", "2", f"http://{address}:{port}", check=False)
            answers[address].update([done.stdout] if done.returncode == 0 else [])
        return all(a == names for a in answers.values())

    wait_for(all_answer, "every node's port leads to both pods")


def test_cordon_drain_taint(kubectl: Kubectl) -> None:
    lab = kubectl.lab
    make(kubectl, 3)
    kubectl.pod("alone", FOREVER, "--overrides", '{"spec":{"nodeName":"node-1"}}')
    try:
        assert kubectl("cordon", "node-1") == "node/node-1 cordoned\n"
        assert "Ready,SchedulingDisabled" in kubectl("get", "node", "node-1")
        refused = kubectl.fails("drain", "node-1", "--pod-selector=app in (app,alone)")
        assert "cannot delete Pods that declare no controller (use --force to override)" in refused
        drained = kubectl("drain", "node-1", "--force", "--pod-selector=app in (app,alone)", "--timeout=30s")
        assert "pod/alone evicted" in drained and drained.endswith("node/node-1 drained\n")
        nodes = [p["spec"].get("nodeName") for p in kubectl.get("pods", "-l", "app=app")["items"]]
        assert "node-1" not in nodes
    finally:
        kubectl("uncordon", "node-1")
    kubectl("rollout", "status", "deploy/app", "--timeout=30s")
    try:
        assert kubectl("taint", "node", "node-2", "only=mine:NoExecute") == "node/node-2 tainted\n"
        assert "node node-2 already has only taint(s) with same effect(s)" in kubectl.fails(
            "taint", "node", "node-2", "only=x:NoExecute"
        )
        assert "only=mine:NoExecute" in kubectl("describe", "node", "node-2")
        on_it = ["-A", "-l", "app=app", "--field-selector", "spec.nodeName=node-2"]
        wait_for(lambda: not lab.get("pods", *on_it)["items"], "the node's pods are gone")
    finally:
        assert kubectl("taint", "node", "node-2", "only-") == "node/node-2 untainted\n"
    assert kubectl.fails("taint", "node", "node-2", "only-") == 'error: taint "only" not found'
    kubectl("label", "node", "node-3", "disk=fast")
    try:
        kubectl.pod("picky", FOREVER, "--overrides", '{"spec":{"nodeSelector":{"disk":"fast"}}}')
        assert kubectl.get("pod", "picky")["spec"]["nodeName"] == "node-3"
    finally:
        kubectl("label", "node", "node-3", "disk-")
    kubectl("run", "nowhere", f"--image={IMAGE}", "--overrides", '{"spec":{"nodeSelector":{"disk":"none"}}}')
    why = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
    wait_for(lambda: why in kubectl("describe", "pod", "nowhere"), "why it does not fit")
