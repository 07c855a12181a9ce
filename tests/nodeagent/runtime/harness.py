"""A runtime on a test node, and short ways to use it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from navarch.world import RealWorld
from nodeagent.runtime.runtime import Container, ContainerConfig, SandboxConfig
from tests.nodeagent.runtime.kinds import Kind

_attempts = itertools.count()
CIDR = "10.244.7.0/24"


@contextlib.asynccontextmanager
async def runtime(kind: Kind, image_root: Path, data: Path, cgroup: str = "") -> AsyncIterator[Any]:
    made = kind.runtime(image_root, data, cgroup)
    await made.start()
    await made.configure(CIDR)
    try:
        yield made
    finally:
        await made.close()


def run(kind: Kind, image_root: Path, data: Path, body: Callable[[Any], Awaitable[None]], cgroup: str = "") -> None:
    async def main() -> None:
        async with runtime(kind, image_root, data, cgroup) as made:
            await body(made)

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


async def config(made: Any, *command: str, name: str = "main", image: str = "busybox", **more: Any) -> ContainerConfig:
    found = await made.image(image)
    assert found is not None
    attempt = next(_attempts)  # a name and an attempt are one container's for ever
    values: dict[str, Any] = {"name": name, "attempt": attempt, "image": found.id, "command": command}
    values["log_path"] = f"{name}/{attempt}.log"
    return ContainerConfig(**{**values, **more})


async def until_exited(made: Any, container_id: str, timeout: float = 10) -> Container:
    await asyncio.wait_for(made._ended[container_id].wait(), timeout)
    container = await made.container(container_id)
    assert container is not None and container.state == "exited"
    return container


async def result(made: Any, sandbox_id: str, *command: str, **more: Any) -> tuple[Container, str]:
    """Runs a container to its end; its state and its log's text."""
    container_id = await made.create_container(sandbox_id, await config(made, *command, **more))
    await made.start_container(container_id)
    container = await until_exited(made, container_id)
    return container, log_text(container)


def log_text(container: Container) -> str:
    """Both streams of a log in CRI's format: time, stream, F (whole line) or P (part of one), text."""
    text = ""
    for line in Path(container.log_path).read_text().splitlines():
        _, _, tag, content = line.split(" ", 3)
        text += content + ("" if tag == "P" else "\n")
    return text


async def known(made: Any, container_id: str) -> Container:
    container = await made.container(container_id)
    assert container is not None
    return container


async def until(condition: Callable[[], bool], timeout: float = 10) -> None:
    """Waits for something outside that tells nobody."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)
