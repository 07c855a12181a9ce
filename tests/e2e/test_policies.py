"""NetworkPolicies on real nodes: the usual recipes (deploy/manifests/policies), each as a matrix of who reaches whom, and
the ways around a policy.

The pods are made once. Servers and clients are sockets of the test in the network namespaces of the pods' containers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from navarch.api.serialization import decode_yaml
from tests.e2e.conftest import REDIS
from tests.e2e.harness import ROOT, Lab, wait_for
from tests.e2e.inside import Servers, pid_of, reach, sockets

FILES = ROOT / "deploy" / "manifests" / "policies"
# name: (namespace, node, labels)
PODS = {
    "web": ("np-x", "node-1", {"app": "web"}),
    "client": ("np-x", "node-1", {"app": "client"}),
    "far": ("np-x", "node-2", {"app": "client", "role": "far"}),
    "other": ("np-y", "node-2", {"app": "client"}),
    "mon": ("np-y", "node-1", {"app": "mon"}),
}
PORTS = (("tcp", 80), ("tcp", 81), ("udp", 80))
HOST_PORT = 18080
DNS_QUERY = bytes.fromhex("123401000001000000000000") + b"\x0akubernetes\x07default\x03svc\x07cluster\x05local\0\0\x01\0\x01"


class Network:
    """Pods, nodes and the host: where they are, and who reaches whom."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.base = lab, f"10.{lab.index}"
        pods = {p["metadata"]["name"]: p for n in ("np-x", "np-y") for p in lab.get("pods", "-n", n)["items"]}
        self.address = {name: pods[name]["status"]["podIP"] for name in PODS}
        self.pid = {name: pid_of(lab, pods[name]) for name in PODS} | {"host": 0}
        self.pid |= {node: lab.node(node)["pid"] for node in ("node-1", "node-2")}
        self.goals = {f"{name}:{kind}{port}": (kind, self.address[name], port) for name in PODS for kind, port in PORTS}
        self.goals["host"] = ("tcp", f"{self.base}.128.1", HOST_PORT)

    def matrix(self) -> dict[tuple[str, str], bool]:
        with ThreadPoolExecutor(2 * len(self.pid)) as threads:
            rows = {source: threads.submit(reach, self.pid[source], self.goals.values()) for source in self.pid}
            dns = [("udp", f"{self.base}.192.10", 53)]
            asked = {source: threads.submit(reach, self.pid[source], dns, data=DNS_QUERY) for source in PODS}
        found = {(s, goal): bool(a) for s, row in rows.items() for goal, a in zip(self.goals, row.result(), strict=True)}
        return found | {(source, "dns"): bool(answer.result()[0]) for source, answer in asked.items()}


@pytest.fixture(scope="module")
def network(lab: Lab) -> Iterator[Network]:
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "np-x", "labels": {"team": "own"}}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "np-y", "labels": {"team": "other"}}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "np-x"}, "spec": {
            "type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 8000, "targetPort": 80, "nodePort": 31080}]}},
    ]  # fmt: skip
    for name, (namespace, node, labels) in PODS.items():
        ports = [{"name": "http", "containerPort": 80}]
        container = {"name": "c", "image": REDIS, "command": ["sleep", "3600"], "ports": ports}
        objects.append({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
        })  # fmt: skip
    for obj in objects:
        kind, namespace = obj["kind"].lower() + "s", obj["metadata"].get("namespace")
        place = f"/api/v1/namespaces/{namespace}/{kind}" if namespace else f"/api/v1/{kind}"
        if obj["kind"] == "Pod":
            account = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
            wait_for(lambda account=account: lab.call("GET", account)[0] == 200, "the account is there")
        status, answer = lab.call("POST", place, obj)
        assert status == 201, answer
    try:
        for name, (namespace, _, _) in PODS.items():
            lab.kubectl("wait", "-n", namespace, f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
        made = Network(lab)
        with Servers() as servers:
            for name in PODS:
                for kind, port in PORTS:
                    servers.add(made.pid[name], name, kind, port)
            servers.add(0, "host", "tcp", HOST_PORT, f"{made.base}.128.1")
            yield made
    finally:
        lab.kubectl("delete", "namespace", "np-x", "np-y", timeout=120)


HOME = {name: node for name, (_, node, _) in PODS.items()}
OWN = ("web", "client", "far")
CLIENTS = ("client", "far")
Denied = Callable[[str, str, str], bool]  # (source, target, port) -> whether the policy is to deny it


def into(who: tuple[str, ...], *allowed: str, port: str = "") -> Denied:
    """Denies what goes into ``who`` unless it comes from ``allowed`` to ``port``."""
    return lambda s, t, p: t in who and not (s in allowed and port in ("", p))


def out_of(who: tuple[str, ...], *allowed: str) -> Denied:
    """Denies what leaves ``who`` unless it goes to ``allowed``."""
    return lambda s, t, p: s in who and t not in allowed


WEB, EVERY = "podSelector: {matchLabels: {app: web}}", "podSelector: {}"
CLIENT = "podSelector: {matchLabels: {app: client}}"
ANYBODY = (*PODS, "host", "node-1", "node-2")
# By the name of a file of deploy/manifests/policies, or any other; with specs that are applied (beside that file).
RECIPES: dict[str, tuple[list[str], Denied]] = {
    "01-deny-all-to-an-application": ([], into(("web",))),
    "02-from-one-application": ([], into(("web",), *CLIENTS)),
    "03-allow-all-to-an-application": ([EVERY], into(CLIENTS)),
    "04-deny-all-to-a-namespace": ([], into(OWN)),
    "05-from-the-same-namespace": ([], into(OWN, *OWN)),
    "06-from-all-namespaces": ([], into(("web",), *PODS)),
    "07-from-one-namespace": ([], into(("web",), "other", "mon")),
    "08-from-some-pods-of-a-namespace": ([], into(("web",), "mon")),
    "09-from-outside": ([], lambda s, t, p: False),
    "10-to-one-port": ([], into(("web",), *ANYBODY, port="tcp80")),
    "11-from-several": ([], into(("web",), "far", "mon")),
    "12-deny-all-from-an-application": ([], out_of(CLIENTS)),
    "13-deny-all-from-a-namespace": ([], out_of(OWN)),
    "14-only-dns-from-a-namespace": ([], out_of(OWN, "dns")),
    "15-out-to-the-cluster-only": ([], out_of(CLIENTS, *PODS, "dns")),
    "to a port by name, and a range": (
        [f"{WEB}, ingress: [{{ports: [{{port: http}}], from: [{{{CLIENT}}}]}}, {{ports: [{{port: 81, endPort: 90}}]}}]"],
        lambda s, t, p: t == "web" and not (p == "tcp81" or (p == "tcp80" and s in CLIENTS)),
    ),
    "several policies add up": (
        [WEB, f"{WEB}, ingress: [{{from: [{{podSelector: {{matchLabels: {{role: far}}}}}}]}}]",
         f"{EVERY}, ingress: [{{from: [{{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: mon}}}}}}]}}]"],
        lambda s, t, p: t in OWN and s != "mon" and not (t == "web" and s == "far"),
    ),
    "out to a namespace": (
        [f"{CLIENT}, policyTypes: [Egress], egress: [{{to: [{{namespaceSelector: {{matchLabels: {{team: other}}}}}}]}}]"],
        out_of(CLIENTS, "other", "mon"),
    ),
    "out to a block with a hole": (
        [f"{CLIENT}, policyTypes: [Egress], egress: [{{to: [{{ipBlock: {{cidr: 0.0.0.0/0, except: [BASE.1.0/24]}}}}]}}]"],
        out_of(CLIENTS, "far", "other", "host", "dns"),
    ),
    "in from the machine, out to nobody": (
        [f"{WEB}, policyTypes: [Ingress, Egress], ingress: [{{from: [{{ipBlock: {{cidr: BASE.128.0/20}}}}]}}]"],
        lambda s, t, p: s == "web" or (t == "web" and s in PODS),
    ),
}  # fmt: skip


POLICIES = "/apis/networking.k8s.io/v1/namespaces/np-x/networkpolicies"


def apply(network: Network, specs: list[str], *files: Path) -> None:
    texts = [f"metadata: {{name: p{n}}}\nspec: {{{s.replace('BASE', network.base)}}}\n" for n, s in enumerate(specs)]
    for text in (*texts, *(file.read_text() for file in files)):
        status, answer = network.lab.call("POST", POLICIES, next(iter(decode_yaml(text))))
        assert status == 201, answer


def clear(network: Network) -> None:
    assert network.lab.call("DELETE", POLICIES)[0] == 200


def expected(network: Network, denied: Denied) -> dict[tuple[str, str], bool]:
    """Whatever a policy says, a pod reaches itself and its node it; an answer from the own node's DNS counts as a pod's."""
    out = {}
    for source in network.pid:
        for goal in [*network.goals, *(["dns"] if source in PODS else [])]:
            target, _, port = goal.partition(":")
            free = source == target or HOME.get(target) == source
            out[source, goal] = free or not denied(source, target, port)
    return out


def test_every_file_is_a_recipe() -> None:
    assert {file.stem for file in FILES.iterdir()} <= set(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes(network: Network, recipe: str) -> None:
    specs, denied = RECIPES[recipe]
    wanted = expected(network, denied)
    apply(network, specs, *FILES.glob(f"{recipe}.yaml"))
    try:
        def settled() -> bool:
            found = network.matrix()
            wrong = {pair: found[pair] for pair in wanted if found[pair] != wanted[pair]}
            assert not wrong, f"(source, target): reached {wrong}"
            return True

        wait_for(settled, recipe, 20)
    finally:
        clear(network)


def silent(network: Network, source: str, goal: tuple[str, str, int], **options: object) -> bool:
    return reach(network.pid[source], [goal], **options) == [""]


def test_ways_around_a_policy(network: Network) -> None:
    """By node ports of either node, by the cluster IP, from a node's network, in fragments."""
    nodes = {name: network.lab.node(name)["address"] for name in ("node-1", "node-2")}
    cluster_ip = network.lab.get("service", "web", "-n", "np-x")["spec"]["clusterIP"]
    ways = [("tcp", cluster_ip, 8000), *(("tcp", address, 31080) for address in nodes.values())]
    sources = ("client", "far", "other", "mon")
    everything = {
        s: [a.partition(" ")[0] for a in reach(network.pid[s], ways, patience=3)] for s in (*sources, "host", "node-2")
    }
    assert everything.pop("host")[1:] == ["web"] * 2 and set(map(tuple, everything.values())) == {("web",) * 3}
    long = b"?" * 6000  # in five fragments
    assert reach(network.pid["far"], [("udp", network.address["web"], 80)], patience=10, data=long)[0].endswith("6000")
    apply(network, [f"{WEB}, ingress: [{{from: [{{podSelector: {{matchLabels: {{role: far}}}}}}]}}]"])
    try:
        wait_for(lambda: silent(network, "client", ("tcp", network.address["web"], 80)), "the policy is in force", 20)
        for source in ("client", "other", "mon", "node-2"):
            assert reach(network.pid[source], ways) == [""] * 3, source
            assert silent(network, source, ("udp", network.address["web"], 80), data=long), source
        # Who may, may by the service too. By its own node's port it comes with that node's address, as in Kubernetes.
        assert [bool(a) for a in reach(network.pid["far"], ways, patience=3)] == [True, True, False]
        assert reach(network.pid["far"], [("udp", network.address["web"], 80)], patience=10, data=long)[0].endswith("6000")
        assert reach(network.pid["node-1"], ways[:2], patience=10) == [f"web {nodes['node-1']}"] * 2, "its own node always may"
    finally:
        clear(network)


def test_established_flows_are_cut(network: Network) -> None:
    (tcp,), (udp,) = sockets(network.pid["far"], "tcp"), sockets(network.pid["far"], "udp")
    tcp.setblocking(True)
    udp.setblocking(True)
    tcp.settimeout(10)
    udp.settimeout(10)
    tcp.connect((network.address["web"], 80))
    assert tcp.recv(100).startswith(b"web")
    udp.connect((network.address["web"], 80))
    udp.send(b"push")
    assert udp.recv(100).startswith(b"web") and udp.recv(100) == b"pushed"
    apply(network, [WEB])
    try:
        wait_for(lambda: silent(network, "far", ("tcp", network.address["web"], 80)), "the policy is in force", 20)
        udp.settimeout(0.5)
        end = time.monotonic() + 5
        with pytest.raises(TimeoutError):  # the server goes on sending; nothing of it arrives any more
            while time.monotonic() < end:
                udp.recv(100)
        tcp.send(b"still there?")
        tcp.settimeout(1)
        with pytest.raises(TimeoutError):
            tcp.recv(100)
    finally:
        clear(network)
    tcp.settimeout(10)
    assert tcp.recv(100) == b"still there?", "the connection itself was left alone: what was sent goes through now"
    tcp.close()
    udp.close()


def test_a_new_pod_need_not_wait(network: Network) -> None:
    """While there are policies a pod is isolated before it starts, and its first packet is not lost for that."""
    apply(network, [f"{WEB}, ingress: [{{from: [{{{CLIENT}}}]}}]"])
    try:
        wait_for(lambda: silent(network, "mon", ("tcp", network.address["web"], 80)), "the policy is in force", 20)
        for number in range(4):
            app, place = ("client", "denied")[number % 2], f"/api/v1/namespaces/np-x/pods/quick-{number}"
            ask = f"sleep 0.2 | nc -w {10 if app == 'client' else 2} {network.address['web']} 80"
            look = "awk '/^Tcp:/ {print $13}' /proc/net/snmp"
            container = {"name": "c", "image": REDIS, "command": ["sh", "-c", f"{ask}; {look}"]}
            status, answer = network.lab.call("POST", "/api/v1/namespaces/np-x/pods", {
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"quick-{number}", "labels": {"app": app}},
                "spec": {"nodeName": f"node-{number // 2 + 1}", "restartPolicy": "Never", "containers": [container]},
            })  # fmt: skip
            assert status == 201, answer
            wait_for(lambda place=place: network.lab.call("GET", place)[1]["status"]["phase"] == "Succeeded", "it ended", 30)
            words = network.lab.kubectl("logs", "-n", "np-x", f"quick-{number}").split()
            if app == "client":
                # The target's node hears of a peer on another node from the API server, a moment later: what is allowed
                # is allowed in the end, as in Kubernetes.
                assert words[0] == "web" and (number >= 2 or words[-1] == "0"), f"segments were sent again: {words}"
            else:
                assert "web" not in words, "it never reached what it may not reach"
            assert network.lab.call("DELETE", place)[0] == 200
    finally:
        clear(network)
