"""Controllers against the real API server, in one process, on virtual time."""

from __future__ import annotations

from typing import Any

from controllers.deployment.sizes import REVISION
from navarch.api.conditions import get_condition
from navarch.api.errors import NotFound
from navarch.api.pods import is_ready
from navarch.api.types import apps_v1, core_v1, discovery_v1, meta_v1
from tests.controllers.cluster import Cluster, run_cluster
from tests.controllers.test_deployment_plan import deployment, template

Deployment = apps_v1.Deployment
ReplicaSet = apps_v1.ReplicaSet
Pod = core_v1.Pod


def fresh(replicas: int, image: str = "v1", **options: Any) -> Deployment:
    made = deployment(replicas, image, **options)
    made.metadata = meta_v1.ObjectMeta(name="web", namespace="default")
    return made


async def rolled_out(cluster: Cluster, name: str = "web") -> Deployment | None:
    """As kubectl rollout status decides it."""
    d = await cluster.client[Deployment].get(name, "default")
    status, want = d.status, d.spec.replicas
    if (status.observed_generation or 0) < (d.metadata.generation or 0):
        return None
    done = status.updated_replicas == want == status.replicas == status.available_replicas
    return d if done else None


async def gone(cluster: Cluster, struct: Any, name: str, namespace: str | None = "default") -> bool:
    try:
        await cluster.client[struct].get(name, namespace)
    except NotFound:
        return True
    return False


async def test_a_deployment_rolls_and_goes_back(cluster: Cluster) -> None:
    deployments = cluster.client[Deployment]
    await deployments.create(fresh(5))
    first = await cluster.until(lambda: rolled_out(cluster))
    assert (first.metadata.annotations or {})[REVISION] == "1"
    progressing = get_condition(first.status.conditions, "Progressing")
    assert progressing is not None and progressing.reason == "NewReplicaSetAvailable"
    old_template = first.spec.template

    await deployments.patch("web", "default", {"spec": {"template": {"metadata": {"annotations": {"x": "1"}}}}})
    await cluster.until(lambda: rolled_out(cluster))
    assert len((await cluster.client[ReplicaSet].list("default")).items) == 2
    pods = await cluster.pods()
    assert len([p for p in pods if (p.metadata.annotations or {}).get("x") == "1"]) == 5 == len(pods)

    # kubectl rollout undo replaces the template by a JSON patch
    import msgspec

    patch = [{"op": "replace", "path": "/spec/template", "value": msgspec.to_builtins(old_template)}]
    await deployments.patch("web", "default", patch, "json")
    back = await cluster.until(lambda: rolled_out(cluster))
    assert (back.metadata.annotations or {})[REVISION] == "3"
    sets = (await cluster.client[ReplicaSet].list("default")).items
    assert sorted((s.metadata.annotations or {})[REVISION] for s in sets) == ["2", "3"]
    messages = await cluster.events("ScalingReplicaSet")
    assert any(m.startswith("Scaled up replica set web-") and m.endswith("from 0 to 5") for m in messages)
    assert any(m.startswith("Scaled down replica set web-") for m in messages)
    assert len(await cluster.events("SuccessfulCreate")) >= 5

    await deployments.patch("web", "default", {"spec": {"replicas": 2}})
    await cluster.until(lambda: rolled_out(cluster))
    assert len(await cluster.pods()) == 2


async def test_availability_never_falls_in_a_rollout(cluster: Cluster) -> None:
    await cluster.client[Deployment].create(fresh(8, surge=2, unavailable=1))
    await cluster.until(lambda: rolled_out(cluster))
    new = template("v2")
    await cluster.client[Deployment].patch(
        "web", "default", {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}
    )
    assert new is not None
    lowest, highest = 100, 0
    while not await rolled_out(cluster):
        pods = await cluster.pods()
        ready = [p for p in pods if is_ready(p) and p.metadata.deletion_timestamp is None]
        lowest, highest = min(lowest, len(ready)), max(highest, len(pods))
        await cluster.world.sleep(0.1)
        assert cluster.world.monotonic() < 900, await cluster.dump()
    assert lowest >= 7 and highest <= 10


def test_a_replica_set_adopts_and_releases() -> None:
    async def test(cluster: Cluster) -> None:
        pods = cluster.client[Pod]
        orphan = Pod(
            metadata=meta_v1.ObjectMeta(name="orphan", namespace="default", labels={"app": "web"}),
            spec=core_v1.PodSpec(containers=[core_v1.Container(name="c", image="v1")]),
        )
        await pods.create(orphan)
        rs = ReplicaSet(
            metadata=meta_v1.ObjectMeta(name="web", namespace="default"),
            spec=apps_v1.ReplicaSetSpec(
                replicas=2, selector=meta_v1.LabelSelector(match_labels={"app": "web"}), template=template("v1")
            ),
            status=apps_v1.ReplicaSetStatus(replicas=0),
        )
        await cluster.client[ReplicaSet].create(rs)

        async def settled() -> ReplicaSet | None:
            found = await cluster.client[ReplicaSet].get("web", "default")
            return found if found.status.available_replicas == 2 else None

        found = await cluster.until(settled)
        assert found.status.fully_labeled_replicas == 2
        assert len(await cluster.pods()) == 2
        adopted = await pods.get("orphan", "default")
        (owner,) = adopted.metadata.owner_references or []
        assert owner.uid == found.metadata.uid and owner.controller and owner.block_owner_deletion

        await pods.patch("orphan", "default", {"metadata": {"labels": {"app": "debug"}}})

        async def replaced() -> bool:
            return len(await cluster.pods(app="web")) == 2 and len(await cluster.pods()) == 3

        await cluster.until(replaced)
        assert not (await pods.get("orphan", "default")).metadata.owner_references

    run_cluster(test)


def test_endpoints_follow_pods() -> None:
    async def test(cluster: Cluster) -> None:
        service = core_v1.Service(
            metadata=meta_v1.ObjectMeta(name="web", namespace="default"),
            spec=core_v1.ServiceSpec(selector={"app": "web"}, ports=[core_v1.ServicePort(port=80, target_port=8080)]),
        )
        await cluster.client[core_v1.Service].create(service)
        await cluster.client[Deployment].create(fresh(3))
        await cluster.until(lambda: rolled_out(cluster))

        async def ready_addresses(count: int) -> bool:
            slices = (
                await cluster.client[discovery_v1.EndpointSlice].list(
                    "default", label_selector="kubernetes.io/service-name=web"
                )
            ).items
            ready = [e for s in slices for e in s.endpoints if e.conditions and e.conditions.ready]
            endpoints = await cluster.client[core_v1.Endpoints].get("web", "default")
            old = [a for s in endpoints.subsets or () for a in s.addresses or ()]
            return len(slices) == 1 and len(ready) == count == len(old)

        await cluster.until(lambda: ready_addresses(3))
        await cluster.client[Deployment].patch("web", "default", {"spec": {"replicas": 1}})
        await cluster.until(lambda: ready_addresses(1))
        await cluster.client[core_v1.Service].delete("web", "default")
        await cluster.until(lambda: gone(cluster, core_v1.Endpoints, "web"))

        async def no_slices() -> bool:
            return not (await cluster.client[discovery_v1.EndpointSlice].list("default")).items

        await cluster.until(no_slices)

    run_cluster(test)


def test_endpoints_written_by_hand_are_mirrored() -> None:
    async def test(cluster: Cluster) -> None:
        meta = meta_v1.ObjectMeta(name="db", namespace="default")
        spec = core_v1.ServiceSpec(ports=[core_v1.ServicePort(port=5432)])
        await cluster.client[core_v1.Service].create(core_v1.Service(metadata=meta, spec=spec))
        subset = core_v1.EndpointSubset(
            addresses=[core_v1.EndpointAddress(ip="192.0.2.1")], ports=[core_v1.EndpointPort(port=5432)]
        )
        await cluster.client[core_v1.Endpoints].create(core_v1.Endpoints(metadata=meta, subsets=[subset]))

        async def mirrored() -> list[str]:
            found = await cluster.client[discovery_v1.EndpointSlice].list(
                "default", label_selector="kubernetes.io/service-name=db"
            )
            return [a for s in found.items for e in s.endpoints for a in e.addresses]

        await cluster.until(mirrored)
        await cluster.client[core_v1.Endpoints].delete("db", "default")

        async def unmirrored() -> bool:
            return not await mirrored()

        await cluster.until(unmirrored)

    run_cluster(test)


def test_deleting_a_deployment_in_every_way() -> None:
    async def test(cluster: Cluster) -> None:
        deployments = cluster.client[Deployment]

        async def nothing_left() -> bool:
            return not await cluster.pods() and not (await cluster.client[ReplicaSet].list("default")).items

        for policy in ("Background", "Foreground"):
            await deployments.create(fresh(3))
            await cluster.until(lambda: rolled_out(cluster))
            await deployments.delete("web", "default", propagation_policy=policy)
            if policy == "Foreground":
                assert not await gone(cluster, Deployment, "web")
            await cluster.until(nothing_left)
            await cluster.until(lambda: gone(cluster, Deployment, "web"))

        await deployments.create(fresh(2))
        await cluster.until(lambda: rolled_out(cluster))
        await deployments.delete("web", "default", propagation_policy="Orphan")
        await cluster.until(lambda: gone(cluster, Deployment, "web"))
        await cluster.world.sleep(60)
        (orphan,) = (await cluster.client[ReplicaSet].list("default")).items
        assert not orphan.metadata.owner_references and len(await cluster.pods()) == 2
        await deployments.create(fresh(2))  # takes it back

        async def adopted() -> bool:
            (rs,) = (await cluster.client[ReplicaSet].list("default")).items
            return bool(rs.metadata.owner_references)

        await cluster.until(adopted)

    run_cluster(test)


def test_a_namespace_goes_with_all_that_is_in_it() -> None:
    async def test(cluster: Cluster) -> None:
        namespaces = cluster.client[core_v1.Namespace]
        await namespaces.create(core_v1.Namespace(metadata=meta_v1.ObjectMeta(name="team")))

        async def furnished() -> bool:
            accounts = (await cluster.client[core_v1.ServiceAccount].list("team")).items
            maps = (await cluster.client[core_v1.ConfigMap].list("team")).items
            return [a.metadata.name for a in accounts] == ["default"] and [m.data for m in maps] == [{"ca.crt": "PEM"}]

        await cluster.until(furnished)
        made = fresh(3)
        made.metadata.namespace = "team"
        await cluster.client[Deployment].create(made)

        async def running() -> bool:
            return len([p for p in await cluster.pods("team") if is_ready(p)]) == 3

        await cluster.until(running)
        await namespaces.delete("team")
        assert (await namespaces.get("team")).status.phase == "Terminating"
        await cluster.until(lambda: gone(cluster, core_v1.Namespace, "team", None), 60)
        assert not await cluster.pods("team")
        assert not (await cluster.client[core_v1.ConfigMap].list("team")).items

    run_cluster(test)


def patient(replicas: int) -> Deployment:
    """A deployment whose pods bear a node that is not ready or unreachable for 300 seconds."""
    made = fresh(replicas)
    made.spec.template.spec.tolerations = [
        core_v1.Toleration(key=key, operator="Exists", effect="NoExecute", toleration_seconds=300)
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    ]
    return made


async def pods_on(cluster: Cluster, node: str) -> list[Pod]:
    return [p for p in await cluster.pods() if p.spec.node_name == node]


async def nodes_get_their_cidrs(cluster: Cluster) -> None:
    nodes = cluster.client[core_v1.Node]

    async def prepared() -> bool:
        return all(n.spec.pod_cidr and not n.spec.taints for n in (await nodes.list()).items)

    await cluster.until(prepared)
    cidrs = [n.spec.pod_cidr for n in (await nodes.list()).items]
    assert sorted(map(str, cidrs)) == ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]


async def the_death_of_n1_is_noticed(cluster: Cluster) -> None:
    """n1 has just died: 29 to 52 seconds later its condition and its taints say so."""
    died = cluster.world.monotonic()

    async def noticed() -> core_v1.Node | None:
        node = await cluster.client[core_v1.Node].get("n1")
        ready = get_condition(node.status.conditions, "Ready")
        return node if ready is not None and ready.status == "Unknown" and len(node.spec.taints or ()) == 2 else None

    node = await cluster.until(noticed)
    assert 29 < cluster.world.monotonic() - died < 52
    assert {(t.key, t.effect) for t in node.spec.taints or ()} == {
        ("node.kubernetes.io/unreachable", "NoSchedule"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
    }


async def pods_of_n1_are_replaced(cluster: Cluster) -> None:
    """The pods of n1 become unready at once and are evicted after 300 seconds; nobody there removes them."""
    there = await pods_on(cluster, "n1")

    async def unready() -> bool:
        return not any(is_ready(p) for p in await pods_on(cluster, "n1"))

    await cluster.until(unready, 5)
    noticed_at = cluster.world.monotonic()

    async def evicted() -> bool:
        return all(p.metadata.deletion_timestamp for p in await pods_on(cluster, "n1"))

    await cluster.until(evicted, 400)
    assert 295 < cluster.world.monotonic() - noticed_at < 305

    async def replaced() -> bool:
        return len([p for p in await cluster.pods() if is_ready(p) and p.spec.node_name != "n1"]) == 6

    await cluster.until(replaced)
    assert len(await pods_on(cluster, "n1")) == len(there) > 0


async def test_a_node_dies_and_comes_back(cluster: Cluster) -> None:
    await nodes_get_their_cidrs(cluster)
    await cluster.client[Deployment].create(patient(6))
    await cluster.until(lambda: rolled_out(cluster))
    cluster.nodes.dead["n1"] = None
    await the_death_of_n1_is_noticed(cluster)
    await pods_of_n1_are_replaced(cluster)
    del cluster.nodes.dead["n1"]

    async def healed() -> bool:
        node = await cluster.client[core_v1.Node].get("n1")
        return not node.spec.taints and len(await cluster.pods()) == 6

    await cluster.until(healed)
    assert "Node n1 status is now: NodeNotReady" in await cluster.events("NodeNotReady")



def test_pods_of_a_removed_node_are_cleared_away() -> None:
    async def test(cluster: Cluster) -> None:
        await cluster.client[Deployment].create(fresh(3))
        await cluster.until(lambda: rolled_out(cluster))
        cluster.nodes.dead["n1"] = None
        cluster.nodes.names.remove("n1")
        await cluster.client[core_v1.Node].delete("n1")

        async def cleared() -> bool:
            pods = await cluster.pods()
            return len(pods) == 3 and all(p.spec.node_name != "n1" for p in pods)

        await cluster.until(cleared, 120)
        assert cluster.world.monotonic() > 40

    run_cluster(test)


async def test_a_recreate_deployment_never_mixes(cluster: Cluster) -> None:
    deployments = cluster.client[Deployment]
    await deployments.create(fresh(3, strategy="Recreate"))
    await cluster.until(lambda: rolled_out(cluster))
    change = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}
    await deployments.patch("web", "default", change)
    while not await rolled_out(cluster):
        images = {p.spec.containers[0].image for p in await cluster.pods()}
        assert len(images) <= 1
        await cluster.world.sleep(0.05)
        assert cluster.world.monotonic() < 900, await cluster.dump()
