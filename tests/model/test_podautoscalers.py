"""HorizontalPodAutoscalers under random loads, edits, crashes and stale caches.

Rules: no write of the autoscaler leaves the bounds that were in force, nor grows or shrinks faster than its policies
allow; in the end the size is what the load asks for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from lab.simulation.cluster import Record
from navarch.api.types import apps_v1, autoscaling_v2
from tests.model import acts
from tests.model.cluster import ModelCluster, play
from tests.model.settings import sampled
from tests.model.specs import Specs

PERIOD, STEP = 60, 2  # the policies: at most 2 pods in 60 seconds, either way
MANIFEST = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}, annotations: {{hollow.navarch.dev/cpu: 80m}}}}
    spec: {{containers: [{{name: web, image: "web:1", resources: {{requests: {{cpu: 100m}}}}}}]}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: web}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}
  minReplicas: 1
  maxReplicas: 6
  behavior:
    scaleUp: {{policies: [{{type: Pods, value: {STEP}, periodSeconds: {PERIOD}}}]}}
    scaleDown: {{stabilizationWindowSeconds: 0, policies: [{{type: Pods, value: {STEP}, periodSeconds: {PERIOD}}}]}}
  metrics:
  - {{type: Resource, resource: {{name: cpu, target: {{type: Utilization, averageUtilization: 80}}}}}}
"""


class Load(NamedTuple):
    """Each pod uses so much of the 100m that it asks for; it takes a rollout to get there."""

    milli: int

    async def play(self, cluster: ModelCluster) -> None:
        note = {"metadata": {"annotations": {"hollow.navarch.dev/cpu": f"{self.milli}m"}}}
        await cluster.edit(apps_v1.Deployment, "web", {"spec": {"template": note}})


class Bounds(NamedTuple):
    least: int
    more: int

    async def play(self, cluster: ModelCluster) -> None:
        spec = {"minReplicas": self.least, "maxReplicas": self.least + self.more}
        await cluster.edit(autoscaling_v2.HorizontalPodAutoscaler, "web", {"spec": spec})


class AutoscalerJudge:
    manifest = MANIFEST

    def __init__(self) -> None:
        self.spec = Specs()
        self.sizes: list[tuple[float, int]] = []  # when the deployment got which size
        self.started = 0.0

    def look(self, cluster: ModelCluster, record: Record, tree: Mapping[str, Any] | None) -> None:
        resource = record.key.split("/")[2]
        if resource == "horizontalpodautoscalers" and tree:
            self.spec.put(record.time, tree["spec"])
        if resource != "deployments" or not tree:
            return
        size = tree["spec"]["replicas"]
        if not self.sizes:
            self.sizes.append((record.time, size))
        if size == self.sizes[-1][1]:
            return
        bounds = [(s["minReplicas"], s["maxReplicas"]) for s in self.spec.since(cluster.since)]
        if not min(least for least, _ in bounds) <= size <= max(most for _, most in bounds):
            cluster.say(record, f"{size} replicas are outside of {bounds}")
        before = [n for t, n in self.sizes if t > record.time - PERIOD + 1]
        start = [n for t, n in self.sizes if t <= record.time - PERIOD + 1][-1:]
        reached = [*start, *before]
        forced = any(not least <= n <= most for least, most in bounds for n in reached)
        if not forced and not cluster.crashed and (size - min(reached) > STEP or max(reached) - size > STEP):
            cluster.say(record, f"went from {reached} to {size} within {PERIOD} s")
        self.sizes.append((record.time, size))

    def missing(self, cluster: ModelCluster) -> str:
        web = cluster.object(apps_v1.Deployment, "web", "default")
        scaler = cluster.object(autoscaling_v2.HorizontalPodAutoscaler, "web", "default")
        if web is None or scaler is None:
            return "nothing there"
        size = web.spec.replicas or 0
        milli = int((web.spec.template.metadata.annotations or {})["hollow.navarch.dev/cpu"][:-1])
        # Each pod uses the same whatever their number is, so the autoscaler goes to a bound, or stays within its tolerance.
        least, most = scaler.spec.min_replicas or 1, scaler.spec.max_replicas
        if abs(milli / 80 - 1) <= 0.1:
            good = least <= size <= most
        elif milli > 80:
            good = size == most
        else:
            good = size == max(least, _settled(size, milli))
        ready = web.status.ready_replicas or 0
        return (
            "" if good and ready == size else f"{size} replicas, {ready} ready, {milli}m each, bounds {least} to {most}"
        )


def _settled(size: int, milli: int) -> int:
    """The size that the autoscaler wants where it stands: the same size means that it rests."""
    return math.ceil(size * milli / 80)


edits = st.one_of(
    st.builds(Load, st.sampled_from([10, 40, 80, 84, 120, 300])),
    st.builds(Bounds, st.integers(1, 4), st.integers(0, 4)),
)
waits = st.builds(acts.Wait, st.sampled_from([1.0, 20.0, 70.0]))
conflicts = st.builds(
    acts.Touch, st.sampled_from([apps_v1.Deployment, autoscaling_v2.HorizontalPodAutoscaler]), acts.small
)
delays = acts.lags("pods", "horizontalpodautoscalers")
rough = st.one_of(waits, waits, edits, edits, conflicts, acts.crashes, acts.losses, delays, acts.pod_failures)


@sampled(12)
@given(st.lists(rough, max_size=10))
def test_bounds_and_policies_are_kept(plan: list[Any]) -> None:
    play(AutoscalerJudge(), plan, timeout=3600)
