"""The provisioner of a lab's classes dies in each step of a volume's life; the next one gets through: what a claim holds is
not lost, and nothing is left of what nobody has.

Steps are what it asks of the machine and of the API server. It dies before one, in the middle of it (if it has one), or
after it, before it knows. Meanwhile the claim stays, is deleted, or chooses another node.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controllers.config import Config
from controllers.manager import Manager
from controllers.persistentvolume import localpath
from navarch.client.client import Client
from navarch.client.transport import InProcessTransport, Response, TransportError
from tests.controllers.cluster import MANAGER, Cluster, run_cluster
from tests.controllers.test_persistentvolumes import Claim, Volume, claim, claim_tree, class_tree, make

SELECTED = "volume.kubernetes.io/selected-node"
CLASSES = {"local-path": localpath.LOCAL, "local-loop": localpath.LOOP}
MAKING = {"local-path": ("make_folder",), "local-loop": ("make_image", "_tool")}
STEPS = ("note", "POST volume", "unnote")
GROWING = {"local-path": ("PATCH volume", "PATCH claim"), "local-loop": ("_enlarge", "PATCH claim", "PATCH volume")}
ENDING = ("remove_folder", "DELETE volume")
WHEN = ("before", "after")


def remove(path: str) -> None:
    shutil.rmtree(path) if os.path.isdir(path) else Path(path).unlink(missing_ok=True)


class Deaths:
    """The place at which the provisioner dies, once. ``died`` is set then; what was under way fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self.died = ("", ""), asyncio.Event()
        monkeypatch.setattr(localpath, "remove_folder", remove)  # on virtual time no program is run
        monkeypatch.setattr(localpath, "_tool", lambda *command: None)
        for name in ("make_folder", "make_image", "_tool", "remove_folder", "_enlarge"):
            monkeypatch.setattr(localpath, name, self.around(name, getattr(localpath, name)))
        for name, step in (("begin", "note"), ("end", "unnote")):
            monkeypatch.setattr(localpath.Notes, name, self.around(step, getattr(localpath.Notes, name)))

    def at(self, *place: str) -> None:
        if place == self.place and not self.died.is_set():
            self.died.set()
            raise OSError("the provisioner died")

    def around(self, step: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            self.at(step, "before")
            out = work(*arguments)
            self.at(step, "after")
            return out

        return run


class Dying(InProcessTransport):
    deaths: Deaths

    async def request(self, method: str, path: str, **more: Any) -> Response:
        kind = {"persistentvolumes": "volume", "persistentvolumeclaims": "claim"}
        step = f"{method} " + next((kind[part] for part in path.split("/") if part in kind), "other")
        try:
            self.deaths.at(step, "before")
            answer = await super().request(method, path, **more)
            self.deaths.at(step, "after")
        except OSError as error:
            raise TransportError(str(error)) from error
        return answer


class Life:
    """A cluster whose manager can be killed and started again."""

    def __init__(self, cluster: Cluster, root: Path, deaths: Deaths, group: Any) -> None:
        self.cluster, self.root, self.deaths, self.group = cluster, root, deaths, group
        self.begin()

    def begin(self) -> None:
        transport = Dying(self.cluster.server.app, MANAGER)
        transport.deaths = self.deaths
        config = Config().with_settings([f"local-path-root={self.root}"])
        self.task = self.group.start(Manager(Client(transport, self.cluster.world, "m"), self.cluster.world, config).run())

    async def kill(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])

    async def dies_at(self, place: tuple[str, str], act: Callable[[], Any]) -> None:
        self.deaths.place = place
        self.deaths.died.clear()
        await act()
        await asyncio.wait_for(self.deaths.died.wait(), 600)
        await self.kill()

    def files(self) -> list[str]:
        """What is below the root, but for folders of nodes."""
        found = [p for p in self.root.glob("*/*")] + [p for p in self.root.glob(".making/*")]
        return sorted({str(p.relative_to(self.root)) for p in found})

    async def bound(self) -> Path:
        async def check() -> str | None:
            now = await claim(self.cluster, "c")
            return now.spec.volume_name if now.status.phase == "Bound" else None

        volume = await self.cluster.client[Volume].get(await self.cluster.until(check))
        assert volume.spec.local is not None
        return Path(volume.spec.local.path)

    async def gone(self) -> None:
        async def check() -> bool:
            return not (await self.cluster.client[Volume].list()).items and not self.files()

        await self.cluster.until(check)

    async def delete(self) -> None:
        await self.cluster.client[Claim].delete("c", "default")


def lives(root: Path, monkeypatch: pytest.MonkeyPatch, kind: str, body: Callable[[Life], Any]) -> None:
    async def main(cluster: Cluster) -> None:
        async with cluster.world.task_group() as group:
            life = Life(cluster, root, Deaths(monkeypatch), group)
            await cluster.until(cluster.furnished)
            await make(cluster, class_tree(kind, CLASSES[kind], allowVolumeExpansion=True))
            await body(life)
            await life.kill()
            group.cancel()

    run_cluster(main, managed=False)


def wanted(kind: str, size: str = "8Mi") -> dict[str, Any]:
    return claim_tree("c", size, storageClassName=kind)


async def dies_while_it_makes(life: Life, kind: str, place: tuple[str, str]) -> None:
    """Three times; meanwhile the claim stays, chooses another node, is deleted."""
    cluster = life.cluster
    for meanwhile in ("stays", "moves", "goes"):
        await life.dies_at(place, lambda: make(cluster, wanted(kind)))
        if meanwhile == "moves":
            await cluster.client[Claim].patch("c", "default", {"metadata": {"annotations": {SELECTED: "n3"}}})
        if meanwhile == "goes":
            await life.delete()
            # Nobody is there to take it off.
            await cluster.client[Claim].patch("c", "default", {"metadata": {"finalizers": None}})
        life.begin()
        if meanwhile != "goes":
            path = await life.bound()
            await cluster.world.sleep(2)
            assert life.files() == [str(path.relative_to(life.root))], f"{place}, {meanwhile}: one volume, and no note"
            await life.delete()
        await life.gone()


@pytest.mark.parametrize("kind", CLASSES)
def test_dies_while_it_makes_a_volume(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(life: Life) -> None:
        for step in (*MAKING[kind], *STEPS):
            for when in WHEN:
                await dies_while_it_makes(life, kind, (step, when))

    lives(tmp_path, monkeypatch, kind, body)


async def dies_while_it_grows(life: Life, kind: str, place: tuple[str, str]) -> None:
    cluster = life.cluster
    await make(cluster, wanted(kind))
    path = await life.bound()
    data = path / "data" if path.is_dir() else path
    if path.is_dir():
        data.write_text("precious")
    before = data.read_bytes()
    grow = {"spec": {"resources": {"requests": {"storage": "16Mi"}}}}
    await life.dies_at(place, lambda: cluster.client[Claim].patch("c", "default", grow))
    life.begin()

    async def has_grown() -> bool:
        volume = (await cluster.client[Volume].list()).items[0]
        return volume.spec.capacity == {"storage": "16Mi"}

    await cluster.until(has_grown)
    assert data.read_bytes()[: len(before)] == before and (path.is_dir() or data.stat().st_size == 16 << 20), place


@pytest.mark.parametrize("kind", CLASSES)
def test_dies_while_a_volume_grows_or_goes(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(life: Life) -> None:
        ends = itertools.cycle((step, when) for step in ENDING for when in WHEN)
        for step in GROWING[kind]:
            for when in WHEN:
                await dies_while_it_grows(life, kind, (step, when))
                await life.dies_at(next(ends), life.delete)
                life.begin()
                await life.gone()

    lives(tmp_path, monkeypatch, kind, body)


def test_what_somebody_has_used_is_left_alone(tmp_path: Path) -> None:
    """The object may be taken away to keep the data, while there is no provisioner to see it."""
    notes = localpath.Notes(tmp_path)
    for name, path in (("pvc-1", tmp_path / "n1/pvc-1"), ("pvc-2", tmp_path / "n1/pvc-2.img"), ("pvc-3", tmp_path / "etc")):
        notes.begin(name, str(path))
    localpath.make_folder(str(tmp_path / "n1/pvc-1"))
    (tmp_path / "n1/pvc-1/file").write_text("x")
    localpath.make_image(str(tmp_path / "n1/pvc-2.img"), 8 << 20)
    assert localpath.is_unused(tmp_path / "n1/pvc-2.img")
    with (tmp_path / "n1/pvc-2.img").open("r+b") as image:  # as mount(2) would
        image.seek(localpath.LAST_MOUNT)
        image.write(b"\1\0\0\0")
    (tmp_path / "etc").mkdir()
    for name in notes.names():
        notes.undo(name)
    assert (tmp_path / "n1/pvc-1/file").exists() and (tmp_path / "n1/pvc-2.img").exists() and (tmp_path / "etc").exists()
    assert notes.names() == []
