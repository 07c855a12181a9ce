"""The daemon set controller."""

from __future__ import annotations

import msgspec

from controllers import history
from controllers.controller import Context
from controllers.controller import key as key_of
from controllers.daemonset import plan as planning
from controllers.podowner import UNSETTLED, PodOwner
from navarch.api.pods import is_terminal
from navarch.api.types import apps_v1, core_v1
from navarch.client.events import WARNING

DaemonSet = apps_v1.DaemonSet
FIRST_DELAY, MAX_DELAY = 1.0, 900.0


class DaemonSetController(PodOwner):
    name = "daemonset-controller"
    struct = DaemonSet
    api_version = "apps/v1"
    kind = "DaemonSet"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.nodes = self.informer(core_v1.Node)
        self.revisions = self.informer(history.Revision, history.INDEX)
        self.nodes.add_handler(self._node_changed)
        # key of the set -> (its uid, node) -> delay, not before
        self.failures: dict[str, dict[tuple[str, str], tuple[float, float]]] = {}

    def _node_changed(self, kind: str, old: core_v1.Node | None, new: core_v1.Node) -> None:
        """Only what decides about places is of interest; nodes report their health all the time."""
        if (
            kind == "MODIFIED"
            and old is not None
            and old.metadata.labels == new.metadata.labels
            and old.spec.taints == new.spec.taints
        ):
            return
        for daemon_set in self.owners.list():
            self.enqueue(daemon_set)

    async def reconcile(self, key: str) -> float | None:
        ds: DaemonSet | None = self.owners.get_key(key)
        if ds is None:
            self.expectations.forget(key)
            self.failures.pop(key, None)
            return None
        if ds.metadata.deletion_timestamp is not None:
            return None
        settled = self.expectations.satisfied(key)
        owner = self.reference(ds)
        ds, revision, old = await history.current(self.client, self.revisions, ds, owner)
        digest = (revision.metadata.labels or {})[history.HASH]
        pods = await self.claim(ds, keep=lambda pod: not is_terminal(pod))
        nodes = {n.metadata.name or "": n for n in sorted(self.nodes.list(), key=lambda n: n.metadata.name or "")}
        now = self.world.now()
        error: Exception | None = None
        again: list[float] = []
        if settled:
            todo = planning.plan(ds, nodes, pods, digest, now)
            late = self._later(ds, todo, now)
            again += late
            waiting = [p.metadata.uid for p in todo.failed if self._waits(ds, p, now)]
            delete = [p for p in todo.delete if p.metadata.uid not in waiting]
            for pod in (p for p in todo.failed if p.metadata.uid not in waiting):
                where, name = planning.node_of(pod), f"{pod.metadata.namespace}/{pod.metadata.name}"
                text = f"Found failed daemon pod {name} on node {where}, will try to kill it"
                self.events.event(ds, WARNING, "FailedDaemonPod", text)
                self._back_off(ds, pod, now)
            if delete:
                error = await self.delete_pods(key, ds, delete)
            elif todo.create:
                new_pods = [planning.new_pod(ds, owner, node, digest) for node in todo.create]
                error = await self.create_pods(key, ds, new_pods)
        status, due = planning.report(ds, nodes, pods, digest, now)
        if status != ds.status:
            await self.client[DaemonSet].update_status(msgspec.structs.replace(ds, status=status))
        limit = 10 if ds.spec.revision_history_limit is None else ds.spec.revision_history_limit
        live = {(p.metadata.labels or {}).get(history.HASH, "") for p in pods}
        await history.truncate(self.client, old, live, limit)
        if error is not None:
            raise error
        if due is not None:
            again.append(due)
        if not settled:
            again.append(UNSETTLED)
        return min(again) if again else None

    # A daemon that fails again and again is tried at longer and longer intervals.

    def _later(self, ds: DaemonSet, todo: planning.Plan, now: float) -> list[float]:
        times = [self._failure(ds, pod)[1] for pod in todo.failed]
        return [t - now for t in times if t > now]

    def _waits(self, ds: DaemonSet, pod: core_v1.Pod, now: float) -> bool:
        return self._failure(ds, pod)[1] > now

    def _failure(self, ds: DaemonSet, pod: core_v1.Pod) -> tuple[float, float]:
        place = (ds.metadata.uid or "", planning.node_of(pod))
        return self.failures.get(key_of(ds), {}).get(place, (0.0, 0.0))

    def _back_off(self, ds: DaemonSet, pod: core_v1.Pod, now: float) -> None:
        delay, _ = self._failure(ds, pod)
        recent = {p: f for p, f in self.failures.get(key_of(ds), {}).items() if now <= f[1] + 2 * MAX_DELAY}  # forgets the rest
        place = (ds.metadata.uid or "", planning.node_of(pod))
        delay = min(MAX_DELAY, delay * 2) if place in recent else FIRST_DELAY
        self.failures[key_of(ds)] = recent | {place: (delay, now + delay)}
