"""Usage of the node and its pods: /stats/summary for metrics APIs, /metrics and what is below it for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from navarch import exposition
from navarch.api import quantity
from navarch.api.times import format_time
from nodeagent.config import VERSION, Config
from nodeagent.linux.cgroups import NodeUsage, Usage
from nodeagent.node.counters import ABOUT, Counters
from nodeagent.node.registration import available_memory, capacity
from nodeagent.node.sampling import Readings, Sample
from nodeagent.node.signals import node_usage
from nodeagent.pods.observed import roles
from nodeagent.pods.worker import PodWorker
from nodeagent.runtime.runtime import RUNNING, Container

Tree = dict[str, Any]


def _running(worker: PodWorker) -> Iterator[Container]:
    """The pod's running containers, those of the spec alone."""
    names = {r.container.name for r in roles(worker.pod.spec)}
    return (c for c in worker.containers.values() if c.state == RUNNING and c.name in names)


def _pod_usage(used: NodeUsage, worker: PodWorker) -> Usage:
    """Of the pod as a whole; the sum of its containers where the node does not count it."""
    usage = used.pods.get(worker.pod.metadata.uid or "")
    return usage or Usage.total(used.containers[c.id] for c in _running(worker) if c.id in used.containers)


def _cpu(readings: Readings, before: Usage | None, now: Usage, started: float = 0.0) -> Tree:
    out: Tree = {"time": format_time(readings.later.time), "usageCoreNanoSeconds": int(now.cpu * 1e9)}
    if (rate := readings.nano_cores(before, now, started)) is not None:
        out["usageNanoCores"] = rate
    return out


def _memory(readings: Readings, now: Usage) -> Tree:
    return {
        "time": format_time(readings.later.time),
        "usageBytes": now.memory, "workingSetBytes": now.working_set, "rssBytes": now.rss,
        "pageFaults": now.faults, "majorPageFaults": now.major_faults,
    }  # fmt: skip


def summary(readings: Readings, config: Config, workers: Sequence[PodWorker], booted: float) -> Tree:
    """kubelet's stats/v1alpha1 Summary, with CPU, memory and processes."""
    before, now = readings.earlier.usage, readings.later.usage
    pods: list[Tree] = []
    for worker in workers:
        containers: list[Tree] = []
        for container in _running(worker):
            used = now.containers.get(container.id)
            if used is not None:
                earlier = before.containers.get(container.id)
                containers.append({
                    "name": container.name, "startTime": format_time(container.started),
                    "cpu": _cpu(readings, earlier, used, container.started), "memory": _memory(readings, used),
                })  # fmt: skip
        meta, whole = worker.pod.metadata, _pod_usage(now, worker)
        pod_before = before.pods.get(meta.uid or "") if now.pods else _pod_usage(before, worker)
        oldest = min((c.started for c in _running(worker)), default=0.0)
        pods.append({
            "podRef": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
            "startTime": worker.pod.status.start_time or meta.creation_timestamp,
            "containers": containers,
            "cpu": _cpu(readings, pod_before, whole, oldest), "memory": _memory(readings, whole),
            "process_stats": {"process_count": whole.pids},
        })  # fmt: skip
    node = node_usage(now)
    memory = _memory(readings, node)
    memory["availableBytes"] = min(available_memory(), max(0, _size(config) - node.working_set))
    head = {"nodeName": config.node_name, "startTime": format_time(booted)}
    return {"node": head | {"cpu": _cpu(readings, node_usage(before), node), "memory": memory}, "pods": pods}


def _size(config: Config) -> int:
    return quantity.value(capacity(config)["memory"])


# --- for Prometheus; the names are kubelet's ---------------------------------------------------------------------------


class _Text:
    """Lines of the exposition format."""

    def __init__(self, moment: float = 0.0) -> None:
        self.lines: list[str] = []
        self._stamp = f" {int(moment * 1000)}" if moment else ""

    def head(self, name: str, kind: str, about: str) -> None:
        self.lines += exposition.head(name, kind, about)

    def add(self, name: str, value: float, /, **labels: str) -> None:
        shown = f"{{{exposition.labels(labels.items())}}}" if labels else ""
        self.lines.append(f"{name}{shown} {value:.16g}{self._stamp}")

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def metrics(workers: Sequence[PodWorker], counters: Counters) -> str:
    """/metrics: the agent itself."""
    out = _Text()
    out.head("kubernetes_build_info", "gauge", "The version of the agent.")
    out.add("kubernetes_build_info", 1, git_version=VERSION)
    out.head("kubelet_running_pods", "gauge", "Pods that have a running sandbox.")
    out.add("kubelet_running_pods", sum(any(s.ready for s in w.sandboxes.values()) for w in workers))
    out.head("kubelet_running_containers", "gauge", "Containers that run.")
    running = sum(c.state == RUNNING for w in workers for c in w.containers.values())
    out.add("kubelet_running_containers", running, container_state="running")
    out.head("kubelet_desired_pods", "gauge", "Pods that are bound to this node.")
    out.add("kubelet_desired_pods", len(workers))
    for name, values in counters:
        out.head(name, "counter", ABOUT[name])
        for labels, count in values.items():
            out.add(name, count, **dict(labels))
    return out.text()


def resource(sample: Sample, workers: Sequence[PodWorker]) -> str:
    """/metrics/resource: the counters that metrics-server asks for."""
    used, out = sample.usage, _Text(sample.time)
    cpu, memory = "CPU used so far, in core seconds.", "Memory that cannot be taken back without harm, in bytes."
    containers = [(w, c, u) for w in workers for c in _running(w) if (u := used.containers.get(c.id)) is not None]
    pods = [(w.pod.metadata, _pod_usage(used, w)) for w in workers]

    def labels(worker: PodWorker, container: Container) -> dict[str, str]:
        meta = worker.pod.metadata
        return {"container": container.name, "namespace": meta.namespace or "", "pod": meta.name or ""}

    out.head("container_cpu_usage_seconds_total", "counter", cpu)
    for worker, container, one in containers:
        out.add("container_cpu_usage_seconds_total", one.cpu, **labels(worker, container))
    out.head("container_memory_working_set_bytes", "gauge", memory)
    for worker, container, one in containers:
        out.add("container_memory_working_set_bytes", one.working_set, **labels(worker, container))
    out.head("container_start_time_seconds", "gauge", "When the container started, in Unix seconds.")
    for worker, container, _ in containers:
        out.add("container_start_time_seconds", container.started, **labels(worker, container))
    node = node_usage(used)
    out.head("node_cpu_usage_seconds_total", "counter", cpu)
    out.add("node_cpu_usage_seconds_total", node.cpu)
    out.head("node_memory_working_set_bytes", "gauge", memory)
    out.add("node_memory_working_set_bytes", node.working_set)
    out.head("pod_cpu_usage_seconds_total", "counter", cpu)
    for meta, one in pods:
        out.add("pod_cpu_usage_seconds_total", one.cpu, namespace=meta.namespace or "", pod=meta.name or "")
    out.head("pod_memory_working_set_bytes", "gauge", memory)
    for meta, one in pods:
        out.add("pod_memory_working_set_bytes", one.working_set, namespace=meta.namespace or "", pod=meta.name or "")
    out.head("resource_scrape_error", "gauge", "1 if the counters could not be read.")
    out.add("resource_scrape_error", 0)
    return out.text()


def cadvisor(sample: Sample, workers: Sequence[PodWorker], config: Config) -> str:
    """/metrics/cadvisor: those of cAdvisor's series that dashboards build on."""
    used, out = sample.usage, _Text(sample.time)
    series: list[tuple[str, str, str, Any]] = [
        ("container_cpu_usage_seconds_total", "counter", "CPU used so far, in core seconds.", lambda u: u.cpu),
        ("container_memory_usage_bytes", "gauge", "Memory used, in bytes.", lambda u: u.memory),
        ("container_memory_working_set_bytes", "gauge", "Memory in use, file pages left out that nobody needs.",
         lambda u: u.working_set),
        ("container_memory_rss", "gauge", "Anonymous memory, in bytes.", lambda u: u.rss),
        ("container_processes", "gauge", "Processes.", lambda u: u.pids),
    ]  # fmt: skip
    listed: list[tuple[dict[str, str], Usage]] = []
    for worker in workers:
        meta = worker.pod.metadata
        where = {"namespace": meta.namespace or "", "pod": meta.name or ""}
        listed.append(({"container": "", "id": "", "image": "", "name": ""} | where, _pod_usage(used, worker)))
        for c in _running(worker):
            if c.id in used.containers:
                head = {"container": c.name, "id": f"/{c.id}", "image": c.image, "name": c.id}
                listed.append((head | where, used.containers[c.id]))
    for name, kind, about, value in series:
        out.head(name, kind, about)
        for labels, one in listed:
            more = {"cpu": "total"} if "cpu" in name else {}
            out.add(name, value(one), **labels, **more)
    out.head("machine_cpu_cores", "gauge", "Cores of the node.")
    out.add("machine_cpu_cores", quantity.milli(capacity(config)["cpu"]) / 1000)
    out.head("machine_memory_bytes", "gauge", "Memory of the node, in bytes.")
    out.add("machine_memory_bytes", _size(config))
    return out.text()
