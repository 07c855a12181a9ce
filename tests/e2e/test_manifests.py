"""The manifests of deploy/manifests, as they are: everything is Ready, and does what it is there for.

All of them are applied at once, each in a namespace of its own; a test waits for its own part.
"""

from __future__ import annotations

import json
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import ROOT, Lab, answers, fetch, traces, wait_for

MANIFESTS = ROOT / "deploy" / "manifests"
NAMESPACES = ("ring", "wordpress", "monitoring")
TITLE = "A site in a lab"


class Kubectl:
    """kubectl in one namespace; it must succeed."""

    def __init__(self, lab: Lab, namespace: str) -> None:
        self.lab, self.namespace = lab, namespace

    def __call__(self, *words: str) -> str:
        return self.lab.kubectl("-n", self.namespace, *words, timeout=200)

    def ready(self, *workloads: str) -> None:
        for name in workloads:
            self("rollout", "status", name, "--timeout=180s")

    def get(self, *words: str) -> Any:
        return self.lab.get("-n", self.namespace, *words)

    def address(self, service: str) -> str:
        """Where a Service of type LoadBalancer is reached."""
        return wait_for(lambda: self.get("service", service)["status"]["loadBalancer"]["ingress"][0]["ip"], "an address", 30)


@pytest.fixture(scope="module")
def applied(home: Path) -> Iterator[Lab]:
    """A lab with all manifests; nothing is waited for. Not the shared one, which evicts within seconds on a busy machine."""
    lab = Lab(home, "manifests")
    lab.run(str(MANIFESTS / "build"), timeout=300)
    try:
        lab.up("--nodes", "3")
        for name in NAMESPACES:
            lab.kubectl("create", "namespace", name)
        lab.kubectl("apply", "-n", "ring", "-f", str(MANIFESTS / "ring"))
        lab.kubectl("apply", "-n", "wordpress", "-k", str(MANIFESTS / "wordpress"))
        lab.kubectl("apply", "-k", str(MANIFESTS / "monitoring"))
        yield lab
        lab.kubectl("delete", "namespace", *NAMESPACES, timeout=180)
        wait_for(lambda: not lab.get("pv")["items"] and not folders(lab), "volumes and their folders are gone", 60)
    finally:
        index = lab.index
        lab.navarch("down", "--purge")
        assert traces(lab, index) == []


def folders(lab: Lab) -> list[Path]:
    return sorted((lab.directory / "volumes").glob("*/pvc-*"))


def test_a_replicated_store_keeps_its_data(applied: Lab) -> None:
    kubectl = Kubectl(applied, "ring")

    def ring(member: int, *words: str) -> str:
        return kubectl("exec", f"ring-{member}", "--", "ring", *words).strip()

    kubectl.ready("statefulset/ring")
    wait_for(lambda: ring(2, "status").split() == ["UN", "ring-0", "UN", "ring-1", "UN", "ring-2"], "all know all", 30)
    wait_for(lambda: ring(0, "put", "a", "one") == "written" and ring(2, "get", "a") == "one", "it is read back", 30)
    pod, claims = kubectl.get("pod", "ring-1"), kubectl.get("pvc")["items"]
    assert [c["metadata"]["name"] for c in claims] == ["data-ring-0", "data-ring-1", "data-ring-2"]
    kubectl("delete", "pod", "ring-1", "--wait=false")
    wait_for(lambda: ring(0, "put", "b", "two") == "written", "a majority is there", 30)
    wait_for(lambda: kubectl.get("pod", "ring-1")["metadata"]["uid"] != pod["metadata"]["uid"], "a new pod", 60)
    kubectl.ready("statefulset/ring")
    assert kubectl.get("pod", "ring-1")["spec"]["nodeName"] == pod["spec"]["nodeName"], "the volume's node"
    assert "ring-1: 0 rows on disk" not in kubectl("logs", "ring-1")
    wait_for(lambda: ring(1, "get", "b") == "two", "what was written without it", 30)
    kubectl("delete", "pods", "--all")
    kubectl.ready("statefulset/ring")
    wait_for(lambda: (ring(1, "get", "a"), ring(2, "get", "b")) == ("one", "two"), "all is there", 30)
    path = next(p for p in folders(applied) if claims[1]["metadata"]["uid"] in p.name)
    assert (path / "rows").stat().st_gid == 3000 and path.stat().st_mode & 0o2070 == 0o2070


def test_wordpress_keeps_its_site(applied: Lab, tmp_path: Path) -> None:
    kubectl = Kubectl(applied, "wordpress")
    kubectl.ready("deployment/mysql", "deployment/wordpress")
    site = f"http://{kubectl.address('wordpress')}"
    fields = {"weblog_title": TITLE, "user_name": "me", "admin_password": "none of yours", "admin_password2": "none of yours",
              "pw_weak": "on", "admin_email": "me@lab.test", "blog_public": "0"}  # fmt: skip
    applied.run(*fetch(f"{site}/wp-admin/install.php?step=2", urllib.parse.urlencode(fields), patience=60))
    (tmp_path / "note.txt").write_text("of mine")
    kubectl("cp", str(tmp_path / "note.txt"), f"{kubectl.get('pods', '-l', 'tier=frontend')['items'][0]['metadata']['name']}:"
            "/usr/share/wordpress/wp-content/uploads/note.txt")  # fmt: skip

    def whole() -> bool:
        page = answers(f"{site}/", applied, patience=20)
        assert TITLE in page and "Hello world!" in page, page[:500]
        return answers(f"{site}/wp-content/uploads/note.txt", applied) == "of mine"

    wait_for(whole, "the site is there", 30)
    kubectl("delete", "pods", "-l", "app=wordpress")
    kubectl.ready("deployment/mysql", "deployment/wordpress")
    wait_for(whole, "the site is there, with other pods", 60)
    assert "making the system tables" not in kubectl("logs", "deployment/mysql"), "the database was found, not made"


class Monitoring(Kubectl):
    """The monitoring namespace; ``query`` asks the metrics' server through the API server's proxy."""

    PLACE = "/api/v1/namespaces/monitoring/services/metrics:web/proxy"

    def query(self, text: str, label: str) -> dict[str, float]:
        question = urllib.parse.urlencode({"query": text})
        status, answer = self.lab.call("GET", f"{self.PLACE}/api/v1/query?{question}", timeout=20)
        assert status == 200, answer
        return {r["metric"].get(label, ""): float(r["value"][1]) for r in answer["data"]["result"]}


def test_monitoring_finds_what_there_is(applied: Lab) -> None:
    kubectl = Monitoring(applied, "monitoring")
    kubectl.ready("daemonset/node-exporter", "deployment/metrics", "deployment/dashboard")
    expected = {"apiservers": 1, "nodes": 3, "containers": 3, "services": 3, "pods": 1}
    answered = "count by (job) (max_over_time(up[2m]) == 1)"
    wait_for(lambda: kubectl.query(answered, "job") == expected, "everything is asked, and has answered", 60)
    nodes = {f"node-{n}" for n in (1, 2, 3)}
    port = kubectl.get("service", "dashboard")["spec"]["ports"][0]["nodePort"]
    page = f"http://{applied.node('node-1')['address']}:{port}"

    def panels() -> dict[str, dict[str, float]]:
        return {p["title"]: p["series"] for p in json.loads(answers(f"{page}/panels", applied, patience=20) or "[]")}

    shown = wait_for(lambda: (p := panels()) and nodes <= set(p["Busy processors"]) and p, "the nodes are plotted", 60)
    assert set(NAMESPACES) <= set(shown["Memory of namespaces"])
    assert "<polyline" in answers(f"{page}/", applied, patience=20)
    assert all(0 <= busy <= 1 for busy in shown["Busy processors"].values())
    pod = kubectl.get("pods", "-l", "app=dashboard")["items"][0]["metadata"]["name"]
    kubectl("annotate", "pod", pod, "prometheus.io/scrape=true", "prometheus.io/port=3000")
    wait_for(lambda: kubectl.query(f"up{{pod='{pod}'}}", "pod") == {pod: 0}, "an annotated pod is asked, in vain", 60)
    text = kubectl.get("configmap", "metrics")["data"]["prometheus.yml"]
    changed = text.replace("global: {", "global: {external_labels: {lab: mine}, ")
    kubectl("patch", "configmap", "metrics", "-p", json.dumps({"data": {"prometheus.yml": changed}}))
    look = ("exec", "deployment/metrics", "--", "cat", "/etc/prometheus/prometheus.yml")
    wait_for(lambda: kubectl(*look) == changed, "the file in the pod follows", 120)
    assert applied.call("POST", f"{kubectl.PLACE}/-/reload")[0] in (200, 204)
    wait_for(lambda: "mine" in kubectl.query("count by (lab) (up)", "lab"), "the new configuration is in force", 60)


def test_words_of_the_tutorials(applied: Lab, tmp_path: Path) -> None:
    kubectl = Monitoring(applied, "monitoring")
    kubectl.ready("deployment/metrics", "deployment/dashboard")
    kubectl("expose", "deployment", "metrics", "--name=front", "--type=LoadBalancer", "--port=80", "--target-port=web")
    wait_for(lambda: answers(f"http://{kubectl.address('front')}/health", applied) == "OK", "an address of its own", 30)
    assert forwarded(kubectl, "service/metrics", "8428", "/health") == "OK"
    kubectl("set", "env", "deployment/dashboard", "PROMETHEUS=http://nowhere:1")
    stuck = applied.run("kubectl", "-n", "monitoring", "rollout", "status", "deployment/dashboard", "--timeout=4s", check=False)
    assert stuck.returncode == 1 and "timed out" in stuck.stderr, "it never gets ready"
    kubectl("rollout", "undo", "deployment/dashboard")
    kubectl.ready("deployment/dashboard")
    kubectl("autoscale", "deployment", "dashboard", "--min=2", "--max=3", "--cpu-percent=80")
    kubectl("wait", "deployment/dashboard", "--for=jsonpath={.status.readyReplicas}=2", "--timeout=60s")
    kubectl("label", "pods", "-l", "app=dashboard", "tier=page")
    labelled = kubectl.get("pods", "-l", "tier=page")["items"]
    assert len([pod for pod in labelled if "deletionTimestamp" not in pod["metadata"]]) == 2

    def used() -> bool:
        rows = [row.split() for row in kubectl("top", "pods", "--containers", "--no-headers").splitlines()]
        assert {row[1] for row in rows} == {"metrics", "dashboard", "node-exporter"}
        return all(1 <= int(row[3].removesuffix("Mi")) < 500 for row in rows)

    wait_for(used, "what each container uses", 30)
    assert [row.split()[0] for row in kubectl("top", "nodes", "--no-headers").splitlines()] == ["node-1", "node-2", "node-3"]
    pod = kubectl.get("pods", "-l", "app=metrics")["items"][0]["metadata"]["name"]
    kubectl("debug", pod, "--image=localhost/debian:v1", "--target=metrics", "-c", "eye", "--", "ps")
    wait_for(lambda: "promscrape" in kubectl("logs", pod, "-c", "eye"), "the other container's process is seen", 30)


def forwarded(kubectl: Kubectl, target: str, port: str, path: str) -> str:
    """What is at a path behind a forwarded port."""
    words = ["kubectl", "-n", kubectl.namespace, "port-forward", target, f":{port}"]
    with subprocess.Popen(words, env=kubectl.lab.environment, stdout=subprocess.PIPE, text=True) as forwarding:
        try:
            assert forwarding.stdout is not None
            here = forwarding.stdout.readline().split("->")[0].rpartition(":")[2].strip()
            return answers(f"http://127.0.0.1:{here}{path}", kubectl.lab, patience=10)
        finally:
            forwarding.terminate()
