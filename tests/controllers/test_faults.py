"""Controllers when things go wrong: crashes, refusals, lost owners, whole zones gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controllers.config import Config
from controllers.manager import Manager
from navarch.api.conditions import get_condition
from navarch.api.pods import is_ready
from navarch.api.types import apps_v1, coordination_v1, core_v1, meta_v1
from navarch.client.client import Client
from navarch.client.health import parse_address
from navarch.client.transport import InProcessTransport, Response, TransportError
from tests.controllers.cluster import MANAGER, Cluster, run_cluster
from tests.controllers.test_integration import fresh, gone, rolled_out

Deployment = apps_v1.Deployment
ReplicaSet = apps_v1.ReplicaSet
ConfigMap = core_v1.ConfigMap


def manager(cluster: Cluster, *settings: str, identity: str = "") -> Manager:
    client = Client(InProcessTransport(cluster.server.app, MANAGER), cluster.world, "kube-controller-manager")
    return Manager(client, cluster.world, Config().with_settings(settings), root_ca="PEM", identity=identity)


def test_a_crash_in_the_middle_leaves_nothing_too_many() -> None:
    async def test(cluster: Cluster) -> None:
        first = manager(cluster)
        async with cluster.world.task_group() as group:
            task = group.start(first.run())
            await cluster.until(cluster.furnished)
            await cluster.client[Deployment].create(fresh(20))
            for i in range(12):
                for _ in range(40 + 13 * i):  # so many steps of the event loop, then power off
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert len(await cluster.pods()) <= 20
                assert len((await cluster.client[ReplicaSet].list("default")).items) <= 1
                task = group.start(manager(cluster).run())
            await cluster.until(lambda: rolled_out(cluster))
            assert len(await cluster.pods()) == 20
            assert not await cluster.events("SuccessfulDelete")
            group.cancel()

    run_cluster(test, managed=False)


def test_one_leader_at_a_time() -> None:
    async def test(cluster: Cluster) -> None:
        one, two = (manager(cluster, "leader-elect=true", identity=name) for name in ("one", "two"))
        async with cluster.world.task_group() as group:
            task = group.start(one.run())
            await cluster.until(cluster.furnished)
            group.start(two.run())
            await cluster.client[Deployment].create(fresh(2))
            await cluster.until(lambda: rolled_out(cluster))
            assert one.leading and not two.leading and two.ready
            task.cancel()
            await cluster.client[Deployment].patch("web", "default", {"spec": {"replicas": 4}})
            await cluster.until(lambda: rolled_out(cluster), 60)
            assert two.leading
            lease = await cluster.client[coordination_v1.Lease].get("kube-controller-manager", "kube-system")
            assert lease.spec.holder_identity == "two"
            group.cancel()

    run_cluster(test, managed=False)


def test_refused_pods_are_told_of() -> None:
    async def test(cluster: Cluster) -> None:
        made = fresh(2, deadline=60)
        made.spec.template.spec.service_account_name = "absent"
        await cluster.client[Deployment].create(made)

        async def failed() -> apps_v1.DeploymentCondition | None:
            d = await cluster.client[Deployment].get("web", "default")
            return get_condition(d.status.conditions, "ReplicaFailure")

        condition = await cluster.until(failed)
        assert condition is not None
        assert (condition.status, condition.reason) == ("True", "FailedCreate")
        assert "error looking up service account default/absent" in (condition.message or "")
        events = await cluster.events("FailedCreate")
        assert events and all(e.startswith("Error creating: pods ") for e in events)
        assert len(events) < 20

        async def timed_out() -> bool:
            d = await cluster.client[Deployment].get("web", "default")
            progressing = get_condition(d.status.conditions, "Progressing")
            return progressing is not None and progressing.reason == "ProgressDeadlineExceeded"

        await cluster.until(timed_out, 120)
        account = core_v1.ServiceAccount(metadata=meta_v1.ObjectMeta(name="absent", namespace="default"))
        await cluster.client[core_v1.ServiceAccount].create(account)
        d = await cluster.until(lambda: rolled_out(cluster), 200)

        async def cured() -> bool:
            return not await failed()

        await cluster.until(cured)
        assert d is not None

    run_cluster(test)


def config_map(name: str, *owners: meta_v1.OwnerReference, namespace: str = "default") -> ConfigMap:
    return ConfigMap(
        metadata=meta_v1.ObjectMeta(name=name, namespace=namespace, owner_references=list(owners) or None)
    )


def ref_to(obj: Any, *, block: bool = False, uid: str = "") -> meta_v1.OwnerReference:
    return meta_v1.OwnerReference(
        api_version="v1",
        kind="ConfigMap",
        name=obj.metadata.name,
        uid=uid or obj.metadata.uid,
        block_owner_deletion=block or None,
    )


def test_garbage() -> None:
    async def test(cluster: Cluster) -> None:
        maps = cluster.client[ConfigMap]
        owner = await maps.create(config_map("owner"))
        other = await maps.create(config_map("other"))
        # An owner that never was, one of another name, and one in another namespace are all no owners.
        await maps.create(config_map("a", ref_to(owner, uid="11111111-1111-4111-8111-111111111111")))
        await cluster.until(lambda: gone(cluster, ConfigMap, "a"))
        await maps.create(config_map("b", ref_to(other, uid=owner.metadata.uid or "")))
        await cluster.until(lambda: gone(cluster, ConfigMap, "b"))
        await maps.create(config_map("c", ref_to(owner), namespace="kube-system"))
        await cluster.until(lambda: gone(cluster, ConfigMap, "c", "kube-system"))
        # Of two owners one is enough.
        await maps.create(config_map("d", ref_to(owner), ref_to(other)))
        await maps.create(config_map("e", ref_to(owner)))
        await cluster.world.sleep(30)
        await maps.delete("owner", "default")
        await cluster.until(lambda: gone(cluster, ConfigMap, "e"))

        async def let_go() -> bool:
            found = await maps.get("d", "default")
            return [r.uid for r in found.metadata.owner_references or ()] == [other.metadata.uid]

        await cluster.until(let_go)

    run_cluster(test)


async def test_foreground_waits_for_those_who_block(cluster: Cluster) -> None:
    maps = cluster.client[ConfigMap]
    owner = await maps.create(config_map("owner"))
    blocking = config_map("blocking", ref_to(owner, block=True))
    blocking.metadata.finalizers = ["example.com/slow"]
    await maps.create(blocking)
    await maps.create(config_map("free", ref_to(owner)))
    await cluster.world.sleep(1)
    await maps.delete("owner", "default", propagation_policy="Foreground")
    await cluster.until(lambda: gone(cluster, ConfigMap, "free"))
    await cluster.world.sleep(120)
    assert (await maps.get("blocking", "default")).metadata.deletion_timestamp is not None
    assert (await maps.get("owner", "default")).metadata.finalizers == ["foregroundDeletion"]
    await maps.patch("blocking", "default", {"metadata": {"finalizers": None}})
    await cluster.until(lambda: gone(cluster, ConfigMap, "owner"))


async def test_owners_in_a_circle(cluster: Cluster) -> None:
    maps = cluster.client[ConfigMap]
    a = await maps.create(config_map("a"))
    b = await maps.create(config_map("b", ref_to(a, block=True)))
    refs = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "b", "uid": b.metadata.uid, "blockOwnerDeletion": True}]
    await maps.patch("a", "default", {"metadata": {"ownerReferences": refs}})
    await cluster.world.sleep(1)
    await maps.delete("a", "default", propagation_policy="Foreground")
    await cluster.until(lambda: gone(cluster, ConfigMap, "a"))
    await cluster.until(lambda: gone(cluster, ConfigMap, "b"))


def test_a_namespace_that_cannot_go_says_why() -> None:
    async def test(cluster: Cluster) -> None:
        namespaces = cluster.client[core_v1.Namespace]
        await namespaces.create(core_v1.Namespace(metadata=meta_v1.ObjectMeta(name="team")))
        stuck = config_map("stuck", namespace="team")
        stuck.metadata.finalizers = ["example.com/hold"]
        await cluster.client[ConfigMap].create(stuck)
        await namespaces.delete("team")

        async def explained() -> core_v1.Namespace | None:
            found = await namespaces.get("team")
            condition = get_condition(found.status.conditions, "NamespaceFinalizersRemaining")
            return found if condition is not None and condition.status == "True" else None

        found = await cluster.until(explained)
        assert found is not None
        held = get_condition(found.status.conditions, "NamespaceFinalizersRemaining")
        left = get_condition(found.status.conditions, "NamespaceContentRemaining")
        assert held is not None and left is not None
        assert held.message == (
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
        )
        assert left.message == "Some resources are remaining: configmaps. has 1 resource instances"
        revision = await cluster.server.store.current_revision()
        await cluster.world.sleep(5)
        assert await cluster.server.store.current_revision() - revision < 10
        await cluster.client[ConfigMap].patch("stuck", "team", {"metadata": {"finalizers": None}})
        await cluster.until(lambda: gone(cluster, core_v1.Namespace, "team", None), 30)

    run_cluster(test)


def test_nothing_is_evicted_while_every_node_is_silent() -> None:
    async def test(cluster: Cluster) -> None:
        await cluster.client[Deployment].create(fresh(4))
        await cluster.until(lambda: rolled_out(cluster))
        names = {p.metadata.name for p in await cluster.pods()}
        cluster.nodes.dead.update(dict.fromkeys(cluster.nodes.names))
        await cluster.world.sleep(1000)
        nodes = (await cluster.client[core_v1.Node].list()).items
        assert not any(t.effect == "NoExecute" for n in nodes for t in n.spec.taints or ())
        assert not any(p.metadata.deletion_timestamp for p in await cluster.pods())
        cluster.nodes.dead.clear()

        async def healed() -> bool:
            nodes = (await cluster.client[core_v1.Node].list()).items
            return not any(n.spec.taints for n in nodes)

        await cluster.until(healed)
        assert {p.metadata.name for p in await cluster.pods()} == names

    run_cluster(test)


def test_a_taint_by_hand_evicts_who_does_not_tolerate_it() -> None:
    async def test(cluster: Cluster) -> None:
        await cluster.client[Deployment].create(fresh(3))
        await cluster.until(lambda: rolled_out(cluster))
        taint = {"key": "maintenance", "effect": "NoExecute"}
        await cluster.client[core_v1.Node].patch("n1", None, {"spec": {"taints": [taint]}})

        async def moved() -> bool:
            pods = await cluster.pods()
            ready = [p for p in pods if is_ready(p)]
            return len(ready) == 3 and await cluster.events("TaintManagerEviction") != []

        await cluster.until(moved, 60)
        assert any(m.startswith("Marking for deletion Pod default/web-") for m in await cluster.events("TaintManagerEviction"))

    run_cluster(test)


def test_answers_that_get_lost_make_no_pod_too_many() -> None:
    async def test(cluster: Cluster) -> None:
        made = manager(cluster)
        transport = Lossy(cluster.server.app)
        made.client.transport = transport
        async with cluster.world.task_group() as group:
            group.start(made.run())
            await cluster.until(cluster.furnished)
            transport.lose = 3
            await cluster.client[Deployment].create(fresh(10))
            await cluster.until(lambda: rolled_out(cluster))
            assert transport.lose == 0
            assert len(await cluster.pods()) == 10
            assert not await cluster.events("SuccessfulDelete")
            group.cancel()

    run_cluster(test, managed=False)


class Lossy(InProcessTransport):
    """Carries out every request, but the answers to some creations of pods get lost."""

    lose = 0

    def __init__(self, app: Any) -> None:
        super().__init__(app, MANAGER)

    async def request(self, method: str, path: str, **options: Any) -> Response:
        answer = await super().request(method, path, **options)
        if self.lose and method == "POST" and path.endswith("/pods"):
            self.lose -= 1
            raise TransportError("lost")
        return answer


def test_addresses() -> None:
    assert parse_address("127.0.0.1:10257") == ("127.0.0.1", 10257)
    assert parse_address("/run/x.sock") == "/run/x.sock"
    for wrong in ("0.0.0.0:1", "10.0.0.1:80", "localhost"):
        with pytest.raises(ValueError):
            parse_address(wrong)
