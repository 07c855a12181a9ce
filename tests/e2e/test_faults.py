"""Faults: what is killed comes back, what is lost is replaced, and nothing that was acknowledged is forgotten."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from navarch.linux.syscalls import (
    start_time,
)
from tests.e2e.harness import Lab, answers, fetch, loads, wait_for
from tests.e2e.writer import Writer
from tests.sampling import sample


def pods(lab: Lab, selector: str = "") -> list[dict[str, Any]]:
    return lab.get("pods", *(("-l", selector) if selector else ()))["items"]


def is_ready(item: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"].get("conditions", ()))


def containers(lab: Lab) -> dict[str, tuple[str, int]]:
    """Pod -> (container id, restart count) of all pods."""
    return {
        pod["metadata"]["name"]: (status["containerID"], status["restartCount"])
        for pod in pods(lab)
        for status in pod["status"]["containerStatuses"]
    }


def processes(lab: Lab, container: str) -> list[int]:
    """The processes of a container (``oci://ID``), as the host numbers them."""
    found: dict[int, None] = {}
    for path in Path("/sys/fs/cgroup").glob(f"**/navarch/{lab.id}/*/pods/**/{container.removeprefix('oci://')}*"):
        found |= dict.fromkeys(int(line) for line in (path / "cgroup.procs").read_text().split())
    return sorted(found)


def first_process(lab: Lab, container: str) -> int:
    """The oldest process of a container, which is its main one; probes come and go beside it."""
    return min(processes(lab, container), key=lambda pid: (start_time(pid) or sys.maxsize, pid))


def settled(lab: Lab) -> bool:
    """All nodes Ready, all pods ready, none of them going."""
    everything = pods(lab)
    nodes = lab.get("nodes")["items"]
    return (
        len(everything) == 6
        and all(is_ready(p) and "deletionTimestamp" not in p["metadata"] for p in everything)
        and all(is_ready(n) and not n["spec"].get("taints") for n in nodes)
    )


@pytest.fixture
def whole(guestbook: Lab) -> Lab:
    wait_for(lambda: settled(guestbook), "the lab is whole", 60)
    return guestbook


def test_killed_container_is_restarted(whole: Lab) -> None:
    lab = whole
    before = containers(lab)
    name = next(n for n in before if n.startswith("frontend"))
    os.kill(first_process(lab, before[name][0]), signal.SIGKILL)

    def restarted() -> bool:
        pod = lab.get("pod", name)
        return is_ready(pod) and pod["status"]["containerStatuses"][0]["restartCount"] == before[name][1] + 1

    wait_for(restarted, "the container is restarted", 60)
    status = lab.get("pod", name)["status"]["containerStatuses"][0]
    assert status["containerID"] != before[name][0]
    assert status["lastState"]["terminated"]["exitCode"] == 137
    assert status["lastState"]["terminated"]["containerID"] == before[name][0]
    held_back = lab.get("events", "--field-selector", f"involvedObject.name={name},reason=BackOff")["items"]
    assert held_back == [], "the first restart is not held back"
    assert {n: c for n, c in containers(lab).items() if n != name} == {n: c for n, c in before.items() if n != name}


def replaced(lab: Lab, victim: str, before: list[str]) -> bool:
    """Every workload is whole on the other nodes."""
    well = [p for p in pods(lab) if is_ready(p) and p["spec"]["nodeName"] != victim]
    going = [p for p in pods(lab) if p["spec"].get("nodeName") == victim]
    return len(well) == 6 and all("deletionTimestamp" in p["metadata"] for p in going)


def test_stopped_node(whole: Lab) -> None:
    lab = whole
    victim = "node-2"
    old = [p["metadata"]["name"] for p in pods(lab) if p["spec"]["nodeName"] == victim]
    assert old, "something runs there"
    lab.navarch("node", "stop", victim)
    wait_for(lambda: not is_ready(lab.get("node", victim)), "the node is NotReady", 60)
    wait_for(lambda: replaced(lab, victim, old), "its pods are replaced elsewhere", 60)
    lab.navarch("node", "start", victim)
    wait_for(lambda: not set(old) & {p["metadata"]["name"] for p in pods(lab)}, "its old pods are gone", 60)
    wait_for(lambda: settled(lab), "the lab is whole", 60)


def test_partitioned_node(whole: Lab) -> None:
    lab = whole
    victim = "node-3"
    old = {p["metadata"]["name"]: p["status"]["containerStatuses"][0]["containerID"] for p in pods(lab)
           if p["spec"]["nodeName"] == victim}  # fmt: skip
    assert old, "something runs there"
    address = next(p["status"]["podIP"] for p in pods(lab) if p["metadata"]["name"].startswith("frontend")
                   and p["spec"]["nodeName"] == victim)  # fmt: skip
    before = {name: first_process(lab, container) for name, container in old.items()}
    lab.navarch("node", "partition", victim)
    wait_for(lambda: replaced(lab, victim, list(old)), "its pods are replaced elsewhere", 60)

    assert {name: first_process(lab, container) for name, container in old.items()} == before, "they run on over there"
    assert "v1" in lab.in_node(victim, *fetch(f"http://{address}:8080/version"))

    lab.navarch("node", "heal", victim)
    wait_for(lambda: settled(lab), "the node is back and its old pods are gone", 60)
    assert not set(old) & {p["metadata"]["name"] for p in pods(lab)}
    wait_for(lambda: not any(processes(lab, c) for c in old.values()), "no old process is left", 30)


COMPONENTS = ("apiserver", "etcd", "controllers", "scheduler", "gateway", "agent/node-1", "proxy/node-1")


@pytest.mark.parametrize("number", sample([signal.SIGKILL, signal.SIGTERM], 1, "components"), ids=lambda n: n.name)
def test_components_come_back_and_nothing_is_lost(patient: Lab, whole: Lab, number: signal.Signals) -> None:
    lab = whole
    before = containers(lab)
    inside, outside = loads(lab)
    with inside, outside, Writer(lab) as writer:
        for component in COMPONENTS:
            old = lab.pid(component)
            os.kill(old, number)
            wait_for(lambda c=component, o=old: lab.pid(c) not in (o, 0), f"{component} is started again", 20)
            writer.progress()
        for component in reversed(COMPONENTS):  # and all at once
            os.kill(lab.pid(component), number)
        writer.progress()
    print(
        f"{len(writer.acknowledged)} acknowledged, {writer.doubtful} without an answer, longest gap {writer.longest:.2f} s"
    )
    writer.check()
    assert (inside.failed, outside.failed) == (0, 0), (inside.report, outside.report)
    # Every part works: the scheduler places, the controllers make, the agent runs, the proxy leads there.
    lab.kubectl("scale", "deployment/frontend", "--replicas=4")
    lab.kubectl("rollout", "status", "deployment/frontend", "--timeout=60s")
    url = outside.urls[0].replace("/version", "/entries")
    wait_for(lambda: answers(url, lab), "the front end answers", 20)
    after = containers(lab)
    assert {name: after.get(name) for name in before} == before, "no container was restarted"
    lab.kubectl("scale", "deployment/frontend", "--replicas=3")
