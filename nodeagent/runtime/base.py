"""The part that the runtimes of real containers share: threads for blocking work, events, images from the store, counters.

Cancelling a call does not cut its work short: the thread finishes its step first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from navarch.linux.cgroups import Limits
from navarch.world import World
from nodeagent.images import collection
from nodeagent.images.credentials import Login
from nodeagent.images.store import ImageStore
from nodeagent.linux.cgroups import Cgroups, NodeUsage, Usage
from nodeagent.network.isolation import wait_isolated
from nodeagent.runtime import storedimages
from nodeagent.runtime.runtime import (
    CollectedImages,
    Event,
    Image,
    ImagePolicy,
    Resources,
    RuntimeError_,
    SandboxConfig,
)

T = TypeVar("T")


class ImagePuller(Protocol):
    """Brings an image into the store."""

    async def pull(self, image: str, logins: Sequence[Login] = ()) -> None:
        """Raises RuntimeError_ (InvalidImageName, ErrImagePull)."""
        ...


class RealRuntime:
    """Base of the runtimes of real containers. ``policy_socket``: where the proxy hears of new pods, "" for nowhere."""

    def __init__(
        self,
        world: World,
        images: ImageStore,
        cgroups: Cgroups,
        puller: ImagePuller | None = None,
        policy_socket: str | Path = "",
        threads: int = 6,
    ) -> None:
        self._world, self._images, self._cgroups, self._puller = world, images, cgroups, puller
        self._policy_socket = Path(policy_socket) if policy_socket else None
        self._pool = ThreadPoolExecutor(threads, "runtime")
        self._subscribers: list[asyncio.Queue[Event | None]] = []
        self._tasks: dict[asyncio.Task[None], None] = {}

    async def _call(self, function: Callable[..., T], *arguments: Any, pool: ThreadPoolExecutor | None = None) -> T:
        """Runs blocking work in a thread; a cancelled caller waits for it all the same."""
        future = asyncio.get_running_loop().run_in_executor(pool or self._pool, function, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Work that an end of a process causes; ``close`` waits for it."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks[task] = None
        task.add_done_callback(lambda t: self._tasks.pop(t, None))

    # -- events

    def _tell(self, event: Event | None) -> None:
        """Sends an event to all who listen; None ends the streams."""
        for queue in self._subscribers:
            queue.put_nowait(event)

    async def events(self) -> AsyncIterator[Event]:
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._subscribers.append(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._subscribers.remove(queue)

    async def _wait_isolated(self, config: SandboxConfig, address: str) -> None:
        if address and self._policy_socket is not None:
            await wait_isolated(self._policy_socket, config.namespace, config.name, address)

    # -- images

    async def image(self, reference: str) -> Image | None:
        return await self._call(storedimages.find, self._images, reference)

    async def pull(self, reference: str, logins: Sequence[Login] = ()) -> Image:
        if self._puller is None:
            raise RuntimeError_("ErrImagePull", f'failed to pull image "{reference}": this node pulls no images')
        await self._puller.pull(reference, logins)
        image = await self.image(reference)
        if image is None:
            raise RuntimeError_("ErrImagePull", f'failed to pull image "{reference}": it was removed at once')
        return image

    async def images(self) -> list[Image]:
        return await self._call(storedimages.everything, self._images)

    async def remove_image(self, image_id: str) -> None:
        await self._call(storedimages.remove, self._images, image_id)

    async def collect_images(self, policy: ImagePolicy) -> CollectedImages:
        return await self._call(collection.collect, self._images, policy, self._world.now())

    # -- limits and usage

    def _check_room(self, cgroup: str, desired: Resources) -> None:
        """More memory in use than is to be allowed: the kernel would kill. Blocks; raises RuntimeError_ (ResizeError)."""
        used = self._cgroups.usage(cgroup)
        if used is not None and desired.memory_limit and used.memory > desired.memory_limit:
            text = f"attempting to set memory limit ({desired.memory_limit}) below current usage ({used.memory})"
            raise RuntimeError_("ResizeError", text)

    async def _resize(self, cgroup: str, desired: Resources) -> None:
        """Changes the limits of a cgroup (an absolute path). Raises RuntimeError_ (ResizeError)."""
        limits = Limits(desired.cpu_shares, desired.cpu_quota, desired.cpu_period, desired.memory_limit)

        def work() -> None:
            self._check_room(cgroup, desired)
            try:
                self._cgroups.change_limits(cgroup, limits)
            except OSError as error:
                raise RuntimeError_("ResizeError", f"cannot set the limits of {cgroup}: {error.strerror}") from None

        await self._call(work)

    async def _usage(self, pods: Mapping[str, str], containers: Mapping[str, str]) -> NodeUsage:
        """Counters of the node, its pods by uid and its containers by id, of whose cgroups the paths are given."""

        def read(paths: Mapping[str, str]) -> dict[str, Usage]:
            return {key: used for key, path in paths.items() if (used := self._cgroups.usage(path)) is not None}

        def work() -> NodeUsage:
            return NodeUsage(self._cgroups.usage(self._cgroups.root), read(pods), read(containers))

        return await self._call(work)
