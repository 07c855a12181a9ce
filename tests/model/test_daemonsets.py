"""DaemonSets under random edits, failures, crashes and stale caches.

Rules: a node never has two active pods of a set (with maxSurge, an old and a new one), and where nothing but the
controllers takes pods away, no more than maxUnavailable are away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from lab.simulation.cluster import Record
from navarch.api.types import apps_v1, core_v1
from tests.model import acts
from tests.model.cluster import NODES, ModelCluster, is_active, is_ready, play
from tests.model.settings import sampled
from tests.model.specs import Specs

MANIFEST = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {hollow.navarch.dev/ready: 2s, hollow.navarch.dev/stop: 1s}}
    spec:
      containers: [{name: web, image: "web:1", readinessProbe: {periodSeconds: 1, tcpSocket: {port: 80}}}]
"""


class Image(NamedTuple):
    version: int

    async def play(self, cluster: ModelCluster) -> None:
        containers = [{"name": "web", "image": f"web:{self.version}"}]
        patch = {"spec": {"template": {"spec": {"containers": containers}}}}
        await cluster.edit(apps_v1.DaemonSet, "web", patch, "strategic")


class Strategy(NamedTuple):
    surge: int
    unavailable: int

    async def play(self, cluster: ModelCluster) -> None:
        rolling = {"maxSurge": self.surge, "maxUnavailable": self.unavailable}
        await cluster.edit(apps_v1.DaemonSet, "web", {"spec": {"updateStrategy": {"rollingUpdate": rolling}}})


class Label(NamedTuple):
    """Makes the set choose its nodes by a label, which only some have."""

    wanted: bool

    async def play(self, cluster: ModelCluster) -> None:
        selector = {"disk": "ssd"} if self.wanted else None
        await cluster.edit(apps_v1.DaemonSet, "web", {"spec": {"template": {"spec": {"nodeSelector": selector}}}})


class Disk(NamedTuple):
    node: int
    disk: str | None

    async def play(self, cluster: ModelCluster) -> None:
        name = cluster.nodes[self.node].name
        await cluster.client[core_v1.Node].patch(name, None, {"metadata": {"labels": {"disk": self.disk}}})


class DaemonSetJudge:
    manifest = MANIFEST

    def __init__(self, steady: bool) -> None:
        self.steady = steady
        self.spec = Specs()
        self.pods: dict[str, Mapping[str, Any]] = {}

    def look(self, cluster: ModelCluster, record: Record, tree: Mapping[str, Any] | None) -> None:
        resource = record.key.split("/")[2]
        if resource == "daemonsets" and tree:
            self.spec.put(record.time, tree["spec"])
        if resource != "pods":
            return
        before = self.pods.pop(record.key, None)
        if tree is not None:
            self.pods[record.key] = tree
        lately = [s["updateStrategy"]["rollingUpdate"] for s in self.spec.since(cluster.since)]
        if before is None and tree and "app" in tree["metadata"].get("labels", {}):
            node = _node(tree)
            here = [p for p in self.pods.values() if is_active(p) and _node(p) == node and _mine(p)]
            if len(here) > 1 + any(r["maxSurge"] for r in lately):
                cluster.say(record, f"{len(here)} active pods on {node}")
        if self.steady and before and is_ready(before) and not (tree and is_ready(tree)):
            ready = len({_node(p) for p in self.pods.values() if is_ready(p)})
            if ready < NODES - max(r["maxUnavailable"] for r in lately):
                cluster.say(record, f"{ready} nodes of {NODES} have a ready pod, {lately}")

    def missing(self, cluster: ModelCluster) -> str:
        web = cluster.object(apps_v1.DaemonSet, "web", "default")
        if web is None or web.status.observed_generation != web.metadata.generation:
            return "not observed"
        wanted = web.spec.template.spec.node_selector or {}
        nodes = cluster.objects(core_v1.Node)
        want = sorted(n.metadata.name or "" for n in nodes if wanted.items() <= (n.metadata.labels or {}).items())
        status = web.status
        counts = [status.desired_number_scheduled, status.current_number_scheduled, status.number_ready,
                  status.updated_number_scheduled or 0, status.number_available or 0]  # fmt: skip
        mine = [p for p in self.pods.values() if _mine(p)]
        where = sorted(_node(p) for p in mine if is_active(p))
        if counts != [len(want)] * 5 or where != want or status.number_misscheduled or len(mine) != len(want):
            return f"desired, current, ready, updated, available are {counts}; pods on {where} of {want}"
        image = web.spec.template.spec.containers[0].image
        stale = [p["metadata"]["name"] for p in mine if p["spec"]["containers"][0]["image"] != image]
        return f"{stale} do not run {image}" if stale else ""


def _mine(tree: Mapping[str, Any]) -> bool:
    return bool(tree["metadata"].get("ownerReferences"))


def _node(tree: Mapping[str, Any]) -> str:
    """Where a pod is, or has to go."""
    if name := tree["spec"].get("nodeName"):
        return str(name)
    terms = tree["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return str(terms["nodeSelectorTerms"][0]["matchFields"][0]["values"][0])


images = st.builds(Image, st.integers(1, 3))
strategies = st.one_of(st.integers(1, 3).map(lambda n: Strategy(0, n)), st.integers(1, 3).map(lambda n: Strategy(n, 0)))
conflicts = st.builds(acts.Touch, st.just(apps_v1.DaemonSet), acts.small)
gentle = st.one_of(acts.waits, acts.waits, images, conflicts, acts.crashes, acts.losses)
choices = st.one_of(st.builds(Label, st.booleans()), st.builds(Disk, st.integers(0, 2), st.sampled_from(["ssd", None])))
delays = acts.lags("pods", "daemonsets", "controllerrevisions", "nodes")
rough = st.one_of(
    gentle,
    gentle,
    strategies,
    choices,
    delays,
    acts.pod_failures,
    st.builds(acts.Orphan, acts.small),
    acts.node_failures,
)


@sampled(15)
@given(strategies, st.lists(gentle, max_size=12))
def test_availability_is_kept(strategy: Strategy, plan: list[Any]) -> None:
    play(DaemonSetJudge(steady=True), [strategy, acts.Wait(20.0), *plan])


@sampled(15)
@given(st.lists(rough, max_size=14))
def test_one_pod_a_node(plan: list[Any]) -> None:
    play(DaemonSetJudge(steady=False), plan)
