"""A table of pods, with the statuses, events and logs that each must produce on every runtime."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from navarch.api.types import core_v1
from tests.nodeagent.real.onenode import Cluster, done, running

Act = Callable[[Cluster, str], Awaitable[str]]


@dataclass(frozen=True)
class Row:
    """``states``: container -> "running", "waiting REASON" or "terminated REASON CODE"; ``logs``: container -> its whole text;
    ``events``: reasons that are told; ``words``: a part of some event's message. ``act`` does something with the pod once
    ``until`` holds, and ``out`` is what it brings back."""

    name: str
    spec: dict[str, Any]
    until: Callable[[core_v1.Pod], Any] = done
    phase: str = ""
    states: dict[str, str] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    events: tuple[str, ...] = ()
    words: str = ""
    messages: dict[str, str] = field(default_factory=dict)  # container -> termination message
    act: Act | None = None
    out: str = ""
    reason: str = ""  # of the pod


def sh(script: str, name: str = "a", **more: Any) -> dict[str, Any]:
    """A container that runs a script."""
    return {"name": name, "command": ["sh", "-c", script], **more}


def one(script: str, **more: Any) -> dict[str, Any]:
    """A pod of one container that runs once."""
    return {"restartPolicy": "Never", "containers": [sh(script, **more)]}


def waits(name: str, reason: str) -> Callable[[core_v1.Pod], bool]:
    """Whether the container waits for this reason."""

    def condition(pod: core_v1.Pod) -> bool:
        return state_of(pod, name) == f"waiting {reason}"

    return condition


def restarted(times: int) -> Callable[[core_v1.Pod], bool]:
    """Whether container a was restarted so often, and runs."""
    return lambda pod: running(pod) and any(s.restart_count >= times for s in pod.status.container_statuses or ())


def state_of(pod: core_v1.Pod, name: str) -> str:
    """A container's state as a Row has it."""
    status = pod.status
    every = [*(status.init_container_statuses or ()), *(status.container_statuses or ())]
    every += status.ephemeral_container_statuses or ()
    state = next((s.state for s in every if s.name == name), None)
    if state is not None and state.running:
        return "running"
    if state is not None and state.terminated:
        return f"terminated {state.terminated.reason} {state.terminated.exit_code}"
    return f"waiting {state.waiting.reason}" if state is not None and state.waiting else ""


def run(*command: str) -> Act:
    """Runs a command in container a; its output and exit code."""

    async def act(cluster: Cluster, name: str) -> str:
        out, status = await cluster.exec(name, *command)
        code = "0" if status["status"] == "Success" else status["details"]["causes"][0]["message"]
        return f"{out}{code}"

    return act


async def grow(cluster: Cluster, name: str) -> str:
    """Resizes the pod, and reads the limits that its container sees."""
    limits = {"cpu": "200m", "memory": "100Mi"}
    patch = {"spec": {"containers": [{"name": "a", "resources": {"limits": limits, "requests": limits}}]}}
    await cluster.pods.patch(name, "default", patch, "strategic", subresource="resize")

    def resized(pod: core_v1.Pod) -> bool:
        shown = (pod.status.container_statuses or [])[0].resources
        return shown is not None and (shown.limits or {}).get("memory") == "100Mi"

    await cluster.until(name, resized)
    files = "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max"
    return (await cluster.exec(name, "sh", "-c", f"cat {files} 2>/dev/null"))[0].strip()


async def debug(cluster: Cluster, name: str) -> str:
    """Adds an ephemeral container that looks at the processes of container a."""
    look = sh("ps | grep -c '[s]leep 4321$'", "eye", image="busybox", imagePullPolicy="IfNotPresent", targetContainerName="a")
    tree = {"spec": {"ephemeralContainers": [look]}}
    await cluster.pods.patch(name, "default", tree, "strategic", subresource="ephemeralcontainers")
    await cluster.until(name, lambda p: state_of(p, "eye").startswith("terminated"))
    return await cluster.log(name, "eye")


async def delete(cluster: Cluster, name: str) -> str:
    """Deletes the pod; the log up to its end."""
    following = asyncio.ensure_future(cluster.log(name, follow="true"))
    await asyncio.sleep(0.2)
    await cluster.pods.delete(name, "default")
    text = await asyncio.wait_for(following, 15)
    await cluster.until_gone(name)
    return text


SHARED = {"volumes": [{"name": "e", "emptyDir": {}}]}
IN_E = {"volumeMounts": [{"name": "e", "mountPath": "/e"}]}
LITTLE = {"cpu": "100m", "memory": "32Mi"}
EXEC = {"exec": {"command": ["test", "-e", "/ok"]}, "periodSeconds": 1, "failureThreshold": 1}
SECOND = EXEC | {"exec": {"command": ["sh", "-c", "test -e /ok || { touch /ok; false; }"]}}  # fails once

ROWS = [
    Row("starts", {"containers": [sh("echo hi; sleep 1000")]}, running, "Running", {"a": "running"}, {"a": "hi\n"},
        events=("Pulled", "Created", "Started")),
    Row("succeeds", one("exit 0"), phase="Succeeded", states={"a": "terminated Completed 0"}),
    Row("fails", one("echo no; exit 3"), phase="Failed", states={"a": "terminated Error 3"}, logs={"a": "no\n"}),
    Row("is-killed", one("sh -c 'kill -9 $$$$'; exit $?"), phase="Failed", states={"a": "terminated Error 137"}),
    Row("both-streams", one("echo out; sleep 0.2; echo err >&2"), phase="Succeeded", logs={"a": "out\nerr\n"}),
    Row("long-line", one("head -c 40000 /dev/zero | tr '\\0' x"), phase="Succeeded", logs={"a": "x" * 40000}),
    Row("no-command", {"containers": [{"name": "a", "command": ["nothere"]}]}, waits("a", "RunContainerError"),
        events=("Created", "Failed"), words='exec: "nothere": executable file not found in $PATH'),
    Row("two-containers", {"restartPolicy": "Never", "containers": [sh("exit 1"), sh("exit 0", "b")]}, phase="Failed",
        states={"a": "terminated Error 1", "b": "terminated Completed 0"}),
    Row("on-failure", {"restartPolicy": "OnFailure", **SHARED,
        "containers": [sh("echo run >> /e/f; test $(wc -l < /e/f) = 2", **IN_E)]},
        phase="Succeeded", states={"a": "terminated Completed 0"}, restarts={"a": 1}),
    Row("always", {"containers": [sh("test -e /e/f && sleep 1000; touch /e/f; exit 5", **IN_E)], **SHARED}, restarted(1),
        "Running", {"a": "running"}, restarts={"a": 1}),
    Row("init", {**one("cat /e/f", **IN_E), **SHARED,
        "initContainers": [sh("echo 1 > /e/f", "i", **IN_E), sh("echo 2 >> /e/f", "j", **IN_E)]},
        phase="Succeeded", states={"i": "terminated Completed 0", "j": "terminated Completed 0"}, logs={"a": "1\n2\n"}),
    Row("init-fails", {**one("true"), "initContainers": [sh("exit 7", "i")]}, phase="Failed",
        states={"i": "terminated Error 7", "a": "waiting PodInitializing"}),
    Row("sidecar", {**one("until test -e /e/up; do sleep 0.05; done; cat /e/up", **IN_E), **SHARED,
        "initContainers": [sh("trap 'exit 0' TERM; echo up > /e/up; sleep 1000 & wait", "s", restartPolicy="Always", **IN_E)]},
        phase="Succeeded", states={"s": "terminated Completed 0"}, logs={"a": "up\n"}),
    Row("environment", one("echo $A-$B-$C-$D", env=[
        {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"},
        {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]),
        phase="Succeeded", logs={"a": "1-12-environment-v1\n"}),
    Row("arguments", {"restartPolicy": "Never", "containers": [
        {"name": "a", "command": ["sh"], "args": ["-c", "pwd; echo $0 $1", "x", "y z"], "workingDir": "/tmp/made"}]},
        phase="Succeeded", logs={"a": "/tmp/made\nx y z\n"}),
    Row("no-config-map", one("true", env=[{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k"}}}]),
        waits("a", "CreateContainerConfigError"), "Pending", events=("Failed",), words='configmap "no" not found'),
    Row("sub-path", {**one("cat /f; ls /d; touch /d/x", volumeMounts=[
        {"name": "cm", "mountPath": "/f", "subPath": "k"},
        {"name": "e", "mountPath": "/d", "subPathExpr": "$(HOSTNAME_)/in"}], env=[{"name": "HOSTNAME_", "value": "h"}]),
        "volumes": [{"name": "cm", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {}}]},
        phase="Succeeded", logs={"a": "v1"}),
    Row("memory-volume", {**one("stat -f -c %T /e; ls -ld /e | cut -c1-10", **IN_E),
        "volumes": [{"name": "e", "emptyDir": {"medium": "Memory"}}]}, phase="Succeeded", logs={"a": "tmpfs\ndrwxrwxrwx\n"}),
    Row("read-only-root", one("touch /x 2>&1; touch /e/x && echo yes", securityContext={"readOnlyRootFilesystem": True}, **IN_E)
        | SHARED, phase="Succeeded", logs={"a": "touch: /x: Read-only file system\nyes\n"}),
    Row("users", one("id -u; id -g; grep CapEff /proc/self/status", securityContext={
        "runAsUser": 1000, "runAsGroup": 2000, "capabilities": {"drop": ["ALL"]}}),
        phase="Succeeded", logs={"a": "1000\n2000\nCapEff:\t0000000000000000\n"}),
    Row("non-root", one("true", securityContext={"runAsNonRoot": True}), waits("a", "CreateContainerConfigError"),
        "Pending", words="container has runAsNonRoot and image will run as root"),
    Row("privileged", one("mount -t tmpfs x /tmp && echo mounted", securityContext={"privileged": True}),
        phase="Succeeded", logs={"a": "mounted\n"}),
    Row("out-of-memory", one("tail /dev/zero", resources={"limits": {"memory": "16Mi"}}), phase="Failed",
        states={"a": "terminated OOMKilled 137"}),
    Row("last-words", one("echo words > /dev/termination-log; exit 1"), phase="Failed", messages={"a": "words\n"}),
    Row("last-lines", one("echo line; exit 1", terminationMessagePolicy="FallbackToLogsOnError"), phase="Failed",
        messages={"a": "line\n"}),
    Row("host-network", {**one("hostname | cut -c1-13; ip -o addr show lo | grep -c 10.9.0.1"), "hostNetwork": True},
        phase="Succeeded", logs={"a": "navarch-test-\n1\n"}),
    Row("host-processes", {**one("ps | grep -q '[c]atatonit' && echo seen"), "hostPID": True}, phase="Succeeded",
        logs={"a": "seen\n"}),
    Row("shared-processes", {"restartPolicy": "Never", "shareProcessNamespace": True, "containers": [
        sh("sleep 4322; true"),
        sh("until ps | grep -q '[s]leep 4322'; do sleep 0.05; done; cat /proc/1/cmdline | tr '\\0' ' '; killall sleep", "b")]},
        phase="Succeeded", logs={"b": "/pause -P "}),
    Row("own-processes", one("echo $$$$"), phase="Succeeded", logs={"a": "1\n"}),
    Row("names", {**one("hostname; tail -n 1 /etc/hosts; grep -c 10.96.0.10 /etc/resolv.conf"), "hostname": "web",
        "hostAliases": [{"ip": "10.1.2.3", "hostnames": ["foo"]}]},
        phase="Succeeded", logs={"a": "web\n10.1.2.3\tfoo\n1\n"}),
    Row("sysctl", {**one("cat /proc/sys/net/ipv4/ip_unprivileged_port_start"),
        "securityContext": {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "81"}]}},
        phase="Succeeded", logs={"a": "81\n"}),
    Row("handler", {**one("echo ran"), "runtimeClassName": "crun"}, phase="Succeeded", logs={"a": "ran\n"}),
    Row("no-handler", {**one("true"), "runtimeClassName": "kata"}, waits("a", "ContainerCreating"), "Pending",
        events=("FailedCreatePodSandBox",), words='no runtime for "kata" is configured'),
    Row("no-image", one("true", image="nothere", imagePullPolicy="Never"), waits("a", "ErrImageNeverPull"), "Pending",
        events=("ErrImageNeverPull",)),
    Row("deadline", {**one("sleep 1000"), "activeDeadlineSeconds": 1}, phase="Failed", reason="DeadlineExceeded"),
    Row("liveness", {"containers": [sh("touch /ok; mkdir /e/once && sleep 1 && rm /ok; sleep 1000",
        livenessProbe=EXEC, **IN_E)], **SHARED}, restarted(1), "Running",
        restarts={"a": 1}, events=("Unhealthy", "Killing")),
    Row("readiness", {"containers": [sh("sleep 1000", readinessProbe=SECOND)]}, running, "Running",
        {"a": "running"}, events=("Unhealthy",)),
    Row("start-up", {"containers": [sh("sleep 1000", startupProbe=SECOND | {"failureThreshold": 30})]},
        running, "Running", {"a": "running"}),
    Row("post-start", {"containers": [sh("sleep 1000", lifecycle={"postStart": {"exec": {"command": [
        "sh", "-c", "echo begun > /hook"]}}})]}, running, "Running", act=run("cat", "/hook"), out="begun\n0"),
    Row("post-start-fails", {**one("sleep 1000", lifecycle={"postStart": {"exec": {"command": ["false"]}}})},
        phase="Failed", events=("FailedPostStartHook",)),
    Row("deletion", {"containers": [sh("trap 'echo bye; exit 0' TERM; echo up; sleep 1000 & wait", lifecycle={
        "preStop": {"exec": {"command": ["sh", "-c", "echo leaving > /proc/1/fd/1"]}}})]}, running, act=delete,
        out="up\nleaving\nbye\n", events=("Killing",)),
    Row("exec", {"containers": [sh("sleep 1000")]}, running, act=run("sh", "-c", "echo in; exit 4"), out="in\n4"),
    Row("resize", {"containers": [sh("sleep 1000", resources={"limits": LITTLE, "requests": LITTLE})]}, running,
        act=grow, out=str(100 << 20)),
    Row("debug", {"containers": [sh("sleep 4321 & wait")]}, running, act=debug, out="1\n"),
]  # fmt: skip
