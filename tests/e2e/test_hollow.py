"""Simulated nodes on a real control plane, beside a real node and alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.e2e.conftest import FRONTEND
from tests.e2e.harness import Lab, traces, wait_for
from tests.e2e.test_down import down_at_last

PODS = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      nodeSelector: {selector}
      tolerations: {tolerations}
      terminationGracePeriodSeconds: 1
      containers: [{{name: c, image: {image}}}]
"""
TOLERANT = "[{key: hollow.navarch.dev/node, operator: Exists}]"


def ready(lab: Lab, name: str) -> bool:
    conditions = lab.get("node", name)["status"]["conditions"]
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def seen(lab: Lab, app: str) -> dict[str, Any]:
    """What a restart would change of each pod that runs."""
    return {
        p["metadata"]["uid"]: (p["status"]["podIP"], c["restartCount"], c["state"]["running"]["startedAt"])
        for p in lab.get("pods", "-l", f"app={app}")["items"]
        for c in p["status"].get("containerStatuses", ())
        if "running" in c["state"]
    }


def nodes_are_listed(lab: Lab) -> None:
    assert len(lab.get("nodes")["items"]) == 31 and ready(lab, "hollow-30")
    zones = {n["metadata"]["labels"].get("topology.kubernetes.io/zone") for n in lab.get("nodes")["items"]}
    assert zones == {None, "zone-1", "zone-2", "zone-3"}
    listed = lab.navarch("node", "list")
    assert "node-1" in listed and "hollow-1..hollow-30" in listed and "30 of 30 Ready" in listed


def pods_run_where_they_ask(lab: Lab) -> None:
    """Pods that do not ask for simulated nodes run for real; those that do run there, and say what they cannot do."""
    lab.apply(PODS.format(name="real", replicas=2, selector="{}", tolerations="[]", image=f"{FRONTEND}:v1"))
    hollow = PODS.format(name="seeming", replicas=60, selector="{type: hollow}", tolerations=TOLERANT, image="none:1")
    lab.apply(hollow)
    for name in ("real", "seeming"):
        lab.kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")
    assert {p["spec"]["nodeName"] for p in lab.get("pods", "-l", "app=real")["items"]} == {"node-1"}

    pod = lab.get("pods", "-l", "app=seeming")["items"][0]["metadata"]["name"]
    assert "its containers write no logs" in lab.fails("logs", pod)
    assert "no processes to run a command beside" in lab.fails("exec", pod, "--", "ls")
    assert "listen on no ports" in lab.fails("get", "--raw", f"/api/v1/namespaces/default/pods/{pod}:80/proxy/")


def no_pod_notices_killed_processes(lab: Lab) -> None:
    before = seen(lab, "seeming")
    lab.kill("apiserver")
    lab.kill("hollow")
    wait_for(lambda: lab.status()["hollow"]["ready"] == 30, "the fleet is back", 60)
    assert seen(lab, "seeming") == before and len(before) == 60


def loses_power_and_the_network(lab: Lab) -> None:
    """As a real node does."""
    victim = "hollow-7"
    lab.navarch("node", "stop", victim)
    wait_for(lambda: not ready(lab, victim), "it is noticed", 30)
    on_victim = f"--field-selector=spec.nodeName={victim},status.phase=Running"
    lab.kubectl("rollout", "status", "deployment/seeming", "--timeout=60s")
    lab.navarch("node", "start", victim)
    assert ready(lab, victim)

    def leaving() -> list[str]:
        pods = [p["metadata"] for p in lab.get("pods", "-A", on_victim)["items"]]
        return [meta["name"] for meta in pods if meta.get("deletionTimestamp")]

    wait_for(lambda: not leaving(), "what was evicted is gone", 30)

    lab.navarch("node", "partition", "hollow-8")
    wait_for(lambda: not ready(lab, "hollow-8"), "it is not heard", 30)
    lab.navarch("node", "heal", "hollow-8")
    wait_for(lambda: ready(lab, "hollow-8"), "it is heard", 30)


def nodes_come_and_go(lab: Lab) -> None:
    lab.navarch("node", "remove", "hollow-30")
    lab.navarch("node", "add", "--hollow", "2", "--cpu", "16")
    names = {n["metadata"]["name"] for n in lab.get("nodes")["items"]}
    assert "hollow-30" not in names and {"hollow-31", "hollow-32"} <= names
    lab.kubectl("scale", "deployment/seeming", "--replicas=0")
    wait_for(lambda: not lab.get("pods", "-l", "app=seeming")["items"], "graceful deletion", 60)


def test_hollow_nodes_beside_a_real_one(home: Path) -> None:
    lab = Lab(home, "hollow")
    with down_at_last(lab):
        lab.up("--nodes", "1", "--hollow", "30", "--hollow-zones", "3", "--failover", "fast")
        index = lab.index
        nodes_are_listed(lab)
        pods_run_where_they_ask(lab)
        no_pod_notices_killed_processes(lab)
        loses_power_and_the_network(lab)
        nodes_come_and_go(lab)

        # The roster outlives the lab's processes.
        lab.navarch("down")
        lab.up()
        hollow = json.loads(lab.navarch("status", "-o", "json"))["hollow"]
        assert (hollow["count"], hollow["ready"]) == (31, 31)
        lab.navarch("down", "--purge")
        assert traces(lab, index) == []



def test_hollow_nodes_alone(home: Path) -> None:
    """They are all there is, so nothing needs to tolerate them; jobs complete."""
    lab = Lab(home, "alone")
    with down_at_last(lab):
        lab.up("--nodes", "0", "--hollow", "5", "--store", "sqlite")
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "short"},
            "spec": {
                "completions": 20,
                "parallelism": 10,
                "template": {
                    "metadata": {"annotations": {"hollow.navarch.dev/run": "1s"}},
                    "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none:1"}]},
                },
            },
        }
        lab.apply(json.dumps(job))
        lab.kubectl("wait", "--for=condition=complete", "job/short", "--timeout=60s")
        assert lab.get("job", "short")["status"]["succeeded"] == 20
        lab.navarch("down")
        lab.up()
        assert lab.status()["hollow"]["ready"] == 5 and lab.status()["nodes"] == []
