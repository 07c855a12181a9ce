"""More rows of the table: volumes, probes over the network, DNS, scores, and what a node refuses."""

from __future__ import annotations

from typing import Any

from tests.nodeagent.real.onenode import running
from tests.nodeagent.real.rows import LITTLE, Row, one, sh, waits

SERVE = "mkdir /w; echo page > /w/index.html; httpd -p 8080 -h /w; sleep 1000"
GROUPS = "id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' '; stat -c '%g %a' /v"


def volume(script: str, source: dict[str, Any], mount: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A pod of one container with one volume at /v, which runs once."""
    spec = one(script, volumeMounts=[{"name": "v", "mountPath": "/v", **(mount or {})}])
    return {**spec, "volumes": [{"name": "v", **source}], **more}


def serving(**probe: Any) -> dict[str, Any]:
    """A pod with a page at port 8080 and a readiness probe."""
    return {"containers": [sh(SERVE, readinessProbe={"periodSeconds": 1, **probe})]}


FIELD_ROWS = [
    Row("volume-items", volume("stat -L -c %a /v/name; cat /v/name; ls /v",
        {"configMap": {"name": "cm", "items": [{"key": "k", "path": "name", "mode": 0o400}]}}),
        phase="Succeeded", logs={"a": "400\nv1name\n"}),
    Row("volume-of-itself", volume("cat /v/name", {"downwardAPI": {"items": [
        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}), phase="Succeeded", logs={"a": "volume-of-itself"}),
    Row("projected", volume("cat /v/k /v/name; test -s /v/token && echo +", {"projected": {"sources": [
        {"configMap": {"name": "cm"}}, {"serviceAccountToken": {"path": "token"}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}),
        phase="Succeeded", logs={"a": "v1projected+\n"}),
    Row("optional-volume", volume("ls /v | wc -l", {"configMap": {"name": "no", "optional": True}}),
        phase="Succeeded", logs={"a": "0\n"}),
    Row("no-volume", volume("true", {"configMap": {"name": "no"}}), waits("a", "ContainerCreating"), "Pending",
        events=("FailedMount",), words='configmap "no" not found'),
    Row("host-path", volume("grep -c ^root: /v/passwd; touch /v/x 2>&1", {"hostPath": {"path": "/etc", "type": "Directory"}},
        {"readOnly": True}), phase="Failed", logs={"a": "1\ntouch: /v/x: Read-only file system\n"}),
    Row("host-path-type", volume("true", {"hostPath": {"path": "/etc/passwd", "type": "Directory"}}),
        waits("a", "ContainerCreating"), "Pending", events=("FailedMount",), words="hostPath type check failed"),
    Row("volume-group", volume(GROUPS, {"emptyDir": {}}, securityContext={
        "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 3000, "supplementalGroups": [4000]}),
        phase="Succeeded", logs={"a": "1000 3000 4000 3000 2777\n"}),
    Row("mounts-of-a-neighbour", {"restartPolicy": "Never", "volumes": [{"name": "v", "emptyDir": {}}], "containers": [
        sh("until test -e /v/m/there; do sleep 0.05; done; echo seen; touch /v/done", volumeMounts=[
            {"name": "v", "mountPath": "/v", "mountPropagation": "HostToContainer"}]),
        sh("mkdir /v/m; mount -t tmpfs x /v/m; touch /v/m/there; until test -e /v/done; do sleep 0.05; done; umount /v/m", "b",
           securityContext={"privileged": True}, volumeMounts=[
            {"name": "v", "mountPath": "/v", "mountPropagation": "Bidirectional"}])]},
        phase="Succeeded", states={"b": "terminated Completed 0"}, logs={"a": "seen\n"}),
    Row("environment-from", one("echo $P_k $C", envFrom=[{"prefix": "P_", "configMapRef": {"name": "cm"}}],
        env=[{"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}],
        resources={"limits": LITTLE}), phase="Succeeded", logs={"a": "v1 32\n"}),
    Row("score-of-the-least", one("cat /proc/1/oom_score_adj"), phase="Succeeded", logs={"a": "1000\n"}),
    Row("seccomp", {"restartPolicy": "Never", "containers": [
        sh("grep -w Seccomp: /proc/self/status", name, securityContext={"seccompProfile": {"type": kind}})
        for name, kind in (("a", "RuntimeDefault"), ("b", "Unconfined"))]},
        phase="Succeeded", logs={"a": "Seccomp:\t2\n", "b": "Seccomp:\t0\n"}),
    Row("no-more-rights", one("grep NoNewPrivs /proc/self/status", securityContext={"allowPrivilegeEscalation": False}),
        phase="Succeeded", logs={"a": "NoNewPrivs:\t1\n"}),
    Row("own-dns", {**one("sort /etc/resolv.conf"), "dnsPolicy": "None", "dnsConfig": {
        "nameservers": ["10.1.2.3"], "searches": ["x.test"], "options": [{"name": "ndots", "value": "2"}]}},
        phase="Succeeded", logs={"a": "nameserver 10.1.2.3\noptions ndots:2\nsearch x.test\n"}),
    Row("page-is-there", serving(httpGet={"port": 8080}), running, "Running", {"a": "running"}),
    Row("page-is-not-there", serving(httpGet={"port": 8080, "path": "/none"}), lambda pod: pod.status.phase == "Running",
        "Running", events=("Unhealthy",), words="Readiness probe failed: HTTP probe failed with statuscode: 404"),
    Row("port-is-open", serving(tcpSocket={"port": 8080}), running, "Running", {"a": "running"}),
    Row("unsafe-sysctl", {**one("true"), "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]}},
        phase="Failed", reason="SysctlForbidden"),
    Row("app-armor", one("true", securityContext={"appArmorProfile": {"type": "Localhost", "localhostProfile": "x"}}),
        phase="Failed", reason="AppArmor"),
    Row("user-namespace", {**one("true"), "hostUsers": False}, waits("a", "ContainerCreating"), "Pending",
        events=("FailedCreatePodSandBox",), words="does not support user namespaces"),
]  # fmt: skip
