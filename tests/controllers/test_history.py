"""Revisions whose name somebody else has: the collision is counted, and another name is tried."""

from __future__ import annotations

from typing import Any

import pytest

from controllers.history import Revision
from navarch.api.types import meta_v1
from tests.controllers import test_daemonsets as daemons
from tests.controllers import test_statefulsets as stateful
from tests.controllers.cluster import Cluster, run_cluster

KINDS = {
    "DaemonSet": (daemons.DaemonSet, lambda: daemons.make(max_unavailable=1, max_surge=0), "d", daemons.rolled_out, 3),
    "StatefulSet": (stateful.StatefulSet, lambda: stateful.make(2), "s", stateful.rolled_out, 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_is_taken(kind: str) -> None:
    struct, make, name, rolled_out, pods = KINDS[kind]

    async def test(cluster: Cluster) -> None:
        sets: Any = cluster.client[struct]  # type: ignore[valid-type]
        revisions = cluster.client[Revision]

        async def own() -> list[Revision]:
            uid = (await sets.get(name, "default")).metadata.uid
            items = (await revisions.list("default")).items
            return [r for r in items if any(o.uid == uid for o in r.metadata.owner_references or ())]

        async def none_left() -> bool:
            return not (await revisions.list("default")).items

        await sets.create(make())
        await rolled_out(cluster, "v1", pods)
        (first,) = await own()
        await sets.delete(name, "default", propagation_policy="Background")
        await cluster.until(none_left)
        other = {"spec": {"template": {"what": "somebody else's"}}}
        meta = meta_v1.ObjectMeta(name=first.metadata.name, namespace="default")
        await revisions.create(Revision(metadata=meta, data=other, revision=1))
        await sets.create(make())
        await rolled_out(cluster, "v1", pods)
        (second,) = await own()
        assert second.data == first.data and second.metadata.name != first.metadata.name
        assert (await sets.get(name, "default")).status.collision_count == 1
        assert (await revisions.get(first.metadata.name or "", "default")).data == other

    run_cluster(test)
