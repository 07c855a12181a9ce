"""The three metrics APIs that an autoscaler asks: resource, custom and external metrics.

metrics.k8s.io is served by navarch itself; custom.metrics.k8s.io and external.metrics.k8s.io by adapters that people
install behind an APIService. Amounts are in thousandths. Raises MetricError with Kubernetes' words.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from controllers.podautoscaler.replicas import MetricError, Sample
from navarch.api import quantity
from navarch.api.durations import parse_duration
from navarch.api.errors import NotFound, StatusError
from navarch.api.kinds import Kind
from navarch.api.times import parse_time
from navarch.client.client import Client
from navarch.client.transport import TransportError
from navarch.world import World, describe

Tree = dict[str, Any]
RESOURCE, CUSTOM, EXTERNAL = "metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io"
CUSTOM_VERSIONS = ("v1beta2", "v1beta1")
DEFAULT_WINDOW = 60.0
"""Seconds that a sample covers if it does not say."""
REMEMBERED = 30.0
"""Seconds for which the version of the custom metrics API is remembered."""


@contextmanager
def _understood(api: str) -> Iterator[None]:
    """An adapter is somebody else's program: an answer of another shape is a metric that is not there."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MetricError(f"unable to fetch metrics from {api}: malformed answer: {describe(error)}") from None


class MetricsClient:
    def __init__(self, client: Client, world: World) -> None:
        self._client, self._world = client, world
        self._custom_version: tuple[float, str] | None = None

    async def resource(self, resource: str, namespace: str, selector: str, container: str = "") -> dict[str, Sample]:
        """Use of a resource by pod name; of one container of each, if named."""
        path = f"/apis/{RESOURCE}/v1beta1/namespaces/{namespace}/pods"
        items = await self._items(path, [("labelSelector", selector)], "resource metrics API")
        if not items:
            raise MetricError("no metrics returned from resource metrics API")
        with _understood("resource metrics API"):
            read = [(item["metadata"]["name"], _sample(item, resource, container)) for item in items]
        return {name: sample for name, sample in read if sample is not None}

    async def pods(self, metric: str, namespace: str, selector: str, metric_selector: str) -> dict[str, Sample]:
        """A custom metric of pods, by pod name."""
        path = f"namespaces/{namespace}/pods/*/{quote(metric, safe='')}"
        items = await self._custom(path, [("labelSelector", selector), ("metricLabelSelector", metric_selector)])
        if not items:
            raise MetricError("no metrics returned from custom metrics API")
        with _understood("custom metrics API"):
            return {
                item["describedObject"]["name"]: Sample(
                    quantity.milli(item["value"]),
                    parse_time(item["timestamp"]),
                    float(item.get("windowSeconds") or item.get("window") or DEFAULT_WINDOW),
                )
                for item in items
            }

    async def of_object(self, metric: str, kind: Kind, name: str, namespace: str, metric_selector: str) -> int:
        """A custom metric of one object."""
        resource = f"{kind.resource}.{kind.group}" if kind.group else kind.resource
        named = f"{resource}/{quote(name, safe='')}/{quote(metric, safe='')}"
        if (kind.group, kind.resource) == ("", "namespaces"):
            named = f"namespaces/{quote(name, safe='')}/metrics/{quote(metric, safe='')}"
        path = f"namespaces/{namespace}/{named}" if kind.namespaced else named
        items = await self._custom(path, [("metricLabelSelector", metric_selector)])
        if not items:
            raise MetricError("unable to fetch metrics from custom metrics API: no metrics returned")
        with _understood("custom metrics API"):
            return quantity.milli(items[0]["value"])

    async def external(self, metric: str, namespace: str, selector: str) -> list[int]:
        """All series of an external metric."""
        path = f"/apis/{EXTERNAL}/v1beta1/namespaces/{namespace}/{quote(metric, safe='')}"
        items = await self._items(path, [("labelSelector", selector)], "external metrics API")
        if not items:
            raise MetricError("no metrics returned from external metrics API")
        with _understood("external metrics API"):
            return [quantity.milli(item["value"]) for item in items]

    async def _custom(self, path: str, query: list[tuple[str, str]]) -> list[Tree]:
        version = await self._version()
        return await self._items(f"/apis/{CUSTOM}/{version}/{path}", query, "custom metrics API")

    async def _version(self) -> str:
        now = self._world.monotonic()
        if self._custom_version is not None and self._custom_version[0] > now:
            return self._custom_version[1]
        try:
            group = await self._client.get_json(f"/apis/{CUSTOM}")
        except NotFound:
            text = f"no custom metrics API ({CUSTOM}) registered"
            raise MetricError(f"unable to fetch metrics from custom metrics API: {text}") from None
        except (StatusError, TransportError) as error:
            raise MetricError(f"unable to fetch metrics from custom metrics API: {error}") from None
        served = [v.get("version") for v in group.get("versions") or ()]
        version = next((v for v in CUSTOM_VERSIONS if v in served), CUSTOM_VERSIONS[0])
        self._custom_version = now + REMEMBERED, version
        return version

    async def _items(self, path: str, query: list[tuple[str, str]], api: str) -> list[Tree]:
        try:
            tree = await self._client.get_json(path, [(name, value) for name, value in query if value])
            items: list[Tree] = tree.get("items") or []
            return items
        except (StatusError, TransportError, AttributeError) as error:
            raise MetricError(f"unable to fetch metrics from {api}: {error}") from None


def _sample(item: Tree, resource: str, container: str) -> Sample | None:
    """One pod's sample; None if one of its containers has no figure, so that the pod counts as one without metrics."""
    uses = {c["name"]: c.get("usage") or {} for c in item.get("containers") or ()}
    if container and container not in uses:
        where = f"{item['metadata'].get('namespace') or ''}/{item['metadata']['name']}"
        raise MetricError(f"container {container} not present in metrics for pod {where}")
    counted = [uses[container]] if container else list(uses.values())
    if not counted or not all(resource in use for use in counted):
        return None
    window = parse_duration(item.get("window") or f"{DEFAULT_WINDOW:g}s")
    return Sample(sum(quantity.milli(use[resource]) for use in counted), parse_time(item["timestamp"]), window)
