"""StatefulSets under random edits, failures, crashes and stale caches.

Rules: an ordinal never runs twice; with OrderedReady a pod is made only when all below it are ready, and where nothing but
the controllers takes pods away, at most one of a whole set is away at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from lab.simulation.cluster import Record
from navarch.api.types import apps_v1
from tests.model import acts
from tests.model.cluster import ModelCluster, is_active, is_ready, play
from tests.model.settings import sampled
from tests.model.specs import Specs

MANIFEST = """
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{clusterIP: None, selector: {{app: web}}, ports: [{{port: 80}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: web}}
spec:
  serviceName: web
  replicas: 3
  podManagementPolicy: {policy}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}, annotations: {{hollow.navarch.dev/ready: 2s, hollow.navarch.dev/stop: 1s}}}}
    spec:
      containers: [{{name: web, image: "web:1", readinessProbe: {{periodSeconds: 1, tcpSocket: {{port: 80}}}}}}]
"""


class Scale(NamedTuple):
    replicas: int

    async def play(self, cluster: ModelCluster) -> None:
        await cluster.edit(apps_v1.StatefulSet, "web", {"spec": {"replicas": self.replicas}})


class Image(NamedTuple):
    version: int

    async def play(self, cluster: ModelCluster) -> None:
        containers = [{"name": "web", "image": f"web:{self.version}"}]
        patch = {"spec": {"template": {"spec": {"containers": containers}}}}
        await cluster.edit(apps_v1.StatefulSet, "web", patch, "strategic")


class Partitioned(NamedTuple):
    ordinal: int

    async def play(self, cluster: ModelCluster) -> None:
        patch = {"spec": {"updateStrategy": {"rollingUpdate": {"partition": self.ordinal}}}}
        await cluster.edit(apps_v1.StatefulSet, "web", patch)


class StatefulSetJudge:
    """``steady``: nothing but the controllers takes pods away."""

    def __init__(self, policy: str, steady: bool) -> None:
        self.manifest = MANIFEST.format(policy=policy)
        self.ordered, self.steady = policy == "OrderedReady", steady
        self.spec = Specs()
        self.pods: dict[int, Mapping[str, Any]] = {}
        self.whole = 0  # ordinals below this were all ready at one time, and have been wanted since

    def look(self, cluster: ModelCluster, record: Record, tree: Mapping[str, Any] | None) -> None:
        resource, name = record.key.split("/")[2], record.key.split("/")[-1]
        if resource == "statefulsets" and tree:
            self.spec.put(record.time, tree["spec"])
            self.whole = min(self.whole, tree["spec"]["replicas"])
        if resource != "pods":
            return
        number = int(name.split("-")[-1])
        self._runs_once(cluster, record, name)
        before = self.pods.pop(number, None)
        if tree is not None:
            self.pods[number] = tree
        if not self.steady or not self.ordered:
            return
        if before is None and not all(self._ready(n) for n in range(number)):
            cluster.say(record, "is made while one below it is not ready")
        away = [n for n in range(self.whole) if not self._ready(n)]
        if len(away) > 1 and number in away:
            cluster.say(record, f"{away} are away at once")
        if all(self._ready(n) for n in range(self.spec.now["replicas"])):
            self.whole = self.spec.now["replicas"]

    def _ready(self, number: int) -> bool:
        return number in self.pods and is_ready(self.pods[number])

    def _runs_once(self, cluster: ModelCluster, record: Record, name: str) -> None:
        places = [n.name for n in cluster.nodes for c in cluster.fleet.running(n.name) if c.split("/")[1] == name]
        if len(places) > 1:
            cluster.say(record, f"runs on {places} at once")

    def missing(self, cluster: ModelCluster) -> str:
        web = cluster.object(apps_v1.StatefulSet, "web", "default")
        if web is None or web.status.observed_generation != web.metadata.generation:
            return "not observed"
        want = web.spec.replicas or 0
        counts = (web.status.replicas or 0, web.status.ready_replicas or 0, web.status.available_replicas or 0)
        if (
            counts != (want,) * 3
            or sorted(self.pods) != list(range(want))
            or not all(map(is_active, self.pods.values()))
        ):
            return f"replicas, ready, available are {counts}, pods {sorted(self.pods)}, not {want}"
        rolling = web.spec.update_strategy and web.spec.update_strategy.rolling_update
        first = (rolling.partition or 0) if rolling else 0
        image = web.spec.template.spec.containers[0].image
        stale = [n for n, p in self.pods.items() if n >= first and p["spec"]["containers"][0]["image"] != image]
        return f"{stale} do not run {image}" if stale else ""


edits = st.one_of(
    st.builds(Scale, st.integers(0, 5)), st.builds(Image, st.integers(1, 3)), st.builds(Partitioned, st.integers(0, 3))
)
conflicts = st.builds(acts.Touch, st.just(apps_v1.StatefulSet), acts.small)
gentle = st.one_of(acts.waits, acts.waits, edits, conflicts, acts.crashes, acts.losses)
deaths = st.one_of(
    st.builds(acts.DeletePod, acts.small, st.sampled_from([1, 30])),
    st.builds(acts.KillContainer, acts.small, st.just(1)),
)
delays = acts.lags("pods", "statefulsets", "controllerrevisions")
rough = st.one_of(gentle, gentle, delays, deaths, acts.node_failures)


@sampled(20)
@given(st.lists(gentle, max_size=14))
def test_one_at_a_time(plan: list[Any]) -> None:
    play(StatefulSetJudge("OrderedReady", steady=True), plan)


@sampled(15)
@given(st.sampled_from(["OrderedReady", "Parallel"]), st.lists(rough, max_size=14))
def test_an_ordinal_runs_once(policy: str, plan: list[Any]) -> None:
    play(StatefulSetJudge(policy, steady=False), plan)
