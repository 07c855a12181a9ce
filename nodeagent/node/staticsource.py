"""The node's folder of static pods: looks at its files, runs what stands in them, and keeps their mirrors.

A pod whose file is gone ends; one whose file was changed ends before its successor starts. A mirror that somebody deletes
is made anew. While the API server is away the pods run all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from navarch.api.errors import AlreadyExists, Conflict, NotFound, StatusError
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.transport import TransportError
from navarch.world import Backoff, World
from nodeagent.config import Config
from nodeagent.pods import staticpods
from nodeagent.pods.worker import PodWorker

log = logging.getLogger(__name__)
PERIOD = 1.0  # seconds between two looks at the folder
MAX_FILE = 10 * 1024 * 1024  # bytes, as kubelet has it
UNREADABLE = (-1, -1)  # the stamp of a file that cannot be read
Key = tuple[str, str]  # namespace and name


class Node(Protocol):
    """The agent, as far as it is needed here."""

    config: Config
    world: World
    client: Client

    @property
    def node_object(self) -> core_v1.Node | None: ...
    def workers(self) -> list[PodWorker]: ...
    def add_static(self, pod: core_v1.Pod) -> None: ...
    def forget_status(self, uid: str) -> None: ...


class StaticPods:
    """``tell(reason, message)`` records a warning about the node. ``pods`` are those of the files, by uid."""

    def __init__(self, node: Node, tell: Callable[[str, str], None]) -> None:
        self._node, self._tell = node, tell
        self._folder = Path(node.config.static_pod_path)
        self._stamps: dict[str, tuple[int, int]] = {}  # file -> its time and size when it was read
        self._by_file: dict[str, core_v1.Pod] = {}
        self.pods: dict[str, core_v1.Pod] = {}
        self._mirrors: dict[Key, core_v1.Pod] = {}  # mirror pods of this node, as the API server has them
        self.synced = False  # whether these are all
        self._backoff = Backoff(node.world, first=1.0, most=30.0)
        self._retry_at = 0.0

    async def run(self) -> None:
        """Looks at the folder again and again, until cancelled."""
        while True:
            await self._read()
            self._run()
            await self._keep_mirrors()
            await self._node.world.sleep(PERIOD)

    # --- files ---

    async def _read(self) -> None:
        files = await self._node.world.blocking(_changed_files, self._folder, self._stamps)
        if files is None:
            return  # the folder cannot be read: what runs goes on
        stamps, contents = files
        now = self._node.world.now()
        self._by_file = {file: pod for file, pod in self._by_file.items() if file in stamps}
        for file, text in contents.items():
            try:
                if text is None:
                    raise staticpods.BadManifest("it cannot be read, or is too large")
                self._by_file[file] = staticpods.read(text, file, self._node.config.node_name, now)
            except staticpods.BadManifest as error:
                self._by_file.pop(file, None)
                log.error("Could not process manifest file %s: %s", file, error)
                self._tell("InvalidStaticPod", f"Could not process manifest file {file}: {error}")
        self._stamps = stamps
        self.pods = {}
        keys: dict[Key, str] = {}
        for file, pod in sorted(self._by_file.items()):
            first, uid = keys.setdefault(_key(pod), file), pod.metadata.uid or ""
            if first == file and uid not in self.pods:
                self.pods[uid] = pod
            elif file in contents:
                why = f"{first} has this name already" if first != file else f"another file has the uid {uid} already"
                log.error("%s: %s", file, why)
                self._tell("InvalidStaticPod", f"Could not process manifest file {file}: {why}")

    # --- pods ---

    def _run(self) -> None:
        """Ends what no file names any more, and starts what is not here yet, once its predecessor is gone."""
        workers = {worker.uid: worker for worker in self._node.workers()}
        statics = [worker for worker in workers.values() if worker.is_static]
        for worker in statics:
            if worker.uid not in self.pods and not worker.is_gone:
                worker.mark_gone()
        occupied = {_key(worker.pod) for worker in statics}
        for uid, pod in self.pods.items():
            if uid not in workers and _key(pod) not in occupied:
                self._node.add_static(pod)

    # --- mirrors ---

    def observe(self, pod: core_v1.Pod, is_gone: bool) -> None:
        """The API server has this mirror pod, or has it no more."""
        if is_gone:
            self._mirrors.pop(_key(pod), None)
            self._node.forget_status(pod.metadata.uid or "")
        else:
            self._mirrors[_key(pod)] = pod
        for worker in self._node.workers():
            if worker.is_static and _key(worker.pod) == _key(pod):
                worker.wake()

    def mirror_of(self, pod: core_v1.Pod) -> core_v1.Pod | None:
        """The API object that shows a static pod."""
        shown = self._mirrors.get(_key(pod))
        return shown if shown is not None and staticpods.mirrors(shown, pod) else None

    async def _keep_mirrors(self) -> None:
        node, now = self._node.node_object, self._node.world.monotonic()
        if not self.synced or node is None or now < self._retry_at:
            return
        try:
            await self._remove_mirrors()
            for pod in list(self.pods.values()):
                if _key(pod) not in self._mirrors:
                    await self._create(staticpods.mirror(pod, node))
            self._backoff.reset()
        except (StatusError, TransportError) as error:
            log.warning("mirror pods: %s", error)
            self._retry_at = now + self._backoff.next()

    async def _remove_mirrors(self) -> None:
        """Deletes mirrors of other pods, of none, and those that somebody wants to delete."""
        by_key = {_key(pod): pod for pod in self.pods.values()}
        running = {_key(worker.pod) for worker in self._node.workers() if worker.is_static}
        for key, shown in list(self._mirrors.items()):
            pod = by_key.get(key)
            if (pod is not None and staticpods.mirrors(shown, pod)) or (pod is None and key in running):
                continue  # one whose pod ends is there until it has ended
            client = self._node.client[core_v1.Pod]
            try:
                await client.delete(key[1], key[0], grace_period_seconds=0, uid=shown.metadata.uid)
            except (NotFound, Conflict):
                pass
            self._mirrors.pop(key, None)

    async def _create(self, shown: core_v1.Pod) -> None:
        try:
            created = await self._node.client[core_v1.Pod].create(shown, shown.metadata.namespace)
        except (AlreadyExists, Conflict):
            return  # the informer will tell
        self.observe(created, is_gone=False)


def _key(pod: core_v1.Pod) -> Key:
    return pod.metadata.namespace or "", pod.metadata.name or ""


def _changed_files(
    folder: Path, before: dict[str, tuple[int, int]]
) -> tuple[dict[str, tuple[int, int]], dict[str, bytes | None]] | None:
    """Stamps of all files of the folder (or of the one file that the path is), and what stands in those that changed (None
    where it cannot be read). It blocks. None if the folder cannot be read; a folder that is not there is empty."""
    try:
        paths = sorted(folder.iterdir()) if folder.is_dir() else [folder] if folder.exists() else []
    except OSError as error:
        log.error("static pods: %s", error)
        return None
    stamps: dict[str, tuple[int, int]] = {}
    contents: dict[str, bytes | None] = {}
    for path in paths:
        try:
            if path.name.startswith(".") or not path.is_file():
                continue
            stat = path.stat()
            stamps[str(path)] = stamp = stat.st_mtime_ns, stat.st_size
            if before.get(str(path)) != stamp:
                contents[str(path)] = path.read_bytes() if stat.st_size <= MAX_FILE else None
        except OSError:
            stamps[str(path)] = UNREADABLE
            if before.get(str(path)) != UNREADABLE:
                contents[str(path)] = None
    return stamps, contents
