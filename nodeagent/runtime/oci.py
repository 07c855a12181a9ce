"""The default runtime: crun under conmon, overlayfs, images from the shared store. No daemon.

This is the asyncio side: it keeps the records in memory, serialises what happens to one sandbox or container, learns of
ends through pidfds, and hands blocking work (engine.py) to a few threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from navarch.linux import syscalls
from navarch.world import World
from nodeagent.images.store import ImageStore
from nodeagent.linux.cgroups import Cgroups, NodeUsage
from nodeagent.linux.diskusage import DiskUse, Meter
from nodeagent.network.network import PodNetwork
from nodeagent.runtime import portforward, process, rootfs, sandboxes, spec
from nodeagent.runtime.base import ImagePuller, RealRuntime
from nodeagent.runtime.conmon import Crun
from nodeagent.runtime.engine import Engine
from nodeagent.runtime.execution import start_exec
from nodeagent.runtime.runtime import (
    CREATED,
    EXITED,
    RUNNING,
    Container,
    ContainerConfig,
    Event,
    Process,
    Resources,
    RuntimeError_,
    Sandbox,
    SandboxConfig,
)
from nodeagent.runtime.state import ContainerRecord, Directories, SandboxRecord, load_containers, load_sandboxes
from nodeagent.runtime.watcher import Watcher

log = logging.getLogger(__name__)

OUTPUT_LIMIT = 16 << 10
SWEEP_PATIENCE = 1.0  # seconds that an end waits for removals; the next start goes on with them
KILL_PATIENCE = 30.0  # seconds until we say that a killed container does not die


class OciRuntime(RealRuntime):
    """``state`` is a directory on the node's /run, ``data`` one on a disk (writable layers; emptied of strays)."""

    name = "oci"
    handlers: tuple[str, ...] = ("", "crun")

    def __init__(
        self,
        world: World,
        *,
        state: str | Path,
        data: str | Path,
        images: ImageStore,
        cgroups: Cgroups,
        mtu: int = 0,
        puller: ImagePuller | None = None,
        seccomp_directory: str | Path | None = None,
        threads: int = 6,
        policy_socket: str | Path = "",
    ) -> None:
        super().__init__(world, images, cgroups, puller, policy_socket, threads)
        # An overlay cannot be the upper side of another: in a container that has no real disk, write to /run.
        on_overlay = syscalls.filesystem_type(_existing(Path(data))) == syscalls.OVERLAY_MAGIC
        self._directories = Directories(Path(state), Path(data).absolute(), diskless=on_overlay)
        self._network = PodNetwork(mtu)
        self._crun = Crun(self._directories.crun, self._directories.programs)
        profiles = Path(seccomp_directory) if seccomp_directory else None
        self._engine = Engine(self._directories, images, cgroups, self._network, self._crun, world.now, profiles)
        self._sweepers = ThreadPoolExecutor(2, "sweep")  # what containers wrote may take long to remove: nobody waits
        self._stopping = threading.Event()
        self._meter = Meter(world.monotonic)
        self._watcher = Watcher()
        self._sandboxes: dict[str, SandboxRecord] = {}
        self._containers: dict[str, ContainerRecord] = {}
        self._inside: dict[str, dict[str, None]] = {}  # sandbox id -> its containers' ids
        self._locks: dict[str, asyncio.Lock] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._execs = 0
        self.version = ""

    # -- plumbing

    def _lock(self, key: str) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())

    def _emit(self, kind: str, container_id: str, sandbox_id: str) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        self._tell(Event(kind, container_id, sandbox.config.pod_uid if sandbox else ""))

    async def start(self) -> None:
        output = await self._call(_version, self._crun)
        self.version = output.split()[2]
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # we hold a descriptor a container
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        await self._call(self._directories.make)
        sandboxes = await self._call(load_sandboxes, self._directories)
        containers = await self._call(load_containers, self._directories)
        await self._call(self._engine.end_stragglers, sandboxes, containers)
        for recorded in sandboxes:
            sandbox = await self._call(self._engine.check_sandbox, recorded)
            if sandbox is None:
                continue
            self._sandboxes[sandbox.id] = sandbox
            if sandbox.ip and not sandbox.stopped:
                self._network.pool.reserve([sandbox.ip])
            self._watch_pause(sandbox)
        for record in containers:
            container = await self._call(self._engine.tidy_created, record)
            if container is None:
                continue
            self._containers[container.id] = container
            self._inside.setdefault(container.sandbox_id, {})[container.id] = None
            self._ended[container.id] = asyncio.Event()
            if container.state == EXITED:
                self._ended[container.id].set()
            if container.state != RUNNING:
                continue
            if syscalls.start_time(container.monitor) != container.monitor_start:
                await self._finish(container.id)
            else:
                self._watch(container)
        pods = frozenset(record.config.pod_uid for record in self._sandboxes.values())
        for remains in await self._call(self._engine.sweep, frozenset(self._containers), pods):
            self._sweep(remains)

    def _sweep(self, remains: Path) -> None:
        """Removes a directory that nobody needs, behind everybody's back. What a crash leaves, the next start sweeps."""

        async def work() -> None:
            try:
                await self._call(rootfs.discard, remains, self._stopping.is_set, pool=self._sweepers)
            except OSError as error:
                log.error("removing %s: %s", remains, error)

        self._spawn(work())

    async def close(self) -> None:
        self._watcher.close()
        self._tell(None)
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=SWEEP_PATIENCE)
        self._stopping.set()
        while self._tasks:
            await asyncio.wait(list(self._tasks))
        self._pool.shutdown()
        self._sweepers.shutdown()
        self._network.close()
        self._crun.close()

    async def configure(self, pod_cidr: str) -> None:
        await self._call(self._network.configure, pod_cidr)

    # -- sandboxes

    async def run_sandbox(self, config: SandboxConfig) -> str:
        sandbox_id = self._new_id()
        async with self._lock(sandbox_id):
            record = await self._call(self._engine.reserve_sandbox, sandbox_id, config)
            self._sandboxes[sandbox_id] = record
            try:
                record = await self._call(self._engine.make_sandbox, record)
            except RuntimeError_:
                del self._sandboxes[sandbox_id]
                raise
            self._sandboxes[sandbox_id] = record
            self._watch_pause(record)
        await self._wait_isolated(config, record.ip)
        return sandbox_id

    def _new_id(self) -> str:
        return f"{self._world.random.getrandbits(128):032x}"

    def _watch_pause(self, record: SandboxRecord) -> None:
        def ended() -> None:
            now = self._sandboxes.get(record.id)
            if now is not None and now.ready:
                self._sandboxes[record.id] = msgspec.structs.replace(now, ready=False)
                self._emit("sandbox", "", record.id)

        if record.pause_pid and record.ready:
            self._watcher.watch(record.id, record.pause_pid, record.pause_start, ended)

    async def stop_sandbox(self, sandbox_id: str) -> None:
        inside = list(self._inside.get(sandbox_id, ()))
        await asyncio.gather(*(self.stop_container(container_id, 0) for container_id in inside))
        async with self._lock(sandbox_id):
            record = self._sandboxes.get(sandbox_id)
            if record is None or record.stopped:
                return
            self._watcher.forget(sandbox_id)
            self._sandboxes[sandbox_id] = await self._call(self._engine.stop_sandbox, record)
            self._emit("sandbox", "", sandbox_id)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        if sandbox_id not in self._sandboxes:
            return
        await self.stop_sandbox(sandbox_id)
        for container_id in list(self._inside.get(sandbox_id, ())):
            await self.remove_container(container_id)
        async with self._lock(sandbox_id):
            record = self._sandboxes.get(sandbox_id)
            if record is None:
                return
            others = [r for r in self._sandboxes.values() if r.config.cgroup == record.config.cgroup]
            await self._call(self._engine.remove_sandbox, record, len(others) == 1)
            self._emit("removed", "", sandbox_id)
            del self._sandboxes[sandbox_id]
            self._inside.pop(sandbox_id, None)
            self._locks.pop(sandbox_id, None)

    async def list_sandboxes(self) -> list[Sandbox]:
        return [
            Sandbox(r.id, r.config, r.ready, r.created, r.ip, f"/proc/{r.pause_pid}/ns/pid" if r.pause_pid else "")
            for r in self._sandboxes.values()
        ]

    # -- containers

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        container_id = self._new_id()
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or not sandbox.ready:
            raise RuntimeError_("CreateContainerError", f"sandbox {sandbox_id} is not ready")
        target = self._running(config.target).pid if config.target else 0
        async with self._lock(container_id):
            record = await self._call(self._engine.create_container, container_id, sandbox, config, target)
            self._containers[container_id] = record
            self._inside.setdefault(sandbox_id, {})[container_id] = None
            self._ended[container_id] = asyncio.Event()
        return container_id

    async def start_container(self, container_id: str) -> None:
        async with self._lock(container_id):
            record = self._record_of(container_id)
            if record.state != CREATED:
                raise RuntimeError_("RunContainerError", f"container {container_id} is {record.state}, not created")
            record = await self._call(self._engine.start_container, record)
            self._containers[container_id] = record
            if record.state == RUNNING:
                self._emit("started", container_id, record.sandbox_id)
                self._watch(record)
                return
            self._ended[container_id].set()
            self._emit("exited", container_id, record.sandbox_id)
        raise RuntimeError_("RunContainerError", record.message)

    def _record_of(self, container_id: str) -> ContainerRecord:
        record = self._containers.get(container_id)
        if record is None:
            raise RuntimeError_("ContainerNotFound", f"container {container_id} not found")
        return record

    def _running(self, container_id: str) -> ContainerRecord:
        record = self._record_of(container_id)
        if record.state != RUNNING:
            raise RuntimeError_("ContainerNotRunning", f"container {container_id} is {record.state}, not running")
        return record

    def _watch(self, record: ContainerRecord) -> None:
        self._watcher.watch(
            record.id, record.monitor, record.monitor_start, lambda: self._spawn(self._finish(record.id))
        )

    async def _finish(self, container_id: str) -> None:
        async with self._lock(container_id):
            record = self._containers.get(container_id)
            if record is None or record.state != RUNNING:
                return
            try:
                record = await self._call(self._engine.finish, record)
            except OSError as error:  # it has ended all the same
                log.error("container %s: %s", container_id, error)
                now = self._world.now()
                record = msgspec.structs.replace(
                    record,
                    state=EXITED,
                    exit_code=137,
                    reason="ContainerStatusUnknown",
                    message=str(error),
                    finished=now,
                )
            self._containers[container_id] = record
            self._ended[container_id].set()
            self._emit("exited", container_id, record.sandbox_id)

    async def stop_container(self, container_id: str, grace: float) -> None:
        record = self._containers.get(container_id)
        if record is None or record.state != RUNNING:
            return
        ended = self._ended[container_id]
        if grace > 0:
            self._engine.send_signal(record, record.stop_signal)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await ended.wait()
        if not ended.is_set():
            await self._call(self._engine.send_signal, record, signal.SIGKILL)
            try:
                async with asyncio.timeout(KILL_PATIENCE):
                    await ended.wait()
            except TimeoutError as error:
                raise RuntimeError_("KillContainerError", f"container {container_id} does not die") from error

    async def remove_container(self, container_id: str) -> None:
        await self.stop_container(container_id, 0)
        async with self._lock(container_id):
            record = self._containers.get(container_id)
            if record is None:
                return
            remains = await self._call(self._engine.remove_container, record)
            self._sweep(remains)
            self._emit("removed", container_id, record.sandbox_id)
            del self._containers[container_id], self._ended[container_id]
            self._inside.get(record.sandbox_id, {}).pop(container_id, None)
            self._locks.pop(container_id, None)

    async def list_containers(self, sandbox_id: str | None = None) -> list[Container]:
        ids = self._containers if sandbox_id is None else self._inside.get(sandbox_id, {})
        return [self._containers[container_id].public() for container_id in ids]

    async def container(self, container_id: str) -> Container | None:
        record = self._containers.get(container_id)
        return record.public() if record else None

    # -- exec, attach, logs

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> tuple[int, bytes]:
        running = await self._exec(container_id, command, stdin=False, tty=False, merge=True)
        output = bytearray()

        async def collect() -> int:
            async for _, data in running.read():
                output.extend(data[: max(0, OUTPUT_LIMIT - len(output))])
            return await running.wait()

        try:
            # Not wait_for: Python 3.11's loses a cancellation that comes together with the end.
            async with asyncio.timeout(timeout if timeout > 0 else None):
                return await collect(), bytes(output)
        except TimeoutError:
            raise TimeoutError(f"command {' '.join(command)!r} timed out after {timeout:g}s") from None
        finally:
            await running.close()

    async def exec(self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool) -> Process:
        return await self._exec(container_id, command, stdin=stdin, tty=tty, merge=False)

    async def _exec(self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool, merge: bool) -> Process:
        self._running(container_id)
        self._execs += 1
        bundle = self._directories.bundle(container_id)
        prefix = bundle / f"exec-{os.getpid()}-{self._execs}"

        def begin() -> Process:
            document = msgspec.json.decode((bundle / "config.json").read_bytes())
            prefix.with_suffix(".json").write_bytes(msgspec.json.encode(spec.exec_process(document, command, tty)))
            return start_exec(self._crun, container_id, prefix, stdin, tty, merge)

        try:
            return await self._call(begin)
        except OSError as error:
            raise RuntimeError_("ExecError", f"failed to exec in container: {error}") from error

    async def attach(self, container_id: str, *, stdin: bool) -> Process:
        config = self._running(container_id).config
        bundle = self._directories.bundle(container_id)

        async def exit_code() -> int:
            await self._ended[container_id].wait()
            return self._record_of(container_id).exit_code

        try:
            connection = process.connect(bundle / "attach")
        except OSError as error:
            if isinstance(error, FileNotFoundError | ConnectionRefusedError):  # its monitor has gone: it has just ended
                raise RuntimeError_("ContainerNotRunning", f"container {container_id} is not running") from error
            raise RuntimeError_("AttachError", f"failed to attach to container {container_id}: {error}") from error
        return process.AttachProcess(connection, bundle / "ctl", stdin, exit_code, config.stdin_once and not config.tty)

    async def port_forward(self, sandbox_id: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        record = self._sandboxes.get(sandbox_id)
        if record is None or not record.ready:
            raise RuntimeError_("PortForwardError", f"sandbox {sandbox_id} is not running")
        pin = None if record.config.host_network else self._directories.sandbox(sandbox_id) / sandboxes.NETWORK
        return await portforward.connect(self._call, pin, port)

    async def reopen_log(self, container_id: str) -> None:
        self._running(container_id)
        with contextlib.suppress(OSError):  # it ended meanwhile
            process.control(self._directories.bundle(container_id) / "ctl", "2 0 0\n")

    # -- usage

    async def resize_container(self, container_id: str, resources: Resources) -> None:
        record = self._containers.get(container_id)
        if record is None or record.state != RUNNING:
            raise RuntimeError_("ResizeError", f"container {container_id} does not run")
        await self._resize(record.cgroup, resources)

    async def resize_sandbox(self, sandbox_id: str, resources: Resources) -> None:
        record = self._sandboxes.get(sandbox_id)
        if record is None:
            raise RuntimeError_("ResizeError", f"sandbox {sandbox_id} does not exist")
        if record.config.cgroup:
            await self._resize(self._cgroups.path(record.config.cgroup), resources)

    async def image_volume(self, pod_uid: str, name: str, image_id: str) -> Path:
        async with self._lock(f"volumes of {pod_uid}"):
            return await self._call(self._engine.image_volumes.mount, pod_uid, name, image_id)

    async def layers(self, container_ids: Sequence[str], max_age: float) -> Mapping[str, DiskUse]:
        places = {i: str(self._directories.uppers / i / "upper") for i in container_ids if i in self._containers}

        def work() -> dict[str, DiskUse]:
            self._meter.keep(str(self._directories.uppers / i / "upper") for i in tuple(self._containers))
            walked = self._meter.of(places.values(), max_age, self._stopping.is_set)
            return {i: walked[path] for i, path in places.items()}

        return await self._call(work)

    async def usage(self) -> NodeUsage:
        containers = {r.id: r.cgroup for r in self._containers.values() if r.state == RUNNING}
        configs = [r.config for r in self._sandboxes.values() if r.config.cgroup]
        return await self._usage({c.pod_uid: self._cgroups.path(c.cgroup) for c in configs}, containers)


def _version(crun: Crun) -> str:
    return subprocess.run([crun.path, "--version"], capture_output=True, text=True, check=True).stdout


def _existing(path: Path) -> Path:
    """The path or its nearest ancestor that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
