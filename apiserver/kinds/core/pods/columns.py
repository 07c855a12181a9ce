"""The row of ``kubectl get pods``: the one word that says how a pod is doing."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import Tree, age_cell, condition, meta_of, name_cell, spec_of, status_of
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column
from navarch.api.durations import age
from navarch.api.pods import TERMINAL_PHASES, is_sidecar
from navarch.api.times import parse_time

COLUMNS = (
    NAME_COLUMN, Column("Ready"), Column("Status"), Column("Restarts"), AGE_COLUMN, Column("IP", priority=1),
    Column("Node", priority=1), Column("Nominated Node", priority=1), Column("Readiness Gates", priority=1),
)  # fmt: skip


def pod_cells(obj: Tree, now: float) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    ready, total, word, restarts = summary(obj, now)
    gates = spec.get("readinessGates") or ()
    passed = sum(1 for g in gates if (condition(obj, g.get("conditionType", "")) or {}).get("status") == "True")
    addresses = status.get("podIPs") or ()
    return [
        name_cell(obj), f"{ready}/{total}", word, restarts, age_cell(obj, now),
        (addresses[0].get("ip") if addresses else status.get("podIP")) or "<none>",
        spec.get("nodeName") or "<none>", status.get("nominatedNodeName") or "<none>",
        f"{passed}/{len(gates)}" if gates else "<none>",
    ]  # fmt: skip


class _Restarts:
    """Counts restarts and remembers the last one."""

    def __init__(self) -> None:
        self.count, self.last = 0, ""

    def add(self, container: Tree) -> None:
        self.count += container.get("restartCount") or 0
        finished = ((container.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or ""
        if finished and (not self.last or parse_time(finished) > parse_time(self.last)):
            self.last = finished

    def text(self, now: float) -> str:
        return f"{self.count} ({age(self.last, now)} ago)" if self.count and self.last else str(self.count)


def _ended(terminated: Tree) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def summary(obj: Tree, now: float) -> tuple[int, int, str, str]:
    """(ready containers, all containers, status word, restarts), as kubectl shows them."""
    spec, status = spec_of(obj), status_of(obj)
    word = status.get("reason") or status.get("phase") or ""
    if (condition(obj, "PodScheduled") or {}).get("reason") == "SchedulingGated":
        word = "SchedulingGated"
    sidecars = {c.get("name") for c in spec.get("initContainers") or () if is_sidecar(c)}
    total, ready = len(spec.get("containers") or ()) + len(sidecars), 0
    restarts, sidecar_restarts = _Restarts(), _Restarts()
    initializing = False
    for i, container in enumerate(status.get("initContainerStatuses") or ()):
        restarts.add(container)
        sidecar = container.get("name") in sidecars
        if sidecar:
            sidecar_restarts.add(container)
        state = container.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting") or {}
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if sidecar and container.get("started"):
            ready += bool(container.get("ready"))
            continue
        initializing = True
        if terminated is not None:
            word = "Init:" + _ended(terminated)
        elif waiting.get("reason") and waiting["reason"] != "PodInitializing":
            word = "Init:" + waiting["reason"]
        else:
            word = f"Init:{i}/{len(spec.get('initContainers') or ())}"
        break
    if not initializing or (condition(obj, "Initialized") or {}).get("status") == "True":
        restarts = sidecar_restarts
        running = False
        for container in reversed(status.get("containerStatuses") or ()):
            restarts.add(container)
            state = container.get("state") or {}
            waiting, terminated = state.get("waiting") or {}, state.get("terminated")
            if waiting.get("reason"):
                word = waiting["reason"]
            elif terminated is not None:
                word = _ended(terminated)
            elif container.get("ready") and state.get("running") is not None:
                running = True
                ready += 1
        if word == "Completed" and running:
            word = "Running" if (condition(obj, "Ready") or {}).get("status") == "True" else "NotReady"
    if meta_of(obj).get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            word = "Unknown"
        elif status.get("phase") not in TERMINAL_PHASES:
            word = "Terminating"
    return ready, total, word, restarts.text(now)
