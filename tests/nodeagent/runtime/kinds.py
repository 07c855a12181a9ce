"""The runtimes that a test of real containers runs on, and the node on which containerd runs for all tests of a session."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from navarch.world import RealWorld
from nodeagent.images.store import ImageStore
from nodeagent.linux.cgroups import Cgroups, own_cgroup
from nodeagent.runtime.base import RealRuntime
from nodeagent.runtime.cri.layout import containerd_socket
from nodeagent.runtime.oci import OciRuntime
from tests.nodeagent.node import Node, throwaway_node

RUN = Path("/run/navarch")
REPOSITORY = Path(__file__).parents[3]


@dataclass(frozen=True)
class Kind:
    """A runtime by its name, oci or cri. ``node``: where it runs; none: a throwaway node a test."""

    name: str
    node: Node | None = None

    @property
    def is_cri(self) -> bool:
        return self.name == "cri"

    def runtime(self, image_root: Path, data: Path, cgroup: str = "") -> RealRuntime:
        """Makes the runtime; inside the node."""
        world, images, cgroups = RealWorld(), ImageStore(image_root), Cgroups(cgroup or own_cgroup().removesuffix("/sys"))
        if not self.is_cri:
            return OciRuntime(world, state=RUN, data=data, images=images, cgroups=cgroups)
        from nodeagent.runtime.cri.runtime import CriRuntime

        return CriRuntime(
            world, socket=containerd_socket(RUN), run_dir=RUN, data=data, images=images, cgroups=cgroups
        )


OCI = Kind("oci")


def start_containerd(folder: Path) -> None:
    """Starts containerd on this node; returns before it answers."""
    RUN.mkdir(exist_ok=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    line = ["--root", str(folder / "root"), "--state", str(RUN / "containerd")]
    line += ["--socket", str(containerd_socket(RUN)), "--run-dir", str(RUN)]
    with open(folder / "containerd.log", "ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "nodeagent.runtime.cri.containerd", *line],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=REPOSITORY, start_new_session=True,
        )  # fmt: skip


def on_cri(node: Node) -> Kind:
    """The cri runtime. Fails, where its tests would hang, if grpcio is at work in this process: a fork would not have its
    threads. The tests' order (conftest.py) keeps that from happening."""
    threads = [Path(f"/proc/self/task/{thread}/comm").read_text().strip() for thread in os.listdir("/proc/self/task")]
    assert "event_engine" not in threads, "grpcio was used in this process: tests on cri must come first"
    return Kind("cri", node)


@contextlib.contextmanager
def containerd_node(folder: Path) -> Iterator[Node]:
    """A node on which containerd runs; its log is in ``folder``."""
    with throwaway_node() as node:
        node.run(lambda: start_containerd(folder))
        yield node


def forget_uses(image_root: Path) -> None:
    """After a test, whose node is gone or empty: nobody stands on an image any more."""
    for uses in (image_root / "uses").iterdir():
        shutil.rmtree(uses)


async def nothing_left(kind: Kind, image_root: Path, data: Path) -> None:
    """Removes what a test left on a node that others use after it. Fails if something cannot be removed, or is left after
    that."""
    shutil.rmtree("/run/logs", ignore_errors=True)
    runtime = kind.runtime(image_root, data)
    await runtime.start()
    try:
        for sandbox in await runtime.list_sandboxes():
            await runtime.remove_sandbox(sandbox.id)
        left = [str(path) for folder in (RUN / "cri/networks", Path("/run/netns")) for path in folder.glob("*")]
        left += [name for name in os.listdir("/sys/class/net") if name.startswith("nv") and len(name) == 14]
        left += [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if "/rootfs " in line]
        assert left == []
        async with asyncio.timeout(10):
            while runtime._cgroups.processes(runtime._cgroups.path("")):
                await asyncio.sleep(0.02)
    finally:
        await runtime.close()
