"""Nobody is another node: what the certificate of a node, of the proxies, and a pod's token open, on real agents and on the API
server. The rules one by one are tested in tests/apiserver (NodeRestriction, the node authorizer); here is the wiring."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any

import pytest

from tests.e2e.conftest import REDIS
from tests.e2e.harness import Lab, wait_for

AGENT_PORT = 10250
AGENT_PATHS = (
    "/pods", "/runningpods/", "/metrics", "/metrics/resource", "/stats/summary", "/logs/", "/configz",
    "/containerLogs/default/far/c", "/exec/default/far/c?command=id", "/attach/default/far/c",
    "/portForward/default/far", "/checkpoint/default/far/c",
)  # fmt: skip
POD = "/api/v1/namespaces/default/pods"
# What node-1 asks about node-2, its pods and what they refer to: verb, path, body. All of it is refused.
OTHERS: list[tuple[str, str, Any]] = [
    ("PATCH", "/api/v1/nodes/node-2", {"metadata": {"labels": {"a": "b"}}}),
    ("PATCH", "/api/v1/nodes/node-2/status", {"status": {"phase": "Running"}}),
    ("DELETE", "/api/v1/nodes/node-2", None),
    ("POST", "/api/v1/nodes", {"metadata": {"name": "node-9"}}),
    ("GET", "/api/v1/nodes/node-2", None),
    ("GET", f"{POD}/far", None),
    ("PATCH", f"{POD}/far/status", {"status": {"phase": "Failed"}}),
    ("DELETE", f"{POD}/far", None),
    ("POST", f"{POD}/far/eviction", {"metadata": {"name": "far"}}),
    ("POST", f"{POD}/far/binding", {"target": {"name": "node-1"}}),
    ("GET", f"{POD}/far/log", None),
    ("POST", f"{POD}/near/exec?command=id", None),
    ("GET", f"{POD}/far/proxy/", None),
    ("GET", "/api/v1/nodes/node-2/proxy/pods", None),
    ("PATCH", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-2", {"spec": {"holderIdentity": "node-1"}}),
    ("PATCH", "/apis/storage.k8s.io/v1/csinodes/node-2", {"spec": {"drivers": []}}),
    ("POST", "/apis/storage.k8s.io/v1/volumeattachments", {
        "metadata": {"name": "x"}, "spec": {"attacher": "a", "nodeName": "node-2", "source": {"persistentVolumeName": "v"}}}),
    ("DELETE", "/apis/storage.k8s.io/v1/volumeattachments/far", None),
    ("GET", "/apis/storage.k8s.io/v1/volumeattachments/far", None),
    ("GET", "/api/v1/namespaces/default/secrets/far", None),
    ("GET", "/api/v1/namespaces/default/secrets", None),
    ("GET", "/api/v1/secrets?watch=true&fieldSelector=metadata.name%3Dfar", None),
    ("GET", "/api/v1/namespaces/default/configmaps/far", None),
    ("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", {"spec": {"boundObjectRef": {
        "kind": "Pod", "apiVersion": "v1", "name": "far", "uid": "UID"}}}),
    ("POST", "/api/v1/namespaces/kube-system/serviceaccounts/namespace-controller/token", {"spec": {}}),
]  # fmt: skip


def pod(name: str, node: str) -> dict[str, Any]:
    container = {"name": "c", "image": REDIS, "command": ["sleep", "3600"], "envFrom": [
        {"secretRef": {"name": name}}, {"configMapRef": {"name": name}}]}  # fmt: skip
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


class Caller:
    """Asks as somebody: by the certificate of that name in the lab's folder, with a token, or as nobody."""

    def __init__(self, lab: Lab, certificate: str = "", token: str = "") -> None:
        self.context = ssl.create_default_context(cafile=str(lab.directory / "pki/ca.crt"))
        self.context.check_hostname = False
        if certificate:
            self.context.load_cert_chain(lab.directory / f"pki/{certificate}.crt", lab.directory / f"pki/{certificate}.key")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.connections: dict[tuple[str, int], http.client.HTTPSConnection] = {}
        self.port = json.loads((lab.directory / "lab.json").read_text())["port"]

    def ask(self, method: str, path: str, body: Any = None, host: str = "127.0.0.1", port: int = 0) -> tuple[int, Any]:
        place = (host, port or self.port)
        if place not in self.connections:
            self.connections[place] = http.client.HTTPSConnection(*place, timeout=10, context=self.context)
        connection = self.connections[place]
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        data = json.dumps(body) if body is not None else None
        connection.request(method, path, data, self.headers | ({"Content-Type": kind} if data else {}))
        answer = connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()


@pytest.fixture
def pods(lab: Lab) -> Any:
    for name, node in (("near", "node-1"), ("far", "node-2")):
        lab.kubectl("create", "secret", "generic", name, "--from-literal=a=b")
        lab.kubectl("create", "configmap", name)
        lab.apply(json.dumps(pod(name, node)))
    try:
        lab.kubectl("wait", "--for=condition=Ready", "pod/near", "pod/far", "--timeout=60s")
        yield
    finally:
        lab.kubectl("delete", "pod/near", "pod/far", "secret/near", "secret/far", "configmap/near", "configmap/far", "--now")


def test_a_node_is_no_other_node(lab: Lab, pods: None) -> None:
    node, uid = Caller(lab, "node-1"), lab.get("pod", "far")["metadata"]["uid"]
    for method, path, body in OTHERS:
        text = json.dumps(body).replace("UID", uid) if body is not None else "null"
        status, answer = node.ask(method, path, json.loads(text))
        assert status == 403, f"{method} {path}: {status} {answer}"
    # What is its own it may have: that is what the refusals are about.
    assert node.ask("GET", "/api/v1/namespaces/default/secrets/near")[0] == 200
    assert node.ask("GET", f"{POD}/near")[0] == 200 and node.ask("GET", "/api/v1/nodes/node-1")[0] == 200
    node.close()


def test_an_agent_answers_the_api_server_only(lab: Lab, pods: None) -> None:
    callers = {
        "nobody": (Caller(lab), 401), "another node": (Caller(lab, "node-1"), 403), "a proxy": (Caller(lab, "proxy"), 403),
        "a pod": (Caller(lab, token=lab.kubectl("create", "token", "default").strip()), 403),
        "a made-up pod": (Caller(lab, token="made.up.token"), 401),
    }  # fmt: skip
    host = lab.node("node-2")["address"]
    for who, (caller, refusal) in callers.items():
        for path in AGENT_PATHS:
            status, answer = caller.ask("GET", path, host=host, port=AGENT_PORT)
            assert status == refusal, f"{who} {path}: {status} {answer}"
        caller.close()
    # One who may ask everything hears of the pods of this node, and of no others.
    admin = Caller(lab, "apiserver-kubelet-client")
    assert b'"far"' in admin.ask("GET", "/pods", host=host, port=AGENT_PORT)[1]
    other = lab.node("node-1")["address"]
    wait_for(lambda: admin.ask("GET", "/containerLogs/default/near/c", host=other, port=AGENT_PORT)[0] == 200, "its logs")
    assert admin.ask("GET", "/containerLogs/default/far/c", host=other, port=AGENT_PORT)[0] == 404
    admin.close()
