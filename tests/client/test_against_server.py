"""The client against the real API server, in process and on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiserver.assembly import assemble
from apiserver.config import Config
from apiserver.request import LOOPBACK
from apiserver.storage.memory import MemoryStore
from lab.simulation.network import Link
from navarch.api import errors
from navarch.api.types import apps_v1, core_v1, meta_v1
from navarch.client.client import Client, ResourceClient
from navarch.client.events import EventRecorder
from navarch.client.informer import Informer
from navarch.client.leader import LeaderElector
from navarch.client.transport import InProcessTransport
from navarch.virtual import SimulatedWorld


def cluster(test: Callable[[SimulatedWorld, Client, Link], Awaitable[None]], seed: int = 0) -> None:
    """Runs ``test`` beside an API server; the client's link may be cut."""
    world = SimulatedWorld(seed)

    async def main() -> None:
        store = MemoryStore()
        server = assemble(world, store, Config(compaction_interval=20))
        async with world.task_group() as group:
            up = asyncio.Event()
            group.start(server.run(lambda _: up.set(), listen=False))
            await up.wait()
            link = Link(InProcessTransport(server.app, LOOPBACK), world, 0.001)
            await test(world, Client(link, world, "tester"), link)
            group.cancel()
        await store.close()

    world.run(main)


def config_map(name: str, **data: str) -> core_v1.ConfigMap:
    return core_v1.ConfigMap(metadata=meta_v1.ObjectMeta(name=name, namespace="default"), data=data or None)


def test_every_verb() -> None:
    async def test(world: SimulatedWorld, client: Client, link: Link) -> None:
        maps = client[core_v1.ConfigMap]
        made = await maps.create(config_map("a", x="1"))
        assert (
            made.metadata.uid and made.metadata.managed_fields and made.metadata.managed_fields[0].manager == "tester"
        )
        assert (await maps.create(config_map("b"), dry_run=True)).metadata.name == "b"
        with pytest.raises(errors.NotFound):
            await maps.get("b", "default")
        with pytest.raises(errors.Invalid) as wrong:
            await maps.create(config_map("Not A Name"))
        assert wrong.value.details["causes"][0]["field"] == "metadata.name"
        changed = await maps.patch("a", "default", {"data": {"x": None, "y": "2"}})
        assert changed.data == {"y": "2"}
        await maps.patch("a", "default", [{"op": "add", "path": "/data/z", "value": "3"}], "json")
        with pytest.raises(errors.Conflict):
            await maps.update(made)
        with pytest.raises(errors.Conflict):
            await maps.delete("a", "default", uid="another")
        assert await maps.delete("a", "default") is None

    cluster(test)


def test_pages_and_collections() -> None:
    async def test(world: SimulatedWorld, client: Client, link: Link) -> None:
        maps = client[core_v1.ConfigMap]
        await maps.create(config_map("a", x="1"))
        for n in range(5):
            await maps.create(config_map(f"m{n}"), field_manager="five")
        first = await maps.list("default", limit=4, field_selector="metadata.name!=kube-root-ca.crt")
        rest = await maps.list(
            "default", limit=4, continue_=first.continue_, field_selector="metadata.name!=kube-root-ca.crt"
        )
        assert len(first.items) == 4 and [m.metadata.name for m in first.items + rest.items] == [
            "a",
            *(f"m{n}" for n in range(5)),
        ]
        await maps.delete_collection("default", field_selector="metadata.name!=a")
        assert [m.metadata.name for m in (await maps.list("default")).items] == ["a"]
        assert await maps.delete("a", "default") is None

    cluster(test)


def test_subresources() -> None:
    async def test(world: SimulatedWorld, client: Client, link: Link) -> None:
        tree = {"metadata": {"name": "web"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}  # fmt: skip
        deployments = client[apps_v1.Deployment]
        await client.tree(deployments.kind).create(tree, "default")
        await deployments.patch_status("web", "default", {"status": {"observedGeneration": 1}})
        assert (await deployments.get("web", "default")).status.observed_generation == 1
        scale = await deployments.get_sub("web", "default", "scale")
        scale["spec"]["replicas"] = 7
        await deployments.sub("web", "default", "scale", scale, method="PUT")
        assert (await deployments.get("web", "default")).spec.replicas == 7

    cluster(test)


def test_events_and_leases() -> None:
    async def test(world: SimulatedWorld, client: Client, link: Link) -> None:
        about = await client[core_v1.ConfigMap].create(config_map("a"))
        async with world.task_group() as group:
            recorders = [EventRecorder(client, world, name) for name in ("one", "two")]
            for recorder in recorders:
                group.start(recorder.run())
                for _ in range(3):
                    recorder.event(about, "Normal", "Tested", "well")  # all at one instant of virtual time
            leading: list[str] = []

            async def lead(name: str) -> None:
                async def work() -> None:
                    leading.append(name)
                    await asyncio.Event().wait()

                await LeaderElector(client, world, "kube-system", "it", name).run(work)

            first = group.start(lead("a"))
            await world.sleep(1)
            second = group.start(lead("b"))
            await world.sleep(60)
            events = (await client[core_v1.Event].list("default")).items
            assert sorted((e.source.component or "", e.count or 0) for e in events if e.source) == [
                ("one", 3),
                ("two", 3),
            ]
            assert leading == ["a"]
            first.cancel()
            await world.sleep(5)
            assert leading == ["a", "b"]
            second.cancel()
            group.cancel()

    cluster(test)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["put", "delete"]), st.integers(0, 4)),
        st.tuples(st.sampled_from(["cut", "mend", "wait", "long"]), st.just(0)),
    ),
    max_size=25,
)


class Differences:
    """The handler of an informer: adds up what it is told, name -> uid, and objects to what makes no sense."""

    def __init__(self) -> None:
        self.sum: dict[str, str] = {}

    def __call__(self, kind: str, old: core_v1.ConfigMap | None, new: core_v1.ConfigMap) -> None:
        name, uid = new.metadata.name or "", new.metadata.uid or ""
        assert (kind == "ADDED") == (name not in self.sum)
        assert kind == "ADDED" or self.sum[name] == (old or new).metadata.uid
        if kind == "DELETED":
            del self.sum[name]
        else:
            self.sum[name] = uid


async def happen(step: str, n: int, writer: ResourceClient[core_v1.ConfigMap], link: Link, world: SimulatedWorld) -> None:
    if step == "put":
        try:
            await writer.create(config_map(f"m{n}"))
        except errors.AlreadyExists:
            await writer.patch(f"m{n}", "default", {"data": {"at": str(world.now())}})
    elif step == "delete":
        try:
            await writer.delete(f"m{n}", "default")
        except errors.NotFound:
            pass
    elif step in ("cut", "mend"):
        link.cut() if step == "cut" else link.mend()
    else:
        await world.sleep(1 if step == "wait" else 200)


@settings(deadline=None, max_examples=40)
@given(STEPS)
def test_an_informer_ends_up_with_what_the_server_has(steps: list[tuple[str, int]]) -> None:
    """Whatever is written, cut off, compacted away meanwhile: told differences add up to the server's state."""

    async def test(world: SimulatedWorld, client: Client, link: Link) -> None:
        writer = Client(link.inner, world, "writer")[core_v1.ConfigMap]
        informer, differences = Informer(client[core_v1.ConfigMap], "default"), Differences()
        informer.add_handler(differences)
        async with world.task_group() as group:
            group.start(informer.run())
            for step, n in steps:
                await happen(step, n, writer, link, world)
            link.mend()
            await world.sleep(120)
            there = (await writer.list("default")).items
            here = {m.metadata.name: m.metadata.resource_version for m in informer.list()}
            assert here == {m.metadata.name: m.metadata.resource_version for m in there}
            assert differences.sum == {m.metadata.name: m.metadata.uid for m in there}
            group.cancel()

    cluster(test)
