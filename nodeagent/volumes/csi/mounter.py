"""CSI volumes of pods: attached, staged once for the node, published to each pod, and all of it taken back.

Each step is told to the driver again after whatever went wrong (the interface demands that it may be), and what may have been
done is on disk before it is asked for (records.py). The node only ever removes empty folders.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from navarch.api import volumes as volume_rules
from navarch.api.errors import Forbidden, NotFound, StatusError
from navarch.api.types import core_v1, storage_v1
from navarch.client.client import Client
from navarch.client.transport import TransportError
from navarch.rpc.sockets import RpcError, texts
from navarch.world import World
from nodeagent.pods.fieldrefs import ConfigError
from nodeagent.volumes import persistent
from nodeagent.volumes.csi import requests
from nodeagent.volumes.csi.driver import Driver
from nodeagent.volumes.csi.drivers import Drivers
from nodeagent.volumes.csi.records import Place, Places, Record
from nodeagent.volumes.csi.usage import InUse
from nodeagent.volumes.csi.wishes import Wish, claim_wish, inline_wish
from nodeagent.volumes.payload import TokenWish
from nodeagent.volumes.tokens import Tokens
from protos import csi_pb2 as csi

log = logging.getLogger(__name__)
IDLE = 30.0  # seconds between two looks for volumes that nobody uses any more, or that have grown
RETRY = 2.0
REPUBLISH = 60.0  # seconds


class CsiVolumes:
    """All CSI volumes of the node."""

    def __init__(self, world: World, client: Client, node_name: str, root: Path, drivers: Drivers, in_use: InUse) -> None:
        self._world, self._client, self._node_name = world, client, node_name
        self.places, self.drivers, self._in_use = Places(root), drivers, in_use
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._staged: dict[tuple[str, str], None] = {}  # in this agent's life, so surely
        self._unused = asyncio.Event()
        self._due: dict[str, float] = {}  # pod uid -> when its driver wants to be called again (Unix seconds)

    def _lock(self, driver: str, handle: str) -> asyncio.Lock:
        return self._locks.setdefault((driver, handle), asyncio.Lock())

    async def _disk(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await self._world.blocking(work, *arguments)

    def _driver(self, name: str) -> Driver:
        driver = self.drivers.get(name)
        if driver is None:
            raise ConfigError(f"driver name {name} not found in the list of registered CSI drivers")
        return driver

    # --- mounting ---

    async def set_up(
        self, pod: core_v1.Pod, volume: core_v1.Volume, bound: tuple[persistent.Claim, persistent.Volume] | None, tokens: Tokens
    ) -> Path:
        """Mounts a volume for a pod; where it is. Raises ConfigError, StatusError, TransportError, OSError."""
        wish = inline_wish(pod, volume) if bound is None else claim_wish(pod, volume, *bound)
        place = self.places.of_pod(wish.pod, wish.volume)
        driver = self._driver(wish.driver)
        spec = await self._spec(wish.driver)
        if bound is None and "Ephemeral" not in ((spec.volume_lifecycle_modes if spec is not None else None) or ()):
            raise ConfigError(f"volume mode \"Ephemeral\" not supported by driver {wish.driver} (only supports 'Persistent')")
        async with self._lock(wish.driver, wish.handle):
            record = await self._disk(place.read)
            is_there = record is not None and record.done and await self._disk(place.is_mounted)
            if is_there and not (spec is not None and spec.requires_republish):
                return place.mount
            wish.needs_attachment = bound is not None and not (spec is not None and spec.attach_required is False)
            try:
                await self._mount(pod, driver, spec, wish, place, tokens)
            except RpcError as error:
                raise ConfigError(str(error)) from error
            if spec is not None and spec.requires_republish:
                self._due[wish.pod] = self._world.now() + REPUBLISH
        return place.mount

    def next_republish(self, uid: str) -> float | None:
        """When a driver of the pod wants NodePublishVolume again (CSIDriver's requiresRepublish); None if none does."""
        return self._due.get(uid)

    async def _mount(
        self, pod: core_v1.Pod, driver: Driver, spec: storage_v1.CSIDriverSpec | None, wish: Wish, place: Place, tokens: Tokens
    ) -> None:
        record = wish.record()
        await self._disk(place.write, record)  # from now on it is ours to take away
        publish_context: dict[str, str] = {}
        if wish.needs_attachment:
            await self._in_use.report(requests.unique_name(wish.driver, wish.handle))
            publish_context = await self._attachment(wish)
        gives_group = wish.group is not None and not wish.read_only and requests.gives_group(spec, wish.object, wish.fs_type)
        capability = requests.capability(
            wish.access_modes, wish.fs_type, wish.mount_options, single_node_modes=driver.knows_single_node_modes,
            group=str(wish.group) if gives_group and driver.sets_group else "",
        )  # fmt: skip
        staging = ""
        if driver.stages and not wish.is_ephemeral:
            staging = await self._stage(driver, wish, capability, publish_context)
        context = wish.attributes | requests.pod_context(
            pod, spec, is_ephemeral=wish.is_ephemeral, tokens=await self._tokens(pod, spec, tokens)
        )
        request = csi.NodePublishVolumeRequest(
            volume_id=wish.handle, publish_context=publish_context, staging_target_path=staging, target_path=str(place.mount),
            volume_capability=capability, readonly=wish.read_only, secrets=await self._secret(wish.publish_secret),
            volume_context=context,
        )  # fmt: skip
        await driver.node("NodePublishVolume", request, csi.NodePublishVolumeResponse)
        if gives_group and not driver.sets_group:
            policy = pod.spec.security_context.fs_group_change_policy if pod.spec.security_context else None
            await self._disk(persistent.give_to_group, str(place.mount), wish.group, policy)
        if driver.expands and 0 < wish.granted < wish.size:
            await self._expand(driver, wish, place, staging, capability)
        record.done, record.size = True, wish.size
        await self._disk(place.write, record)

    async def _stage(
        self, driver: Driver, wish: Wish, capability: csi.VolumeCapability, publish_context: dict[str, str]
    ) -> str:
        """Mounts the volume for the node; where. Raises RpcError and others."""
        place, key = self.places.of_node(wish.driver, wish.handle), (wish.driver, wish.handle)
        if key in self._staged:
            return str(place.mount)
        record = wish.record()
        record.pod = ""
        await self._disk(place.write, record)
        await self._disk(partial(place.mount.mkdir, mode=0o750, exist_ok=True))
        request = csi.NodeStageVolumeRequest(
            volume_id=wish.handle, publish_context=publish_context, staging_target_path=str(place.mount),
            volume_capability=capability, secrets=await self._secret(wish.stage_secret), volume_context=wish.attributes,
        )  # fmt: skip
        await driver.node("NodeStageVolume", request, csi.NodeStageVolumeResponse)
        record.done = True
        await self._disk(place.write, record)
        self._staged[key] = None
        return str(place.mount)

    async def _expand(self, driver: Driver, wish: Wish, place: Place, staging: str, capability: csi.VolumeCapability) -> None:
        """Tells the driver that the volume has grown, and the claim that its pod has it. Raises RpcError and others."""
        request = csi.NodeExpandVolumeRequest(
            volume_id=wish.handle, volume_path=str(place.mount), staging_target_path=staging, volume_capability=capability,
            capacity_range=csi.CapacityRange(required_bytes=wish.size), secrets=await self._secret(wish.expand_secret),
        )  # fmt: skip
        await driver.node("NodeExpandVolume", request, csi.NodeExpandVolumeResponse)
        namespace, _, name = wish.claim.partition("/")
        claim = await self._client[core_v1.PersistentVolumeClaim].get(name, namespace)
        remaining = [c for c in claim.status.conditions or () if c.type not in ("FileSystemResizePending", "Resizing")]
        assert wish.object is not None
        storage = (wish.object.spec.capacity or {})["storage"]
        patch = {"status": {"capacity": {"storage": storage}, "conditions": [*remaining] or None}}
        await self._client[core_v1.PersistentVolumeClaim].patch_status(name, namespace, patch)

    async def _spec(self, driver: str) -> storage_v1.CSIDriverSpec | None:
        try:
            return (await self._client[storage_v1.CSIDriver].get(driver)).spec
        except NotFound:
            return None

    async def _attachment(self, wish: Wish) -> dict[str, str]:
        """Returns the attacher's metadata of the volume. Raises ConfigError until it is attached."""
        name = requests.attachment_name(wish.handle, wish.driver, self._node_name)
        try:
            attachment = await self._client[storage_v1.VolumeAttachment].get(name)
        except (NotFound, Forbidden) as error:  # forbidden: no attachment of that name is to this node
            raise ConfigError(f"volume {wish.volume} is not attached to node {self._node_name} yet") from error
        if attachment.metadata.deletion_timestamp is not None or not attachment.status.attached:
            failure = attachment.status.attach_error
            why = f": {failure.message}" if failure is not None and failure.message else ""
            raise ConfigError(f"volume {wish.volume} is not attached to node {self._node_name} yet{why}")
        return dict(attachment.status.attachment_metadata or {})

    async def _secret(self, ref: tuple[str, str] | None) -> dict[str, str]:
        """The values of a Secret (namespace, name). Raises RpcError, StatusError, TransportError."""
        if ref is None:
            return {}
        secret = await self._client[core_v1.Secret].get(ref[1], ref[0])
        return texts(secret.data or {})

    async def _tokens(
        self, pod: core_v1.Pod, spec: storage_v1.CSIDriverSpec | None, tokens: Tokens
    ) -> dict[str, dict[str, str]]:
        out = {}
        for request in (spec.token_requests if spec is not None else None) or ():
            wish = TokenWish(request.audience, request.expiration_seconds or 3600)
            out[request.audience] = {"token": await tokens.get(pod, wish), "expirationTimestamp": tokens.expiry(wish)}
        return out

    # --- taking away ---

    async def tear_down(self, uid: str) -> None:
        """Takes a pod's volumes away. Nothing of the pod may run any more. Raises OSError while something stays."""
        places = await self._disk(self.places.published, uid)
        for place in places:
            record = await self._disk(place.read)
            if record is None:
                await self._disk(place.remove)
                continue
            async with self._lock(record.driver, record.handle):
                await self._unpublish(place, record)
        self._due.pop(uid, None)
        if places:
            self._unused.set()
        await self._disk(self.places.forget_pod, uid)

    async def _unpublish(self, place: Place, record: Record) -> None:
        try:
            driver = self._driver(record.driver)
            request = csi.NodeUnpublishVolumeRequest(volume_id=record.handle, target_path=str(place.mount))
            await driver.node("NodeUnpublishVolume", request, csi.NodeUnpublishVolumeResponse)
        except (ConfigError, RpcError) as error:
            raise OSError(f'UnmountVolume.TearDown failed for volume "{record.volume}": {error}') from error
        await self._disk(place.remove)

    async def run(self, is_known: Callable[[str], bool]) -> None:
        """Takes away what no pod of the node uses any more, until cancelled. ``is_known``: the node has a pod of this uid."""
        self.drivers.changed = self._unused.set
        while True:
            is_clean = await self._forget_orphans(is_known) and await self._unstage_unused()
            await self._expand_grown()
            try:
                async with asyncio.timeout(IDLE if is_clean else RETRY):
                    await self._unused.wait()
            except TimeoutError:
                pass
            self._unused.clear()

    async def _forget_orphans(self, is_known: Callable[[str], bool]) -> bool:
        """Takes away the volumes of pods that went while no agent ran. False if something stays."""
        is_clean = True
        for uid in await self._disk(self.places.pods_with_volumes):
            if not is_known(uid):
                try:
                    await self.tear_down(uid)
                except OSError as error:
                    log.warning("volumes of pod %s, which is gone: %s", uid, error)
                    is_clean = False
        return is_clean

    async def _unstage_unused(self) -> bool:
        """False if something is left that should go."""
        is_clean = True
        for place, record in await self._disk(lambda: list(self.places.all_staged())):
            async with self._lock(record.driver, record.handle):
                users = await self._disk(self._users, record)
                if users:
                    continue
                try:
                    await self._unstage(place, record)
                except (ConfigError, RpcError, OSError) as error:
                    log.warning("volume %s of driver %s stays staged: %s", record.handle, record.driver, error)
                    is_clean = False
        self._in_use.set(await self._disk(self._on_disk))
        return is_clean

    async def _unstage(self, place: Place, record: Record) -> None:
        driver = self._driver(record.driver)
        self._staged.pop((record.driver, record.handle), None)
        request = csi.NodeUnstageVolumeRequest(volume_id=record.handle, staging_target_path=str(place.mount))
        await driver.node("NodeUnstageVolume", request, csi.NodeUnstageVolumeResponse)
        await self._disk(place.remove)

    def _users(self, record: Record) -> list[Place]:
        mine = record.driver, record.handle
        return [place for place, other in self.places.all_published() if (other.driver, other.handle) == mine]

    def _on_disk(self) -> list[str]:
        """Names of the volumes that the node has, or may have, mounted."""
        records = [record for _, record in [*self.places.all_published(), *self.places.all_staged()]]
        return sorted({requests.unique_name(r.driver, r.handle) for r in records if r.needs_attachment})

    async def _expand_grown(self) -> None:
        """Tells drivers of volumes that have grown under running pods."""
        for place, record in await self._disk(lambda: list(self.places.all_published())):
            driver = self.drivers.get(record.driver)
            if driver is None or not driver.expands or not record.done or not record.claim:
                continue
            try:
                await self._expand_if_grown(driver, place, record)
            except (RpcError, ConfigError, StatusError, TransportError) as error:
                log.warning("volume %s cannot be expanded here: %s", record.volume, error)

    async def _expand_if_grown(self, driver: Driver, place: Place, record: Record) -> None:
        namespace, _, name = record.claim.partition("/")
        claim = await self._client[core_v1.PersistentVolumeClaim].get(name, namespace)
        if not any(c.type == "FileSystemResizePending" and c.status == "True" for c in claim.status.conditions or ()):
            return
        volume = await self._client[core_v1.PersistentVolume].get(record.volume)
        if volume_rules.capacity_of(volume) <= record.size:
            return
        wish = Wish.again(record, claim, volume)
        capability = requests.capability(wish.access_modes, wish.fs_type, wish.mount_options)
        async with self._lock(record.driver, record.handle):
            staging = str(self.places.of_node(record.driver, record.handle).mount) if driver.stages else ""
            await self._expand(driver, wish, place, staging, capability)
            record.size = wish.size
            await self._disk(place.write, record)
