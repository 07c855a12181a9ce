"""Volumes that are images, mounted for real: read-only, not executable, there for as long as the pod."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.runtime.oci import OciRuntime
from nodeagent.runtime.runtime import Mount, RuntimeError_
from tests.nodeagent.runtime import harness
from tests.nodeagent.runtime.kinds import OCI

pytestmark = pytest.mark.node

LOOK = "exec 2>&1; ls /img/bin/busybox && ! touch /img/x && ! /img/bin/busybox true && echo right"


async def use(oci: OciRuntime) -> tuple[str, Path, str]:
    """A pod that looks into an image; its sandbox, the folder, the image's id."""
    sandbox = await oci.run_sandbox(harness.sandbox_config())
    image = await oci.image("busybox")
    assert image is not None
    folder = await oci.image_volume("uid-pod", "img", image.id)
    mounts = [Mount(str(folder), "/img", read_only=True, executable=False)]
    _, text = await harness.result(oci, sandbox, "sh", "-c", LOOK, mounts=mounts)
    assert text.startswith("/img/bin/busybox\n") and text.endswith("\nright\n"), text
    return sandbox, folder, image.id


def test_image_volumes(image_root: Path, tmp_path: Path) -> None:
    pods: list[tuple[str, Path, str]] = []

    async def first(oci: OciRuntime) -> None:
        pods.append(await use(oci))
        for container in await oci.list_containers():
            await oci.remove_container(container.id)
        with pytest.raises(RuntimeError_, match="not found"):
            await oci.image_volume("uid-pod", "other", "sha256:" + "0" * 64)

    async def second(oci: OciRuntime) -> None:
        """After a restart of the agent: mounted still, and nobody removes the image."""
        sandbox, _, image = pods[0]
        again = await oci.image_volume("uid-pod", "img", image)
        assert (again / "bin" / "busybox").exists()
        with pytest.raises(RuntimeError_, match="in use"):
            await oci.remove_image(image)
        await oci.remove_sandbox(sandbox)
        assert not again.exists() and image not in oci._images.used()

    harness.run(OCI, image_root, tmp_path, first)
    harness.run(OCI, image_root, tmp_path, second)
