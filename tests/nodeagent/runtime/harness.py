"""A runtime on a test node, and short ways to use it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from navarch.world import RealWorld
from nodeagent.images.store import ImageStore
from nodeagent.linux.cgroups import Cgroups, own_cgroup
from nodeagent.runtime.oci import OciRuntime
from nodeagent.runtime.runtime import Container, ContainerConfig, SandboxConfig

CIDR = "10.244.7.0/24"


@contextlib.asynccontextmanager
async def runtime(image_root: Path, data: Path, cgroup: str = "") -> AsyncIterator[OciRuntime]:
    cgroups = Cgroups(cgroup or own_cgroup().removesuffix("/sys"))
    oci = OciRuntime(RealWorld(), state="/run/navarch", data=data, images=ImageStore(image_root), cgroups=cgroups)
    await oci.start()
    await oci.configure(CIDR)
    try:
        yield oci
    finally:
        await oci.close()


def run(image_root: Path, data: Path, body: Callable[[OciRuntime], Awaitable[None]], cgroup: str = "") -> None:
    async def main() -> None:
        async with runtime(image_root, data, cgroup) as oci:
            await body(oci)

    RealWorld().run(main)


def sandbox_config(name: str = "pod", **more: Any) -> SandboxConfig:
    values: dict[str, Any] = {
        "pod_uid": f"uid-{name}",
        "namespace": "default",
        "name": name,
        "hostname": name,
        "log_directory": f"/run/logs/{name}",
        "cgroup": f"burstable/pod{name}",
    }
    return SandboxConfig(**{**values, **more})


async def config(oci: OciRuntime, *command: str, name: str = "main", image: str = "busybox", **more: Any) -> ContainerConfig:
    found = await oci.image(image)
    assert found is not None
    values: dict[str, Any] = {"name": name, "attempt": 0, "image": found.id, "command": command, "log_path": f"{name}/0.log"}
    return ContainerConfig(**{**values, **more})


async def until_exited(oci: OciRuntime, container_id: str, timeout: float = 10) -> Container:
    await asyncio.wait_for(oci._ended[container_id].wait(), timeout)
    container = await oci.container(container_id)
    assert container is not None and container.state == "exited"
    return container


async def result(oci: OciRuntime, sandbox_id: str, *command: str, **more: Any) -> tuple[Container, str]:
    """Runs a container to its end; its state and its log's text."""
    container_id = await oci.create_container(sandbox_id, await config(oci, *command, **more))
    await oci.start_container(container_id)
    container = await until_exited(oci, container_id)
    return container, log_text(container)


def log_text(container: Container) -> str:
    """Both streams of a log in CRI's format: time, stream, F (whole line) or P (part of one), text."""
    text = ""
    for line in Path(container.log_path).read_text().splitlines():
        _, _, tag, content = line.split(" ", 3)
        text += content + ("" if tag == "P" else "\n")
    return text


async def known(oci: OciRuntime, container_id: str) -> Container:
    container = await oci.container(container_id)
    assert container is not None
    return container


async def until(condition: Callable[[], bool], timeout: float = 10) -> None:
    """Waits for something outside that tells nobody."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)
