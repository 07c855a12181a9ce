"""A controller outside of navarch: each Namespace with the label ``team`` gets a ConfigMap that names the team.

It uses navarch's client library (informer, work queue) against any cluster that KUBECONFIG names, until Ctrl-C:

    KUBECONFIG=$(navarch kubeconfig) python examples/03_a_controller_of_your_own.py
"""

from __future__ import annotations

import contextlib

from navarch.api.errors import AlreadyExists
from navarch.api.types import core_v1, meta_v1
from navarch.client.client import Client
from navarch.client.informer import SharedInformers
from navarch.client.kubeconfig import load
from navarch.client.queue import WorkQueue
from navarch.client.transport import connect
from navarch.world import RealWorld, World


async def run(client: Client, world: World) -> None:
    """Works until cancelled."""
    queue: WorkQueue[str] = WorkQueue(world)
    informers = SharedInformers(client, world)
    namespaces = informers.informer(core_v1.Namespace)
    namespaces.add_handler(lambda kind, old, new: queue.add(new.metadata.name or ""))
    async with world.task_group() as group:
        group.start(informers.run())
        await namespaces.wait_synced()
        while True:
            name = await queue.get()
            try:
                await reconcile(client, name, namespaces.get_key(name))
                queue.forget(name)
            except Exception as error:
                print(f"namespace {name}: {error}; again later")
                queue.add_rate_limited(name)
            finally:
                queue.done(name)


async def reconcile(client: Client, name: str, namespace: core_v1.Namespace | None) -> None:
    team = (namespace.metadata.labels or {}).get("team") if namespace else None
    if namespace is None or not team or namespace.metadata.deletion_timestamp:
        return
    about = core_v1.ConfigMap(metadata=meta_v1.ObjectMeta(name="team", namespace=name), data={"team": team})
    try:
        await client[core_v1.ConfigMap].create(about)
        print(f"namespace {name}: belongs to {team}")
    except AlreadyExists:
        pass


if __name__ == "__main__":
    world = RealWorld()
    with contextlib.suppress(KeyboardInterrupt):
        world.run(lambda: run(Client(connect(load()), world, "example"), world))
