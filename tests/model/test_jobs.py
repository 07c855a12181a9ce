"""Jobs under random failures, edits, crashes and stale caches.

Rules: no more active pods than parallelism; none is made once the Job has ended; each pod that ended is counted once,
whether or not somebody deletes it at once; an index succeeds once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from lab.simulation.cluster import Record
from navarch.api.types import batch_v1
from tests.model import acts
from tests.model.cluster import ModelCluster, is_active, play
from tests.model.settings import sampled
from tests.model.specs import Specs

MANIFEST = """
apiVersion: batch/v1
kind: Job
metadata: {{name: web}}
spec:
  completions: {completions}
  parallelism: 2
  completionMode: {mode}
  backoffLimit: 1000
  template:
    metadata: {{labels: {{app: web}}, annotations: {{hollow.navarch.dev/run: "uniform(1s, 6s)", hollow.navarch.dev/stop: 1s}}}}
    spec:
      restartPolicy: Never
      containers: [{{name: web, image: "web:1"}}]
"""
INDEX = "batch.kubernetes.io/job-completion-index"


class Parallelism(NamedTuple):
    pods: int

    async def play(self, cluster: ModelCluster) -> None:
        await cluster.edit(batch_v1.Job, "web", {"spec": {"parallelism": self.pods}})


class Suspend(NamedTuple):
    suspended: bool

    async def play(self, cluster: ModelCluster) -> None:
        await cluster.edit(batch_v1.Job, "web", {"spec": {"suspend": self.suspended}})


class Resume(NamedTuple):
    async def play(self, cluster: ModelCluster) -> None:
        await cluster.edit(batch_v1.Job, "web", {"spec": {"suspend": False, "parallelism": 2}})


class JobJudge:
    def __init__(self, completions: int, mode: str) -> None:
        self.manifest = MANIFEST.format(completions=completions, mode=mode)
        self.completions, self.indexed = completions, mode == "Indexed"
        self.spec = Specs()
        self.pods: dict[str, Mapping[str, Any]] = {}
        self.ends: dict[str, str] = {}  # pod's uid -> its phase when it ended, or Failed if it went away before
        self.status: Mapping[str, Any] = {}
        self.ended = False

    def look(self, cluster: ModelCluster, record: Record, tree: Mapping[str, Any] | None) -> None:
        resource = record.key.split("/")[2]
        if resource == "jobs" and tree:
            self._job(cluster, record, tree)
        elif resource == "pods":
            self._pod(cluster, record, tree)

    def _job(self, cluster: ModelCluster, record: Record, tree: Mapping[str, Any]) -> None:
        self.spec.put(record.time, tree["spec"])
        status = tree.get("status", {})
        for field in ("succeeded", "failed"):
            if status.get(field, 0) < self.status.get(field, 0):
                cluster.say(record, f"{field} fell from {self.status.get(field)} to {status.get(field, 0)}")
        if status.get("succeeded", 0) > self.completions:
            cluster.say(record, f"{status['succeeded']} of {self.completions} succeeded")
        self.status = status
        self.ended = any(
            c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in status.get("conditions", ())
        )

    def _pod(self, cluster: ModelCluster, record: Record, tree: Mapping[str, Any] | None) -> None:
        before = self.pods.pop(record.key, None)
        last = tree or before or {}
        uid, phase = last["metadata"]["uid"], last.get("status", {}).get("phase")
        if phase in ("Succeeded", "Failed"):
            self.ends.setdefault(uid, phase)
        if tree is None:
            self.ends.setdefault(uid, "Failed")
            return
        self.pods[record.key] = tree
        if before is None:
            active = [p for p in self.pods.values() if is_active(p)]
            most = max(s["parallelism"] for s in self.spec.since(cluster.since))
            if len(active) > most:
                cluster.say(record, f"{len(active)} active pods of {most}")
            if self.ended:
                cluster.say(record, "is made after the Job ended")

    def missing(self, cluster: ModelCluster) -> str:
        succeeded = sum(phase == "Succeeded" for phase in self.ends.values())
        if not self.ended or self.status.get("active") or self.status.get("terminating"):
            return f"not ended: {dict(self.status)}"
        counted = self.status.get("succeeded", 0)
        if counted != self.completions or (not self.indexed and not counted <= succeeded):
            return f"{counted} of {self.completions} are counted, {succeeded} pods succeeded"
        if self.status.get("uncountedTerminatedPods", {}) != {}:
            return f"uncounted: {self.status['uncountedTerminatedPods']}"
        held = [p["metadata"]["name"] for p in self.pods.values() if p["metadata"].get("finalizers")]
        return f"{held} are held by finalizers" if held else ""


edits = st.one_of(st.builds(Parallelism, st.integers(0, 4)), st.builds(Suspend, st.booleans()))
conflicts = st.builds(acts.Touch, st.just(batch_v1.Job), acts.small)
delays = acts.lags("pods", "jobs")
rough = st.one_of(
    acts.waits, acts.waits, edits, conflicts, acts.crashes, acts.losses, delays, acts.pod_failures, acts.node_failures
)


@sampled(25)
@given(st.integers(1, 6), st.sampled_from(["Indexed", "NonIndexed"]), st.lists(rough, max_size=16))
def test_counts_are_exact(completions: int, mode: str, plan: list[Any]) -> None:
    play(JobJudge(completions, mode), [*plan, Resume()])
