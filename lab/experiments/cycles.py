"""Runs one cell of an experiment through the scheduler's decisions alone (``mode: cycle``), and records it.

Pods come from a trace, and are bound at once or dropped. With ``one-by-one`` the n-th pod arrives at second n; else at its own
time, and a pod that ends makes room. The recording has nodes and pods as a whole system's would, so that all measures apply.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import orjson

from lab.experiments.drivers.stage import Outcome
from lab.experiments.file import Experiment
from lab.experiments.inputs import arrivals_of, nodes_of, profile_of
from lab.experiments.recording import Recorder
from lab.simulation.cycle import Cycle
from nodeagent.hollow import objects
from scheduler.framework.cycle import Decision


class CycleStage:
    """Mode ``cycle``: nothing to start, and nothing to put away."""

    def __enter__(self) -> CycleStage:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(self, experiment: Experiment, seed: int) -> Outcome:
        return CycleRun(experiment, seed).run()


class CycleRun:
    """One run. ``on_decision`` is told each decision before the pod counts on its node."""

    def __init__(
        self, experiment: Experiment, seed: int, on_decision: Callable[[Decision], None] = lambda decision: None
    ) -> None:
        self.experiment, self.seed, self.on_decision = experiment, seed, on_decision
        self.recorder = Recorder({"experiment": experiment.metadata.name, "seed": seed, "marks": []})
        self._revision = 0

    def _record(self, at: float, type: str, key: str, tree: Any) -> None:
        self._revision += 1
        self.recorder.change(at, type, f"/registry/{key}", self._revision, orjson.dumps(tree))

    def run(self) -> Outcome:
        """To the end. Raises ValueError."""
        specs = nodes_of(self.experiment)
        cycle = Cycle(specs, profile_of(self.experiment), seed=self.seed)
        cycle.on_decision = self.on_decision
        gauges = [p for p in cycle.profile.plugins if p.gauges() is not None]
        for spec in specs:
            listed = {"cpu": spec.cpu, "memory": spec.memory, "pods": str(spec.pods), **spec.resources}
            status = {"allocatable": listed, "conditions": [{"type": "Ready", "status": "True"}]}
            labels = objects.node(spec, 0, None, 0.0).metadata.labels
            node = {"metadata": {"name": spec.name, "labels": labels}, "status": status}
            self._record(0.0, "ADDED", f"nodes/{spec.name}", node)
        self.recorder.mark(0.0, "begin")
        now = 0.0
        leaving: list[tuple[float, str, dict[str, Any]]] = []

        def leave(until: float) -> None:
            while leaving and leaving[0][0] <= until:
                at, uid, pod = heapq.heappop(leaving)
                cycle.remove(uid)
                self._record(at, "DELETED", f"pods/default/{uid}", pod)

        for work in self.experiment.workload:
            assert work.trace is not None
            for n, pod in enumerate(arrivals_of(self.experiment, work.trace, self.seed)):
                now = float(n) if work.trace.one_by_one else pod.arrival
                leave(now)
                tree = pod.manifest(leaves=False)
                tree["metadata"]["uid"] = pod.name
                placement = cycle.place(tree)
                tree["status"] = {"phase": "Running" if placement.node else "Pending"}
                if placement.node:
                    tree["spec"]["nodeName"] = placement.node
                    if pod.duration and not work.trace.one_by_one:
                        heapq.heappush(leaving, (now + pod.duration, pod.name, tree))
                else:
                    why = placement.message
                    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
                    tree["status"]["conditions"] = [condition]
                self._record(now, "ADDED", f"pods/default/{pod.name}", tree)
                if not placement.node:
                    self._record(now, "DELETED", f"pods/default/{pod.name}", tree)
                for plugin in gauges:
                    self.recorder.sample(now, "gauges", plugin.gauges() or {})
        now += 1
        leave(now)
        self.recorder.finish(now)
        return Outcome(self.recorder, now, [])
