"""One pod's volumes: makes their folders before the containers start, keeps them current, takes them away.

What may hold a secret lies below the run directory, which is one tmpfs for the whole node: a mount for each volume
would cost every container start a copy of a longer mount table. emptyDir lies below the root directory (or on a tmpfs
of its own, for medium Memory).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from navarch.api import resources
from navarch.api.errors import StatusError
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.transport import TransportError
from navarch.world import World
from nodeagent.config import Config
from nodeagent.linux import trees
from nodeagent.node.configobjects import ObjectCache
from nodeagent.pods.environment import Reference
from nodeagent.pods.fieldrefs import ConfigError, Facts
from nodeagent.pods.observed import roles
from nodeagent.volumes import atomic, local, loopimages, payload, persistent
from nodeagent.volumes.csi.mounter import CsiVolumes
from nodeagent.volumes.subpaths import SubPaths
from nodeagent.volumes.tokens import Tokens


class VolumeError(Exception):
    """A volume cannot be set up; ``volume`` is its name, the message kubelet's."""

    def __init__(self, volume: str, message: str) -> None:
        super().__init__(f'MountVolume.SetUp failed for volume "{volume}" : {message}')
        self.volume = volume


class PodVolumes:
    """The volumes of one pod uid. ``paths`` maps volume names to host folders once they are set up."""

    def __init__(
        self, config: Config, world: World, client: Client, objects: ObjectCache, tokens: Tokens, uid: str, csi: CsiVolumes
    ) -> None:
        self._config, self._world, self._client, self._csi = config, world, client, csi
        self._objects, self._tokens, self._uid = objects, tokens, uid
        self.paths: dict[str, Path] = {}
        self.sub_paths = sub_paths(config, uid)

    @property
    def next_refresh(self) -> float | None:
        """When a token wants to be renewed, or a driver to be called again (Unix seconds)."""
        times = (self._tokens.next_renewal, self._csi.next_republish(self._uid)) if self.paths else ()
        return min((time for time in times if time is not None), default=None)

    async def set_up(self, pod: core_v1.Pod, facts: Facts) -> None:
        """Makes every volume, or brings it up to date. Raises VolumeError for the first that fails."""
        for volume in pod.spec.volumes or ():
            if volume.image is not None:
                continue  # the first container that mounts it has it pulled; see Starter.image_volumes
            try:
                self.paths[volume.name] = await self._one(pod, volume, facts)
            except (ConfigError, StatusError, TransportError) as error:
                raise VolumeError(volume.name, str(error)) from error
            except TimeoutError as error:
                raise VolumeError(volume.name, "timed out waiting for the condition") from error
            except OSError as error:
                raise VolumeError(volume.name, f"{error.filename or ''}: {error.strerror}".lstrip(": ")) from error

    async def _one(self, pod: core_v1.Pod, volume: core_v1.Volume, facts: Facts) -> Path:
        security = pod.spec.security_context
        gid = security.fs_group if security else None
        blocking = self._world.blocking
        if volume.host_path is not None:
            return await blocking(local.host_path, volume.host_path)
        if volume.empty_dir is not None:
            folder = local.empty_dir_folder(self._config.pods_dir, self._uid, volume.name)
            if volume.name not in self.paths:
                limit = resources.pod_limits(pod).get("memory", 0) or resources.amounts(facts.allocatable).get("memory", 0)
                await blocking(local.empty_dir, folder, volume.empty_dir, gid, limit)
            return folder
        if volume.csi is not None:
            return await self._csi.set_up(pod, volume, None, self._tokens)
        if (claim := persistent.claim_name(pod, volume)) is not None:
            return await self._persistent(pod, volume, claim, gid)
        if not payload.has_payload(volume):
            raise ConfigError("no volume plugin matched")
        needs = list(payload.references(volume))
        uid = _single_user(pod)
        sources = payload.Sources(
            objects=await self._objects.get(pod.metadata.namespace or "", needs),
            tokens={wish: await self._tokens.get(pod, wish) for wish in payload.wishes(volume)},
            facts=facts,
            private=gid is not None or uid is not None,
        )
        folder = self._config.secrets_dir / self._uid / volume.name
        files = payload.files(pod, volume, sources)
        owner = uid if volume.projected is not None and sources.tokens else None
        await blocking(partial(atomic.write, folder, files, self._world.now(), gid=gid, uid=owner))
        return folder

    async def _persistent(self, pod: core_v1.Pod, volume: core_v1.Volume, claim: str, gid: int | None) -> Path:
        if volume.name in self.paths and self._csi.next_republish(self._uid) is None:
            return self.paths[volume.name]
        claim_object, volume_object = await persistent.bound_volume(self._client, pod, claim, volume.ephemeral is not None)
        if volume_object.spec.csi is not None:
            return await self._csi.set_up(pod, volume, (claim_object, volume_object), self._tokens)
        if volume_object.spec.host_path is not None:
            return await self._world.blocking(local.host_path, volume_object.spec.host_path)
        if volume_object.spec.local is None:
            raise ConfigError("no volume plugin matched")
        if loopimages.is_image(volume_object.spec.local.path):
            path = await self._image(claim_object, volume_object)
        else:
            path = await self._world.blocking(persistent.local_folder, volume_object)
        if gid is not None and not persistent.is_read_only(volume):
            policy = pod.spec.security_context.fs_group_change_policy if pod.spec.security_context else None
            await self._world.blocking(persistent.give_to_group, path, gid, policy)
        return Path(path)

    async def _image(self, claim: persistent.Claim, volume: persistent.Volume) -> str:
        """Mounts a volume that is a file with a file system in it, for this pod; lets it grow if it has."""
        if not self._config.is_real or volume.spec.local is None:
            raise ConfigError("a simulated node mounts no file systems")
        image = volume.spec.local.path
        folder = self._config.pods_dir / self._uid / "volumes" / "kubernetes.io~local-volume"
        target = folder / (volume.metadata.name or "")
        has_grown = any(c.type == "FileSystemResizePending" for c in claim.status.conditions or ())
        if await self._world.blocking(loopimages.mount, image, target, has_grown):
            capacity = {"storage": (volume.spec.capacity or {}).get("storage", "0")}
            status = {"status": {"capacity": capacity, "conditions": None}}
            name, namespace = claim.metadata.name or "", claim.metadata.namespace
            await self._client[core_v1.PersistentVolumeClaim].patch_status(name, namespace, status)
        return str(target)

    async def tear_down(self, stop: Callable[[], bool]) -> None:
        """Takes the folders away, until ``stop`` says so. Nothing of the pod may run any more. Raises OSError."""
        await self._csi.tear_down(self._uid)
        await self._world.blocking(tear_down, self._config, self._uid, stop)
        self.paths.clear()


def sub_paths(config: Config, uid: str) -> SubPaths:
    """Where the sub-paths of a pod uid are mounted while its containers start."""
    return SubPaths(config.run_dir / "subpaths" / uid, mounts=config.is_real)


def tear_down(config: Config, uid: str, stop: Callable[[], bool] = lambda: False) -> None:
    """Removes the volumes of a pod uid, also of one that this agent never knew. It blocks, until ``stop`` says so.

    Raises OSError.
    """
    sub_paths(config, uid).tear_down()
    volumes = os.path.realpath(config.pods_dir / uid / "volumes")
    trees.unmount_below(volumes)
    trees.remove(volumes, stop)
    trees.remove(config.secrets_dir / uid)


def references(pod: core_v1.Pod) -> Iterator[Reference]:
    """The ConfigMaps and Secrets that a pod's volumes need."""
    for volume in pod.spec.volumes or ():
        yield from payload.references(volume)


def _single_user(pod: core_v1.Pod) -> int | None:
    """The user that all containers of a pod run as, if the spec says so."""
    whole = pod.spec.security_context.run_as_user if pod.spec.security_context else None
    users = []
    for role in roles(pod.spec):
        own = role.container.security_context.run_as_user if role.container.security_context else None
        users.append(whole if own is None else own)
    return users[0] if users and all(u == users[0] for u in users) else None
