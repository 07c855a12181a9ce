"""The scheduler's shell: informers feed the node table and the queue, decisions become bindings.

A pod that was decided on is *assumed*: the table counts it on its node at once, while the binding is on its way, so that
the next decision already knows of it. A binding that fails takes the assumption back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

import numpy as np

from navarch.api.conditions import get_condition
from navarch.api.errors import NotFound, StatusError
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.events import EventRecorder
from navarch.client.informer import SharedInformers
from navarch.client.transport import TransportError
from navarch.client.watch import ADDED, DELETED
from navarch.world import TaskGroup, World, describe, keep_running
from scheduler.explain.explain import Recent
from scheduler.framework.blame import EXTENDER, Fault, blame
from scheduler.framework.config import SchedulerConfig
from scheduler.framework.cycle import Decision, schedule
from scheduler.framework.outcomes import Failed, Rejected
from scheduler.framework.plugin import (
    NAMESPACE_CHANGED,
    NODE_ADDED,
    NODE_CHANGED,
    NODE_GONE,
    POD_ADDED,
    POD_CHANGED,
    POD_GONE,
    POD_PENDING,
    Attempt,
    Event,
    Handle,
    Plan,
    Plugin,
    Profile,
)
from scheduler.framework.reads import Facts
from scheduler.framework.ties import by_chance
from scheduler.framework.waitingpods import WaitingPod, WaitingPods
from scheduler.io.extenders import Answers, Extenders, Victims
from scheduler.io.leaderfence import Fence, NotLeading
from scheduler.io.metrics import Metrics
from scheduler.io.scheduledevents import ScheduledEvents
from scheduler.io.writes import Writes
from scheduler.plugins.preemption import DefaultPreemption, best_plan
from scheduler.queue import SchedulingQueue
from scheduler.ranking.rankings import Rankings
from scheduler.state.budgets import Budgets
from scheduler.state.nodes import NodeTable
from scheduler.state.nominated import Nominated
from scheduler.state.owners import Owners
from scheduler.state.pods import LIVE_PODS, PodInfo
from scheduler.state.rebuilt import check_table

log = logging.getLogger(__name__)

BINDINGS_AT_ONCE = 64
SCHEDULER_ERROR = "SchedulerError"
"""Reason of the condition PodScheduled of a pod that could not be decided on (upstream's PodReasonSchedulerError)."""
TRACED = 100  # faults of which a traceback is logged
MAX_PERMIT = 15 * 60.0  # seconds that a pod may wait for a permit (upstream's maximum)
TURN = 16  # decisions after which other tasks (watches, bindings) get a turn


EXPECTED = StatusError, TransportError, Rejected, Failed, NotLeading
"""Exceptions of a binding that are no mistake in the scheduler."""


class PluginError(Exception):
    """A plugin cannot be used; the message says which and why, in one line."""


class Scheduler:
    """Binds pods whose spec.schedulerName is one of its profiles. ``profile`` alone is a shorthand for tests.

    ``fence``: keeps a scheduler that is the leader no more from binding. ``table``: nodes and the pods on them, those that
    are ``assumed`` (uid -> node: decided, and not seen bound yet) counted. ``queue``: the pods that want a node.
    ``rankings``: by profile. ``nominated``: pods that wait for the room that preemption makes. ``writes``: what is sent to
    the API server.
    """

    def __init__(
        self,
        client: Client,
        world: World,
        config: SchedulerConfig | None = None,
        profile: Profile | None = None,
        fence: Fence | None = None,
    ) -> None:
        config = config or SchedulerConfig()
        self.client, self.world, self.fence = client, world, fence
        self.profiles = {p.name: p for p in ([profile] if profile else config.profiles)}
        for one in self.profiles.values():
            one.tie_break = config.tie_break if config.tie_break is not by_chance else one.tie_break
        self.rankings = {name: Rankings() for name in self.profiles}
        self.table = NodeTable()
        self.facts = Facts(p for one in self.profiles.values() for p in one.plugins)
        self.table.node_differs = self.facts.node_differs
        self.table.account_failed = lambda pod, error: self.faulty(pod, blame(error), error)
        self.metrics = Metrics(world)
        self.recent = Recent()
        self.queue = SchedulingQueue(
            world,
            self.profiles,
            self.table,
            config.pod_initial_backoff_seconds,
            config.pod_max_backoff_seconds,
            incoming=self.metrics.incoming,
            faulty=self.faulty,
        )
        self.metrics.queue, self.metrics.parked = self.queue.counts, self.queue.parked
        self.metrics.cache = lambda: {
            "nodes": len(self.table), "pods": len(self.table.pods), "assumed_pods": len(self.assumed),
        }  # fmt: skip
        self.assumed: dict[str, str] = {}  # uid -> node, until the watch shows the binding
        self.nominated = Nominated()
        self.writes = Writes(client, world, fence)
        self.informers = SharedInformers(client, world)
        self.metrics.watch_informers(self.informers.faults)
        self._group: TaskGroup | None = None
        self._traced: dict[tuple[str, str, str], None] = {}  # faults whose traceback is in the log
        self.nodes = self.informers.informer(core_v1.Node)
        self.pods = self.informers.informer(core_v1.Pod, field_selector=LIVE_PODS)
        self.namespaces = self.informers.informer(core_v1.Namespace)
        self.table.spread_selector = Owners(self.informers, self.table.touch).selector
        self.table.violating = Budgets(self.informers, self.table.touch).violating
        self.waiting = WaitingPods()
        self.table.volumes.follow(self.informers, self.on_storage)
        self.nodes.add_handler(self.on_node)
        self.pods.add_handler(self.on_pod)
        self.namespaces.add_handler(self.on_namespace)
        name = next(iter(self.profiles))
        self.events = EventRecorder(client, world, name)
        self.scheduled = ScheduledEvents(client, world, name)
        self.ready = False
        self.extenders = Extenders(config.extenders)
        self.handle = Handle(
            world, client, self.informers, self.table, self.waiting,
            self.queue.happened, self.queue.activate, lambda: (w.pod for w in self.queue.pods.values()),
        )  # fmt: skip
        for one in self.profiles.values():
            for plugin in one.plugins:
                try:
                    plugin.start(self.handle)
                    if plugin in one.accounts:
                        self.table.attach(plugin)
                except Exception as error:
                    raise PluginError(f'starting plugin "{plugin.name}": {describe(error)}') from error

    async def run(self) -> None:
        """Schedules until cancelled."""
        async with self.world.task_group() as group:
            group.start(self.informers.run(), name="informers")
            group.start(self.events.run(), name="events")
            group.start(self.scheduled.run(), name="scheduled events")
            for task in self.handle.background:
                group.start(keep_running(self.world, log, "a plugin's task", task), name="plugin")
            await self.informers.wait_synced()
            if self.fence:
                await self.fence.take_over(self.pods, self.pending)
            self.ready = True
            await self.work(group)

    async def work(self, group: TaskGroup) -> None:
        self._group, room = group, asyncio.Semaphore(BINDINGS_AT_ONCE)
        decided = 0
        while True:
            pod = await self.queue.pop()
            decided += 1
            if decided % TURN == 0:
                await asyncio.sleep(0)
            began = self.world.monotonic()
            try:
                await self.attempt(pod, group, room, began)
            except Exception as error:
                self.broke(pod, error, began)

    async def attempt(self, pod: PodInfo, group: TaskGroup, room: asyncio.Semaphore, began: float) -> None:
        """Decides on one pod, and begins what follows from that."""
        profile = self.profiles[pod.profile]
        decision = self.decide(pod)
        if self.extenders and decision.feasible and self.extenders.interested(pod):
            names = [n for n, row in self.table.rows.items() if decision.ranking.total[row] > -np.inf]
            try:
                decision = self.decide(pod, await self.extenders.ask(pod, names, self.table))
            except Failed as error:
                self.attempt_failed(pod, profile, began, str(error))
                return
            if pod.uid not in self.queue.pods:
                return  # deleted meanwhile
        if self.fence:
            cached = self.pods.get(pod.namespace, pod.pod.metadata.name or "")
            decision.version = (cached and cached.metadata.resource_version) or ""
        if not decision.node or not self.reserve(decision, profile):
            plan = None
            if self.extenders and not decision.node_was:
                plan = await self.plan_with_extenders(decision, profile)
                if pod.uid not in self.queue.pods:
                    return  # deleted meanwhile: nothing is preempted for it
            self.refuse(decision, profile, plan)
            self.metrics.attempt(profile.name, "unschedulable", began)
            return
        self.recent.add(decision, self.world.now())
        try:
            waits = decision.waits or any(
                p.pre_bind_needed(decision.state, pod, decision.node) for p in profile.pre_binders
            )
        except Exception as error:
            self.binding_failed(decision, profile, began, error)
            return
        if waits:
            # Such pods may wait for others: they take no room meanwhile.
            group.start(self.bind_later(decision, profile, room, began), name=f"permit {pod.key}")
            return
        await room.acquire()
        group.start(self.bind(decision, profile, room, began), name=f"bind {pod.key}")

    def check(self) -> None:
        """Raises AssertionError unless what is kept by deltas is what it would be if it were made anew."""
        self.informers.check()
        self.queue.check()
        check_table(self.table)
        for uid, node in self.assumed.items():
            assert uid in self.table.pods and self.table.pods[uid][1] == node, f"{uid} is assumed on {node}"
        for name, rankings in self.rankings.items():
            rankings.check(self.table, self.profiles[name])

    # What nobody foresaw

    def faulty(self, pod: PodInfo, fault: Fault, error: BaseException | None = None) -> None:
        """Counts a fault; the first of its kind goes to the log with its traceback, others as a line."""
        self.metrics.fault(fault)
        kind = fault.plugin, fault.point, fault.error
        new = kind not in self._traced and len(self._traced) < TRACED
        if new:
            self._traced[kind] = None
        log.log(logging.ERROR if new else logging.WARNING, "scheduling %s: %s", pod.key, fault, exc_info=error if new else None)

    def broke(self, pod: PodInfo, error: Exception, began: float) -> None:
        """An attempt ended in an exception: the pod is told why, and comes again after a while; others go on."""
        fault = blame(error)
        self.faulty(pod, fault, error)
        profile = self.profiles[pod.profile]
        self.rankings[profile.name] = Rankings()  # one of them may have stopped half-way
        if pod.uid in self.assumed:
            self.unassume(pod)
        self.failed_with(pod, fault, str(fault))
        self.metrics.attempt(profile.name, "error", began)

    def failed_with(self, pod: PodInfo, fault: Fault, message: str) -> None:
        """Back-off, event, condition, and what `navarch why` tells."""
        self.recent.fail(pod, self.world.now(), fault)
        self.queue.failed(pod.uid)
        self.events.event(pod.pod, "Warning", "FailedScheduling", message)
        current = self.condition_of(pod)
        if current is None or current.status != "False" or current.message != message:
            self.aside(self.writes.report(pod, message, reason=SCHEDULER_ERROR), f"report {pod.key}")

    def condition_of(self, pod: PodInfo) -> core_v1.PodCondition | None:
        """The pod's PodScheduled condition as it is now; the queue's copy of the pod may be older."""
        latest = self.pods.get(pod.namespace, pod.pod.metadata.name or "") or pod.pod
        return get_condition(latest.status.conditions, "PodScheduled")

    def aside(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        """Starts a request that decides nothing. What is unforeseen in it is logged, and ends nobody else."""

        async def guarded() -> None:
            try:
                await coroutine
            except Exception:
                log.exception("%s", name)

        if self._group is None:
            coroutine.close()  # nobody runs us: a test of the decisions alone
            return
        self._group.start(guarded(), name=name)

    def decide(self, pod: PodInfo, answers: Answers | None = None) -> Decision:
        """One cycle against the state of now. ``answers``: what extenders said of the nodes that were left."""
        profile, chance = self.profiles[pod.profile], self.world.random
        measured = self.metrics.deciding(profile) if self.metrics.sampled() else contextlib.nullcontext()
        with measured:
            return schedule(pod, self.table, profile, chance, self.rankings[profile.name], self.nominated, answers)

    def pending(self, pod: core_v1.Pod) -> bool:
        """Whether one of the profiles may bind it."""
        spec = pod.spec
        mine = spec.scheduler_name in self.profiles and not spec.node_name and not spec.scheduling_gates
        return mine and not pod.metadata.deletion_timestamp

    # What the watches say

    def on_node(self, kind: str, old: core_v1.Node | None, node: core_v1.Node) -> None:
        if kind == DELETED:
            self.table.remove_node(node.metadata.name or "")
            self.queue.happened(Event(NODE_GONE, node=node))
        elif self.table.set_node(node):
            self.queue.happened(Event(NODE_ADDED if kind == ADDED else NODE_CHANGED, node=node, old=old))

    def on_storage(self, event: str, old: Any, new: Any) -> None:
        self.queue.happened(Event(event, old=old, object=new))

    def on_namespace(self, kind: str, old: core_v1.Namespace | None, new: core_v1.Namespace) -> None:
        labels = None if kind == DELETED else new.metadata.labels or {}
        self.table.topology.set_namespace(new.metadata.name or "", labels)
        if old is None or old.metadata.labels != new.metadata.labels:
            self.queue.happened(Event(NAMESPACE_CHANGED))

    def on_pod(self, kind: str, old: core_v1.Pod | None, pod: core_v1.Pod) -> None:
        uid = pod.metadata.uid or ""
        if kind == DELETED:
            self.queue.remove(uid)
            self.assumed.pop(uid, None)
            self.free_nominated(uid)
            if (waiting := self.waiting.get(uid)) is not None:
                waiting.reject("", "deleted")
            counted = self.table.pods.get(uid)
            if self.table.remove_pod(uid):
                self.queue.happened(Event(POD_GONE, pod=counted and counted[0]))
        elif pod.spec.node_name:
            self.queue.remove(uid)
            assumed = self.assumed.pop(uid, None)
            self.nominated.remove(uid)
            counted = self.table.pods.get(uid)
            if (waiting := self.waiting.get(uid)) is not None:
                waiting.reject("", "bound by another")
            same = counted is not None and counted[1] == pod.spec.node_name and not self.differs(counted[0], pod)
            if counted is not None and same:
                self.table.refresh(uid, pod)
            if assumed and counted is not None and same:
                self.queue.happened(Event(POD_ADDED, pod=counted[0]))  # as it was assumed
            elif not same:
                info = PodInfo(pod)
                self.table.add_pod(info, pod.spec.node_name)
                if counted is None or assumed:
                    self.queue.happened(Event(POD_ADDED, pod=info))
                else:
                    self.queue.happened(Event(POD_CHANGED, pod=info, old=counted[0]))
        elif pod.metadata.deletion_timestamp:
            self.queue.remove(uid)
            self.free_nominated(uid)
            if (waiting := self.waiting.get(uid)) is not None:
                waiting.reject("", "deleted")
        elif uid not in self.assumed and pod.spec.scheduler_name in self.profiles:
            self.want(pod, uid)

    def differs(self, counted: PodInfo, pod: core_v1.Pod) -> bool:
        """Whether a pod on a node changed in a way that scheduling, or a plugin, looks at."""
        return _differs(counted, pod) or self.facts.placed_differs(counted.pod, pod)

    def wants_otherwise(self, earlier: core_v1.Pod, pod: core_v1.Pod) -> bool:
        """Whether a pod without a node changed in a way that scheduling, or a plugin, looks at."""
        return _wants_otherwise(earlier, pod) or self.facts.of_pod(earlier) != self.facts.of_pod(pod)

    def free_nominated(self, uid: str) -> None:
        """A pod that preempted wants no room any more: others may have what was kept for it."""
        if (nominee := self.nominated.remove(uid)) is not None:
            self.queue.happened(Event(POD_GONE, pod=nominee))

    def want(self, pod: core_v1.Pod, uid: str) -> None:
        """A pod without a node, new or changed."""
        waiting = self.queue.pods.get(uid)
        node = pod.status.nominated_node_name
        if waiting is None or self.wants_otherwise(waiting.pod.pod, pod):
            try:
                info = PodInfo(pod)
            except Exception as error:
                # Whatever it asks for cannot be worked out: it can only wait until it is changed.
                log.exception("pod %s/%s", pod.metadata.namespace, pod.metadata.name)
                self.queue.remove(uid)
                text = f"the pod's spec cannot be understood: {describe(error)}"
                self.events.event(pod, "Warning", "FailedScheduling", text)
                return
            self.queue.add(info)
            if waiting is None:
                self.queue.happened(Event(POD_PENDING, pod=info))
            if node:
                self.nominated.add(info, node)
        elif node and uid not in self.nominated:
            self.nominated.add(waiting.pod, node)

    # What becomes of a decision

    def reserve(self, decision: Decision, profile: Profile) -> bool:
        """Assumes the pod on its node and asks the plugins that have a last word. False if one of them refused."""
        pod, node, state = decision.pod, decision.node, decision.state
        self.assumed[pod.uid] = node
        self.nominated.assumed(pod.uid, True)
        self.table.add_pod(pod, node)
        waits: dict[str, float] = {}
        plugin: Plugin
        try:
            for plugin in profile.reservers:
                plugin.reserve(state, pod, node)
            for plugin in profile.permitters:
                seconds = plugin.permit(state, pod, node)
                if seconds > 0:
                    waits[plugin.name] = min(seconds, MAX_PERMIT)
        except Rejected as rejected:
            self.forget(decision, profile)
            decision.reject(plugin.name, str(rejected))
            return False
        except Exception:
            self.forget(decision, profile)
            raise
        if waits:
            self.waiting.add(WaitingPod(pod, node, waits))
            decision.waits = True
        return True

    async def bind_later(self, decision: Decision, profile: Profile, room: asyncio.Semaphore, began: float) -> None:
        """Waits until the pod is allowed to go, and for what must be there before it is bound."""
        pod, by = decision.pod, ""
        try:
            if decision.waits:
                waiting, since = self.waiting.get(pod.uid), self.world.monotonic()
                if waiting is not None:
                    result = "error"
                    try:
                        await waiting.wait()
                        result = "scheduled"
                    except Rejected:
                        result = "unschedulable"
                        raise
                    finally:
                        self.waiting.remove(pod.uid)
                        by = waiting.rejected_by
                        self.metrics.permitted(result, self.world.monotonic() - since)
            for plugin in profile.pre_binders:
                by = plugin.name
                await plugin.pre_bind(decision.state, pod, decision.node)
        except Rejected as rejected:
            if pod.uid not in self.queue.pods:
                self.forget(decision, profile)  # it was deleted
                return
            self.forget(decision, profile, pod_gone=False)
            decision.reject(by, str(rejected))
            self.recent.add(decision, self.world.now(), decision.message())
            self.queue.unschedulable(pod.uid, [by] if by else [])
            self.queue.happened(Event(POD_GONE, pod=pod))  # after it is parked: its own going is no reason to try again
            self.metrics.attempt(profile.name, "unschedulable", began)
            self.events.event(pod.pod, "Warning", "FailedScheduling", decision.message())
            await self.writes.report(pod, decision.message())
        except Exception as error:
            self.binding_failed(decision, profile, began, error)
        else:
            await room.acquire()
            await self.bind(decision, profile, room, began)

    async def bind(self, decision: Decision, profile: Profile, room: asyncio.Semaphore, began: float) -> None:
        pod, node = decision.pod, decision.node
        extender = self.extenders.binder(pod) if self.extenders else None
        try:
            for plugin in () if extender else profile.binders:
                if await plugin.bind(decision.state, pod, node):
                    break
            else:
                if extender:
                    await extender.bind(pod, node)
                else:
                    await self.writes.bind(pod, node, decision.version)
        except NotFound:
            self.forget(decision, profile)
            self.queue.remove(pod.uid)  # deleted while it was on its way
        except Exception as error:
            self.binding_failed(decision, profile, began, error)
        else:
            for plugin in profile.post_binders:
                try:
                    plugin.post_bind(decision.state, pod, node)
                except Exception as error:
                    self.faulty(pod, blame(error), error)
            waiting = self.queue.pods.get(pod.uid)
            self.metrics.bound(profile.name, began, waiting)
            self.queue.remove(pod.uid)
            self.nominated.remove(pod.uid)
            self.scheduled.scheduled(pod, node)
        finally:
            room.release()

    def attempt_failed(self, pod: PodInfo, profile: Profile, began: float, why: str) -> None:
        """An extender gave no answer: tried again after a while."""
        log.warning("scheduling %s: %s", pod.key, why)
        self.failed_with(pod, Fault("", EXTENDER, why), why)
        self.metrics.attempt(profile.name, "error", began)

    def binding_failed(self, decision: Decision, profile: Profile, began: float, error: Exception) -> None:
        pod = decision.pod
        self.metrics.attempt(profile.name, "error", began)
        if not isinstance(error, EXPECTED):
            fault = blame(error)
            self.faulty(pod, fault, error)
            self.forget(decision, profile)
            self.failed_with(pod, fault, f"binding rejected: {fault}")
            return
        log.warning("binding %s to %s: %s", pod.key, decision.node, error)
        self.forget(decision, profile)
        self.queue.failed(pod.uid)
        self.events.event(pod.pod, "Warning", "FailedScheduling", f"binding rejected: {error}")

    def forget(self, decision: Decision, profile: Profile, pod_gone: bool = True) -> None:
        """Takes an assumption back, unless the watch has confirmed it meanwhile. ``pod_gone``: others are told."""
        self.unreserve(decision, profile)
        self.unassume(decision.pod, pod_gone)

    def unassume(self, pod: PodInfo, pod_gone: bool = True) -> None:
        if self.assumed.pop(pod.uid, None) is not None and self.table.remove_pod(pod.uid):
            self.nominated.assumed(pod.uid, False)
            if pod_gone:
                self.queue.happened(Event(POD_GONE, pod=pod))

    def unreserve(self, decision: Decision, profile: Profile) -> None:
        for plugin in reversed(profile.reservers):
            try:
                plugin.unreserve(decision.state, decision.pod, decision.node)
            except Exception as error:  # the others must still let go of what they keep
                self.faulty(decision.pod, blame(error), error)

    def refuse(self, decision: Decision, profile: Profile, plan: Plan | None = None) -> None:
        """``plan``: what to preempt, if that is known already."""
        pod = decision.pod
        message = decision.message()
        if len(self.table) and not decision.node_was:
            plan = self.preempt(decision, profile, plan)
        plan = plan or Plan()
        if not decision.node_was and plan.message:
            message += f" {plan.message}"
        self.recent.add(decision, self.world.now(), message, plan)
        mine = plan.victims if plan.node else ()
        victims = [v for v in mine if not v.terminating and self.waiting.get(v.uid) is None]
        if victims:
            self.aside(self.make_room(decision, plan.node, victims), f"preempt for {pod.key}")
        else:
            self.queue.unschedulable(pod.uid, decision.refused_by)
        self.events.event(pod.pod, "Warning", "FailedScheduling", message)
        current = self.condition_of(pod)
        if plan.node or current is None or current.status != "False" or current.message != message:
            self.aside(self.writes.report(pod, message, plan.node), f"report {pod.key}")

    def preempt(self, decision: Decision, profile: Profile, plan: Plan | None = None) -> Plan:
        """Looks for a node on which pods of lower priority can make room, and has them deleted."""
        pod = decision.pod
        before = self.nominated.node_of(pod.uid)
        self.metrics.preempting()
        plan = plan or self.plan(decision, profile)
        if plan.node:
            self.carry_out(plan, pod)
        elif before and not plan.keep:
            self.nominated.remove(pod.uid)  # it waits there in vain: others may have the room
            self.aside(self.writes.denominate(pod), f"denominate {pod.key}")
            self.queue.happened(Event(POD_GONE, pod=pod))
        return plan

    def asking(self, pod: PodInfo) -> Attempt:
        return Attempt(self.nominated.node_of(pod.uid), self.world.random, others=self.nominated)

    def plan(self, decision: Decision, profile: Profile) -> Plan:
        """Asks the post_filters for a plan."""
        plans, pod = [], decision.pod
        for plugin in profile.post_filters:
            mine = isinstance(plugin, DefaultPreemption)
            with self.table.as_if(() if mine else self.nominated.beside(pod)):
                try:
                    plans.append(plugin.post_filter(pod, self.table, decision.ranking, self.asking(pod)))
                except Exception as error:
                    fault = blame(error)
                    self.faulty(pod, fault, error)
                    plans.append(Plan(message=f"{fault}.", keep=True))
            if plans[-1].node:
                return plans[-1]
        return Plan(message=", ".join(p.message for p in plans if p.message), keep=any(p.keep for p in plans))

    async def plan_with_extenders(self, decision: Decision, profile: Profile) -> Plan | None:
        """A plan that extenders have agreed to; None if they have no say."""
        pod = decision.pod
        if not any(e.config.preempt_verb for e in self.extenders.interested(pod)) or decision.rejection:
            return None
        tried: Victims = {}
        for plugin in profile.post_filters:
            if isinstance(plugin, DefaultPreemption):
                tried = plugin.candidates(pod, self.table, decision.ranking, self.asking(pod))
        if not tried:
            return None
        try:
            agreed = await self.extenders.preempt(pod, tried, self.table)
        except Failed as error:
            return Plan(message=f"preemption: {error}")
        return best_plan(agreed) if agreed else Plan(message="preemption: extenders agreed to no node.")

    def carry_out(self, plan: Plan, pod: PodInfo) -> None:
        self.metrics.preempted(len(plan.victims))
        for other in list(self.nominated.by_node.get(plan.node, {}).values()):
            if other.priority < pod.priority:
                self.nominated.remove(other.uid)
                self.aside(self.writes.denominate(other), f"denominate {other.key}")
                self.queue.happened(Event(POD_GONE, pod=other))  # it, and others, may find another place by now
        self.nominated.add(pod, plan.node)
        for victim in plan.victims:
            waiting = self.waiting.get(victim.uid)
            if waiting is not None:  # not bound yet: it need not be deleted
                waiting.reject("", "preempted")

    async def make_room(self, decision: Decision, node: str, victims: Sequence[PodInfo]) -> None:
        """Deletes the victims. The pod is in flight until then, so that it does not look for others meanwhile."""
        try:
            async with self.world.task_group() as group:
                for victim in victims:
                    group.start(self.evict(victim, decision.pod, node), name=f"preempt {victim.key}")
        finally:
            self.queue.unschedulable(decision.pod.uid, decision.refused_by)

    async def evict(self, victim: PodInfo, pod: PodInfo, node: str) -> None:
        if await self.writes.evict(victim, pod.profile):
            self.events.event(victim.pod, "Normal", "Preempted", f"Preempted by pod {pod.uid} on node {node}")
        else:
            self.queue.happened(Event(POD_GONE, pod=victim))  # so that who waits for its going looks again, after a while


def _wants_otherwise(earlier: core_v1.Pod, pod: core_v1.Pod) -> bool:
    """Whether a pod without a node changed in a way that any rule may look at: its spec, labels or annotations."""
    old, new = earlier.metadata, pod.metadata
    return earlier.spec != pod.spec or any((a or {}) != (b or {}) for a, b in (
        (old.labels, new.labels), (old.annotations, new.annotations)
    ))  # fmt: skip


def _differs(counted: PodInfo, pod: core_v1.Pod) -> bool:
    """Whether a pod on a node changed in a way that scheduling looks at: what of its spec can change, and its labels."""
    old, new = counted.pod.spec, pod.spec
    return (
        old.containers != new.containers
        or old.init_containers != new.init_containers
        or old.resources != new.resources
        or counted.terminating != (pod.metadata.deletion_timestamp is not None)
        or counted.labels != (pod.metadata.labels or {})
    )
