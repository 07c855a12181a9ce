"""Services of type LoadBalancer on real nodes, as the lab's machine reaches them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from navarch.api.wellknown import ANNOUNCED_BY
from tests.e2e.conftest import REDIS
from tests.e2e.harness import Lab, wait_for
from tests.e2e.inside import Servers, pid_of, reach

SERVICES = "/api/v1/namespaces/lb/services"
NODES = ("node-1", "node-2")


@pytest.fixture(scope="module")
def servers(lab: Lab) -> Iterator[Servers]:
    """Pods ``on-node-1`` and ``on-node-2`` that answer at port 8080 with their name and the client's address."""
    lab.kubectl("create", "namespace", "lb")
    account = "/api/v1/namespaces/lb/serviceaccounts/default"
    wait_for(lambda: lab.call("GET", account)[0] == 200, "the account is there")
    for node in NODES:
        container = {"name": "c", "image": REDIS, "command": ["sleep", "3600"]}
        spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
        meta = {"name": f"on-{node}", "labels": {"app": "lb"}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
        assert lab.call("POST", "/api/v1/namespaces/lb/pods", pod)[0] == 201
    try:
        lab.kubectl("wait", "-n", "lb", "pod", "--all", "--for=condition=Ready", "--timeout=60s")
        with Servers() as servers:
            for pod in lab.get("pods", "-n", "lb")["items"]:
                servers.add(pid_of(lab, pod), pod["metadata"]["name"], "tcp", 8080)
            yield servers
    finally:
        lab.kubectl("delete", "namespace", "lb", timeout=120)


def create(lab: Lab, name: str, port: int = 80, **spec: Any) -> str:
    """Makes a service and waits for its address."""
    spec = {"type": "LoadBalancer", "selector": {"app": "lb"}, "ports": [{"port": port, "targetPort": 8080}]} | spec
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
    status, answer = lab.call("POST", SERVICES, body)
    assert status == 201, answer
    return wait_for(lambda: service(lab, name)["status"]["loadBalancer"]["ingress"][0]["ip"], f"{name} has an address", 20)


def service(lab: Lab, name: str) -> Any:
    return lab.call("GET", f"{SERVICES}/{name}")[1]


def announced_by(lab: Lab, name: str) -> str:
    return service(lab, name)["metadata"]["annotations"][ANNOUNCED_BY]


def ask(address: str, port: int = 80, times: int = 1, patience: float = 10) -> list[str]:
    """Answers as the machine gets them: name of the pod, and the address that it saw."""
    return reach(0, [("tcp", address, port)] * times, patience)


def silent(address: str, port: int = 80) -> bool:
    return ask(address, port, patience=1.5) == [""]


def test_an_address_that_the_machine_reaches(lab: Lab, servers: Servers) -> None:
    address = create(lab, "web")
    assert address.startswith(f"10.{lab.index}.140.")
    assert lab.kubectl("get", "svc", "web", "-n", "lb", "--no-headers").split()[3] == address
    wait_for(lambda: all(ask(address, times=3)), "it answers", 20)
    answers = [a.split() for a in ask(address, times=24)]
    nodes = {node["address"] for node in lab.status()["nodes"]}
    assert {pod for pod, _ in answers} == {"on-node-1", "on-node-2"} and {seen for _, seen in answers} <= nodes
    assert silent(address, 81) and silent(address, 10250), "no other port: neither the node's nor a node port"
    reasons = {"EnsuringLoadBalancer", "EnsuredLoadBalancer", "NodeAssigned"}
    events = ("get", "events", "-n", "lb", "-o", "jsonpath={.items[*].reason}")
    wait_for(lambda: reasons <= set(lab.kubectl(*events).split()), "the events are there", 20)
    inside = f"import socket; print(socket.create_connection(('{address}', 80), 3).recv(99).decode())"
    assert "on-node" in lab.in_node("node-3", "python3", "-S", "-c", inside), "from a node, too"
    # A proxy that dies is back in a moment, and no connection to the address fails for long.
    lab.kill(f"proxy/{announced_by(lab, 'web')}")
    wait_for(lambda: all(ask(address, times=4)), "it answers again", 20)
    # Who may ask, and that the same client gets the same pod.
    patch(lab, "web", {"loadBalancerSourceRanges": ["192.0.2.0/24"]})
    wait_for(lambda: silent(address), "others are shut out", 20)
    patch(lab, "web", {"loadBalancerSourceRanges": [f"10.{lab.index}.128.1/32"], "sessionAffinity": "ClientIP"})
    wait_for(lambda: all(ask(address)), "this one is let in", 20)
    wait_for(lambda: len({a.split()[0] for a in ask(address, times=8)}) == 1, "one client, one pod", 20)
    patch(lab, "web", {"type": "ClusterIP", "loadBalancerSourceRanges": None})
    wait_for(lambda: not service(lab, "web")["status"]["loadBalancer"].get("ingress"), "it is given back", 20)
    wait_for(lambda: silent(address), "nobody answers", 20)


def patch(lab: Lab, name: str, spec: dict[str, Any]) -> None:
    lab.kubectl("patch", "svc", name, "-n", "lb", "--type=merge", "-p", json.dumps({"spec": spec}))


def status_of(address: str, port: int) -> int:
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    finally:
        connection.close()


def test_local_policy_keeps_the_client_and_shared_addresses_their_ports(lab: Lab, servers: Servers) -> None:
    local = create(lab, "local", externalTrafficPolicy="Local", allocateLoadBalancerNodePorts=False)
    assert "nodePort" not in service(lab, "local")["spec"]["ports"][0]
    wait_for(lambda: all(ask(local)), "it answers", 20)
    assert set(ask(local, times=8)) == {f"on-{announced_by(lab, 'local')} 10.{lab.index}.128.1"}
    port = service(lab, "local")["spec"]["healthCheckNodePort"]
    answers = {node["name"]: status_of(node["address"], port) for node in lab.status()["nodes"]}
    assert answers == {"node-1": 200, "node-2": 200, "node-3": 503}, "who has endpoints"
    shared = f"10.{lab.index}.140.77"
    assert create(lab, "one", 8001, loadBalancerIP=shared) == create(lab, "two", 8002, loadBalancerIP=shared) == shared
    wait_for(lambda: all([*ask(shared, 8001), *ask(shared, 8002)]), "both answer", 20)
    assert lab.call("POST", SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "foreign"}, "spec": {
        "type": "LoadBalancer", "loadBalancerClass": "example.com/x", "ports": [{"port": 80}]}})[0] == 201  # fmt: skip
    # The node that answers loses power: another takes the address over.
    node = announced_by(lab, "one")
    lab.navarch("node", "stop", node)
    try:
        wait_for(lambda: announced_by(lab, "one") != node and all(ask(shared, 8001, 4)), "another node answers", 60)
        assert announced_by(lab, "two") == announced_by(lab, "one")
        assert "ingress" not in service(lab, "foreign")["status"]["loadBalancer"]
    finally:
        lab.navarch("node", "start", node)
