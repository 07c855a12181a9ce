"""Custom and external metrics in a whole simulated cluster: the APIs as kubectl asks them, and an autoscaler that uses them."""

from __future__ import annotations

from typing import Any

import pytest

from controllers.custommetrics.exposition import Series
from lab.simulation import Simulation
from navarch.api.errors import NotFound
from navarch.api.types import apps_v1, core_v1
from tests.lab.test_autoscaling import AUTOSCALER, WEB, condition, reasons, replicas

CUSTOM, EXTERNAL = "/apis/custom.metrics.k8s.io/v1beta2", "/apis/external.metrics.k8s.io/v1beta1"
DECLARING = WEB.replace("hollow.navarch.dev/cpu: 180m", "hollow.navarch.dev/metric.hits: '30'")
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""
INGRESS = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}
"""
ON_HITS = AUTOSCALER.replace(
    "{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}",
    "{type: Pods, pods: {metric: {name: hits}, target: {type: AverageValue, averageValue: '10'}}}",
)
ON_SERVICE = ON_HITS.replace(
    "{type: Pods, pods: {metric: {name: hits}, target: {type: AverageValue, averageValue: '10'}}}",
    "{type: Object, object: {metric: {name: hits}, target: {type: Value, value: '15'}, "
    "describedObject: {apiVersion: v1, kind: Service, name: web}}}",
)


def run(scenario: Any) -> None:
    Simulation(seed=4, nodes=2, custom_metrics=True).run(scenario)


async def web(cluster: Simulation) -> list[core_v1.Pod]:
    """The pods of the deployment, once they are ready."""
    await cluster.apply(DECLARING)
    await cluster.apply(SERVICE)
    await cluster.run_until(lambda: cluster.ready_pods() == 2, timeout=60)
    return cluster.objects(core_v1.Pod)


def test_an_autoscaler_follows_what_pods_declare() -> None:
    async def scenario(cluster: Simulation) -> None:
        await web(cluster)
        await cluster.apply(ON_HITS)
        await cluster.run_until(lambda: replicas(cluster) == 6, timeout=300)
        assert condition(cluster, "ScalingActive") == ("True", "ValidMetricFound")
        note = {"metadata": {"annotations": {"hollow.navarch.dev/metric.hits": "3"}}}
        await cluster.client[apps_v1.Deployment].patch("web", "default", {"spec": {"template": note}}, "strategic")
        await cluster.run_until(lambda: replicas(cluster) <= 2, timeout=900)

    run(scenario)


def test_an_autoscaler_on_an_object_and_the_reason_of_one_without_a_metric() -> None:
    async def scenario(cluster: Simulation) -> None:
        await web(cluster)
        await cluster.apply(ON_SERVICE)
        await cluster.run_until(lambda: replicas(cluster) == 6, timeout=300)
        await cluster.apply(ON_HITS.replace("name: hits", "name: nope"))
        await cluster.run_until(lambda: any("its annotations declare no such metric" in m for _, m in reasons(cluster)), 60)

    run(scenario)


def test_the_custom_metrics_api_answers_for_pods_and_objects() -> None:
    async def scenario(cluster: Simulation) -> None:
        get, pods = cluster.client.get_json, await web(cluster)
        listed = await get(f"{CUSTOM}/namespaces/default/pods/*/hits", [("labelSelector", "app=web")])
        assert [i["value"] for i in listed["items"]] == ["30", "30"]
        name = pods[0].metadata.name
        (one,) = (await get(f"{CUSTOM}/namespaces/default/pods/{name}/hits"))["items"]
        assert one["describedObject"] == {"kind": "Pod", "apiVersion": "v1", "name": name, "namespace": "default"}
        assert one["metric"] == {"name": "hits"}
        for path in ("services/web/hits", "deployments.apps/web/hits", "metrics/hits", "services/*/hits"):
            (one,) = (await get(f"{CUSTOM}/namespaces/default/{path}"))["items"]
            assert one["value"] == "60", path
        node = pods[0].spec.node_name
        (one,) = (await get(f"{CUSTOM}/nodes/{node}/hits"))["items"]
        assert int(one["value"]) == 30 * sum(p.spec.node_name == node for p in pods)
        names = [r["name"] for r in (await get(CUSTOM))["resources"]]
        assert names == ["namespaces/hits", "pods/hits", "services/hits"]
        (old,) = (await get(f"{CUSTOM[:-1]}1/namespaces/default/services/web/hits"))["items"]
        assert old["metricName"] == "hits"

    run(scenario)


def test_series_with_labels_name_objects_and_external_metrics() -> None:
    async def scenario(cluster: Simulation) -> None:
        get, pods = cluster.client.get_json, await web(cluster)
        await cluster.apply(INGRESS)
        assert cluster.metrics is not None and cluster.metrics.adapter is not None
        samples, now = cluster.metrics.adapter.samples, cluster.world.now()
        for n, pod in enumerate(pods, 1):
            orders = Series("waiting", False, (("queue", "orders"),), 10.0 * n)
            samples.take(pod.metadata.uid or "", now, [orders, Series("waiting", False, (("ingress", "shop"),), n)])
        shop = await get(f"{CUSTOM}/namespaces/default/ingresses.networking.k8s.io/shop/waiting")
        assert shop["items"][0]["value"] == "3" and shop["items"][0]["describedObject"]["kind"] == "Ingress"
        path = f"{EXTERNAL}/namespaces/default/waiting"
        queue = await get(path, [("labelSelector", "queue=orders")])
        assert [(i["metricLabels"], i["value"]) for i in queue["items"]] == [({"queue": "orders"}, "30")]
        assert len((await get(path))["items"]) == 2
        (hits,) = (await get(f"{EXTERNAL}/namespaces/default/hits"))["items"]
        assert hits["value"] == "60"

    run(scenario)


MISSING = {
    "pods/*/nope": "web-.*: its annotations declare no such metric",
    "pods/lost/hits": "for pods lost: no pod is selected",
    "services/lost/hits": "for services lost: there is no such object",
    "services/kubernetes/hits": 'no series has the label service="kubernetes", and it selects no pods',
    "widgets.acme.com/a/hits": "could not find the requested resource",
}


def test_a_metric_that_is_missing_says_why() -> None:
    async def scenario(cluster: Simulation) -> None:
        await web(cluster)
        for path, why in MISSING.items():
            with pytest.raises(NotFound, match=why):
                await cluster.client.get_json(f"{CUSTOM}/namespaces/default/{path}")

    run(scenario)
