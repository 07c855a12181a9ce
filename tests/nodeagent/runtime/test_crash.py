"""The agent dies at any moment (kill -9): the next one finds what is there, and can remove all of it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from nodeagent.runtime.oci import OciRuntime
from tests.nodeagent.runtime import harness
from tests.nodeagent.runtime.kinds import OCI

STATE = Path("/run/navarch")


def left() -> list[str]:
    found = [str(p) for name in ("sandboxes", "containers", "exits", "crun") for p in (STATE / name).iterdir()]
    return found + [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if str(STATE) in line]


async def busy(oci: OciRuntime) -> None:
    """Makes and removes sandboxes and containers of two pods without end."""

    async def pod(name: str) -> None:
        while True:
            share = name == "b"
            sandbox = await oci.run_sandbox(harness.sandbox_config(name, share_process_namespace=share))
            config = await harness.config(oci, "sleep", "1000")
            container = await oci.create_container(sandbox, config)
            await oci.start_container(container)
            await oci.stop_container(container, 0)
            await oci.remove_container(container)
            container = await oci.create_container(sandbox, config)
            await oci.start_container(container)
            await oci.remove_sandbox(sandbox)

    await asyncio.gather(pod("a"), pod("b"))


async def recover(oci: OciRuntime) -> None:
    """Uses whatever the agent before left, and removes all of it."""
    for container in await oci.list_containers():
        if container.state == "created":
            await oci.start_container(container.id)
        elif container.state == "running":
            assert await oci.exec_sync(container.id, ["true"], 10) == (0, b"")
    for sandbox in await oci.list_sandboxes():
        await oci.remove_sandbox(sandbox.id)
    for container in await oci.list_containers():
        await oci.remove_container(container.id)
    assert oci._cgroups.processes(oci._cgroups.path("")) == []
    assert left() == []


async def until_empty(folder: Path) -> None:
    async with asyncio.timeout(30):  # what a container wrote is removed behind everybody's back
        while list(folder.iterdir()):
            await asyncio.sleep(0.02)


@pytest.mark.node
def test_killed_at_any_moment(image_root: Path, tmp_path: Path) -> None:
    async def recover_all(oci: OciRuntime) -> None:
        await recover(oci)
        await until_empty(tmp_path / "containers")

    for delay in range(12):
        pid = os.fork()
        if pid == 0:
            try:
                harness.run(OCI, image_root, tmp_path, busy)
            finally:
                os._exit(1)
        time.sleep(0.05 + delay * 0.017)
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        harness.run(OCI, image_root, tmp_path, recover_all)
    assert not [name for name in os.listdir("/sys/class/net") if len(name) == 14 and name.startswith("nv")]
