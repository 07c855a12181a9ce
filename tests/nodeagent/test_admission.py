"""What a node takes: host ports by address and protocol, extended resources, sysctls; and what is said of those refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from navarch.api.types import core_v1
from nodeagent import config as agentconfig
from nodeagent.agent import Agent
from nodeagent.node import sysctls
from nodeagent.node.admission import reject
from nodeagent.runtime.hollow import HollowRuntime
from tests.nodeagent.cluster import NODE, Api
from tests.nodeagent.test_agent import run

ROOM = {"cpu": "4", "memory": "4Gi", "pods": "110"}


def pod(**spec: Any) -> core_v1.Pod:
    return msgspec.convert({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}], **spec}}, core_v1.Pod)


def port(number: int, host_ip: str = "", protocol: str = "", kind: str = "containers") -> core_v1.Pod:
    listed = {"hostPort": number, "containerPort": 80}
    listed |= ({"hostIP": host_ip} if host_ip else {}) | ({"protocol": protocol} if protocol else {})
    container = {"name": "x", "ports": [listed]} | ({"restartPolicy": "Always"} if kind == "sidecar" else {})
    where = "containers" if kind == "containers" else "initContainers"
    return pod(**{where: [container]})


@pytest.mark.parametrize(
    ("other", "conflicts"),
    [
        (port(80), True),
        (port(80, "0.0.0.0"), True),
        (port(80, "::"), True),
        (port(80, "127.0.0.1"), True),
        (port(80, "127.0.0.1", "TCP"), True),
        (port(80, "127.0.0.2"), False),
        (port(80, "127.0.0.1", "UDP"), False),
        (port(80, "", "UDP"), False),
        (port(81), False),
        (port(80, kind="sidecar"), True),
        (port(80, kind="init"), False),
    ],
)
def test_host_ports(other: core_v1.Pod, conflicts: bool) -> None:
    for one, two in ((port(80, "127.0.0.1"), other), (other, port(80, "127.0.0.1"))):
        assert (reject(one, None, ROOM, [two]) is not None) == conflicts
    if conflicts:
        assert (reject(other, None, ROOM, [port(80, "127.0.0.1")]) or ("",))[0] == "NodePorts"


def test_resources_that_the_node_does_not_know() -> None:
    def asks(**requests: str) -> core_v1.Pod:
        return pod(containers=[{"name": "a", "resources": {"requests": requests}}])

    gpus = asks(**{"example.com/gpu": "2"})
    assert reject(gpus, None, ROOM, []) is None  # somebody else counts them
    assert reject(gpus, None, ROOM | {"example.com/gpu": "4"}, [gpus]) is None
    assert (reject(gpus, None, ROOM | {"example.com/gpu": "3"}, [gpus]) or ("",))[0] == "OutOfexample.com/gpu"
    assert (reject(gpus, None, ROOM | {"example.com/gpu": "0"}, []) or ("",))[0] == "OutOfexample.com/gpu"
    for native in ("hugepages-2Mi", "kubernetes.io/x", "requests.example.com/x"):
        assert (reject(asks(**{native: "1"}), None, ROOM, []) or ("",))[0] == f"OutOf{native}"


def test_capacity_that_is_patched_in_becomes_allocatable(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        def patch(capacity: dict[str, Any]) -> None:
            old = api.objects[NODE]
            merged = {k: v for k, v in {**old["status"]["capacity"], **capacity}.items() if v is not None}
            api.put(NODE, old | {"status": old["status"] | {"capacity": merged}})

        def has(name: str) -> str:
            return str(api.objects[NODE]["status"]["allocatable"].get(name, ""))

        patch({"example.com/gpu": "4", "scheduling.k8s.io/foo": "5", "cpu": "99"})
        await api.until(lambda: has("example.com/gpu") == "4" and has("scheduling.k8s.io/foo") == "5")
        assert has("cpu") == "4"  # the node's own resources are its own to tell
        resources = {"requests": {"example.com/gpu": "3"}, "limits": {"example.com/gpu": "3"}}
        spec = {"containers": [{"name": "a", "resources": resources}], "terminationGracePeriodSeconds": 1}
        first, second = api.pod("p", spec), api.pod("q", spec)
        await api.until(lambda: api.ready(first) and api.phase(second) == "Failed")
        assert api.status(second)["reason"] == "OutOfexample.com/gpu"
        patch({"example.com/gpu": "6"})
        await api.until(lambda: has("example.com/gpu") == "6")
        third = api.pod("r", spec)
        await api.until(lambda: api.ready(third))
        patch({"example.com/gpu": None})
        await api.until(lambda: not has("example.com/gpu"))
        assert has("scheduling.k8s.io/foo") == "5"

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"containers": [{"name": "a", "resources": {"requests": {"cpu": "9"}}}]}, "OutOfcpu"),
        ({"nodeSelector": {"no": "such"}}, "NodeAffinity"),
        ({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}, "SysctlForbidden"),
        ({"initContainers": [{"name": "i"}], "nodeSelector": {"no": "such"}}, "NodeAffinity"),
    ],
)
def test_a_pod_that_is_refused_says_nothing_of_containers(tmp_path: Path, spec: dict[str, Any], reason: str) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        path = api.pod("p", {"containers": [{"name": "a"}]} | spec)
        await api.until(lambda: api.phase(path) == "Failed")
        status = api.status(path)
        assert status["reason"] == reason and status["message"].startswith("Pod was rejected: ")
        assert not any(key.endswith("ontainerStatuses") and status[key] for key in status)
        await node.world.sleep(700)
        assert not any(key.endswith("ontainerStatuses") and api.status(path)[key] for key in api.status(path))

    run(tmp_path, body)


def wants(*names: str, **spec: Any) -> core_v1.PodSpec:
    return pod(securityContext={"sysctls": [{"name": n, "value": "1"} for n in names]}, **spec).spec


def test_sysctls() -> None:
    for name in sysctls.SAFE:
        assert not sysctls.forbidden(wants(name), ())
    assert not sysctls.forbidden(wants("net/ipv4/tcp_syncookies", "kernel.shm_rmid_forced"), ())
    for name in ("kernel.msgmax", "net.core.somaxconn", "net.ipv4.ip_forward", "vm.swappiness", "kernel.panic", "fs.mqueue.x"):
        assert sysctls.forbidden(wants(name), ()) == f'forbidden sysctl: "{name}" not allowlisted'
    allowed = ("net.core.*", "kernel.msgmax", "net/ipv4/conf/eth0.1/*")
    assert not sysctls.forbidden(wants("net.core.somaxconn", "kernel.msgmax"), allowed)
    assert not sysctls.forbidden(wants("net/ipv4/conf/eth0.1/forwarding"), allowed)
    assert "not allowlisted" in sysctls.forbidden(wants("kernel.msgmaxx"), allowed)
    assert "host net enabled" in sysctls.forbidden(wants("net.ipv4.tcp_syncookies", hostNetwork=True), ())
    assert "host ipc enabled" in sysctls.forbidden(wants("kernel.shm_rmid_forced", hostIPC=True), ())
    assert sysctls.file_of("net.ipv4.conf.eth0/1.forwarding") == "net/ipv4/conf/eth0.1/forwarding"
    assert sysctls.file_of("net/ipv4/conf/eth0.1/forwarding") == "net/ipv4/conf/eth0.1/forwarding"


def test_settings() -> None:
    base = ["--kubeconfig", "x", "--node-name", "n"]
    made, _ = agentconfig.parse([*base, "--pod-max-pids", "100", "--allowed-unsafe-sysctls", "net.core.*,kernel.msgmax"])
    assert (made.pod_max_pids, made.allowed_unsafe_sysctls) == (100, ("net.core.*", "kernel.msgmax"))
    assert agentconfig.parse(base)[0].pod_max_pids == 4096
    for bad in (("--pod-max-pids", "0"), ("--set", "max-pids=-1"), *(("--allowed-unsafe-sysctls", p) for p in ("vm.*", "*"))):
        with pytest.raises(SystemExit):
            agentconfig.parse([*base, *bad])
