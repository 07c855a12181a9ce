"""Environment variables, fields, and the files that carry a pod's names."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.types import core_v1
from nodeagent.network import netfiles
from nodeagent.node import admission
from nodeagent.pods import containerspec
from nodeagent.pods.environment import Reference, references, variables
from nodeagent.pods.fieldrefs import ConfigError, Facts, expand, field_value, resource_value
from nodeagent.pods.pulling import policy_of, valid_reference
from tests.nodeagent.life import pod

FACTS = Facts("10.0.0.1", "10.1.0.2", "n1", {"cpu": "4", "memory": "2Gi"})


def service(name: str, namespace: str, ip: str, *ports: dict[str, Any]) -> core_v1.Service:
    tree = {"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip, "ports": list(ports)}}
    return msgspec.convert(tree, core_v1.Service)


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("$(A)-$(B)", "1-$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(A", "$(A"),
        ("cost $5 $", "cost $5 $"),
        ("$()", "$()"),
    ],
)
def test_expand(text: str, out: str) -> None:
    assert expand(text, {"A": "1"}) == out


@given(st.text(alphabet="$()AB", max_size=20))
def test_expand_never_fails(text: str) -> None:
    assert expand(text.replace("$", "$$"), {"A": "1"}) == text  # doubled, everything is literal
    expand(text, {"A": "1"})


def test_variables() -> None:
    spec: dict[str, Any] = {
        "name": "a",
        "envFrom": [
            {"configMapRef": {"name": "cm"}, "prefix": "P_"},
            {"secretRef": {"name": "missing", "optional": True}},
        ],
        "env": [
            {"name": "A", "value": "$(P_x)/$(DB_SERVICE_HOST)"},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "NO", "valueFrom": {"secretKeyRef": {"name": "s", "key": "no", "optional": True}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "P_x", "value": "own"},
        ],
    }
    p = pod({"containers": [spec]})
    container = p.spec.containers[0]
    assert [r.name for r in references(container)] == ["cm", "missing", "s", "s"]
    objects = {
        Reference("ConfigMap", "cm"): core_v1.ConfigMap(data={"x": "1"}),
        Reference("Secret", "s"): core_v1.Secret(data={"k": base64.b64encode(b"v").decode()}),
        Reference("Secret", "missing"): None,
    }
    services = [
        service("db", "ns", "10.96.0.9", {"port": 5432, "name": "sql-in"}),
        service("headless", "ns", "None", {"port": 1}),
        service("other", "elsewhere", "10.96.0.8", {"port": 1}),
        service("kubernetes", "default", "10.96.0.1", {"port": 443, "name": "https"}),
    ]
    env = dict(variables(p, container, objects, services, FACTS))
    assert env["A"] == "1/10.96.0.9" and env["S"] == "v" and "NO" not in env and env["P_x"] == "own" and env["CPU"] == "4"
    assert env["DB_SERVICE_PORT_SQL_IN"] == "5432" and env["DB_PORT_5432_TCP"] == "tcp://10.96.0.9:5432"
    assert env["KUBERNETES_SERVICE_HOST"] == "10.96.0.1" and "OTHER_SERVICE_HOST" not in env
    assert not any(name.startswith("HEADLESS") for name in env)
    p.spec.enable_service_links = False
    env = dict(variables(p, container, objects, services, FACTS))
    assert "DB_SERVICE_HOST" not in env and env["KUBERNETES_SERVICE_PORT"] == "443"
    objects[Reference("Secret", "s")] = None
    with pytest.raises(ConfigError, match='secret "s" not found'):
        variables(p, container, objects, services, FACTS)


def test_fields() -> None:
    p = pod({"containers": [{"name": "a"}], "serviceAccountName": "sa"}, labels={"b": '"q"', "a": "1"})
    assert field_value(p, "metadata.labels", FACTS) == 'a="1"\nb="\\"q\\""'
    assert field_value(p, "metadata.labels['b']", FACTS) == '"q"'
    assert field_value(p, "status.podIP", FACTS) == "10.1.0.2"
    assert field_value(p, "spec.serviceAccountName", FACTS) == "sa"
    with pytest.raises(ConfigError):
        field_value(p, "spec.replicas", FACTS)
    resources = {"limits": {"cpu": "1500m", "memory": "100Mi"}, "requests": {"cpu": "250m"}}
    container = msgspec.convert({"name": "a", "resources": resources}, core_v1.Container)
    for resource, divisor, out in (
        ("limits.cpu", None, "2"),
        ("limits.cpu", "1m", "1500"),
        ("requests.cpu", "1m", "250"),
        ("limits.memory", "1Mi", "100"),
        ("limits.memory", "0", "104857600"),
        ("requests.memory", None, "0"),
    ):
        selector = core_v1.ResourceFieldSelector(resource=resource, divisor=divisor)
        assert resource_value(selector, container, FACTS) == out


def test_network_files() -> None:
    p = pod(
        {
            "containers": [{"name": "a"}],
            "hostname": "h",
            "subdomain": "sub",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x", "y"]}],
            "dnsConfig": {"searches": ["own.example"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]},
        }
    )
    hosts = netfiles.hosts(p, ["10.1.0.2"], "cluster.local", "", "n1")
    assert hosts.startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
    assert "10.1.0.2\th.sub.ns.svc.cluster.local\th\n" in hosts
    assert hosts.endswith("\n# Entries added by HostAliases.\n1.2.3.4\tx\ty\n")
    node = "search corp.example\nnameserver 9.9.9.9\noptions rotate\n"
    assert netfiles.resolv_conf(p, node, ["10.96.0.10"], "cluster.local") == (
        "search ns.svc.cluster.local svc.cluster.local cluster.local corp.example own.example\n"
        "nameserver 10.96.0.10\noptions ndots:2 edns0\n"
    )
    p.spec.dns_policy = "Default"
    assert "nameserver 9.9.9.9" in netfiles.resolv_conf(p, node, ["10.96.0.10"], "cluster.local")
    p.spec.dns_policy, p.spec.host_network = "ClusterFirst", True
    assert "9.9.9.9" in netfiles.resolv_conf(p, node, ["10.96.0.10"], "cluster.local")
    assert netfiles.hosts(p, [], "cluster.local", "127.0.0.1 me\n", "n1").startswith(
        "# Kubernetes-managed hosts file (host network).\n127.0.0.1 me\n"
    )


@pytest.mark.parametrize(("limit", "node", "quota"), [("1250m", 1000, 100_000), ("900m", 1000, 90_000), ("1250m", 0, 125_000)])
def test_a_limit_above_the_node_is_cut_to_it(limit: str, node: int, quota: int) -> None:
    p = pod({"containers": [{"name": "a", "resources": {"limits": {"cpu": limit}}}]})
    assert containerspec.container_resources(p, p.spec.containers[0], 1 << 30, "Burstable", node).cpu_quota == quota
    assert containerspec.pod_resources(p, node).cpu_quota == quota
    config = containerspec.sandbox_config(
        p, 0, node_name="n", logs=Path("/"), domain="cluster.local", qos="Burstable", cpu_capacity=node
    )
    assert config.resources.cpu_quota == quota


def test_linux_limits() -> None:
    resources = {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "32Mi"}}
    p = pod({"containers": [{"name": "a", "resources": resources}, {"name": "b"}]})
    first = containerspec.container_resources(p, p.spec.containers[0], 1 << 30, "Burstable")
    assert (first.cpu_shares, first.cpu_quota, first.memory_limit, first.oom_score_adj) == (256, 50000, 64 << 20, 969)
    whole = containerspec.pod_resources(p)
    assert (whole.cpu_shares, whole.cpu_quota, whole.memory_limit) == (256, 0, 0)  # b has no limit
    assert containerspec.container_resources(p, p.spec.containers[1], 1 << 30, "BestEffort").oom_score_adj == 1000
    # A RuntimeClass's overhead comes on top; limits of the pod as a whole count even if its containers have none.
    p = pod({"containers": [{"name": "a", "resources": resources}], "overhead": {"cpu": "250m", "memory": "32Mi"}})
    whole = containerspec.pod_resources(p)
    assert (whole.cpu_shares, whole.cpu_quota, whole.memory_limit) == (512, 75000, 96 << 20)
    p = pod({"containers": [{"name": "a"}], "resources": {"limits": {"memory": "64Mi"}}})
    assert containerspec.pod_resources(p).memory_limit == 64 << 20
    assert containerspec.pod_cgroup("u", "Guaranteed") == "podu"
    assert containerspec.pod_cgroup("u", "Burstable") == "burstable/podu"


def test_admission() -> None:
    node = msgspec.convert({"metadata": {"name": "n1", "labels": {"disk": "ssd"}}}, core_v1.Node)
    room = {"cpu": "1", "memory": "1Gi", "pods": "2"}
    small = pod({"containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 80}]}]})
    assert admission.reject(small, node, room, []) is None
    assert (admission.reject(small, node, room, [small]) or ("",))[0] == "NodePorts"
    assert (admission.reject(pod({"containers": []}), node, room, [small, small]) or ("",))[0] == "OutOfpods"
    picky = pod({"containers": [{"name": "a"}], "nodeSelector": {"disk": "hdd"}})
    assert (admission.reject(picky, node, room, []) or ("",))[0] == "NodeAffinity"
    big = pod({"containers": [{"name": "a", "resources": {"requests": {"memory": "2Gi"}}}]})
    assert (admission.reject(big, node, room, []) or ("",))[0] == "OutOfmemory"
    for profile, refused in (("RuntimeDefault", True), ("Unconfined", False)):
        confined = {"name": "a", "securityContext": {"appArmorProfile": {"type": profile}}}
        found = admission.reject(pod({"containers": [confined]}), node, room, [])
        assert (found is not None and found[0] == "AppArmor") is refused


def test_images() -> None:
    good = ["busybox", "a/b:1", "localhost:5000/x/y:v1", "reg.example.org/a@sha256:" + "0" * 64, "a__b", "[::1]:5000/x"]
    assert all(map(valid_reference, good))
    assert not any(map(valid_reference, ["", "UPPER", "a:b:c", "a b", "-a", "a/", "x@sha256:12"]))
    for image, policy in (("a", "Always"), ("a:latest", "Always"), ("a:1", "IfNotPresent"), ("r:5000/a", "Always")):
        assert policy_of(core_v1.Container(name="c", image=image)) == policy
