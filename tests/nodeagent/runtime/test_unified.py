"""The same on a host with cgroup2 alone. Controllers may be missing on a test machine whose version 1 has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from navarch.linux.cgroups import Limits
from nodeagent.linux.cgroups import Cgroups, own_cgroup
from nodeagent.runtime.oci import OciRuntime
from tests.nodeagent.runtime import harness
from tests.nodeagent.runtime.kinds import OCI


@pytest.mark.node(unified=True)
def test_containers_on_cgroup2(image_root: Path, tmp_path: Path) -> None:
    root = "/navarch-test-unified"

    async def body(oci: OciRuntime) -> None:
        cgroups = oci._cgroups
        assert cgroups.unified
        sandbox = await oci.run_sandbox(harness.sandbox_config())
        main = await oci.create_container(sandbox, await harness.config(oci, "sleep", "1000"))
        await oci.start_container(main)
        container = await harness.known(oci, main)
        assert f"0::{root}/pods/burstable/podpod/{main}" in Path(f"/proc/{container.pid}/cgroup").read_text()
        assert cgroups.processes(cgroups.path("burstable")) == [container.pid]
        assert await oci.exec_sync(main, ["sh", "-c", "cat /proc/self/cgroup | tail -n 1"], 5) == (0, b"0::/\n")
        await oci.remove_sandbox(sandbox)
        assert cgroups.remove("burstable")

    cgroups = Cgroups(root)
    try:
        cgroups.prepare()
        harness.run(OCI, image_root, tmp_path, body, root)
    finally:
        Path("/sys/fs/cgroup/cgroup.procs").write_text("0")
        assert cgroups.remove_path(root)


@pytest.mark.node
def test_limits(tmp_path: Path) -> None:
    cgroups = Cgroups(own_cgroup().removesuffix("/sys"))
    path = cgroups.ensure("guaranteed/pod1", Limits(512, 50_000, 100_000, 64 << 20, 100))
    if not cgroups.unified:
        found = {
            name: int((cgroups.v1[controller] / path.lstrip("/") / name).read_text())
            for controller, name in (
                ("cpu", "cpu.shares"), ("cpu", "cpu.cfs_quota_us"), ("memory", "memory.limit_in_bytes"), ("pids", "pids.max"),
            )
        }  # fmt: skip
        assert list(found.values()) == [512, 50_000, 64 << 20, 100]
    usage = cgroups.usage(path)
    assert usage is not None and usage.pids == 0 and usage.cpu == 0
    assert cgroups.ensure("guaranteed/pod1") == path
    assert cgroups.remove("guaranteed") and cgroups.usage(path) is None and cgroups.remove("guaranteed")
