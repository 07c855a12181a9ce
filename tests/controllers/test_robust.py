"""No object stops a controller: what is malformed, absurd or undecodable is left aside, told of, and its neighbours go on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apiserver.storage.store import Put
from controllers.deployment import controller as deployments
from controllers.manager import Manager
from navarch.api.types import apps_v1, batch_v1, core_v1, meta_v1, policy_v1
from tests.controllers.cluster import Cluster, run_cluster
from tests.controllers.test_deployment_plan import template
from tests.controllers.test_integration import fresh, gone, rolled_out

Deployment = apps_v1.Deployment
Job = batch_v1.Job
Pod = core_v1.Pod


async def corrupt(cluster: Cluster, key: str, change: Any) -> None:
    """Changes what is stored behind the API server's back."""
    store = cluster.server.store
    found, _ = await store.get(f"/registry/{key}")
    assert found is not None
    tree = json.loads(found.value)
    change(tree)
    await store.txn([], [Put(found.key, json.dumps(tree, separators=(",", ":")).encode())])


def job(name: str, **spec: Any) -> Job:
    pods = template("v1")
    pods.metadata.labels = None
    pods.spec.restart_policy = "Never"
    return Job(
        metadata=meta_v1.ObjectMeta(name=name, namespace="default"), spec=batch_v1.JobSpec(template=pods, **spec)
    )


async def still_works(cluster: Cluster, name: str = "canary") -> None:
    """A deployment that is made now is rolled out."""
    made = fresh(2)
    made.metadata.name = name
    await cluster.client[Deployment].create(made)
    await cluster.until(lambda: rolled_out(cluster, name), 60)


@pytest.mark.parametrize("deadline", [1, 3, 2**62])
async def test_a_job_that_is_over_its_deadline_stops_nobody(cluster: Cluster, deadline: int) -> None:
    """Its pod takes its time to go: meanwhile the job has nothing to ask for."""

    held = job("late", active_deadline_seconds=deadline)
    held.spec.template.metadata.finalizers = ["example.com/slow"]
    await cluster.client[Job].create(held)
    await cluster.world.sleep(30)
    queue = next(c.queue for c in cluster.manager.controllers if c.name == "job-controller")
    await still_works(cluster)
    if deadline < 100:
        assert await cluster.events("DeadlineExceeded")
    slowed = queue.slowed
    await cluster.world.sleep(600)
    assert queue.slowed == slowed and queue.idle


@pytest.mark.parametrize(
    "spec",
    [
        {"ttl_seconds_after_finished": 0},
        {"ttl_seconds_after_finished": 2**31 - 1},
        {"backoff_limit": 2**31 - 1, "active_deadline_seconds": 1},
        {"parallelism": 0, "completions": 0},
        {"suspend": True, "active_deadline_seconds": 1},
        {"completions": 0, "active_deadline_seconds": 1},
    ],
)
async def test_jobs_at_the_limits(cluster: Cluster, spec: dict[str, Any]) -> None:
    await cluster.client[Job].create(job("odd", **spec))
    await cluster.world.sleep(60)
    await still_works(cluster)
    assert all(c.queue.slowed == 0 for c in cluster.manager.controllers)


@pytest.mark.parametrize(
    "schedule", ["0 0 31 2 *", "@every 1s", "@every 99999h", "@every 2562047h", "59 23 29 2 6", "? ? ? ? ?"]
)
async def test_cron_lines_at_the_limits(cluster: Cluster, schedule: str) -> None:
    spec = batch_v1.CronJobSpec(schedule=schedule, job_template=batch_v1.JobTemplateSpec(spec=job("x").spec))
    meta = meta_v1.ObjectMeta(name="odd", namespace="default")
    await cluster.client[batch_v1.CronJob].create(batch_v1.CronJob(metadata=meta, spec=spec))
    await cluster.world.sleep(130)
    await still_works(cluster)


async def test_seconds_of_toleration_at_the_limits(cluster: Cluster) -> None:
    for number, seconds in enumerate((-(2**63), -1, 0, 2**63 - 1)):
        pod = Pod(metadata=meta_v1.ObjectMeta(name=f"p{number}", namespace="default"), spec=template("v1").spec)
        pod.spec.tolerations = [
            core_v1.Toleration(operator="Exists", effect="NoExecute", toleration_seconds=seconds)
        ]
        pod.spec.node_name = "n1"
        await cluster.client[Pod].create(pod)
    await cluster.world.sleep(3)
    taint = [{"key": "a", "value": "b", "effect": "NoExecute"}]
    await cluster.client[core_v1.Node].patch("n1", None, {"spec": {"taints": taint}})
    for number in range(3):
        await cluster.until(lambda number=number: gone(cluster, Pod, f"p{number}"), 60)  # type: ignore[misc]
    await cluster.client[Pod].get("p3", "default")
    await still_works(cluster)


async def test_a_mistake_in_one_reconcile_is_told_on_its_object_and_costs_no_other(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, raised = deployments.plan, 0

    def broken(deployment: Deployment, *args: Any, **kw: Any) -> Any:
        nonlocal raised
        if deployment.metadata.name == "broken":
            raised += 1
            raise ZeroDivisionError("division by\nzero")
        return plan(deployment, *args, **kw)

    monkeypatch.setattr(deployments, "plan", broken)

    made = fresh(1)
    made.metadata.name = "broken"
    await cluster.client[Deployment].create(made)
    await still_works(cluster)
    await cluster.world.sleep(3600)
    assert 10 < raised < 150  # ever later, at most a minute
    text = "Error syncing: ZeroDivisionError: division by zero"
    assert await cluster.events("FailedSync") == [text]
    said = cluster.manager.context.metrics.text().decode()
    name = '{error="ZeroDivisionError",name="deployment-controller"}'
    assert f"navarch_reconcile_failures_total{name} {float(raised)}" in said
    monkeypatch.setattr(deployments, "plan", plan)
    await cluster.until(lambda: rolled_out(cluster, "broken"), 120)


def test_a_controller_that_ends_begins_anew_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    run, starts = deployments.DeploymentController.run, 0

    async def dies(self: Any) -> None:
        nonlocal starts
        starts += 1
        if starts < 4:
            raise RuntimeError("out of the blue")
        await run(self)

    monkeypatch.setattr(deployments.DeploymentController, "run", dies)

    async def test(cluster: Cluster) -> None:
        await still_works(cluster)
        assert starts == 4

    run_cluster(test)


async def test_a_replica_set_that_cannot_be_decoded_is_neither_acted_on_nor_replaced(cluster: Cluster) -> None:
    await still_works(cluster, "web")
    sets = cluster.client[apps_v1.ReplicaSet]
    name = (await sets.list("default")).items[0].metadata.name or ""
    await corrupt(cluster, f"replicasets/default/{name}", lambda tree: tree["spec"].update(replicas="two"))
    await cluster.world.sleep(1)
    pods = await cluster.pods()
    await cluster.client[Pod].delete(pods[0].metadata.name or "", "default")
    await cluster.client[Deployment].patch("web", "default", {"spec": {"replicas": 3}})
    await still_works(cluster)
    await cluster.world.sleep(300)
    assert (
        len([s for s in (await sets.list("default", tolerant=True)).items if "web" in (s.metadata.name or "")]) == 0
    )
    assert len(await cluster.pods()) == 3  # two of the canary, one that is left of the set
    assert any("cannot be decoded" in text for text in await cluster.events("FailedSync"))
    await corrupt(cluster, f"replicasets/default/{name}", lambda tree: tree["spec"].update(replicas=2))
    await cluster.until(lambda: rolled_out(cluster, "web"), 300)


async def test_a_pod_that_cannot_be_decoded_is_not_made_a_second_time(cluster: Cluster) -> None:
    await still_works(cluster, "web")
    name = (await cluster.pods())[0].metadata.name or ""
    await corrupt(cluster, f"pods/default/{name}", lambda tree: tree["spec"].update(hostNetwork="yes"))
    await cluster.world.sleep(1)
    await cluster.client[Deployment].patch("web", "default", {"spec": {"replicas": 4}})
    await still_works(cluster)
    await cluster.world.sleep(120)
    listed = await cluster.client[Pod].list("default", tolerant=True)
    assert len(listed.items) == 1 + 2 and [b.name for b in listed.undecodable] == [name]
    await corrupt(cluster, f"pods/default/{name}", lambda tree: tree["spec"].pop("hostNetwork"))
    await cluster.until(lambda: rolled_out(cluster, "web"), 120)


async def test_owners_that_cannot_be_decoded_still_own(cluster: Cluster) -> None:
    """The collector reads metadata alone: what others cannot read owns, is owned and goes as ever."""

    await still_works(cluster, "web")
    sets = cluster.client[apps_v1.ReplicaSet]
    name = (await sets.list("default")).items[0].metadata.name or ""
    await corrupt(cluster, f"replicasets/default/{name}", lambda tree: tree["spec"].update(replicas="two"))
    await cluster.world.sleep(300)
    assert len(await cluster.pods()) == 2  # their owner is there
    await cluster.client[Deployment].delete("web", "default", propagation_policy="Background")
    await cluster.until(lambda: gone(cluster, Deployment, "web"), 60)
    await cluster.world.sleep(60)
    assert not (await sets.list("default", tolerant=True)).undecodable and not await cluster.pods()


async def test_a_job_that_cannot_be_decoded_keeps_its_pods_tracked(cluster: Cluster) -> None:
    await cluster.client[Job].create(job("work", parallelism=2, completions=2))
    await cluster.until(lambda: _count(cluster, 2))
    await corrupt(cluster, "jobs/default/work", lambda tree: tree["spec"].update(backoffLimit="many"))
    await cluster.world.sleep(1)
    manager: Manager = cluster.manager
    next(c for c in manager.controllers if c.name == "job-controller").queue.add("default/work")
    await cluster.world.sleep(60)
    assert all("batch.kubernetes.io/job-tracking" in (p.metadata.finalizers or ()) for p in await cluster.pods())
    await still_works(cluster)


async def _count(cluster: Cluster, number: int) -> bool:
    return len(await cluster.pods()) == number


def test_a_budget_with_an_odd_selector_costs_no_other_budget_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(cluster: Cluster) -> None:
        budgets = cluster.client[policy_v1.PodDisruptionBudget]
        for name in ("a", "b"):
            spec = policy_v1.PodDisruptionBudgetSpec(
                min_available=1, selector=meta_v1.LabelSelector(match_labels={"app": "web"})
            )
            meta = meta_v1.ObjectMeta(name=name, namespace="default")
            status = policy_v1.PodDisruptionBudgetStatus(
                current_healthy=0, desired_healthy=0, disruptions_allowed=0, expected_pods=0
            )
            await budgets.create(policy_v1.PodDisruptionBudget(metadata=meta, spec=spec, status=status))
        odd = {"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]}
        await corrupt(cluster, "poddisruptionbudgets/default/a", lambda tree: tree["spec"].update(selector=odd))
        await still_works(cluster, "web")

        async def counted() -> bool:
            return (await budgets.get("b", "default")).status.current_healthy == 2

        await cluster.until(counted, 60)
        assert any("Like" in text for text in await cluster.events("FailedSync"))

    run_cluster(test)
