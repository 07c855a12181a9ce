"""Containers for real: crun, conmon, overlayfs, pod networks, inside a throwaway node."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from nodeagent.runtime.oci import OciRuntime
from nodeagent.runtime.runtime import RuntimeError_
from tests.nodeagent.runtime import harness
from tests.nodeagent.runtime.kinds import OCI

pytestmark = pytest.mark.node


def test_attach_while_it_ends(image_root: Path, tmp_path: Path) -> None:
    """The monitor takes its socket away a moment before the agent knows of the end."""

    async def body(oci: OciRuntime) -> None:
        sandbox = await oci.run_sandbox(harness.sandbox_config())
        brief = await oci.create_container(sandbox, await harness.config(oci, "sleep", "100", name="brief"))
        await oci.start_container(brief)
        (oci._directories.bundle(brief) / "attach").unlink()
        with pytest.raises(RuntimeError_, match=f"container {brief} is not running"):
            await oci.attach(brief, stdin=False)

    harness.run(OCI, image_root, tmp_path, body)


class Abandoned(NamedTuple):
    """Ids of a sandbox and of its containers that a runtime has left."""

    sandbox: str
    goes_on: str
    ends: str
    orphan: str
    created: str


RECOVERED = {
    "goes-on": ("running", 0), "ends": ("exited", 137), "orphan": ("exited", 137), "created": ("created", 0)
}  # fmt: skip


async def abandon(image_root: Path, folder: Path) -> Abandoned:
    """Runs four containers in a runtime that goes; then one of them and the monitor of another are killed."""
    async with harness.runtime(OCI, image_root, folder) as first:
        sandbox = await first.run_sandbox(harness.sandbox_config(share_process_namespace=True))
        goes_on, ends, orphan, created = [
            await first.create_container(sandbox, await harness.config(first, "sleep", "1000", name=name))
            for name in ("goes-on", "ends", "orphan", "created")
        ]
        for container_id in (goes_on, ends, orphan):
            await first.start_container(container_id)
        pid, monitor = (await harness.known(first, ends)).pid, first._containers[orphan].monitor
    # nobody listens now
    os.kill(pid, signal.SIGKILL)
    os.kill(monitor, signal.SIGKILL)
    (folder / "containers/stray/upper").mkdir(parents=True)
    await harness.until(lambda: Path(f"/run/navarch/exits/{ends}").exists())
    return Abandoned(sandbox, goes_on, ends, orphan, created)


async def adopts(second: OciRuntime, before: Abandoned, folder: Path) -> None:
    """The runtime shows what is there as it is, and removes what is nobody's."""
    assert {c.name: (c.state, c.exit_code) for c in await second.list_containers()} == RECOVERED
    await harness.until(lambda: not (folder / "containers/stray").exists())
    sandboxes = await second.list_sandboxes()
    assert [(s.id, s.ready, s.ip) for s in sandboxes] == [(before.sandbox, True, "10.244.7.2")]
    assert sandboxes[0].config == harness.sandbox_config(share_process_namespace=True)


async def watches_what_it_adopted(second: OciRuntime, before: Abandoned) -> None:
    os.kill(second._containers[before.created].monitor, signal.SIGKILL)  # conmon killed while we watch
    assert (await harness.until_exited(second, before.created)).exit_code == 137
    os.kill((await harness.known(second, before.goes_on)).pid, signal.SIGKILL)
    assert (await harness.until_exited(second, before.goes_on)).exit_code == 137


async def test_recovery(image_root: Path, tmp_path: Path) -> None:
    """A second runtime finds what the first one left running, and what ended meanwhile."""
    before = await abandon(image_root, tmp_path)
    async with harness.runtime(OCI, image_root, tmp_path) as second:
        await adopts(second, before, tmp_path)
        await second.start_container(before.created)
        other = await second.run_sandbox(harness.sandbox_config("other"))
        assert (await second.list_sandboxes())[1].ip == "10.244.7.3"
        await watches_what_it_adopted(second, before)
        for sandbox_id in (before.sandbox, other):
            await second.remove_sandbox(sandbox_id)
        assert second._cgroups.processes(second._cgroups.path("")) == []
    state = Path("/run/navarch")
    left = [str(p) for name in ("sandboxes", "containers", "exits", "crun") for p in (state / name).iterdir()]
    assert left == [] and list((tmp_path / "containers").iterdir()) == []
    assert "/run/navarch" not in Path("/proc/self/mounts").read_text()
