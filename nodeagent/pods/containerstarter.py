"""Makes one pod's sandbox and starts its containers: the steps between a decision and a running process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from navarch.api.errors import NotFound, StatusError
from navarch.api.types import core_v1, node_v1
from navarch.client.transport import TransportError
from nodeagent.devices.ledger import DeviceError, Gift
from nodeagent.pods import containerspec, environment, podfiles, sources
from nodeagent.pods.context import Services
from nodeagent.pods.environment import Reference
from nodeagent.pods.fieldrefs import ConfigError
from nodeagent.pods.observed import AnyContainer
from nodeagent.pods.pulling import ImageError
from nodeagent.runtime.runtime import RUNNING, ContainerConfig, Image, Mount, RuntimeError_, Sandbox
from nodeagent.server.logs import tail
from nodeagent.volumes import local, persistent
from nodeagent.volumes.manager import PodVolumes

log = logging.getLogger(__name__)
MAX_LOG_MESSAGE, MAX_LOG_LINES = 2048, 80


class StartError(Exception):
    """A container could not be started. ``reason`` becomes its waiting reason."""

    def __init__(self, reason: str, message: str, retry_in: float = 10.0) -> None:
        super().__init__(message)
        self.reason, self.message, self.retry_in = reason, message, retry_in


class Starter:
    """Bound to one pod uid; ``tell(type, reason, message, container)`` records events."""

    def __init__(
        self,
        services: Services,
        volumes: PodVolumes,
        qos: str,
        tell: Callable[[str, str, str, AnyContainer | None], None],
    ) -> None:
        self._s, self._volumes, self._qos, self._tell = services, volumes, qos, tell

    async def volumes(self, pod: core_v1.Pod, pod_ip: str = "") -> None:
        """Sets the volumes up. Raises VolumeError."""
        await self._volumes.set_up(pod, self._s.facts(pod_ip))

    async def sandbox(self, pod: core_v1.Pod, attempt: int) -> str:
        """Makes a sandbox; its id. Raises RuntimeError_ or OSError."""
        if pod.spec.host_users is False:
            raise RuntimeError_("RunPodSandboxError", "the runtime does not support user namespaces (hostUsers: false)")
        handler = await self._handler(pod)
        config = containerspec.sandbox_config(
            pod,
            attempt,
            node_name=self._s.config.node_name,
            logs=self._s.config.logs_dir,
            domain=self._s.config.cluster_domain,
            qos=self._qos,
            max_pids=max(0, self._s.config.pod_max_pids),
            cpu_capacity=self._s.cpu_capacity,
        )
        await self._s.world.blocking(lambda: Path(config.log_directory).mkdir(parents=True, exist_ok=True))
        return await self._s.runtime.run_sandbox(replace(config, runtime_handler=handler))

    async def _handler(self, pod: core_v1.Pod) -> str:
        """The handler of the pod's RuntimeClass, which the node must have; "" is the default one. Raises RuntimeError_."""
        name = pod.spec.runtime_class_name
        if not name:
            return ""
        reason, lead = "RunPodSandboxError", "rpc error: code = Unknown desc = failed to get sandbox runtime: "
        try:
            runtime_class = await self._s.client[node_v1.RuntimeClass].get(name)
        except NotFound as error:
            raise RuntimeError_(reason, error.message) from error
        except (StatusError, TransportError) as error:
            raise RuntimeError_(reason, f"failed to lookup RuntimeClass {name}: {error}") from error
        if runtime_class.handler not in self._s.runtime.handlers:
            raise RuntimeError_(reason, f'{lead}no runtime for "{runtime_class.handler}" is configured')
        return runtime_class.handler

    async def image(self, pod: core_v1.Pod, container: AnyContainer) -> Image:
        """The container's image. Raises StartError."""
        try:
            secrets = await self._pull_secrets(pod)
            return await self._s.images.ensure(pod, container, lambda t, r, m: self._tell(t, r, m, container), secrets)
        except ImageError as error:
            raise StartError(error.reason, error.message, error.retry_in) from error
        except RuntimeError_ as error:
            raise StartError("ImageInspectError", error.message) from error
        except TimeoutError as error:
            raise StartError("ContainerCreating", "", 1.0) from error

    async def image_volumes(self, pod: core_v1.Pod, container: AnyContainer) -> None:
        """Pulls and mounts the volumes of a container that are images. Raises StartError."""
        mounted = {m.name for m in container.volume_mounts or ()}
        for volume in pod.spec.volumes or ():
            if (source := volume.image) is None or volume.name not in mounted:
                continue
            asks = core_v1.Container(name=container.name, image=source.reference, image_pull_policy=source.pull_policy)
            image = await self.image(pod, asks)
            try:
                path = await self._s.runtime.image_volume(pod.metadata.uid or "", volume.name, image.id)
            except RuntimeError_ as error:
                raise StartError(error.reason, error.message) from error
            self._volumes.paths[volume.name] = path

    async def _pull_secrets(self, pod: core_v1.Pod) -> list[core_v1.Secret]:
        """The pod's pull secrets that exist; an event names those that do not. Raises TimeoutError."""
        names = list(dict.fromkeys(r.name for r in pod.spec.image_pull_secrets or () if r.name))
        if not names:
            return []
        objects = await self._s.objects.get(pod.metadata.namespace or "", [Reference("Secret", name) for name in names])
        secrets = {r.name: secret for r, secret in objects.items() if isinstance(secret, core_v1.Secret)}
        if missing := [name for name in names if name not in secrets]:
            text = f"Unable to retrieve some image pull secrets ({', '.join(missing)}); "
            text += "attempting to pull the image may not succeed."
            self._tell("Warning", "FailedToRetrieveImagePullSecret", text, None)
        return list(secrets.values())

    async def create(
        self, pod: core_v1.Pod, container: AnyContainer, attempt: int, sandbox: Sandbox, image: Image
    ) -> str:
        """Creates the container; its id. Raises StartError."""
        try:
            config = await self._configure(pod, container, attempt, sandbox, image)
        except ConfigError as error:
            raise StartError("CreateContainerConfigError", str(error)) from error
        except (OSError, TimeoutError, StatusError, TransportError) as error:
            raise StartError("CreateContainerConfigError", str(error) or "timed out", 2.0) from error
        try:
            return await self._s.runtime.create_container(sandbox.id, config)
        except RuntimeError_ as error:
            raise StartError(error.reason or "CreateContainerError", error.message) from error

    async def _configure(
        self, pod: core_v1.Pod, container: AnyContainer, attempt: int, sandbox: Sandbox, image: Image
    ) -> ContainerConfig:
        s = self._s
        ip = s.config.node_ip if pod.spec.host_network else sandbox.ip
        facts = s.facts(ip)
        objects = await s.objects.get(pod.metadata.namespace or "", environment.references(container))
        if not sources.is_static(pod):  # which starts without the API server
            await s.cluster_services.wait_synced()
        namespace = pod.metadata.namespace or ""
        nearby = s.cluster_services.list(namespace)
        api = s.cluster_services.get("default", "kubernetes")
        if api is not None and namespace != "default":
            nearby = [*nearby, api]
        gift = await self._devices(pod, container)
        env = environment.variables(pod, container, objects, nearby, facts)
        env = [*((name, value) for name, value in gift.env.items() if name not in dict(env)), *env]
        mounts = await s.world.blocking(self._mounts, pod, container, attempt, ip, dict(env))
        limits = containerspec.container_resources(pod, container, s.memory_capacity, self._qos, s.cpu_capacity)
        limits = replace(limits, oom_score_adj=max(limits.oom_score_adj, s.oom_floor))
        config = containerspec.container_config(
            pod, container, attempt=attempt, image=image, env=env, mounts=mounts, limits=limits,
            target=await self._target(container, sandbox),
        )  # fmt: skip
        return containerspec.with_gift(config, gift)

    async def _devices(self, pod: core_v1.Pod, container: AnyContainer) -> Gift:
        """Everything that the container gets with its devices. Raises ConfigError."""
        try:
            return await self._s.devices.prepare(pod, container.name)
        except DeviceError as error:
            raise ConfigError(str(error)) from error

    def _mounts(
        self, pod: core_v1.Pod, container: AnyContainer, attempt: int, ip: str, variables: dict[str, str]
    ) -> list[Mount]:
        """All that a container gets mounted, made ready. Blocks; raises ConfigError, OSError."""
        config, volumes = self._s.config, self._volumes
        mounted = {m.name for m in container.volume_mounts or () if not (m.sub_path or m.sub_path_expr)}
        for volume in pod.spec.volumes or ():
            if volume.host_path is not None and volume.name in mounted and config.is_real:
                local.make_host_path(volume.host_path)

        def sub_path(number: int, path: Path, relative: str) -> Path:
            return volumes.sub_paths.bind(container.name, number, path, relative)

        images = frozenset(v.name for v in pod.spec.volumes or () if v.image)
        mounts = containerspec.volume_mounts(container, volumes.paths, variables, sub_path, _read_only(pod.spec), images)
        places = {m.container_path for m in mounts}
        (containerspec.log_directory(config.logs_dir, pod) / container.name).mkdir(parents=True, exist_ok=True)
        return mounts + podfiles.own_mounts(config, pod, container, attempt, ip, places)

    async def _target(self, container: AnyContainer, sandbox: Sandbox) -> str:
        """The running container that an ephemeral one wants to look into, "" if none. Raises ConfigError."""
        name = container.target_container_name if isinstance(container, core_v1.EphemeralContainer) else None
        if not name:
            return ""
        running = [c for c in await self._s.runtime.list_containers(sandbox.id) if c.name == name and c.state == RUNNING]
        if not running:
            raise ConfigError(f'unable to find target container "{name}"')
        return max(running, key=lambda c: c.attempt).id

    def release(self, name: str) -> None:
        """Container ``name`` has its mounts, or will never have them. Blocks; raises OSError."""
        self._volumes.sub_paths.release(name)

    async def termination_message(
        self, pod: core_v1.Pod, container: AnyContainer, attempt: int, code: int, log_path: str
    ) -> str:
        """The termination message of a dead container."""
        fallback = code != 0 and container.termination_message_policy == "FallbackToLogsOnError"

        def read() -> str:
            text = podfiles.termination_message(self._s.config, pod.metadata.uid or "", container.name, attempt)
            return text or (tail(log_path, MAX_LOG_LINES, MAX_LOG_MESSAGE) if fallback else "")

        return await self._s.world.blocking(read)

    async def remove_files(self, pod: core_v1.Pod) -> None:
        """Everything that the pod left on disk but its volumes. Raises OSError."""
        logs = containerspec.log_directory(self._s.config.logs_dir, pod)
        await self._s.world.blocking(podfiles.remove, self._s.config, pod.metadata.uid or "?", logs)


def _read_only(spec: core_v1.PodSpec) -> frozenset[str]:
    """Volumes that the agent itself writes are never writable for containers, nor are claims that the pod has readOnly."""
    return frozenset(
        v.name
        for v in spec.volumes or ()
        if v.config_map or v.secret or v.downward_api or v.projected or v.image or persistent.is_read_only(v)
    )
