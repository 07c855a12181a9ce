"""kubectl's streams over both its protocols: WebSocket (what it tries first) and SPDY/3.1 (older versions, fallback)."""

from __future__ import annotations

import contextlib
import copy
import http.client
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client as kubernetes
from kubernetes import config as kubernetes_config
from kubernetes.stream import portforward

from tests.clients.conftest import IMAGE, Kubectl, Terminal
from tests.e2e.harness import ROOT, wait_for

WEB = "mkdir /www; seq 1 200000 > /www/numbers; httpd -p 8080 -h /www; nc -ll -p 7000 -e cat & " + (
    "trap 'exit 0' TERM; while true; do sleep 0.1; done"
)
LISTENING = "until netstat -ltn | grep -q :7000 && netstat -ltn | grep -q :8080; do sleep 0.02; done"
NUMBERS = "".join(f"{n}\n" for n in range(1, 200001)).encode()


@pytest.fixture(params=["websocket", "spdy"])
def either(kubectl: Kubectl, request: pytest.FixtureRequest) -> Kubectl:
    """kubectl that speaks one of the protocols only where it has a choice."""
    wanted = "true" if request.param == "websocket" else "false"
    lab = copy.copy(kubectl.lab)
    lab.environment = lab.environment | {
        "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": wanted,
        "KUBECTL_PORT_FORWARD_WEBSOCKETS": wanted,
    }
    return Kubectl(lab, kubectl.namespace)


def serving(kubectl: Kubectl) -> None:
    """A pod ``web`` that answers on its ports: a container without a probe is ready before its programs listen."""
    kubectl.pod("web", WEB)
    kubectl("exec", "web", "--", "sh", "-c", LISTENING)


@contextlib.contextmanager
def forwarded(kubectl: Kubectl, what: str, port: int) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """The local port of a running ``kubectl port-forward``."""
    process = kubectl.popen("port-forward", what, f":{port}")
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+) -> ", line)
        assert found, line + process.stdout.read()
        yield int(found[1]), process
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def fetch(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_port_forward(either: Kubectl) -> None:
    serving(either)
    either("expose", "pod", "web", "--port=80", "--target-port=8080")
    for what, port in (("pod/web", 8080), ("service/web", 80)):
        with forwarded(either, what, port) as (local, _):
            for _ in range(3):
                assert fetch(local, "/numbers") == (200, NUMBERS)
            assert fetch(local, "/absent")[0] == 404
    with (
        forwarded(either, "pod/web", 7000) as (local, _),
        socket.create_connection(("127.0.0.1", local), 10) as one,
        socket.create_connection(("127.0.0.1", local), 10) as two,
    ):
        two.sendall(b"two")
        one.sendall(b"one")
        assert (one.recv(10), two.recv(10)) == (b"one", b"two")
        one.sendall(NUMBERS[:50000])
        one.shutdown(socket.SHUT_WR)  # half closed: the rest still comes back
        back = b""
        while data := one.recv(65536):
            back += data
        assert back == NUMBERS[:50000]
        two.sendall(b"still there")
        assert two.recv(20) == b"still there"
    process = either.popen("port-forward", "pod/web", ":9999")
    assert process.stdout is not None
    local = int(re.findall(r"127\.0\.0\.1:(\d+)", process.stdout.readline())[0])
    with socket.create_connection(("127.0.0.1", local), 10) as refused:
        assert refused.recv(10) == b""
    process.terminate()
    assert "connect: connection refused" in process.communicate(timeout=10)[0]


def test_port_forward_to_redis(either: Kubectl) -> None:
    either.lab.navarch("image", "build", "-q", "-t", "localhost/redis:1", str(ROOT / "deploy" / "guestbook" / "redis"))
    either("run", "redis", "--image=localhost/redis:1", "--image-pull-policy=IfNotPresent")
    either("wait", "--for=condition=Ready", "pod/redis", "--timeout=30s")
    with forwarded(either, "pod/redis", 6379) as (local, _):

        def says(command: bytes) -> bytes:
            with socket.create_connection(("127.0.0.1", local), 10) as connection:
                connection.sendall(command + b"\r\n")
                return connection.recv(100)

        wait_for(lambda: says(b"PING") == b"+PONG\r\n", "redis answers")
        assert says(b"SET key value") == b"+OK\r\n"
        assert says(b"GET key") == b"$5\r\nvalue\r\n"


def test_exec_and_copy(either: Kubectl, tmp_path: Path) -> None:
    either.pod("web")
    done = either.run("exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert done.stderr == "err\ncommand terminated with exit code 7\n"
    text = "hello\n" * 500_000
    assert either("exec", "-i", "web", "--", "cat", stdin=text) == text
    # A command that reads none of it ends all the same.
    assert either("exec", "-i", "web", "--", "echo", "deaf", stdin=text) == "deaf\n"
    absent = either.run("exec", "web", "--", "nope", check=False)
    assert absent.returncode != 0 and "executable file" in absent.stderr
    file = tmp_path / "bytes"
    file.write_bytes(bytes(range(256)) * 8192)
    either("cp", str(file), "web:/tmp/there")
    either("cp", "web:/tmp/there", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == file.read_bytes()


def test_a_terminal(either: Kubectl) -> None:
    terminal = Terminal(either, "run", "shell", "--rm", "-it", f"--image={IMAGE}", "--restart=Never", "--", "sh")
    terminal.expect("try pressing enter.")
    terminal.say("\n")
    terminal.expect("# ")
    terminal.say("echo pid-$$; exit 3\n")
    terminal.expect("pid-1\r\n")
    assert 'pod "shell"' in terminal.expect("deleted")
    assert terminal.wait() == 3


def test_killed_clients_leave_nothing(either: Kubectl) -> None:
    either.pod("web")
    processes = [either.popen("exec", "-i", "web", "--", "sh", "-c", "echo on; exec sleep 4711") for _ in range(3)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "on\n"
        process.kill()
        process.communicate()
    wait_for(lambda: "sleep 4711" not in either("exec", "web", "--", "ps"), "the commands of killed clients have ended")


def test_debug(either: Kubectl) -> None:
    either.pod("web")
    terminal = Terminal(either, "debug", "-it", "web", f"--image={IMAGE}", "--target=web", "-c", "look", "--", "sh")
    terminal.expect("try pressing enter.")
    terminal.say("\n")
    terminal.expect("# ")
    terminal.say("ps; hostname; echo said-$((40+2))\n")
    said = terminal.expect("said-42\r\n")
    assert "trap" in said, "the target's processes are there"
    assert "web\r\n" in said
    terminal.say("exit\n")
    terminal.wait()
    wait_for(
        lambda: either.get("pod", "web")["status"]["ephemeralContainerStatuses"][0]["state"].get("terminated"),
        "the debugging container's end",
    )
    pod = either.get("pod", "web")
    assert pod["spec"]["ephemeralContainers"][0]["targetContainerName"] == "web"
    assert all(c["ready"] and not c["restartCount"] for c in pod["status"]["containerStatuses"])
    either("debug", "web", f"--image={IMAGE}", "-c", "again", "--", "sh", "-c", "echo from again")
    wait_for(lambda: either("logs", "web", "-c", "again") == "from again\n", "the log of an ephemeral container")
    either("debug", "web", "--copy-to=copy", "--set-image=*=localhost/busybox:2", "--share-processes")
    either("wait", "--for=condition=Ready", "pod/copy", "--timeout=30s")


def test_proxies(kubectl: Kubectl) -> None:
    serving(kubectl)
    kubectl("expose", "pod", "web", "--port=80", "--target-port=8080")
    base = f"/api/v1/namespaces/{kubectl.namespace}"
    assert kubectl("get", "--raw", f"{base}/pods/web:8080/proxy/numbers").encode() == NUMBERS
    wait_for(
        lambda: kubectl.run("get", "--raw", f"{base}/services/web:80/proxy/numbers", check=False).returncode == 0,
        "endpoints",
    )
    node = kubectl.get("pod", "web")["spec"]["nodeName"]
    assert kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/healthz") == "ok"
    refused = kubectl.fails("get", "--raw", f"{base}/pods/web:9/proxy/")
    assert re.search(r"error trying to reach service: dial tcp \S+:9: connect: connection refused", refused)
    process = kubectl.popen("proxy", "--port=0")
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline().rpartition(":")[2])
        assert fetch(port, f"{base}/services/web:80/proxy/numbers") == (200, NUMBERS)
        assert fetch(port, f"{base}/pods/web")[0] == 200
    finally:
        process.terminate()
        process.communicate(timeout=10)


def test_navarch_port_forward(kubectl: Kubectl) -> None:
    serving(kubectl)
    kubectl("expose", "pod", "web", "--port=80", "--target-port=8080")
    words = [sys.executable, "-m", "cli", "port-forward", "-n", kubectl.namespace, "svc/web", ":80"]
    process = subprocess.Popen(
        words, env=kubectl.lab.environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    local = int(re.findall(r"127\.0\.0\.1:(\d+) -> 8080", process.stdout.readline())[0])
    for _ in range(3):
        assert fetch(local, "/numbers") == (200, NUMBERS)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=10)[0]
    assert process.returncode == 130 and said.count(f"Handling connection for {local}\n") == 3


def test_the_python_client(kubectl: Kubectl) -> None:
    serving(kubectl)
    api: Any = kubernetes.CoreV1Api(
        kubernetes_config.new_client_from_config(config_file=kubectl.lab.environment["KUBECONFIG"])
    )
    ports = portforward(api.connect_get_namespaced_pod_portforward, "web", kubectl.namespace, ports="7000,9999")
    echo = ports.socket(7000)
    echo.setblocking(True)
    echo.settimeout(10)
    echo.sendall(b"hello")
    assert echo.recv(10) == b"hello", (ports.error(7000), ports.error(9999))
    wait_for(lambda: ports.error(9999), "the other port's error")
    assert "connection refused" in ports.error(9999)
    echo.close()
