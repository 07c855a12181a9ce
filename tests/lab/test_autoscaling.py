"""A HorizontalPodAutoscaler in a whole simulated cluster: metrics API, controller, scale subresource, events."""

from __future__ import annotations

from typing import Any

from lab.simulation import Simulation
from navarch.api.conditions import get_condition
from navarch.api.types import apps_v1, autoscaling_v2, core_v1

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels: {app: web}
      annotations: {hollow.navarch.dev/cpu: 180m}
    spec:
      containers: [{name: web, image: "web:v1", resources: {requests: {cpu: 100m}}}]
"""
AUTOSCALER = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 1
  maxReplicas: 6
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}
"""


def autoscaler(cluster: Simulation, name: str = "web") -> autoscaling_v2.HorizontalPodAutoscaler:
    return next(a for a in cluster.objects(autoscaling_v2.HorizontalPodAutoscaler) if a.metadata.name == name)


def condition(cluster: Simulation, type_: str, name: str = "web") -> tuple[str, str | None]:
    found = get_condition(autoscaler(cluster, name).status.conditions, type_)
    return (found.status, found.reason) if found is not None else ("", None)


def replicas(cluster: Simulation) -> int:
    return cluster.objects(apps_v1.Deployment)[0].spec.replicas or 0


def reasons(cluster: Simulation) -> list[tuple[str, str]]:
    return [
        (e.reason or "", e.message or "")
        for e in cluster.objects(core_v1.Event)
        if e.involved_object.kind == "HorizontalPodAutoscaler"
    ]


async def idle(cluster: Simulation) -> None:
    """Every pod of the deployment, and those to come, use a tenth of what they did."""
    note = {"metadata": {"annotations": {"hollow.navarch.dev/cpu": "18m"}}}
    await cluster.client[apps_v1.Deployment].patch("web", "default", {"spec": {"template": note}}, "strategic")


def run(scenario: Any, **settings: Any) -> None:
    Simulation(seed=3, nodes=3, **settings).run(scenario)


def test_load_scales_up_and_its_end_scales_down_after_the_window() -> None:
    async def scenario(cluster: Simulation) -> None:
        await cluster.apply(WEB)
        await cluster.run_until(lambda: cluster.ready_pods() == 2, timeout=60)
        await cluster.apply(AUTOSCALER)
        await cluster.run_until(lambda: replicas(cluster) == 4, timeout=400)
        await cluster.run_until(lambda: condition(cluster, "ScalingLimited") == ("True", "ScaleUpLimit"), timeout=10)
        text = "New size: 4; reason: cpu resource utilization (percentage of request) above target"
        await cluster.run_until(lambda: ("SuccessfulRescale", text) in reasons(cluster), timeout=10)
        await cluster.run_until(lambda: replicas(cluster) == 6, timeout=400)
        await cluster.run_until(lambda: autoscaler(cluster).status.current_replicas == 6, timeout=60)
        assert condition(cluster, "ScalingActive") == ("True", "ValidMetricFound")
        await cluster.run_until(lambda: condition(cluster, "ScalingLimited") == ("True", "TooManyReplicas"), timeout=600)
        (measured,) = autoscaler(cluster).status.current_metrics or []
        assert measured.resource is not None and measured.resource.current.average_utilization == 180

        await idle(cluster)
        began = cluster.world.monotonic()
        await cluster.run_until(lambda: condition(cluster, "AbleToScale")[1] == "ScaleDownStabilized", timeout=400)
        await cluster.run_until(lambda: replicas(cluster) < 6, timeout=900)
        assert 300 <= cluster.world.monotonic() - began <= 420, "the window of five minutes"
        await cluster.run_until(lambda: replicas(cluster) <= 2, timeout=900)

    run(scenario)


def test_what_is_wrong_is_told_in_conditions_and_events() -> None:
    async def scenario(cluster: Simulation) -> None:
        await cluster.apply(WEB.replace("{requests: {cpu: 100m}}", "{}"))
        await cluster.apply(AUTOSCALER)
        lost = AUTOSCALER.replace("{name: web}", "{name: lost}").replace("Deployment, name: web", "Deployment, name: nope")
        await cluster.apply(lost)
        odd = lost.replace("name: lost}", "name: odd}").replace("kind: Deployment", "kind: Gadget")
        await cluster.apply(odd)
        await cluster.run_until(lambda: cluster.ready_pods() == 2, timeout=60)
        await cluster.run_until(
            lambda: any("missing request for cpu in container web" in m for _, m in reasons(cluster)), timeout=900
        )
        assert condition(cluster, "ScalingActive") == ("False", "FailedGetResourceMetric")
        assert condition(cluster, "AbleToScale", "lost") == ("False", "FailedGetScale")
        assert condition(cluster, "AbleToScale", "odd") == ("False", "FailedGetScale")
        failed = dict(reasons(cluster))["FailedComputeMetricsReplicas"]
        assert failed.startswith("invalid metrics (1 invalid out of 1), first error is: ")
        texts = [message for reason, message in reasons(cluster) if reason == "FailedGetScale"]
        assert any('no matches for kind "Gadget" in group "apps"' in text for text in texts)
        assert any('deployments.apps "nope" not found' in text for text in texts)

    run(scenario)


def test_bounds_hold_without_metrics_and_zero_replicas_switch_the_autoscaler_off() -> None:
    async def scenario(cluster: Simulation) -> None:
        await cluster.apply(WEB.replace("replicas: 2", "replicas: 9"))
        await cluster.apply(AUTOSCALER)
        await cluster.run_until(lambda: replicas(cluster) == 6, timeout=60)
        text = "New size: 6; reason: Current number of replicas above Spec.MaxReplicas"
        await cluster.run_until(lambda: ("SuccessfulRescale", text) in reasons(cluster), timeout=10)
        await cluster.client[apps_v1.Deployment].patch("web", "default", {"spec": {"replicas": 0}})
        await cluster.run_until(lambda: condition(cluster, "ScalingActive") == ("False", "ScalingDisabled"), timeout=60)
        assert replicas(cluster) == 0

    run(scenario)


def test_two_autoscalers_of_the_same_pods_do_nothing() -> None:
    async def scenario(cluster: Simulation) -> None:
        await cluster.apply(WEB)
        await cluster.run_until(lambda: cluster.ready_pods() == 2, timeout=60)
        await cluster.apply(AUTOSCALER)
        await cluster.apply(AUTOSCALER.replace("name: web}", "name: twin}", 1))
        await cluster.run_until(
            lambda: {condition(cluster, "ScalingActive", n)[1] for n in ("web", "twin")} == {"AmbiguousSelector"}, timeout=90
        )

    run(scenario)
