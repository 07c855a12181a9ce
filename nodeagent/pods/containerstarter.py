"""Makes one pod's sandbox and starts its containers: the steps between a decision and a running process."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from navarch.api.errors import NotFound, StatusError
from navarch.api.types import core_v1, node_v1
from navarch.client.transport import TransportError
from nodeagent.network import netfiles
from nodeagent.pods import containerspec, environment
from nodeagent.pods.context import Services
from nodeagent.pods.environment import Reference
from nodeagent.pods.fieldrefs import ConfigError
from nodeagent.pods.observed import AnyContainer
from nodeagent.pods.pulling import ImageError
from nodeagent.runtime.runtime import RUNNING, ContainerConfig, Image, Mount, RuntimeError_, Sandbox
from nodeagent.volumes import local
from nodeagent.volumes.manager import PodVolumes

log = logging.getLogger(__name__)
MAX_MESSAGE = 4096
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
        await self._handler(pod)
        config = containerspec.sandbox_config(
            pod,
            attempt,
            node_name=self._s.config.node_name,
            logs=self._s.config.logs_dir,
            domain=self._s.config.cluster_domain,
            qos=self._qos,
        )
        Path(config.log_directory).mkdir(parents=True, exist_ok=True)
        return await self._s.runtime.run_sandbox(config)

    async def _handler(self, pod: core_v1.Pod) -> None:
        """The node must have what the pod's RuntimeClass asks for. Raises RuntimeError_."""
        name = pod.spec.runtime_class_name
        if not name:
            return
        reason, lead = "RunPodSandboxError", "rpc error: code = Unknown desc = failed to get sandbox runtime: "
        try:
            found = await self._s.client[node_v1.RuntimeClass].get(name)
        except NotFound as error:
            raise RuntimeError_(reason, error.message) from error
        except (StatusError, TransportError) as error:
            raise RuntimeError_(reason, f"failed to lookup RuntimeClass {name}: {error}") from error
        if found.handler not in self._s.runtime.handlers:
            raise RuntimeError_(reason, f'{lead}no runtime for "{found.handler}" is configured')

    async def image(self, pod: core_v1.Pod, container: AnyContainer) -> Image:
        """The container's image. Raises StartError."""
        try:
            secrets = [Reference("Secret", r.name or "") for r in pod.spec.image_pull_secrets or ()]
            found = await self._s.objects.get(pod.metadata.namespace or "", secrets) if secrets else {}
            held = [s for s in found.values() if isinstance(s, core_v1.Secret)]
            return await self._s.images.ensure(pod, container, lambda t, r, m: self._tell(t, r, m, container), held)
        except ImageError as error:
            raise StartError(error.reason, error.message, error.retry_in) from error
        except RuntimeError_ as error:
            raise StartError("ImageInspectError", error.message) from error
        except TimeoutError as error:
            raise StartError("ContainerCreating", "", 1.0) from error

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
        await s.cluster_services.wait_synced()
        namespace = pod.metadata.namespace or ""
        nearby = s.cluster_services.list(namespace)
        api = s.cluster_services.get("default", "kubernetes")
        if api is not None and namespace != "default":
            nearby = [*nearby, api]
        env = environment.variables(pod, container, objects, nearby, facts)
        mounts = containerspec.volume_mounts(
            container, self._volumes.paths, dict(env), local.sub_path, _read_only(pod.spec)
        )
        mounts += self._own_mounts(pod, container, attempt, ip, {m.container_path for m in mounts})
        limits = containerspec.container_resources(pod, container, s.memory_capacity, self._qos)
        limits = replace(limits, oom_score_adj=max(limits.oom_score_adj, s.oom_floor))
        config = containerspec.container_config(
            pod, container, attempt=attempt, image=image, env=env, mounts=mounts, limits=limits,
            target=await self._target(container, sandbox),
        )  # fmt: skip
        (containerspec.log_directory(s.config.logs_dir, pod) / container.name).mkdir(parents=True, exist_ok=True)
        return config

    async def _target(self, container: AnyContainer, sandbox: Sandbox) -> str:
        """The running container that an ephemeral one wants to look into, "" if none. Raises ConfigError."""
        name = container.target_container_name if isinstance(container, core_v1.EphemeralContainer) else None
        if not name:
            return ""
        found = [c for c in await self._s.runtime.list_containers(sandbox.id) if c.name == name and c.state == RUNNING]
        if not found:
            raise ConfigError(f'unable to find target container "{name}"')
        return max(found, key=lambda c: c.attempt).id

    def _own_mounts(
        self, pod: core_v1.Pod, container: AnyContainer, attempt: int, ip: str, taken: set[str]
    ) -> list[Mount]:
        """The files that every container gets from us: network names, and where it leaves its last words."""
        config = self._s.config
        folder = config.pods_dir / (pod.metadata.uid or "")
        folder.mkdir(parents=True, exist_ok=True)
        node_hosts = _text(Path("/etc/hosts")) if pod.spec.host_network else ""
        resolv = netfiles.resolv_conf(pod, _text(config.resolv_conf), config.cluster_dns, config.cluster_domain)
        name = netfiles.hostname(pod, config.node_name)
        out = []
        for path, text in (
            ("/etc/hosts", netfiles.hosts(pod, [ip], config.cluster_domain, node_hosts, config.node_name)),
            ("/etc/hostname", f"{name}\n"),
            ("/etc/resolv.conf", resolv),
        ):
            if path in taken:
                continue
            file = folder / path.replace("/etc/", "etc-")
            if _text(file) != text:
                file.write_text(text)
                file.chmod(0o644)
            out.append(Mount(str(file), path))
        last_words = container.termination_message_path or "/dev/termination-log"
        file = termination_file(folder, container.name, attempt)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
        file.chmod(0o666)
        out.append(Mount(str(file), last_words))
        return out

    def termination_message(
        self, pod: core_v1.Pod, container: AnyContainer, attempt: int, code: int, log_path: str
    ) -> str:
        """What a dead container wants people to know."""
        folder = self._s.config.pods_dir / (pod.metadata.uid or "")
        try:
            with open(termination_file(folder, container.name, attempt), "rb") as file:
                text = file.read(MAX_MESSAGE).decode(errors="replace")
        except OSError:
            text = ""
        if not text and code != 0 and container.termination_message_policy == "FallbackToLogsOnError":
            from nodeagent.server.logs import tail

            text = tail(log_path, MAX_LOG_LINES, MAX_LOG_MESSAGE)
        return text

    def remove_files(self, pod: core_v1.Pod) -> None:
        """Everything that the pod left on disk but its volumes, which were torn down before."""
        shutil.rmtree(self._s.config.pods_dir / (pod.metadata.uid or "?"), ignore_errors=True)
        shutil.rmtree(containerspec.log_directory(self._s.config.logs_dir, pod), ignore_errors=True)


def termination_file(pod_folder: Path, name: str, attempt: int) -> Path:
    return pod_folder / "containers" / name / str(attempt)


def _read_only(spec: core_v1.PodSpec) -> frozenset[str]:
    """Volumes that the agent itself writes are never writable for containers."""
    return frozenset(v.name for v in spec.volumes or () if v.config_map or v.secret or v.downward_api or v.projected)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
