"""Disruption budgets and quotas: what the controllers keep, and what evictions and admission make of it."""

from __future__ import annotations

import asyncio

import pytest

from apiserver.kinds.core.pods.eviction import Evictor
from apiserver.request import own_context
from controllers.disruption import DisruptionController, Scale, needs
from navarch.api.errors import Forbidden, TooManyRequests
from navarch.api.types import apps_v1, core_v1, meta_v1, policy_v1
from tests.controllers.cluster import Cluster, run_cluster
from tests.controllers.test_integration import fresh, rolled_out

Budget = policy_v1.PodDisruptionBudget


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"max_unavailable": 1}, Scale(5, 4)),
        ({"max_unavailable": "30%"}, Scale(5, 3)),
        ({"max_unavailable": 9}, Scale(5, 0)),
        ({"min_available": 2}, Scale(4, 2)),
        ({"min_available": "50%"}, Scale(5, 3)),
        ({}, Scale(4, 0)),
    ],
)
def test_needs(spec: dict[str, int | str], expected: Scale) -> None:
    assert needs(policy_v1.PodDisruptionBudgetSpec(**spec), 4, 5) == expected  # type: ignore[arg-type]


def test_evictions_stay_within_the_budget() -> None:
    async def test(cluster: Cluster) -> None:
        await cluster.client[apps_v1.Deployment].create(fresh(5))
        await cluster.until(lambda: rolled_out(cluster))
        pods = await cluster.pods()
        labels = {k: v for k, v in (pods[0].metadata.labels or {}).items() if k != "pod-template-hash"}
        spec = policy_v1.PodDisruptionBudgetSpec(
            max_unavailable="40%", selector=meta_v1.LabelSelector(match_labels=labels)
        )
        status = policy_v1.PodDisruptionBudgetStatus(
            current_healthy=0, desired_healthy=0, disruptions_allowed=0, expected_pods=0
        )
        budgets = cluster.client[Budget]
        await budgets.create(Budget(metadata=meta_v1.ObjectMeta(name="b", namespace="default"), spec=spec, status=status))

        async def allowed() -> bool:
            return (await budgets.get("b", "default")).status.disruptions_allowed == 2

        await cluster.until(allowed)

        evictor = Evictor(cluster.server.resources, cluster.server.admission)

        async def evict(name: str) -> bool:
            try:
                # Not by the client: that waits and tries again when it is told to.
                await evictor.evict(own_context(cluster.world), "default", name, {}, {})
            except TooManyRequests as error:
                assert error.details["causes"][0]["reason"] == "DisruptionBudget"
                return False
            return True

        gone = await asyncio.gather(*[evict(p.metadata.name or "") for p in pods])
        assert sum(gone) == 2
        await cluster.until(lambda: rolled_out(cluster))
        await cluster.until(allowed)  # replaced: the budget allows two again

    run_cluster(test)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the budgets that the disruption controller reconciles, in order."""
    keys: list[str] = []
    reconcile = DisruptionController.reconcile

    async def noted(self: DisruptionController, key: str) -> float | None:
        keys.append(key)
        return await reconcile(self, key)

    monkeypatch.setattr(DisruptionController, "reconcile", noted)
    return keys


async def workload_and_budget(cluster: Cluster, name: str) -> None:
    """Creates a deployment of two pods and a budget that keeps half of them, both of this name."""
    deployment = fresh(2)
    deployment.metadata.name = name
    deployment.spec.selector = meta_v1.LabelSelector(match_labels={"app": name})
    assert deployment.spec.template.metadata is not None
    deployment.spec.template.metadata.labels = {"app": name, "tier": "front"}
    await cluster.client[apps_v1.Deployment].create(deployment)
    spec = policy_v1.PodDisruptionBudgetSpec(
        min_available="50%", selector=meta_v1.LabelSelector(match_labels={"tier": "front", "app": name})
    )
    status = policy_v1.PodDisruptionBudgetStatus(
        current_healthy=0, desired_healthy=0, disruptions_allowed=0, expected_pods=0
    )
    metadata = meta_v1.ObjectMeta(name=name, namespace="default")
    await cluster.client[Budget].create(Budget(metadata=metadata, spec=spec, status=status))


async def test_a_budget_is_looked_at_for_its_own_workload_only(cluster: Cluster, looks: list[str]) -> None:
    """Of two workloads and two budgets, scaling one leaves the other's budget alone; its own follows the new size."""
    for name in ("a", "b"):
        await workload_and_budget(cluster, name)

    async def healthy(name: str, desired: int) -> bool:
        return (await cluster.client[Budget].get(name, "default")).status.desired_healthy == desired

    await cluster.until(lambda: healthy("a", 1))
    await cluster.until(lambda: healthy("b", 1))
    await cluster.world.sleep(30)
    looks.clear()
    await cluster.client[apps_v1.Deployment].patch("a", "default", {"spec": {"replicas": 6}})
    await cluster.until(lambda: healthy("a", 3))
    await cluster.world.sleep(30)
    assert {*looks} == {"default/a"}



def test_a_quota_is_counted() -> None:
    async def test(cluster: Cluster) -> None:
        await cluster.client[apps_v1.Deployment].create(fresh(3))
        await cluster.until(lambda: rolled_out(cluster))
        quotas = cluster.client[core_v1.ResourceQuota]
        spec = core_v1.ResourceQuotaSpec(hard={"pods": "4", "count/deployments.apps": "1", "services": "5"})
        await quotas.create(core_v1.ResourceQuota(metadata=meta_v1.ObjectMeta(name="q", namespace="default"), spec=spec))

        async def counted() -> bool:
            used = (await quotas.get("q", "default")).status.used
            return used == {"pods": "3", "count/deployments.apps": "1", "services": "1"}

        await cluster.until(counted)
        second = fresh(1)
        second.metadata.name = "two"
        with pytest.raises(Forbidden, match=r"exceeded quota: q, requested: count/deployments.apps=1"):
            await cluster.client[apps_v1.Deployment].create(second)
        await cluster.client[apps_v1.Deployment].patch("web", "default", {"spec": {"replicas": 6}})

        async def full() -> bool:
            return (await quotas.get("q", "default")).status.used == {
                "pods": "4", "count/deployments.apps": "1", "services": "1",
            }  # fmt: skip

        await cluster.until(full)
        # A wrong count (a server died between counting and storing) is put right in the end.
        wrong = {"status": {"used": {"pods": "4", "count/deployments.apps": "1", "services": "3"}}}
        await quotas.patch_status("q", "default", wrong)
        await cluster.until(full)
        assert len(await cluster.pods()) == 4
        await quotas.patch("q", "default", {"spec": {"hard": {"pods": "6"}}})
        await cluster.until(lambda: rolled_out(cluster))

    run_cluster(test)
