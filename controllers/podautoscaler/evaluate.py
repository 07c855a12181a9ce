"""One metric of an autoscaler: asks for its samples, works out the replicas, and reports both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from controllers.podautoscaler.metrics import MetricsClient
from controllers.podautoscaler.replicas import (
    MetricError,
    Patience,
    Pod,
    Proposal,
    Tolerance,
    by_average,
    by_share,
    by_utilization,
    by_value,
)
from navarch.api import quantity, selectors
from navarch.api.errors import StatusError
from navarch.api.kinds import Kind
from navarch.api.types import autoscaling_v2 as v2
from navarch.api.types import meta_v1
from navarch.client.transport import TransportError

KindOf = Callable[[str, str], Awaitable[Kind]]


class Target(NamedTuple):
    """The target of scaling: its pods, and the replicas of the spec and the status of its scale."""

    namespace: str
    selector: str
    pods: Sequence[Pod]
    spec_replicas: int
    status_replicas: int
    tolerance: Tolerance
    patience: Patience
    now: float


class Evaluated(NamedTuple):
    """The replicas that a metric asks for, its name as events tell it, and what was measured."""

    replicas: int
    name: str
    status: v2.MetricStatus


class Failed(Exception):
    """A metric has no value now. ``reason`` is that of the event and the condition, ``cause`` their message."""

    def __init__(self, reason: str, cause: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.cause, self.message = reason, cause, message


def selector_text(selector: meta_v1.LabelSelector | None) -> str:
    """A label selector as Go prints it, for messages that clients may compare."""
    if selector is None:
        return "nil"
    labels = "".join(f"{key}: {value}," for key, value in sorted((selector.match_labels or {}).items()))
    expressions = "".join(
        f"LabelSelectorRequirement{{Key:{e.key},Operator:{e.operator},Values:[{' '.join(e.values or ())}],}},"
        for e in selector.match_expressions or ()
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )


async def evaluate(metrics: MetricsClient, kind_of: KindOf, spec: v2.MetricSpec, target: Target) -> Evaluated:
    """Raises Failed."""
    if spec.type == "Resource" and spec.resource is not None:
        resource = spec.resource
        return await _guarded(
            "FailedGetResourceMetric", f"failed to get {resource.name} resource metric value",
            _resource(metrics, resource.name, "", resource.target, target),
        )  # fmt: skip
    if spec.type == "ContainerResource" and spec.container_resource is not None:
        part = spec.container_resource
        return await _guarded(
            "FailedGetContainerResourceMetric", f"failed to get {part.name} container metric value",
            _resource(metrics, part.name, part.container, part.target, target),
        )  # fmt: skip
    if spec.type == "Pods" and spec.pods is not None:
        return await _guarded(
            "FailedGetPodsMetric", "failed to get pods metric value", _pods(metrics, spec.pods, target)
        )
    if spec.type == "Object" and spec.object is not None:
        return await _guarded(
            "FailedGetObjectMetric", "failed to get object metric value", _object(metrics, kind_of, spec.object, target)
        )
    if spec.type == "External" and spec.external is not None:
        return await _guarded(
            "FailedGetExternalMetric", f"failed to get {spec.external.metric.name} external metric value",
            _external(metrics, spec.external, target),
        )  # fmt: skip
    text = f'unknown metric source type "{spec.type}"'
    raise Failed("InvalidMetricSourceType", text, text)


async def _guarded(reason: str, head: str, work: Awaitable[Evaluated]) -> Evaluated:
    try:
        return await work
    except MetricError as error:
        raise Failed(reason, str(error), f"{head}: {error}") from None


async def _resource(metrics: MetricsClient, name: str, container: str, goal: v2.MetricTarget, target: Target) -> Evaluated:
    word = f"{name} container resource" if container else f"{name} resource"
    average = goal.average_value is not None
    if not average and goal.average_utilization is None:
        source = "container resource" if container else "resource"
        text = "neither an average utilization target nor an average value (usage) target was set"
        raise MetricError(f"invalid {source} metric source: {text}")
    try:
        samples = await metrics.resource(name, target.namespace, target.selector, container)
    except MetricError as error:
        what = "usage" if average else "utilization"
        raise MetricError(f"failed to get {name} {what}: unable to get metrics for resource {name}: {error}") from None
    try:
        if goal.average_value is not None:
            proposal = by_average(
                target.spec_replicas, quantity.milli(goal.average_value), name, target.pods, samples,
                target.tolerance, target.patience, target.now,
            )  # fmt: skip
            current, label = v2.MetricValueStatus(average_value=quantity.from_milli(proposal.average)), word
        else:
            proposal = by_utilization(
                target.spec_replicas, goal.average_utilization or 1, name, container, target.pods, samples,
                target.tolerance, target.patience, target.now,
            )  # fmt: skip
            current = v2.MetricValueStatus(
                average_utilization=proposal.utilization, average_value=quantity.from_milli(proposal.average)
            )
            label = f"{word} utilization (percentage of request)"
    except MetricError as error:
        raise MetricError(f"failed to get {name} {'usage' if average else 'utilization'}: {error}") from None
    if container:
        part = v2.ContainerResourceMetricStatus(container=container, name=name, current=current)
        return Evaluated(proposal.replicas, label, v2.MetricStatus(type="ContainerResource", container_resource=part))
    status = v2.MetricStatus(type="Resource", resource=v2.ResourceMetricStatus(name=name, current=current))
    return Evaluated(proposal.replicas, label, status)


async def _pods(metrics: MetricsClient, source: v2.PodsMetricSource, target: Target) -> Evaluated:
    name = source.metric.name
    try:
        samples = await metrics.pods(name, target.namespace, target.selector, _selector(source.metric.selector))
    except MetricError as error:
        raise MetricError(f"unable to get metric {name}: {error}") from None
    proposal = by_average(
        target.spec_replicas, quantity.milli(source.target.average_value or 0), "", target.pods, samples,
        target.tolerance, target.patience, target.now,
    )  # fmt: skip
    current = v2.MetricValueStatus(average_value=quantity.from_milli(proposal.average))
    status = v2.PodsMetricStatus(metric=source.metric, current=current)
    return Evaluated(proposal.replicas, f"pods metric {name}", v2.MetricStatus(type="Pods", pods=status))


async def _object(metrics: MetricsClient, kind_of: KindOf, source: v2.ObjectMetricSource, target: Target) -> Evaluated:
    about, name = source.described_object, source.metric.name
    try:
        kind = await kind_of(about.api_version or "v1", about.kind)
        value = await metrics.of_object(name, kind, about.name, target.namespace, _selector(source.metric.selector))
    except (MetricError, LookupError, StatusError, TransportError) as error:
        text = f"unable to get metric {name}: {about.kind} on {target.namespace} {about.name}/{error}"
        raise MetricError(text) from None
    proposal, current = _of_one_number(source.target, value, target)
    label = f"{about.kind} metric {name}"
    if source.target.type == "AverageValue":
        label = f"external metric {name}({selector_text(source.metric.selector)})"
    status = v2.ObjectMetricStatus(metric=source.metric, described_object=about, current=current)
    return Evaluated(proposal.replicas, label, v2.MetricStatus(type="Object", object=status))


async def _external(metrics: MetricsClient, source: v2.ExternalMetricSource, target: Target) -> Evaluated:
    name, shown = source.metric.name, selector_text(source.metric.selector)
    try:
        value = sum(await metrics.external(name, target.namespace, _selector(source.metric.selector)))
    except MetricError as error:
        raise MetricError(f"unable to get external metric {target.namespace}/{name}/{shown}: {error}") from None
    proposal, current = _of_one_number(source.target, value, target)
    status = v2.ExternalMetricStatus(metric=source.metric, current=current)
    return Evaluated(proposal.replicas, f"external metric {name}({shown})", v2.MetricStatus(type="External", external=status))


def _of_one_number(metric_target: v2.MetricTarget, value: int, target: Target) -> tuple[Proposal, v2.MetricValueStatus]:
    if metric_target.average_value is not None:
        proposal = by_share(target.status_replicas, value, quantity.milli(metric_target.average_value), target.tolerance)
        return proposal, v2.MetricValueStatus(average_value=quantity.from_milli(proposal.average))
    goal = quantity.milli(metric_target.value or 0)
    replicas = by_value(target.spec_replicas, value, goal, target.pods, target.tolerance)
    return Proposal(replicas), v2.MetricValueStatus(value=quantity.from_milli(value))


def _selector(selector: meta_v1.LabelSelector | None) -> str:
    try:
        return str(selectors.from_struct(selector)) if selector is not None else ""
    except ValueError as error:
        raise MetricError(str(error)) from None
