"""The node agent: takes in the pods bound to this node and gives each a worker.

Everything it needs to know after a restart is in the API server and in the runtime: it lists the runtime's sandboxes
and containers, finds their pods by their labels, and goes on. Ending the agent leaves containers running.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from navarch.api import qos, quantity
from navarch.api.pods import is_terminal
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.events import EventRecorder
from navarch.client.informer import Informer
from navarch.world import Backoff, TaskGroup, World
from nodeagent.config import Config
from nodeagent.linux import process, trees
from nodeagent.node import admission, eviction, shutdown
from nodeagent.node.configobjects import ObjectCache
from nodeagent.node.counters import UNEXPECTED
from nodeagent.node.imagegc import ImageGC
from nodeagent.node.pressure import EvictionManager
from nodeagent.node.registration import NodeKeeper
from nodeagent.node.shutdown import Shutdown
from nodeagent.node.staticsource import StaticPods
from nodeagent.node.statuswriter import StatusManager
from nodeagent.node.storage import LocalStorage
from nodeagent.nodeplugins import NodePlugins
from nodeagent.pods import logrotate, mishaps, sources
from nodeagent.pods.context import Services
from nodeagent.pods.observed import POD_UID
from nodeagent.pods.pulling import Images
from nodeagent.pods.worker import PodWorker
from nodeagent.runtime.runtime import EXITED, Container, Event, Runtime, RuntimeError_, Sandbox
from nodeagent.server.app import Server
from nodeagent.server.auth import Gate, server_context
from nodeagent.volumes import local, manager

log = logging.getLogger(__name__)
MAX_HEAD = 1 << 20  # bytes of a request's first line, which has the command of an exec, and of a header: as Go has it


class Agent:
    """One node. ``run`` serves until cancelled."""

    def __init__(self, config: Config, client: Client, world: World, runtime: Runtime) -> None:
        self.config, self.client, self.world, self.runtime = config, client, world, runtime
        self.keeper = NodeKeeper(config, client, world, runtime)
        self.capacity_memory = quantity.value(self.keeper.capacity["memory"])
        self._workers: dict[str, PodWorker] = {}  # by pod uid
        self._by_name: dict[tuple[str, str], str] = {}  # (namespace, name) -> uid of the newest pod of that name
        self._exits: dict[str, asyncio.Event] = {}
        self._remains: dict[str, tuple[list[Sandbox], list[Container]]] = {}  # what an earlier agent left, by pod uid
        self._pods = Informer(client[core_v1.Pod], field_selector=f"spec.nodeName={config.node_name}")
        self._node = Informer(client[core_v1.Node], field_selector=f"metadata.name={config.node_name}")
        self._services = Informer(client[core_v1.Service])
        self._group: TaskGroup
        self.services: Services
        self.plugins = NodePlugins(config, client, world, self.keeper, self._active)
        self.static: StaticPods | None = None
        self.shutdown = Shutdown(self, self._tell_node("Normal"))
        self._node_news = asyncio.Event()
        self.storage = LocalStorage(config, world, runtime, lambda: self.services.stopping.is_set())
        self.ready = asyncio.Event()
        self.port = config.port

    # --- running ---

    async def run(self) -> None:
        """Starts everything and runs until cancelled."""
        self._prepare_directories()
        await self.runtime.start()
        try:
            async with self.world.task_group() as self._group:
                await self._run()
        finally:
            await self.runtime.close()

    async def _run(self) -> None:
        group, config = self._group, self.config
        events = EventRecorder(self.client, self.world, "kubelet", config.node_name)
        status = StatusManager(self.client, self.world, group)
        self.services = Services(
            config=config,
            client=self.client,
            world=self.world,
            runtime=self.runtime,
            images=Images(self.runtime, self.world, config.registry_pull_burst),
            objects=ObjectCache(self.client, self.world, group, self._objects_changed),
            status=status,
            events=events,
            cluster_services=self._services,
            devices=self.plugins.devices,
            csi=self.plugins.csi,
            memory_capacity=self.capacity_memory,
            cpu_capacity=quantity.milli(self.keeper.capacity["cpu"]),
            allocatable=self.keeper.allocatable,
            oom_floor=process.oom_floor(),
            active=self._active,
            room_changed=self._room_changed,
        )
        group.start(self._events(), name="runtime events")
        await asyncio.sleep(0)  # it listens from its first step on
        await self._find_what_was_left()
        await self.plugins.devices.load()
        stop_serving = await self._serve()
        try:
            await self._begin_static(status)
            await self.keeper.register()
            status.start()
            for name, task in (
                ("events", events.run()),
                ("lease", self._keep("renew lease", self.keeper.keep_lease)),
                ("node status", self._keep("write node status", self.keeper.keep_status)),
                ("services", self._services.run()),
                ("node", self._node.run()),
                ("image garbage", self._keep("collect images", self._image_gc().run)),
                ("eviction", self._keep("evict pods", self._evictions().run)),
                ("log rotation", self._keep("rotate logs", lambda: logrotate.run(self))),
            ):
                group.start(task, name=name)
            self.plugins.serve(group, self._keep)
            self._node.add_handler(self._node_changed)
            events.event(self.reference(), "Normal", "Starting", "Starting kubelet.")
            await self._configure_network()
            self._pods.add_handler(self._pod_changed)
            group.start(self._pods.run(), name="pods")
            await self._pods.wait_synced()
            if self.static is not None:
                self.static.synced = True
            self._end_what_is_orphaned()
            await self.plugins.devices.keep_only(self._workers)
            self.plugins.tidy(group, self._keep, lambda uid: uid in self._workers or uid in self._remains)
            group.start(self._keep("remove orphans", self._remove_orphans), name="orphans")
            self.ready.set()
            log.info("node %s runs, serving on port %d", config.node_name, self.port)
            await asyncio.Event().wait()
        finally:
            self.services.stopping.set()
            await stop_serving()

    def _image_gc(self) -> ImageGC:
        return ImageGC(self.config, self.runtime, self.world, self._tell_node("Warning"))

    def _tell_node(self, type_: str) -> Callable[[str, str], None]:
        """A function that records an event about the node, of a reason and with a message."""
        return lambda reason, message: self.services.events.event(self.reference(), type_, reason, message)

    def shut_down(self) -> bool:
        """Begins to shut the node down gracefully. False if it is not configured to."""
        if self.shutdown.graceful:
            self._group.start(self._keep("shut down", self.shutdown.run), name="shutdown")
        return self.shutdown.graceful

    def set_shutting_down(self) -> None:
        """The node is not ready from now on."""
        self.keeper.shutting_down = shutdown.NOT_READY
        self.keeper.look_again()

    async def _begin_static(self, status: StatusManager) -> None:
        """Starts the static pods, which wait for no API server; those with a network of their own for the pod range."""
        if not self.config.static_pod_path:
            return

        if self.config.pod_cidr:
            await self.runtime.configure(self.config.pod_cidr)
        static = self.static = StaticPods(self, self._tell_node("Warning"))
        status.shown = lambda pod: static.mirror_of(pod) if sources.is_static(pod) else pod
        self._group.start(self._keep("run static pods", static.run), name="static pods")

    @property
    def node_object(self) -> core_v1.Node | None:
        return self.keeper.node

    def add_static(self, pod: core_v1.Pod) -> None:
        """Runs a static pod."""
        self._add(pod)

    def forget_status(self, uid: str) -> None:
        """The API server has no such pod any more."""
        self.services.status.forget(uid)

    def _evictions(self) -> EvictionManager:
        return EvictionManager(self, self.services.counters, self._tell_node("Warning"))

    def set_pressure(self, conditions: tuple[str, ...]) -> None:
        """The pressure conditions of the node that are true."""
        self.keeper.set_pressure(conditions)

    async def _keep(self, doing: str, run: Callable[[], Awaitable[None]]) -> None:
        """A part of the agent that is not about one pod. What it has not foreseen is counted, and it begins again, later
        each time: the node's other parts go on."""
        backoff = Backoff(self.world, first=1.0, most=60.0)
        while True:
            try:
                await run()
                return
            except Exception as error:
                log.error("%s", doing, exc_info=error)
                self.services.counters.add(UNEXPECTED, doing=doing)
                await self.world.sleep(backoff.next())

    async def _serve(self) -> Callable[[], Awaitable[None]]:
        """Starts the server if there is a certificate for it; gives what ends it."""
        config = self.config
        if not config.tls_cert_file:
            log.warning("no --tls-cert-file: no logs and exec on this node")
            return _nothing
        from aiohttp import web

        server = Server(self, Gate(self.client, self.world, config.node_name))
        runner = web.AppRunner(
            server.application(),
            access_log=None,
            shutdown_timeout=1.0,
            handle_signals=False,
            max_line_size=MAX_HEAD,
            max_field_size=MAX_HEAD,
        )
        await runner.setup()
        context = server_context(config.tls_cert_file, config.tls_private_key_file, config.client_ca_file)
        site = web.TCPSite(runner, config.address or config.node_ip, config.port, ssl_context=context)
        await site.start()
        self.port = self.keeper.port = int(runner.addresses[0][1])

        async def stop() -> None:
            server.close()
            await runner.cleanup()

        return stop

    def _prepare_directories(self) -> None:
        config = self.config
        for folder in (config.root_dir, config.pods_dir, config.logs_dir, config.run_dir):
            folder.mkdir(parents=True, exist_ok=True)
        config.secrets_dir.mkdir(mode=0o700, exist_ok=True)
        if config.plugins and config.kubelet_dir != config.plugins_dir:
            local.show_at(config.plugins_dir, config.kubelet_dir)
        if config.use_tmpfs and not process.in_memory(config.secrets_dir):
            local.mount_tmpfs(config.secrets_dir, mode=0o700, executable=False)
        # Only we walk these folders: containers get what is inside as mounts of their own.
        os.chmod(config.secrets_dir, 0o700)
        os.chmod(config.pods_dir, 0o750)

    async def _configure_network(self) -> None:
        """Waits until the node's pod range is known. Pods on the host's network could start before; they wait too."""
        while not (cidr := self._pod_range()):
            self._node_news.clear()
            await self._node_news.wait()
        await self.runtime.configure(cidr)
        self.keeper.network_error = ""
        self.keeper.look_again()

    def _pod_range(self) -> str:
        node = self.keeper.node
        return (node.spec.pod_cidr if node is not None else None) or self.config.pod_cidr

    # --- the runtime ---

    async def _events(self) -> None:
        async for event in self.runtime.events():
            self._event(event)

    def _event(self, event: Event) -> None:
        if event.kind in ("exited", "removed") and event.container_id in self._exits:
            self._exits.pop(event.container_id).set()
        worker = self._workers.get(event.pod_uid)
        if worker is not None:
            worker.runtime_event(event)

    def ended(self, container_id: str) -> asyncio.Event:
        """Set once the container is dead."""
        event = self._exits.get(container_id)
        if event is None:
            event = asyncio.Event()
            dead = [
                w.containers[container_id].state == EXITED
                for w in self._workers.values()
                if container_id in w.containers
            ]
            if any(dead) or not dead:
                event.set()
            else:
                self._exits[container_id] = event
        return event

    async def _find_what_was_left(self) -> None:
        for sandbox in await self.runtime.list_sandboxes():
            self._remains.setdefault(sandbox.config.pod_uid, ([], []))[0].append(sandbox)
        for container in await self.runtime.list_containers():
            uid = container.labels.get(POD_UID, "")
            self._remains.setdefault(uid, ([], []))[1].append(container)

    def _end_what_is_orphaned(self) -> None:
        """Ends pods that the API server no longer has."""
        for uid, (sandboxes, containers) in list(self._remains.items()):
            names = {c.name: None for c in containers}
            config = sandboxes[0].config if sandboxes else None
            spec = core_v1.PodSpec(containers=[core_v1.Container(name=n) for n in names])
            spec.termination_grace_period_seconds = 1
            pod = core_v1.Pod(spec=spec)
            pod.metadata.uid = uid
            pod.metadata.name = config.name if config else uid
            pod.metadata.namespace = config.namespace if config else ""
            log.info("pod %s/%s is gone from the API server: ending it", pod.metadata.namespace, pod.metadata.name)
            worker = self._add(pod)
            if worker is not None:
                worker.mark_gone()

    async def _remove_orphans(self) -> None:
        """Removes folders that belong to no pod of this node."""
        config = self.config

        def listed(folder: Path, uid_of: Callable[[str], str]) -> dict[str, Path]:
            return {uid_of(path.name): path for path in sorted(folder.iterdir())} if folder.exists() else {}

        for folder in (config.pods_dir, config.secrets_dir, config.run_dir / "subpaths"):
            for uid, path in listed(folder, str).items():
                if uid not in self._workers and uid not in self._remains:
                    await self._remove_orphan(uid, path)
        for uid, path in listed(config.logs_dir, lambda name: name.rpartition("_")[2]).items():
            if uid not in self._workers and uid not in self._remains:
                await self._remove_orphan("", path)

    async def _remove_orphan(self, uid: str, path: Path) -> None:
        def work() -> None:
            stop = self.services.stopping.is_set
            if uid:
                manager.tear_down(self.config, uid, stop)
            trees.remove(path, stop)

        try:
            async with self.services.removals:
                await self.world.blocking(work)
        except OSError as error:
            log.warning("removing %s: %s", path, error)

    # --- pods ---

    def _pod_changed(self, kind: str, old: core_v1.Pod | None, pod: core_v1.Pod) -> None:
        if sources.is_mirror(pod):
            if self.static is not None:
                self.static.observe(pod, kind == "DELETED")
            return
        uid = pod.metadata.uid or ""
        worker = self._workers.get(uid)
        if worker is not None:
            worker.deleted(pod) if kind == "DELETED" else worker.update(pod)
        elif kind != "DELETED":
            self._add(pod)

    def _add(self, pod: core_v1.Pod, backoff: Backoff | None = None) -> PodWorker | None:
        """Gives a pod its worker. None if not even that is possible: then again later, and the other pods go on."""
        uid = pod.metadata.uid or ""
        sandboxes, containers = self._remains.pop(uid, ([], []))
        try:
            worker = PodWorker(self.services, pod, sandboxes, containers, self._reject(pod, bool(sandboxes)))
        except Exception as error:
            self._remains[uid] = sandboxes, containers
            self._failed(pod, "take in pod", error)
            self._group.start(self._add_later(pod, backoff or self._backoff()), name=f"pod {uid}, again")
            return None
        self._workers[uid] = worker
        self._by_name[pod.metadata.namespace or "", pod.metadata.name or ""] = uid
        self._group.start(self._work(uid, worker), name=f"pod {pod.metadata.namespace}/{pod.metadata.name}")
        return worker

    async def _add_later(self, pod: core_v1.Pod, backoff: Backoff) -> None:
        await self.world.sleep(backoff.next())
        now = self._pods.get(pod.metadata.namespace, pod.metadata.name or "")
        if now is not None and now.metadata.uid == pod.metadata.uid:
            self._add(now, backoff)

    def _reject(self, pod: core_v1.Pod, runs: bool) -> tuple[str, str] | None:
        """Why the node does not take the pod; what runs here already is not judged again."""
        if runs or is_terminal(pod) or pod.metadata.deletion_timestamp:
            return None
        keeper, unsafe = self.keeper, self.config.allowed_unsafe_sysctls
        if self.keeper.shutting_down:
            return shutdown.REJECTION
        if why := eviction.reject(pod, keeper.pressure, qos.qos_class(pod)):
            return eviction.REASON, why
        counted = {name: q for name, q in keeper.allocatable.items() if not self.plugins.devices.manages(name)}
        return admission.reject(pod, keeper.node, counted, self._active(), unsafe)

    def _backoff(self) -> Backoff:
        return Backoff(self.world, first=mishaps.FIRST, most=mishaps.MAX)

    def _failed(self, pod: core_v1.Pod, doing: str, error: BaseException) -> None:
        """Something about one pod went wrong that nobody had foreseen."""
        log.error("pod %s/%s: %s", pod.metadata.namespace, pod.metadata.name, doing, exc_info=error)
        self.services.counters.add(UNEXPECTED, doing=doing)
        mishaps.tell_sync_failed(self.services.events, pod, error)

    def _active(self) -> list[core_v1.Pod]:
        """The pods that take room, as granted."""
        return [w.granted for w in self._workers.values() if w.counts]

    def _room_changed(self) -> None:
        for worker in self._workers.values():
            worker.room_changed()

    async def _work(self, uid: str, worker: PodWorker) -> None:
        """Runs a worker; one that fails by our own mistake is started again, and the other pods do not notice."""
        backoff = self._backoff()
        while True:
            try:
                await worker.run()
                break
            except (Exception, BaseExceptionGroup) as error:
                if isinstance(error, BaseExceptionGroup) and error.subgroup(asyncio.CancelledError):
                    raise
                self._failed(worker.pod, "sync pod", error)
            await self.world.sleep(backoff.next())
            with contextlib.suppress(RuntimeError_):  # or the same one once more
                worker = await self._again(uid, worker)
        self._workers.pop(uid, None)
        self._room_changed()
        key = worker.pod.metadata.namespace or "", worker.pod.metadata.name or ""
        if self._by_name.get(key) == uid:
            del self._by_name[key]

    async def _again(self, uid: str, old: PodWorker) -> PodWorker:
        sandboxes = [s for s in await self.runtime.list_sandboxes() if s.config.pod_uid == uid]
        containers = [c for c in await self.runtime.list_containers() if c.labels.get(POD_UID) == uid]
        worker = PodWorker(self.services, old.pod, sandboxes, containers)
        worker.is_gone = old.is_gone
        self._workers[uid] = worker
        return worker

    def _objects_changed(self, uid: str) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.objects_changed()

    def _node_changed(self, kind: str, old: core_v1.Node | None, node: core_v1.Node) -> None:
        if kind == "DELETED":
            self.keeper.node = None
            self.keeper.look_again()  # registers anew
        else:
            self.keeper.observe(node)
            self.plugins.observe(node)
        self._node_news.set()

    def reference(self) -> core_v1.ObjectReference:
        """The reference to the node in events about it."""
        name = self.config.node_name
        return core_v1.ObjectReference(kind="Node", api_version="v1", name=name, uid=name)

    # --- asked by the server ---

    def workers(self) -> list[PodWorker]:
        return list(self._workers.values())

    def worker_of(self, namespace: str, name: str) -> PodWorker | None:
        return self._workers.get(self._by_name.get((namespace, name), ""))

    def healthy(self) -> bool:
        return not self.keeper.runtime_error


async def _nothing() -> None:
    pass
