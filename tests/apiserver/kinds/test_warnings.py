"""What is accepted with a word of warning: doubtful pods, and objects that nobody acts on yet."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.kinds.core.pods.warnings import pod_warnings
from navarch.api.patch import copy_tree
from tests.apiserver.kinds.samples import SAMPLES
from tests.apiserver.kinds.served import Asker
from tests.apiserver.kinds.support import CONTEXT, pod, problems, strategy
from tests.apiserver.kinds.test_no_change import place
from tests.apiserver.kinds.test_served import NS, create


def ports(*found: dict[str, Any]) -> dict[str, Any]:
    return {"containers": [{"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP", **p} for p in found]}]}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"terminationGracePeriodSeconds": -1},
         ["spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"]),
        ({"terminationGracePeriodSeconds": 0}, []),
        (ports({}, {}), ["spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"]),
        (ports({}, {"protocol": "UDP"}), []),
        (ports({"hostPort": 1}, {}),
         ["spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]"]),
        (ports({"hostPort": 1, "hostIP": "10.0.0.1"}, {"hostPort": 1}),
         ["spec.containers[0].ports[1]: dangerously ambiguous port definition with spec.containers[0].ports[0]"]),
        (ports({"hostPort": 1, "hostIP": "10.0.0.1"}, {"hostPort": 1, "hostIP": "10.0.0.2"}), []),
        ({"containers": [{"name": "a", "env": [{"name": "A"}, {"name": "B"}, {"name": "A"}]}]},
         ['spec.containers[0].env[2]: hides previous definition of "A", which may be dropped when using apply']),
        ({"imagePullSecrets": [{"name": "a"}, {"name": "a"}, {}]},
         ['spec.imagePullSecrets[1].name: duplicate name "a"', 'spec.imagePullSecrets[2].name: invalid empty name ""']),
        ({"topologySpreadConstraints": [{"labelSelector": {}}, {}]},
         ["spec.topologySpreadConstraints[1].labelSelector: a null labelSelector results in matching no pod"]),
        ({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "x"}]}}},
         ["spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null labelSelector "
          "results in matching no pod"]),
    ],
)  # fmt: skip
def test_pods(spec: dict[str, Any], expected: list[str]) -> None:
    assert pod_warnings({"spec": spec}) == expected


async def test_negative_grace_is_accepted(ask: Asker) -> None:
    assert not problems(strategy("pods"), pod(terminationGracePeriodSeconds=-1))

    await create(ask, "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}}")
    made = await ask("POST", f"{NS}/pods", pod(terminationGracePeriodSeconds=-1))
    assert made["spec"]["terminationGracePeriodSeconds"] == -1 and len(ask.warnings) == 1
    for kind, path in (("Deployment", "spec.template"), ("CronJob", "spec.jobTemplate.spec.template"),
                       ("Job", "spec.template"), ("DaemonSet", "spec.template")):  # fmt: skip
        sample = copy_tree(next(s for s in SAMPLES if s["kind"] == kind))
        holder = sample
        for step in path.split("."):
            holder = holder[step]
        holder["spec"]["terminationGracePeriodSeconds"] = -5
        made = await ask("POST", place(sample), sample)
        assert [w for w in ask.warnings if f"{path}.spec.terminationGracePeriodSeconds" in w], ask.warnings
        # A change elsewhere does not say it again.
        await ask("PATCH", f"{place(sample)}/sample", {"metadata": {"labels": {"x": "y"}}})
        assert not ask.warnings


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ({"type": "NodePort", "healthCheckNodePort": 31000},
         ["spec.healthCheckNodePort: Invalid value: 31000: may only be set when `type` is 'LoadBalancer' and "
          "`externalTrafficPolicy` is 'Local'"]),
        ({"healthCheckNodePort": 31000},
         ["spec.healthCheckNodePort: Invalid value: 31000: may only be set when `type` is 'LoadBalancer' and "
          "`externalTrafficPolicy` is 'Local'"]),
        ({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000}, []),
        ({"loadBalancerClass": "a/b"},
         ["spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'"]),
        ({"type": "NodePort", "allocateLoadBalancerNodePorts": True},
         ["spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'"]),
        ({"loadBalancerSourceRanges": ["10.0.0.0/8"]},
         ["spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"]),
        ({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8", "nowhere"]},
         ['spec.loadBalancerSourceRanges[1]: Invalid value: "nowhere": must be a valid CIDR value, (e.g. 10.9.8.0/24 or '
          "2001:db8::/64)"]),
        ({"type": "LoadBalancer", "ports": [{"port": 10250}]},
         ["spec.ports[0].port: Invalid value: 10250: may not expose port 10250 externally since it is used by kubelet"]),
        ({"externalTrafficPolicy": "Local"},
         ['spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services']),
        ({"ports": [{"port": 80, "nodePort": 31000}]},
         ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]),
    ],
)  # fmt: skip
def test_fields_that_only_some_services_have(spec: dict[str, Any], wrong: list[str]) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"}, "spec": {
        "ports": [{"port": 80}], **spec}}  # fmt: skip
    assert problems(strategy("services"), service) == wrong


def test_fields_go_with_the_type() -> None:
    services = strategy("services")
    old = {"metadata": {"name": "s"}, "spec": {
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000, "loadBalancerClass": "a/b",
        "allocateLoadBalancerNodePorts": True, "ports": [{"port": 80, "protocol": "TCP"}]}}  # fmt: skip
    new = copy_tree(old)
    new["spec"]["type"] = "ClusterIP"
    services.prepare_update(CONTEXT, new, old)
    assert new["spec"].keys() == {"type", "ports"}
    changed = copy_tree(old)
    changed["spec"]["loadBalancerClass"] = "c/d"
    assert any("loadBalancerClass" in c.text() for c in services.validate_update(changed, old))


@pytest.mark.parametrize(
    ("name", "host", "wrong"),
    [
        ("net.ipv4.tcp_syncookies", {}, False), ("net/ipv4.conf/all", {}, False), ("kernel.shm_rmid_forced", {}, False),
        ("Net.ipv4", {}, True), ("net..ipv4", {}, True), ("a" * 254, {}, True), ("", {}, True),
        ("net.ipv4.tcp_syncookies", {"hostNetwork": True}, True), ("net/ipv4/tcp_syncookies", {"hostNetwork": True}, True),
        ("kernel.msgmax", {"hostIPC": True}, True), ("fs/mqueue/msg_max", {"hostIPC": True}, True),
        ("kernel.panic", {"hostIPC": True}, False),
    ],
)  # fmt: skip
def test_sysctl_names(name: str, host: dict[str, Any], wrong: bool) -> None:
    spec = pod(securityContext={"sysctls": [{"name": name, "value": "1"}]}, **host)
    assert bool(problems(strategy("pods"), spec)) == wrong
