"""Traces of nodes and pods from files of others, and the order in which pods arrive. Pure but for reading the file.

Formats:

- ``csv``: pods with arrival, cpu, memory, gpu, duration, labels, priority; nodes with name, cpu, memory, gpu, labels, count. A
  column with a slash is an extended resource.
- ``openb``, Alibaba's GPU trace: pods with cpu_milli, memory_mib, num_gpu, gpu_milli, creation_time, deletion_time; nodes with
  sn, cpu_milli, memory_mib, gpu, model.
- ``google2019``, tables of Google's cluster data of 2019 as CSV or JSON lines: instance_events, and machine_events for nodes.
  Requests are parts of the largest machine.

Files may be compressed with gzip.
"""

from __future__ import annotations

import csv
import gzip
import io
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from navarch.api import quantity
from nodeagent.runtime.spread import seconds

GPU = "nvidia.com/gpu"
OPENB_GPU = "openb/gpu-milli"
Row = Mapping[str, Any]


class TracePod(NamedTuple):
    """``arrival`` and ``duration`` in seconds; a duration of 0 does not end. ``requests`` in Kubernetes' notation."""

    name: str
    arrival: float
    duration: float
    requests: Mapping[str, str]
    labels: Mapping[str, str] = {}
    priority: int = 0

    def manifest(self, leaves: bool = True) -> dict[str, Any]:
        """The Pod; simulated nodes end it after its duration, if it ``leaves``."""
        extended = {k: v for k, v in self.requests.items() if "/" in k}
        resources = {"requests": dict(self.requests), **({"limits": extended} if extended else {})}
        metadata: dict[str, Any] = {"name": self.name, "namespace": "default"}
        if self.labels:
            metadata["labels"] = dict(self.labels)
        if leaves and self.duration:
            metadata["annotations"] = {"hollow.navarch.dev/run": f"{self.duration:.6g}s"}
        container = {"name": "c", "image": "trace:1", "resources": resources}
        spec: dict[str, Any] = {"containers": [container], "restartPolicy": "Never"}
        if self.priority:
            spec["priority"] = self.priority
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


class TraceNode(NamedTuple):
    name: str
    cpu: str
    memory: str
    resources: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}


def rows(path: Path) -> Iterator[Row]:
    """The rows of a CSV file, or of JSON lines. Raises OSError, ValueError."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    if data[:1] == b"{":
        for line in data.splitlines():
            yield _flat(orjson.loads(line))
    else:
        yield from csv.DictReader(io.StringIO(data.decode()))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out


def _labels(text: str | None) -> dict[str, str]:
    """``app=web;tier=front``."""
    return dict(one.split("=", 1) for one in (text or "").split(";") if one)


def _extended(row: Row) -> dict[str, str]:
    resources = {k: str(v) for k, v in row.items() if k and "/" in k and v}
    return resources | ({GPU: str(row["gpu"])} if row.get("gpu") and str(row["gpu"]) != "0" else {})


def _csv_pods(listed: Iterable[Row]) -> Iterator[TracePod]:
    for n, row in enumerate(listed):
        requests = {k: str(row[k]) for k in ("cpu", "memory") if row.get(k)} | _extended(row)
        yield TracePod(
            str(row.get("name") or f"trace-{n}"), seconds(str(row.get("arrival") or 0)), seconds(str(row.get("duration") or 0)),
            requests, _labels(row.get("labels")), int(row.get("priority") or 0),
        )  # fmt: skip


def _csv_nodes(listed: Iterable[Row]) -> Iterator[TraceNode]:
    for n, row in enumerate(listed):
        count = int(row.get("count") or 1)
        for k in range(count):
            name = str(row.get("name") or f"trace-node-{n}") + (f"-{k + 1}" if count > 1 else "")
            yield TraceNode(name, str(row["cpu"]), str(row["memory"]), _extended(row), _labels(row.get("labels")))


def _openb_pods(listed: Iterable[Row]) -> Iterator[TracePod]:
    for n, row in enumerate(listed):
        gpu = int(row["num_gpu"]) * int(row["gpu_milli"])
        requests = {"cpu": f"{row['cpu_milli']}m", "memory": f"{row['memory_mib']}Mi", **({OPENB_GPU: str(gpu)} if gpu else {})}
        came, went = float(row.get("creation_time") or 0), float(row.get("deletion_time") or 0)
        yield TracePod(str(row.get("name") or f"openb-pod-{n:04}"), came, max(0.0, went - came), requests)


def _openb_nodes(listed: Iterable[Row]) -> Iterator[TraceNode]:
    for row in listed:
        labels = {"openb/model": str(row["model"])} if row.get("model") else {}
        gpus = {OPENB_GPU: f"{row['gpu']}000"} if int(row["gpu"]) else {}
        yield TraceNode(str(row["sn"]), f"{row['cpu_milli']}m", f"{row['memory_mib']}Mi", gpus, labels)


GOOGLE_CPU, GOOGLE_MEMORY = 64.0, 256 * 1024.0  # the largest machine: cores, MiB. The trace tells parts of it only.
_SUBMIT, _SCHEDULE = ("0", "SUBMIT"), ("3", "SCHEDULE")
_ENDS = ("4", "5", "6", "7", "8", "EVICT", "FAIL", "FINISH", "KILL", "LOST")


def _google_pods(listed: Iterable[Row]) -> Iterator[TracePod]:
    """An instance is a pod: it arrives when it is submitted first, and runs from SCHEDULE until it ends."""
    came: dict[tuple[str, str], Row] = {}
    began: dict[tuple[str, str], float] = {}
    ran: dict[tuple[str, str], float] = {}
    for row in sorted(listed, key=lambda r: int(r["time"])):
        key, at, kind = (str(row["collection_id"]), str(row["instance_index"])), int(row["time"]) / 1e6, str(row["type"])
        if kind in _SUBMIT:
            came.setdefault(key, row)
        elif kind in _SCHEDULE:
            began.setdefault(key, at)
        elif kind in _ENDS and key in began:
            ran.setdefault(key, at - began[key])
    for key, row in came.items():
        cpu, memory = (float(row.get(f"resource_request.{k}") or 0) for k in ("cpus", "memory"))
        requests = {"cpu": f"{max(1, round(cpu * GOOGLE_CPU * 1000))}m", "memory": f"{max(1, round(memory * GOOGLE_MEMORY))}Mi"}
        labels = {"collection": key[0]}
        priority = int(row.get("priority") or 0)
        yield TracePod(f"i-{key[0]}-{key[1]}", int(row["time"]) / 1e6, ran.get(key, 0.0), requests, labels, priority)


def _google_nodes(listed: Iterable[Row]) -> Iterator[TraceNode]:
    """The machines that were added and have a capacity, each as it was last."""
    machines: dict[str, Row] = {}
    for row in listed:
        if str(row["type"]) not in ("2", "REMOVE") and row.get("capacity.cpus"):
            machines[str(row["machine_id"])] = row
    for name, row in machines.items():
        cpu, memory = float(row["capacity.cpus"]) * GOOGLE_CPU, float(row["capacity.memory"]) * GOOGLE_MEMORY
        yield TraceNode(f"m-{name}", f"{round(cpu * 1000)}m", f"{round(memory)}Mi")


FORMATS: Mapping[str, tuple[Callable[[Iterable[Row]], Iterator[TracePod]], Callable[[Iterable[Row]], Iterator[TraceNode]]]] = {
    "csv": (_csv_pods, _csv_nodes),
    "openb": (_openb_pods, _openb_nodes),
    "google2019": (_google_pods, _google_nodes),
}


def pods(path: Path, format: str) -> list[TracePod]:
    """Raises OSError; ValueError with the line where a row is wrong."""
    return _all(FORMATS[format][0], path, format)


def nodes(path: Path, format: str) -> list[TraceNode]:
    """Raises as ``pods``."""
    return _all(FORMATS[format][1], path, format)


def _all(read: Callable[[Iterable[Row]], Iterator[Any]], path: Path, format: str) -> list[Any]:
    out: list[Any] = []
    try:
        for one in read(rows(path)):
            out.append(one)
    except KeyError as error:
        raise ValueError(f"{path.name}: a row has no {error.args[0]}, which the format {format} needs") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path.name}: after row {len(out)}: {error}") from error
    if not out:
        raise ValueError(f"{path.name}: there is nothing in it")
    return out


def amount(pod: TracePod, resource: str) -> float:
    return float(quantity.parse(pod.requests[resource])) if resource in pod.requests else 0.0


def arrivals(
    listed: Sequence[TracePod],
    chance: random.Random,
    *,
    window: tuple[float, float] | None = None,
    sample: float = 1.0,
    shuffled: bool = False,
    demand: Mapping[str, float] = {},
    speed: float = 1.0,
) -> list[TracePod]:
    """The pods in the order in which they arrive, with the times of the run. ``window``: seconds of the trace. ``sample``: so
    large a part of the pods is drawn. ``demand``: of a resource, the amount until which more pods are drawn at random, and
    beyond which the last ones are left out. ``speed``: so many seconds of the trace go by in one."""
    chosen = [p for p in listed if window is None or window[0] <= p.arrival < window[1]]
    if sample < 1.0:
        chosen = [p for p in chosen if chance.random() < sample]
    if not chosen:
        return []
    begin = window[0] if window else min(p.arrival for p in chosen)
    ordered = chance.sample(chosen, len(chosen)) if shuffled else sorted(chosen, key=lambda p: p.arrival)
    out = list(ordered)
    for resource, until in demand.items():
        total = sum(amount(p, resource) for p in out)
        while total > until:
            total -= amount(out.pop(), resource)
        again = 0
        while any(amount(p, resource) for p in chosen):
            more = chance.choice(chosen)
            if total + amount(more, resource) > until:
                break
            again += 1
            total += amount(more, resource)
            out.append(more._replace(name=f"{more.name}-again-{again}", arrival=out[-1].arrival))
    return [p._replace(arrival=(p.arrival - begin) / speed, duration=p.duration / speed) for p in out]
