"""`down` leaves nothing behind, whatever was killed before; labs and hosts do not disturb each other."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import FRONTEND, GUESTBOOK
from tests.e2e.harness import ROOT, Lab, answers, traces, wait_for
from tests.sampling import sample

WEB = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - name: web
        image: {FRONTEND}:v1
        readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: NodePort
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080}}]
"""


def serve(lab: Lab) -> str:
    """Applies a small web server; its address once it answers."""
    lab.apply(WEB)
    lab.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    return web(lab)


def web(lab: Lab) -> str:
    port = wait_for(lambda: lab.get("service", "web"), "the API server answers")["spec"]["ports"][0]["nodePort"]
    url = f"http://{lab.status()['nodes'][0]['address']}:{port}/version"
    wait_for(lambda: answers(url, lab), f"{url} answers", 30)
    return url


@contextlib.contextmanager
def down_at_last(lab: Lab) -> Iterator[Lab]:
    """However the block ends, the lab is gone after it, without a trace."""
    index = 0
    try:
        yield lab
        index = lab.index
    finally:
        lab.navarch("down", "--purge")
        left = traces(lab, index) if index else []
    assert left == []
    assert not lab.directory.exists()


def kill(*pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # one may have taken the next along
            os.kill(pid, signal.SIGKILL)


def members(lab: Lab, *below: str) -> list[int]:
    """All processes in the lab's cgroup, or in one below it."""
    found: dict[int, None] = {}
    for top in Path("/sys/fs/cgroup").glob("**/navarch/" + "/".join((lab.id, *below))):
        for file in [top / "cgroup.procs", *top.rglob("cgroup.procs")]:
            found |= dict.fromkeys(int(line) for line in file.read_text().split())
    return list(found)


def supervisor(lab: Lab) -> int:
    return int(next(p["pid"] for p in lab.status()["processes"] if p["name"] == "supervisor"))


def conmons(lab: Lab) -> list[int]:
    return [p for p in members(lab) if Path(f"/proc/{p}/comm").read_text().strip() == "conmon"]


VICTIMS: dict[str, Callable[[Lab], list[int]]] = {
    "supervisor": lambda lab: [supervisor(lab)],
    "init": lambda lab: [lab.node("node-1")["pid"]],
    "conmon": conmons,
    "etcd": lambda lab: [lab.pid("etcd")],
    "agent": lambda lab: [lab.pid("agent/node-1")],
    "nodes": lambda lab: [supervisor(lab), *(n["pid"] for n in lab.status()["nodes"])],
    "everything": members,
}


@pytest.mark.parametrize("victim", ["everything", *sample([name for name in VICTIMS if name != "everything"], 2, "down")])
def test_down_after_kill(home: Path, victim: str) -> None:
    lab = Lab(home, f"down-{victim}")
    with down_at_last(lab):
        lab.up("--nodes", "2")
        serve(lab)
        found = VICTIMS[victim](lab)
        assert found
        kill(*found)
        index = lab.index
        lab.navarch("down")
        assert traces(lab, index) == []
        assert "was not running" in lab.navarch("down"), "twice is fine"
        assert traces(lab, index) == []


def test_up_after_a_crash_and_after_down(home: Path) -> None:
    """Data survives: what ran, runs again."""
    lab = Lab(home, "again")
    with down_at_last(lab):
        lab.up("--nodes", "2")
        serve(lab)
        lab.kubectl("create", "configmap", "kept", "--from-literal=a=b")
        kill(*members(lab))  # as a power cut of the machine
        lab.up()
        web(lab)
        lab.navarch("down")
        lab.up()
        web(lab)
        assert lab.get("configmap", "kept")["data"] == {"a": "b"}


def test_the_supervisor_killed_and_up_again(home: Path) -> None:
    """A new supervisor takes over what runs; nothing is restarted."""
    lab = Lab(home, "adopt")
    with down_at_last(lab):
        lab.up("--nodes", "1")
        serve(lab)
        before = {p["name"]: p["pid"] for p in lab.status()["processes"]}
        kill(before.pop("supervisor"))
        lab.up()
        after = {p["name"]: p["pid"] for p in lab.status()["processes"]}
        after.pop("supervisor")
        assert after == before
        kill(after["proxy/node-1"], after["apiserver"])  # and it does watch over them
        wait_for(lambda: lab.pid("proxy/node-1") not in (0, after["proxy/node-1"]), "the proxy is started again")
        web(lab)
        lab.kubectl("get", "nodes")


def test_two_labs_side_by_side(guestbook: Lab, home: Path, tmp_path: Path) -> None:
    first = guestbook
    port = first.get("service", "frontend")["spec"]["ports"][0]["nodePort"]
    url = f"http://{first.node('node-1')['address']}:{port}/version"
    elsewhere = tmp_path / "home"  # another user's: even a lab of the same name is another lab
    elsewhere.mkdir()
    (elsewhere / "images").symlink_to(home / "images")
    second = Lab(elsewhere, first.name)
    with down_at_last(second):
        second.up("--nodes", "2")
        serve(second)
        assert second.index != first.index
        wait_for(lambda: answers(url, first), "the first answers beside it", 20)
        assert len(first.get("nodes")["items"]) == 3
        assert len(second.get("nodes")["items"]) == 2
        # Nothing leads from one into the other.
        pod = first.get("pods", "-l", "app=guestbook")["items"][0]["metadata"]["name"]
        other = second.get("pods", "-l", "app=web")["items"][0]["status"]["podIP"]
        code = f"import socket; socket.create_connection(('{other}', 8080), 2)"
        assert "Error" in first.fails("exec", pod, "--", "python3", "-c", code)
    wait_for(lambda: answers(url, first), "the first answers when the second is gone", 20)
    first.kubectl("get", "nodes")


@pytest.fixture
def strict_host() -> Iterator[list[str]]:
    """The words that lead into a host that drops whatever is forwarded, also between a bridge's ports."""
    script = """
        set -e
        mount -t tmpfs none /run
        ip link set lo up
        iptables -P FORWARD DROP
        nft add table inet strict
        nft 'add chain inet strict forward { type filter hook forward priority 0; policy drop; }'
        for file in /proc/sys/net/bridge/bridge-nf-call-iptables; do [ ! -e $file ] || echo 1 > $file; done
        echo ready
        exec sleep infinity
    """
    holder = subprocess.Popen(["unshare", "-n", "-m", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "ready\n"
        yield ["nsenter", "-t", str(holder.pid), "-n", "-m", f"--wd={ROOT}"]
    finally:
        holder.kill()
        holder.wait()


def test_host_that_forwards_nothing(home: Path, strict_host: list[str]) -> None:
    lab = Lab(home, "strict", enter=strict_host)
    with down_at_last(lab):
        lab.up("--nodes", "3")
        lab.kubectl("apply", "-f", str(GUESTBOOK / "manifests"))
        for name in ("redis-leader", "redis-follower", "frontend"):
            lab.kubectl("rollout", "status", f"deployment/{name}", "--timeout=90s")
        for node in lab.status()["nodes"]:
            wait_for(lambda a=node["address"]: answers(f"http://{a}:30080/entries", lab), "the guestbook answers", 30)
        rules = lab.run("iptables", "-S", "FORWARD").stdout
        assert rules == "-P FORWARD DROP\n", "the host's rules are as they were"
