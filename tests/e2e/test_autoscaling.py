"""The walk of docs/autoscaling.md on real containers: load comes and pods are added, load goes and they are taken away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from navarch.api import quantity
from tests.e2e.harness import ROOT, Lab, wait_for

FOLDER = ROOT / "deploy" / "autoscaling"
PERIOD = "controllers.horizontal-pod-autoscaler-sync-period"
METRIC = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/http_requests_per_second"


@pytest.fixture
def scaled(guestbook: Lab) -> Iterator[Lab]:
    """The lab with custom metrics, an autoscaler that looks every three seconds, and one pod of the web server."""
    lab = guestbook
    lab.navarch("image", "build", "--quiet", "-t", "localhost/autoscaling:v1", str(FOLDER / "image"))
    lab.up("--custom-metrics", "--set", f"{PERIOD}=3s")
    try:
        lab.kubectl("apply", "-f", str(FOLDER / "web.yaml"), "-f", str(FOLDER / "cpu.yaml"))
        lab.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        yield lab
    finally:
        lab.kubectl("delete", "--ignore-not-found", *(f"--filename={FOLDER / f'{n}.yaml'}" for n in ("cpu", "load", "web")))
        wait_for(lambda: not lab.get("pods", "-l", "app in (web,load)")["items"], "its pods are gone", 30)
        lab.up("--no-custom-metrics", "--unset", PERIOD)


def replicas(lab: Lab) -> int:
    return int(lab.get("deployment", "web")["spec"]["replicas"])


def rates(lab: Lab) -> list[float]:
    """Requests a second by pod; none while the adapter does not answer or knows of none."""
    status, answer = lab.call("GET", METRIC)
    items: list[dict[str, Any]] = answer["items"] if status == 200 else []
    assert all(i["describedObject"]["name"].startswith("web-") for i in items)
    return [quantity.milli(item["value"]) / 1000 for item in items]


def test_pods_follow_the_load(scaled: Lab) -> None:
    lab = scaled
    assert replicas(lab) == 1
    lab.kubectl("apply", "-f", str(FOLDER / "load.yaml"))
    wait_for(lambda: replicas(lab) > 1, "pods are added", 120)
    wait_for(lambda: any(rate > 0 for rate in rates(lab)), "the adapter tells requests a second", 60)
    lab.kubectl("delete", "-f", str(FOLDER / "load.yaml"))
    wait_for(lambda: replicas(lab) == 1, "pods are taken away", 120)
    reasons = {e["reason"] for e in lab.get("events", "--field-selector=involvedObject.kind=HorizontalPodAutoscaler")["items"]}
    assert "SuccessfulRescale" in reasons
