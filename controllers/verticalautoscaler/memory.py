"""The recommender's memory: states by container, fed from pods and their metrics, and saved as checkpoints: pure.

A checkpoint is an object of kind VerticalPodAutoscalerCheckpoint for each autoscaler and container, as in Kubernetes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from controllers.verticalautoscaler.histogram import CPU, MEMORY, Histogram
from controllers.verticalautoscaler.recommend import State
from navarch.api import quantity
from navarch.api.times import format_time, parse_time
from navarch.api.types import core_v1

Tree = dict[str, Any]
VERSION = "v3"


class Memory:
    """Of one autoscaler."""

    def __init__(self) -> None:
        self.states: dict[str, State] = {}  # by container
        self._sampled: dict[tuple[str, str], float] = {}  # by the pod's uid and container: time of the last sample
        self._kills: dict[tuple[str, str], float] = {}  # the same, of the last end for want of memory

    def feed(self, pods: Sequence[core_v1.Pod], metrics: Mapping[tuple[str, str], Tree]) -> None:
        """``metrics``: PodMetrics by namespace and name."""
        live = {pod.metadata.uid or "": pod for pod in pods}
        for by_key in (self._sampled, self._kills):
            for absent in [key for key in by_key if key[0] not in live]:
                del by_key[absent]
        for state in self.states.values():
            for uid in [uid for uid in state.peaks if uid not in live]:
                del state.peaks[uid]
        for uid, pod in live.items():
            self._follow(uid, pod, metrics.get((pod.metadata.namespace or "", pod.metadata.name or "")))

    def _follow(self, uid: str, pod: core_v1.Pod, measured: Tree | None) -> None:
        uses = {c["name"]: c.get("usage") or {} for c in (measured or {}).get("containers") or ()}
        time = parse_time(measured["timestamp"]) if measured is not None else 0.0
        ends = {s.name: s.last_state.terminated for s in pod.status.container_statuses or () if s.last_state}
        for container in pod.spec.containers:
            state, key = self.states.setdefault(container.name, State()), (uid, container.name)
            requests = (container.resources.requests if container.resources else None) or {}
            use = uses.get(container.name, {})
            if "cpu" in use and "memory" in use and time > self._sampled.get(key, 0.0):
                self._sampled[key] = time
                cores, size = float(quantity.parse(use["cpu"])), float(quantity.parse(use["memory"]))
                state.sample(uid, time, cores, size, float(quantity.parse(requests.get("cpu", "0"))))
            end = ends.get(container.name)
            if end is not None and end.reason == "OOMKilled" and end.finished_at:
                at = parse_time(end.finished_at)
                if at > self._kills.get(key, 0.0):
                    self._kills[key] = at
                    state.killed(uid, at, float(quantity.parse(requests.get("memory", "0"))))

    def save(self, now: float) -> dict[str, Tree]:
        """The status of a checkpoint by container."""
        out = {}
        for container, state in sorted(self.states.items()):
            if state.samples:
                out[container] = {
                    "version": VERSION, "lastUpdateTime": format_time(now), "cpuHistogram": _saved(state.cpu, now),
                    "memoryHistogram": _saved(state.memory, now), "firstSampleStart": format_time(state.first),
                    "lastSampleStart": format_time(state.last), "totalSamplesCount": state.samples,
                }  # fmt: skip
        return out

    def load(self, container: str, status: Tree) -> None:
        """Takes a checkpoint, unless there are samples already. Raises ValueError, KeyError, TypeError, AttributeError."""
        if status.get("version") != VERSION:
            raise ValueError(f"version {status.get('version')!r} is not {VERSION}")
        if container in self.states and self.states[container].samples:
            return
        at = parse_time(status["lastUpdateTime"])
        state = State(Histogram.load(CPU, status["cpuHistogram"], at), Histogram.load(MEMORY, status["memoryHistogram"], at))
        state.first, state.last = parse_time(status["firstSampleStart"]), parse_time(status["lastSampleStart"])
        state.samples = int(status["totalSamplesCount"])
        self.states[container] = state


def _saved(histogram: Histogram, now: float) -> Tree:
    return {"referenceTimestamp": format_time(now), **histogram.save(now)}
