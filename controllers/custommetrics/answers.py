"""Answers of custom.metrics.k8s.io and external.metrics.k8s.io: from a path and a query to a list of values, or an error that
says why there are none.

An object's value comes from series of pods of its namespace that name it in a label (``ingress="shop"``, ``service="web"``);
if there are none, it is the sum over the pods that the object selects. A namespace's is the sum over its pods, a node's over
the pods on it. Pods of other namespaces are never asked: who may write pods in one must not steer autoscalers of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

from controllers.custommetrics.samples import Reading, Samples
from controllers.servedkinds import served
from navarch.api import pods as podrules
from navarch.api import quantity, selectors
from navarch.api.errors import BadRequest, Forbidden, NotFound, resource_name
from navarch.api.kinds import KINDS, Kind
from navarch.api.selectors import LabelSelector
from navarch.api.times import format_time
from navarch.api.types import core_v1
from navarch.api.usage import declared_metrics
from navarch.client.client import Client
from navarch.client.informer import Informer
from navarch.world import World

Tree = dict[str, Any]
CUSTOM, EXTERNAL = "custom.metrics.k8s.io", "external.metrics.k8s.io"
VERSIONS = {CUSTOM: ("v1beta2", "v1beta1"), EXTERNAL: ("v1beta1",)}
GROUP_VERSIONS = tuple((group, version) for group, versions in VERSIONS.items() for version in versions)
MAX_REASONS = 3
"""Reasons that an error gives."""
POD = next(k for k in KINDS if (k.group, k.resource) == ("", "pods"))
NAMESPACE = next(k for k in KINDS if (k.group, k.resource) == ("", "namespaces"))
_MISSING = "the server could not find the requested resource"


class Question(NamedTuple):
    """``name`` is "*" for all objects of a kind; ``resource`` is "" for an external metric."""

    group: str
    version: str
    namespace: str
    resource: str
    name: str
    metric: str
    selector: LabelSelector
    metric_selector: LabelSelector


def question(path: str, query: Mapping[str, str]) -> Question | tuple[str, str]:
    """Parses a raw path and a query; only (group, version) for the list of resources. Raises StatusError."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if len(parts) < 3 or parts[0] != "apis" or parts[2] not in VERSIONS.get(parts[1], ()):
        raise NotFound(_MISSING)
    group, version, rest = parts[1], parts[2], parts[3:]
    if not rest:
        return group, version
    try:
        selector, metric_selector = (
            selectors.parse_label_selector(query.get(name)) for name in ("labelSelector", "metricLabelSelector")
        )
    except selectors.SelectorError as error:
        raise BadRequest(f"unable to parse the selector: {error}") from None
    match group, rest:
        case _, [*_, ""]:
            raise NotFound(_MISSING)
        case "external.metrics.k8s.io", ["namespaces", namespace, metric]:
            # Here labelSelector is about the series; there are no objects.
            return Question(group, version, namespace, "", "", metric, selector, selector)
        case "custom.metrics.k8s.io", ["namespaces", name, "metrics", metric]:
            return Question(group, version, name, "namespaces", name, metric, selector, metric_selector)
        case "custom.metrics.k8s.io", ["namespaces", namespace, resource, name, metric]:
            return Question(group, version, namespace, resource, name, metric, selector, metric_selector)
        case "custom.metrics.k8s.io", [resource, name, metric]:
            return Question(group, version, "", resource, name, metric, selector, metric_selector)
    raise NotFound(_MISSING)


class Answers:
    """``trouble(pod)`` says why a pod's page is not read, "" if it is."""

    def __init__(
        self, client: Client, world: World, pods: Informer[core_v1.Pod], samples: Samples, trouble: Callable[[core_v1.Pod], str]
    ) -> None:
        self._client, self._world, self._pods, self._samples, self._trouble = client, world, pods, samples, trouble

    async def answer(self, path: str, query: Mapping[str, str]) -> Tree:
        """The body of a GET. Raises StatusError, TransportError."""
        inquiry = question(path, query)
        if not isinstance(inquiry, Question):
            return self._resources(*inquiry)
        if inquiry.group == EXTERNAL:
            return self._external(inquiry)
        kind = await self._kind(inquiry)
        if kind == POD:
            items = self._of_pods(inquiry)
        else:
            results = [self._of_object(inquiry, kind, obj) for obj in await self._objects(inquiry, kind)]
            items = [one for one in results if isinstance(one, dict)]
            if not items:
                raise _not_found(inquiry, kind, _first(results) or ["there is no such object"])
        return {"kind": "MetricValueList", "apiVersion": f"{CUSTOM}/{inquiry.version}", "metadata": {}, "items": items}

    # Discovery

    def _resources(self, group: str, version: str) -> Tree:
        """The APIResourceList: the metrics that pods have at present."""
        names = sorted({name for pod in self._pods.list() for name in self._names(pod)})
        if group == EXTERNAL:
            entries, kind = [(name, True) for name in names], "ExternalMetricValueList"
        else:
            entries = [(f"{r}/{n}", r != "namespaces") for n in names for r in ("namespaces", "pods", "services")]
            kind = "MetricValueList"
        resources = [
            {"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get"]}
            for name, namespaced in entries
        ]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{group}/{version}", "resources": resources}

    def _names(self, pod: core_v1.Pod) -> Iterable[str]:
        return [*declared_metrics(pod.metadata.annotations), *self._samples.metrics(pod.metadata.uid or "")]

    async def _kind(self, inquiry: Question) -> Kind:
        """Raises NotFound."""
        resource, _, group = inquiry.resource.partition(".")
        for kind in KINDS:
            if (kind.resource, kind.group) == (resource, group) and kind.namespaced == (
                bool(inquiry.namespace) and kind != NAMESPACE
            ):
                return kind
        for one in await served(self._client):
            if one.name == (group, resource) and one.kind.namespaced == bool(inquiry.namespace):
                return one.kind
        raise NotFound(_MISSING)

    async def _objects(self, inquiry: Question, kind: Kind) -> Sequence[Tree]:
        if inquiry.name == "*":
            query = [("labelSelector", str(inquiry.selector))] if not inquiry.selector.empty else []
            tree = await self._client.get_json(kind.path(inquiry.namespace), query)
            return tree.get("items") or ()
        try:
            return [await self._client.get_json(kind.path(inquiry.namespace if kind.namespaced else None, inquiry.name))]
        except NotFound:
            return ()
        except Forbidden:  # of a kind that is none of ours: series can name it all the same
            return [{"metadata": {"name": inquiry.name, "namespace": inquiry.namespace}}]

    # Values

    def _of_pods(self, inquiry: Question) -> list[Tree]:
        if inquiry.name == "*":
            pods = [p for p in self._pods.list(inquiry.namespace) if inquiry.selector.matches(p.metadata.labels)]
        else:
            pods = [p for p in (self._pods.get(inquiry.namespace, inquiry.name),) if p is not None]
        readings, reasons = self._readings(pods, inquiry)
        if not readings:
            raise _not_found(inquiry, POD, reasons or ["no pod is selected"])
        return [self._value(inquiry, POD, inquiry.namespace, pod.metadata.name or "", [reading]) for pod, reading in readings]

    def _of_object(self, inquiry: Question, kind: Kind, obj: Tree) -> Tree | str:
        """The object's value, or why it has none."""
        name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace") or ""
        pods = self._pods.list(name if kind == NAMESPACE else namespace or None)
        if kind.namespaced:
            labels = inquiry.metric_selector.requirements
            named = LabelSelector((*labels, selectors.make_requirement(kind.singular_name, "in", [name])))
            values = [
                reading
                for pod in pods
                for _, reading in self._samples.series(pod.metadata.uid or "", inquiry.metric, named, self._world.now())
            ]
            if values:
                return self._value(inquiry, kind, namespace, name, values)
        chosen = _chosen(kind, obj)
        if chosen is None:
            return f'no series has the label {kind.singular_name}="{name}", and it selects no pods'
        readings, reasons = self._readings([pod for pod in pods if chosen(pod)], inquiry)
        if not readings:
            return "; ".join(reasons) or "it selects no pods"
        return self._value(inquiry, kind, namespace, name, [reading for _, reading in readings])

    def _readings(
        self, pods: Sequence[core_v1.Pod], inquiry: Question
    ) -> tuple[list[tuple[core_v1.Pod, Reading]], list[str]]:
        """The pods with a value; why the first others have none."""
        out, reasons = [], []
        for pod in pods:
            reading = self._reading(pod, inquiry)
            if isinstance(reading, Reading):
                out.append((pod, reading))
            else:
                reasons.append(f"{pod.metadata.name}: {reading}")
        return out, _first(reasons)

    def _reading(self, pod: core_v1.Pod, inquiry: Question) -> Reading | str:
        if not podrules.is_active(pod) or pod.status.phase != "Running":
            return "is going away" if podrules.is_terminating(pod) else f"is {pod.status.phase}"
        declared = declared_metrics(pod.metadata.annotations)
        if inquiry.metric in declared and inquiry.metric_selector.empty:
            return Reading(quantity.milli(declared[inquiry.metric]) / 1000, self._world.now(), None)
        uid = pod.metadata.uid or ""
        reading = self._samples.reading(uid, inquiry.metric, inquiry.metric_selector, self._world.now())
        return reading if isinstance(reading, Reading) else (self._trouble(pod) or reading)

    def _value(self, inquiry: Question, kind: Kind, namespace: str, name: str, readings: Sequence[Reading]) -> Tree:
        about = {"kind": kind.kind, "name": name, "apiVersion": kind.api_version}
        about |= {"namespace": namespace} if namespace else {}
        tree = {"describedObject": about, **_measured(readings)}
        if inquiry.version == "v1beta1":
            return tree | {"metricName": inquiry.metric}
        return tree | {"metric": {"name": inquiry.metric}}

    def _external(self, inquiry: Question) -> Tree:
        """Every set of labels is an item, summed over the pods that have it."""
        by_labels: dict[tuple[tuple[str, str], ...], list[Reading]] = {}
        pods = self._pods.list(inquiry.namespace)
        for pod in pods:
            uid, now = pod.metadata.uid or "", self._world.now()
            declared = declared_metrics(pod.metadata.annotations)
            if inquiry.metric in declared and pod.status.phase == "Running" and inquiry.metric_selector.matches({}):
                by_labels.setdefault((), []).append(Reading(quantity.milli(declared[inquiry.metric]) / 1000, now, None))
            for labels, reading in self._samples.series(uid, inquiry.metric, inquiry.metric_selector, now):
                by_labels.setdefault(tuple(labels.items()), []).append(reading)
        if not by_labels:
            reasons = self._readings(pods, inquiry)[1]
            why = "; ".join(reasons or ["the namespace has no pods"])
            raise NotFound(f"the server could not find the external metric {inquiry.metric} in {inquiry.namespace}: {why}")
        items = [
            {"metricName": inquiry.metric, "metricLabels": dict(labels), **_measured(readings)}
            for labels, readings in sorted(by_labels.items())
        ]
        head = {"kind": "ExternalMetricValueList", "apiVersion": f"{EXTERNAL}/{inquiry.version}"}
        return {**head, "metadata": {}, "items": items}


def _first(reasons: Sequence[Any]) -> list[str]:
    """The texts among these, no more than a person reads."""
    texts = [one for one in reasons if isinstance(one, str)]
    return texts[:MAX_REASONS] + ([f"and {len(texts) - MAX_REASONS} more"] if len(texts) > MAX_REASONS else [])


def _chosen(kind: Kind, obj: Tree) -> Callable[[core_v1.Pod], bool] | None:
    """Whether a pod belongs to an object; None if objects of this kind have no pods."""
    if kind == NAMESPACE:
        return lambda pod: True
    if (kind.group, kind.resource) == ("", "nodes"):
        return lambda pod: pod.spec.node_name == obj["metadata"]["name"]
    spec = obj.get("spec")
    selector = spec.get("selector") if isinstance(spec, dict) else None
    if not isinstance(selector, dict) or not selector:
        return None
    try:
        if "matchLabels" in selector or "matchExpressions" in selector:
            labels = selectors.from_tree(selector)
        else:
            labels = selectors.from_labels({str(k): str(v) for k, v in selector.items()})
    except (ValueError, KeyError, TypeError):  # of a custom resource, whose selector may be anything
        return None
    return lambda pod: labels.matches(pod.metadata.labels)


def _measured(readings: Sequence[Reading]) -> Tree:
    """The sum, the oldest time and the longest window."""
    out: Tree = {"timestamp": format_time(min(r.time for r in readings))}
    windows = [r.window for r in readings if r.window is not None]
    if windows:
        out["windowSeconds"] = round(max(windows))
    return out | {"value": quantity.from_milli(round(1000 * sum(r.value for r in readings)))}


def _not_found(inquiry: Question, kind: Kind, reasons: Sequence[str]) -> NotFound:
    """Begins as Kubernetes' library of adapters puts it; then why."""
    resource = resource_name(kind.resource, kind.group)
    about = resource if inquiry.name == "*" else f"{resource} {inquiry.name}"
    return NotFound(f"the server could not find the metric {inquiry.metric} for {about}: {'; '.join(reasons)}")
