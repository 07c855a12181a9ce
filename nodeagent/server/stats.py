"""What the node and its pods use: /stats/summary for people and metrics-server, /metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from navarch.api.times import format_time
from nodeagent.config import VERSION, Config
from nodeagent.node import available_memory, capacity
from nodeagent.observed import roles
from nodeagent.runtime.runtime import RUNNING, Runtime
from nodeagent.worker import PodWorker


async def summary(runtime: Runtime, config: Config, workers: Sequence[PodWorker], now: float) -> dict[str, Any]:
    """kubelet's stats/v1alpha1 Summary, with CPU and memory."""
    from navarch.api import quantity

    used = await runtime.usage()
    stamp = format_time(now)
    pods: list[dict[str, Any]] = []
    for worker in workers:
        containers: list[dict[str, Any]] = []
        for container in worker.containers.values():
            if container.state == RUNNING and container.id in used:
                cpu, memory = used[container.id]
                containers.append(
                    {
                        "name": container.name,
                        "startTime": format_time(container.started),
                        "cpu": {"time": stamp, "usageCoreNanoSeconds": int(cpu * 1e9)},
                        "memory": {"time": stamp, "workingSetBytes": memory},
                    }
                )
        meta = worker.pod.metadata
        pods.append(
            {
                "podRef": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
                "startTime": worker.pod.status.start_time or meta.creation_timestamp,
                "containers": containers,
                "cpu": {
                    "time": stamp,
                    "usageCoreNanoSeconds": sum(c["cpu"]["usageCoreNanoSeconds"] for c in containers),
                },
                "memory": {"time": stamp, "workingSetBytes": sum(c["memory"]["workingSetBytes"] for c in containers)},
            }
        )
    whole = quantity.value(capacity(config)["memory"])
    working_set = sum(p["memory"]["workingSetBytes"] for p in pods)
    return {
        "node": {
            "nodeName": config.node_name,
            "cpu": {
                "time": stamp,
                "usageCoreNanoSeconds": sum(p["cpu"]["usageCoreNanoSeconds"] for p in pods),
            },
            "memory": {
                "time": stamp,
                "availableBytes": min(available_memory(), max(0, whole - working_set)),
                "workingSetBytes": working_set,
            },
        },
        "pods": pods,
    }


async def metrics(runtime: Runtime, workers: Sequence[PodWorker]) -> str:
    """Prometheus text; the names are kubelet's."""
    used = await runtime.usage()
    running = sum(c.state == RUNNING for w in workers for c in w.containers.values())
    lines = [
        "# TYPE kubernetes_build_info gauge",
        f'kubernetes_build_info{{git_version="{VERSION}"}} 1',
        "# TYPE kubelet_running_pods gauge",
        f"kubelet_running_pods {sum(any(s.ready for s in w.sandboxes.values()) for w in workers)}",
        "# TYPE kubelet_running_containers gauge",
        f'kubelet_running_containers{{container_state="running"}} {running}',
        "# TYPE kubelet_desired_pods gauge",
        f"kubelet_desired_pods {len(workers)}",
        "# TYPE container_cpu_usage_seconds_total counter",
    ]
    memory = ["# TYPE container_memory_working_set_bytes gauge"]
    for worker in workers:
        known = [r.container.name for r in roles(worker.pod.spec)]
        for container in worker.containers.values():
            if container.id in used and container.name in known:
                cpu, size = used[container.id]
                labels = (
                    f'container="{container.name}",namespace="{worker.pod.metadata.namespace}",'
                    f'pod="{worker.pod.metadata.name}"'
                )
                lines.append(f"container_cpu_usage_seconds_total{{{labels}}} {cpu:.6f}")
                memory.append(f"container_memory_working_set_bytes{{{labels}}} {size}")
    return "\n".join(lines + memory) + "\n"
