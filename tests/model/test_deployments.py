"""Deployments and ReplicaSets under random edits, failures, crashes and stale caches.

Rules: no write of the controller takes the sum of the ReplicaSets over replicas + maxSurge; no ReplicaSet has more active
pods than it was asked for; and where nothing but the controllers takes pods away, those available stay at
replicas - maxUnavailable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from lab.simulation.cluster import Record
from navarch.api.types import apps_v1
from tests.model import acts
from tests.model.cluster import ModelCluster, is_active, is_ready, owner_of, play
from tests.model.settings import sampled
from tests.model.specs import Specs

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  progressDeadlineSeconds: 7200
  selector: {matchLabels: {app: web}}
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 1}}
  template:
    metadata: {labels: {app: web}, annotations: {hollow.navarch.dev/ready: 2s, hollow.navarch.dev/stop: 1s}}
    spec:
      containers: [{name: web, image: "web:1", readinessProbe: {periodSeconds: 1, tcpSocket: {port: 80}}}]
"""


class Scale(NamedTuple):
    replicas: int

    async def play(self, cluster: ModelCluster) -> None:
        await cluster.edit(apps_v1.Deployment, "web", {"spec": {"replicas": self.replicas}})


class Image(NamedTuple):
    version: int

    async def play(self, cluster: ModelCluster) -> None:
        containers = [{"name": "web", "image": f"web:{self.version}"}]
        patch = {"spec": {"template": {"spec": {"containers": containers}}}}
        await cluster.edit(apps_v1.Deployment, "web", patch, "strategic")


class Strategy(NamedTuple):
    surge: int
    unavailable: int

    async def play(self, cluster: ModelCluster) -> None:
        rolling = {"maxSurge": self.surge, "maxUnavailable": self.unavailable}
        await cluster.edit(apps_v1.Deployment, "web", {"spec": {"strategy": {"rollingUpdate": rolling}}})


class Pause(NamedTuple):
    paused: bool

    async def play(self, cluster: ModelCluster) -> None:
        await cluster.edit(apps_v1.Deployment, "web", {"spec": {"paused": self.paused}})


class DeleteReplicaSet(NamedTuple):
    n: int

    async def play(self, cluster: ModelCluster) -> None:
        every = cluster.objects(apps_v1.ReplicaSet, "default")
        if every:
            name = every[self.n % len(every)].metadata.name or ""
            await cluster.client[apps_v1.ReplicaSet].delete(name, "default", propagation_policy="Background")


class DeploymentJudge:
    """``steady``: nothing but the controllers takes pods away, so availability is theirs to keep."""

    manifest = MANIFEST

    def __init__(self, steady: bool = False) -> None:
        self.steady = steady
        self.deployment = Specs()
        self.sizes: dict[str, Specs] = {}  # ReplicaSet's uid -> its specs
        self.sets: dict[str, Mapping[str, Any]] = {}
        self.pods: dict[str, Mapping[str, Any]] = {}
        self.whole = False  # all replicas have been available since the last edit that asks for more

    def look(self, cluster: ModelCluster, record: Record, tree: Mapping[str, Any] | None) -> None:
        resource, key = record.key.split("/")[2], record.key
        if resource == "deployments" and tree:
            self.deployment.put(record.time, tree["spec"])
        elif resource == "replicasets":
            self._replica_set(cluster, record, key, tree)
        elif resource == "pods":
            self._pod(cluster, record, key, tree)

    def _replica_set(self, cluster: ModelCluster, record: Record, key: str, tree: Mapping[str, Any] | None) -> None:
        before = self.sets.pop(key, None)
        if tree is None:
            return
        self.sets[key] = tree
        uid, size = tree["metadata"]["uid"], tree["spec"]["replicas"]
        grown = size - (before["spec"]["replicas"] if before and before["metadata"]["uid"] == uid else 0)
        self.sizes.setdefault(uid, Specs()).put(record.time, tree["spec"])
        live = [t for t in self.sets.values() if "deletionTimestamp" not in t["metadata"] and owner_of(t)]
        total = sum(t["spec"]["replicas"] for t in live)
        most = max(
            s["replicas"] + s["strategy"]["rollingUpdate"]["maxSurge"] for s in self.deployment.since(cluster.since)
        )
        if grown > 0 and total > most:
            cluster.say(record, f"grew by {grown} to {total} in all, over {most}")

    def _pod(self, cluster: ModelCluster, record: Record, key: str, tree: Mapping[str, Any] | None) -> None:
        before = self.pods.pop(key, None)
        if tree is not None:
            self.pods[key] = tree
        owner = owner_of(tree or before or {"metadata": {}})
        if before is None and tree and owner in self.sizes:
            count = sum(owner_of(p) == owner and is_active(p) for p in self.pods.values())
            most = max(s["replicas"] for s in self.sizes[owner].since(cluster.since))
            if count > most:
                cluster.say(record, f"pod {count} of a ReplicaSet of {most}")
        if self.steady and before and is_ready(before) and not (tree and is_ready(tree)):
            ready = sum(is_ready(p) for p in self.pods.values())
            least = min(
                s["replicas"] - s["strategy"]["rollingUpdate"]["maxUnavailable"]
                for s in self.deployment.since(cluster.since)
            )
            if ready < least:
                cluster.say(record, f"{ready} available of at least {least}")

    def missing(self, cluster: ModelCluster) -> str:
        deployment = cluster.object(apps_v1.Deployment, "web", "default")
        if deployment is None:
            return "no deployment"
        spec, status = deployment.spec, deployment.status
        want = spec.replicas
        if status.observed_generation != deployment.metadata.generation:
            return "not observed"
        active = [p for p in self.pods.values() if is_active(p) and owner_of(p)]
        counts = (status.replicas or 0, status.ready_replicas or 0, status.available_replicas or 0, len(active))
        if counts != (want,) * 4 or status.unavailable_replicas:
            return f"replicas, ready, available, pods are {counts}, not {want}"
        image = spec.template.spec.containers[0].image
        stale = [p["metadata"]["name"] for p in active if p["spec"]["containers"][0]["image"] != image]
        return f"{stale} do not run {image}" if stale or (status.updated_replicas or 0) != want else ""


edits = st.one_of(
    st.builds(Scale, st.integers(0, 6)),
    st.builds(Image, st.integers(1, 3)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)).filter(any).map(lambda t: Strategy(*t)),
    st.builds(Pause, st.booleans()),
)
delays = acts.lags("pods", "replicasets", "deployments")
conflicts = st.builds(acts.Touch, st.sampled_from([apps_v1.Deployment, apps_v1.ReplicaSet]), acts.small)
gentle = st.one_of(acts.waits, acts.waits, edits, edits, conflicts)
rough = st.one_of(
    gentle, gentle, acts.crashes, acts.losses, delays, acts.pod_failures, st.builds(acts.Orphan, acts.small)
)
worst = st.one_of(rough, acts.node_failures, st.builds(DeleteReplicaSet, acts.small))


@sampled(20)
@given(st.lists(st.one_of(gentle, acts.crashes, acts.losses), max_size=14))
def test_availability_is_kept(plan: list[Any]) -> None:
    play(DeploymentJudge(steady=True), [acts.Wait(20.0), *plan, Pause(False)])


@sampled(20)
@given(st.lists(rough, max_size=16))
@example(
    [Image(2), acts.Lag("replicasets", 0.5), acts.Wait(0.02)]
)  # two sets of full size: the first was not in the cache
@example([acts.Lose(1, True), acts.Lag("replicasets", 20.0), Image(2), acts.Wait(20.0)])  # nor known to have been made
def test_never_too_many(plan: list[Any]) -> None:
    play(DeploymentJudge(), [*plan, Pause(False)])  # one that is paused from the start never makes a pod


@sampled(10)
@given(st.lists(worst, max_size=14))
def test_it_arrives_whatever_happens(plan: list[Any]) -> None:
    play(DeploymentJudge(), [*plan, Pause(False)])  # one that is paused from the start never makes a pod
