"""The HorizontalPodAutoscaler controller: every 15 seconds it measures, decides, and scales through the scale subresource.

Conditions, events and messages are those of Kubernetes (pkg/controller/podautoscaler/horizontal.go, version 1.34).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from controllers.controller import Context, Controller
from controllers.podautoscaler.behavior import Change, History, next_step
from controllers.podautoscaler.evaluate import Evaluated, Failed, Target, evaluate
from controllers.podautoscaler.metrics import MetricsClient
from controllers.podautoscaler.replicas import Patience, Tolerance
from controllers.servedkinds import Resource, served
from navarch.api import quantity, selectors
from navarch.api.conditions import set_condition
from navarch.api.errors import NotFound, StatusError
from navarch.api.kinds import BY_GVK, Kind, group_version
from navarch.api.times import format_time
from navarch.api.types import autoscaling_v2, core_v1
from navarch.client.events import NORMAL, WARNING
from navarch.client.transport import TransportError

Autoscaler = autoscaling_v2.HorizontalPodAutoscaler
Condition = autoscaling_v2.HorizontalPodAutoscalerCondition
ABLE, ACTIVE, LIMITED = "AbleToScale", "ScalingActive", "ScalingLimited"
DISCOVERY_PERIOD = 30.0
"""Seconds for which the list of served kinds is good, when a target is of a kind that is not built in."""


class Scale(NamedTuple):
    """The scale subresource of the target."""

    kind: Kind
    tree: dict[str, Any]

    @property
    def spec(self) -> int:
        return int((self.tree.get("spec") or {}).get("replicas") or 0)

    @property
    def status(self) -> int:
        return int((self.tree.get("status") or {}).get("replicas") or 0)

    @property
    def selector(self) -> str:
        return str((self.tree.get("status") or {}).get("selector") or "")


@dataclass
class _Memory:
    """The controller's memory of one autoscaler, by its uid."""

    uid: str
    history: History = field(default_factory=History)
    selector: selectors.LabelSelector | None = None


class _Stop(Exception):
    """Nothing can be decided; conditions are set and events written."""


class HorizontalPodAutoscalerController(Controller):
    """Keys are autoscalers."""

    name = "horizontal-pod-autoscaler-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.events = context.recorder("horizontal-pod-autoscaler")
        self.autoscalers = self.informer(Autoscaler)
        self.pods = self.informer(core_v1.Pod)
        self.keys_are_of(self.autoscalers)
        self.autoscalers.add_handler(self._changed)
        self.metrics = MetricsClient(self.client, self.world)
        self._memory: dict[str, _Memory] = {}
        self._served: tuple[float, list[Resource]] = (0.0, [])

    def _changed(self, kind: str, old: Autoscaler | None, new: Autoscaler) -> None:
        # Its own status writes must not bring a key back early: the pace is the sync period.
        if kind == "DELETED" or old is None or old.spec != new.spec:
            self.enqueue(new)

    async def reconcile(self, key: str) -> float | None:
        autoscaler = self.autoscalers.get_key(key)
        if autoscaler is None:
            self._memory.pop(key, None)
            return None
        if autoscaler.metadata.deletion_timestamp is not None:
            return None
        memory = self._memory.get(key)
        if memory is None or memory.uid != autoscaler.metadata.uid:
            memory = self._memory[key] = _Memory(autoscaler.metadata.uid or "")
        round_ = _Round(self, key, autoscaler, memory)
        try:
            await round_.run()
        except _Stop:
            pass
        await round_.write_status()
        return self.config.horizontal_pod_autoscaler_sync_period

    async def kind_of(self, api_version: str, name: str) -> Kind:
        """A kind as the API serves it. Raises LookupError with Kubernetes' words."""
        group, version = group_version(api_version)
        if (kind := BY_GVK.get((group, version, name))) is not None:
            return kind
        now = self.world.monotonic()
        if self._served[0] <= now:
            self._served = now + DISCOVERY_PERIOD, await served(self.client)
        for resource in self._served[1]:
            if (resource.kind.group, resource.kind.kind) == (group, name):
                return resource.kind
        raise LookupError(f'no matches for kind "{name}" in group "{group}"')

    def others(self, key: str, namespace: str, selector: selectors.LabelSelector) -> list[str]:
        """Keys of other autoscalers that scale some of the pods that ``selector`` selects."""
        pods = [pod for pod in self.pods.list(namespace) if selector.matches(pod.metadata.labels)]
        near = {k: m.selector for k, m in self._memory.items() if k != key and k.startswith(f"{namespace}/")}
        return sorted(k for k, s in near.items() if s is not None and any(s.matches(p.metadata.labels) for p in pods))


class _Round:
    """One look at one autoscaler."""

    def __init__(
        self, controller: HorizontalPodAutoscalerController, key: str, autoscaler: Autoscaler, memory: _Memory
    ) -> None:
        self.controller, self.key, self.autoscaler, self.memory = controller, key, autoscaler, memory
        self.now = controller.world.now()
        old = autoscaler.status
        self.conditions = list(old.conditions or ())
        self.current, self.desired = old.current_replicas or 0, old.desired_replicas
        self.measured = list(old.current_metrics or ())
        self.last_scale_time = old.last_scale_time

    def condition(self, type_: str, status: bool, reason: str, message: str) -> None:
        new = Condition(type=type_, status="True" if status else "False", reason=reason, message=message)
        self.conditions, _ = set_condition(self.conditions, new, format_time(self.now))

    def event(self, type_: str, reason: str, message: str) -> None:
        self.controller.events.event(self.autoscaler, type_, reason, message)

    async def run(self) -> None:
        spec = self.autoscaler.spec
        scale = await self._scale()
        self.condition(
            ABLE, True, "SucceededGetScale", "the HPA controller was able to get the target's current scale"
        )
        self.current = scale.spec
        low = 1 if spec.min_replicas is None else spec.min_replicas
        if not self.memory.history.recommendations:
            self.memory.history.recommendations.append(Change(self.now, scale.spec))
        if scale.spec == 0 and low != 0:
            self.measured = []
            self.condition(
                ACTIVE, False, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero"
            )
            self.desired = 0
        elif scale.spec > spec.max_replicas:
            self.measured = []
            await self._rescale(scale, spec.max_replicas, "Current number of replicas above Spec.MaxReplicas")
        elif scale.spec < low:
            self.measured = []
            await self._rescale(scale, low, "Current number of replicas below Spec.MinReplicas")
        else:
            await self._by_metrics(scale, low)

    async def _by_metrics(self, scale: Scale, low: int) -> None:
        spec, config = self.autoscaler.spec, self.controller.config
        largest = await self._evaluated(scale)
        desired = max(largest.replicas, 0)
        reason = f"{largest.name} above target" if desired > scale.spec else "All metrics below target"
        step = next_step(
            spec.behavior, self.memory.history, scale.spec, desired, low, spec.max_replicas,
            config.horizontal_pod_autoscaler_downscale_stabilization, self.now,
        )  # fmt: skip
        self.condition(ABLE, True, *step.able)
        self.condition(LIMITED, step.limited, *step.limit)
        if step.replicas != scale.spec:
            await self._rescale(scale, step.replicas, reason)
        else:
            self.desired = scale.spec

    async def _scale(self) -> Scale:
        target, namespace = self.autoscaler.spec.scale_target_ref, self.autoscaler.metadata.namespace
        try:
            kind = await self.controller.kind_of(target.api_version or "v1", target.kind)
            return Scale(kind, await self.controller.client.tree(kind).get_sub(target.name, namespace, "scale"))
        except (LookupError, StatusError, TransportError) as error:
            self.event(WARNING, "FailedGetScale", str(error))
            text = f"the HPA controller was unable to get the target's current scale: {error}"
            self.condition(ABLE, False, "FailedGetScale", text)
            raise _Stop from None

    async def _rescale(self, scale: Scale, replicas: int, reason: str) -> None:
        body = dict(scale.tree)
        body["spec"] = {**(body.get("spec") or {}), "replicas": replicas}
        name, namespace = self.autoscaler.spec.scale_target_ref.name, self.autoscaler.metadata.namespace
        try:
            await self.controller.client.tree(scale.kind).sub(name, namespace, "scale", body, method="PUT")
        except (StatusError, TransportError) as error:
            self.event(WARNING, "FailedRescale", f"New size: {replicas}; reason: {reason}; error: {error}")
            text = f"the HPA controller was unable to update the target scale: {error}"
            self.condition(ABLE, False, "FailedUpdateScale", text)
            raise _Stop from None
        text = f"the HPA controller was able to update the target scale to {replicas}"
        self.condition(ABLE, True, "SucceededRescale", text)
        self.event(NORMAL, "SuccessfulRescale", f"New size: {replicas}; reason: {reason}")
        self.memory.history.scaled(self.autoscaler.spec.behavior, scale.spec, replicas, self.now)
        self.desired, self.last_scale_time = replicas, format_time(self.now)

    def _selector(self, scale: Scale) -> selectors.LabelSelector:
        if not scale.selector:
            self.event(WARNING, "SelectorRequired", "selector is required")
            self.condition(ACTIVE, False, "InvalidSelector", "the HPA target's scale is missing a selector")
            raise _Stop
        try:
            selector = selectors.parse_label_selector(scale.selector)
        except selectors.SelectorError as error:
            text = f"couldn't convert selector into a corresponding internal selector object: {error}"
            self.event(WARNING, "InvalidSelector", text)
            self.condition(ACTIVE, False, "InvalidSelector", text)
            raise _Stop from None
        self.memory.selector = selector
        if others := self.controller.others(self.key, self.autoscaler.metadata.namespace or "", selector):
            names = " ".join([self.key, *others])
            text = f"pods by selector {scale.selector} are controlled by multiple HPAs: [{names}]"
            self.event(WARNING, "AmbiguousSelector", text)
            self.condition(ACTIVE, False, "AmbiguousSelector", text)
            raise _Stop
        return selector

    async def _evaluated(self, scale: Scale) -> Evaluated:
        """The largest count that a metric asks for. If one fails, the others may still raise the count, not lower it."""
        selector = self._selector(scale)
        namespace = self.autoscaler.metadata.namespace or ""
        pods = [pod for pod in self.controller.pods.list(namespace) if selector.matches(pod.metadata.labels)]
        target = Target(
            namespace, scale.selector, pods, scale.spec, scale.status, self._tolerance(), self._patience(), self.now
        )
        best: Evaluated | None = None
        failures: list[Failed] = []
        measured = []
        metrics = self.autoscaler.spec.metrics or []
        for metric in metrics:
            try:
                evaluated = await evaluate(self.controller.metrics, self.controller.kind_of, metric, target)
            except Failed as failure:
                failures.append(failure)
                measured.append(autoscaling_v2.MetricStatus(type=""))  # keeps the positions of the others
                self.event(WARNING, failure.reason, failure.cause)
                continue
            measured.append(evaluated.status)
            if best is None or evaluated.replicas > best.replicas:
                best = evaluated
        if best is None or (failures and best.replicas < scale.spec):
            # Without a failure there is a count, as a spec has one metric at least: the server fills in CPU.
            reason = failures[0].reason if failures else "InvalidMetricSourceType"
            cause = failures[0].cause if failures else "no metrics"
            self.condition(ACTIVE, False, reason, f"the HPA was unable to compute the replica count: {cause}")
            first = failures[0].message if failures else cause
            text = f"invalid metrics ({len(failures)} invalid out of {len(metrics)}), first error is: {first}"
            self.event(WARNING, "FailedComputeMetricsReplicas", text)
            raise _Stop
        self.measured = measured
        text = f"the HPA was able to successfully calculate a replica count from {best.name}"
        self.condition(ACTIVE, True, "ValidMetricFound", text)
        return best

    def _tolerance(self) -> Tolerance:
        behavior, default = self.autoscaler.spec.behavior, self.controller.config.horizontal_pod_autoscaler_tolerance
        rules = (behavior.scale_down, behavior.scale_up) if behavior is not None else (None, None)
        values = [
            default if one is None or one.tolerance is None else quantity.nanos(one.tolerance) / 1e9 for one in rules
        ]
        return Tolerance(*values)

    def _patience(self) -> Patience:
        config = self.controller.config
        return Patience(
            config.horizontal_pod_autoscaler_cpu_initialization_period,
            config.horizontal_pod_autoscaler_initial_readiness_delay,
        )

    async def write_status(self) -> None:
        status = autoscaling_v2.HorizontalPodAutoscalerStatus(
            desired_replicas=self.desired,
            current_replicas=self.current,
            current_metrics=self.measured or None,
            conditions=self.conditions or None,
            last_scale_time=self.last_scale_time,
            observed_generation=self.autoscaler.status.observed_generation,
        )
        if status == self.autoscaler.status:
            return
        try:
            await self.controller.client[Autoscaler].update_status(msgspec.structs.replace(self.autoscaler, status=status))
        except NotFound:
            pass  # deleted meanwhile
