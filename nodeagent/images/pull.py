"""Pulling an image: from a name to layers in the store, for whoever needs it.

Each layer is fetched, checked and unpacked by itself, a few at a time. What has come stays in ``partial/`` when the
connection breaks or the pull is given up, and the next pull asks for the rest. A blob is fetched under a lock of its own, so
that two pulls of a home that share it fetch it once. The store's lock is held only at the end: if an image that was removed
meanwhile took layers along, they are fetched again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from navarch.world import World
from nodeagent.images import manifests
from nodeagent.images.advice import advice
from nodeagent.images.archive import architecture
from nodeagent.images.credentials import Login
from nodeagent.images.distribution import Lost, RegistryError, Repository, Transport
from nodeagent.images.layers import Budget
from nodeagent.images.manifests import BadManifest, Descriptor
from nodeagent.images.reference import Reference, parse
from nodeagent.images.registries import BadRegistries, Endpoint, Registries
from nodeagent.images.store import ImageStore, Record

log = logging.getLogger(__name__)
PARALLEL_LAYERS = 3
MAX_BREAKS = 5  # connections that break one after the other without a byte more
PIECE = 1 << 20  # bytes that are written and hashed at a time
MIN_ROOM = 64 << 20  # bytes that stay free on the store's disk


class PullFailed(Exception):
    """The image could not be fetched; the message says why, in the registry's words."""


@dataclass
class Progress:
    """How far a pull is: bytes fetched of those to fetch, layers that are ready of all."""

    done: int = 0
    total: int = 0
    ready: int = 0
    layers: int = 0
    report: Callable[[Progress], None] = field(default=lambda progress: None, repr=False)

    def tell(self) -> None:
        self.report(self)


class Puller:
    """Pulls into one store. ``registries`` is read anew at each pull."""

    def __init__(
        self, world: World, store: ImageStore, transport: Transport, registries: Callable[[], Registries]
    ) -> None:
        self._world, self._store, self._transport, self._registries = world, store, transport, registries

    async def pull(
        self, name: str, logins: Sequence[Login] = (), report: Callable[[Progress], None] | None = None
    ) -> Record:
        """Fetches an image and adds it to the store; one that is there already with the digest that the registry tells
        costs one question. ``logins`` are tried in turn. Raises PullFailed, InvalidReference."""
        reference = parse(name)
        try:
            endpoints = self._registries().endpoints(reference)
        except BadRegistries as error:
            raise PullFailed(f'failed to pull image "{name}": {error}') from None
        reasons: dict[str, None] = {}
        for endpoint in endpoints:
            # A pod's secret is for the registry of the image's name, not for who mirrors it.
            for login in (None,) if endpoint.mirror or not logins else logins:
                try:
                    progress = Progress(report=report) if report else Progress()
                    return await _Pull(
                        self._world, self._store, Repository(self._transport, endpoint, login), progress
                    ).run(reference)
                except (RegistryError, BadManifest, aiohttp.ClientError) as error:
                    reasons[str(error) or type(error).__name__] = None
                except Exception as error:  # manifests, tars and streams of strangers fail in all ways there are
                    log.info("pulling %s", name, exc_info=error)
                    reasons[f"{endpoint.host}: {_words(error)}"] = None
        present = [each for names in await self._names() for each in names]
        raise PullFailed(f'failed to pull image "{name}": {advice(reference, present, "; ".join(reasons))}')

    async def _names(self) -> list[list[str]]:
        return await self._world.blocking(lambda: list(self._store.names().values()))


class _Pull:
    def __init__(self, world: World, store: ImageStore, repository: Repository, progress: Progress) -> None:
        self._world, self._store, self._repository, self._progress = world, store, repository, progress
        self._slots = asyncio.Semaphore(PARALLEL_LAYERS)

    async def run(self, reference: Reference) -> Record:
        store, blocking = self._store, self._world.blocking
        own_name = str(
            Reference(reference.domain, reference.path, "", reference.digest) if reference.digest else reference
        )
        version = reference.digest or reference.tag
        # Asked also for what is here and has a digest: whether whoever pulls may have it, the registry alone knows.
        digest = await self._repository.digest(version)
        if digest and reference.digest:
            digest = reference.digest
        if digest:
            present = await blocking(_present, store, f"{reference.repository}@{digest}")
            if present is not None:
                await blocking(store.tag, own_name, present.id)
                return present
        digest, data = await self._resolve(digest or version)
        manifest_digest, manifest = _digest(data), manifests.read(manifests.decode(data))
        for _ in range(3):
            try:
                await blocking(_keep, store, data, manifest_digest)
                await self._fetch_all(manifest)
            except FileNotFoundError:
                if await blocking(_has_blobs, store, manifest_digest, manifest):
                    raise  # a layer links to nothing
                log.info("%s: blobs were collected before an image stood on them; fetching again", reference)
                continue
            record = await blocking(_finish, store, manifest_digest, manifest, own_name, digest)
            if record is not None:
                return record
        raise PullFailed("images are being removed as fast as they come")

    async def _resolve(self, version: str) -> tuple[str, bytes]:
        """The digest of what was asked for, and the bytes of this machine's manifest in it."""
        data, kind = await self._document(version)
        digest = _digest(data)
        for _ in range(3):
            if kind not in manifests.INDEXES:
                return digest, data
            choice = manifests.choose(manifests.decode(data), architecture())
            data, kind = await self._document(choice.digest)
        raise BadManifest("an index of an index of an index")

    async def _document(self, version: str) -> tuple[bytes, str]:
        """A manifest or index, and its media type."""
        data, content_type = await self._repository.manifest(version)
        if ":" in version and version != _digest(data):
            raise BadManifest(f"the manifest is {_digest(data)}, not {version} as asked for")
        return data, manifests.kind_of(manifests.decode(data), content_type)

    async def _fetch_all(self, manifest: manifests.Manifest) -> None:
        store, progress = self._store, self._progress
        progress.layers, progress.ready = len(dict.fromkeys(manifest.layers)), 0
        progress.done, progress.total = (
            0,
            sum(layer.size for layer in dict.fromkeys(manifest.layers)) + manifest.config.size,
        )
        config = manifest.config
        await self._blob(config)
        document = manifests.decode(await self._world.blocking(store.blob(config.digest).read_bytes))
        manifests.check_platform(document, architecture())
        rootfs = document.get("rootfs")
        diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        if not isinstance(diff_ids, list) or len(diff_ids) != len(manifest.layers):
            raise BadManifest(f"manifest has {len(manifest.layers)} layers, config has {len(diff_ids or ())}")
        diff_id_of = dict(zip(manifest.layers, diff_ids, strict=True))
        budget = store.budget(layer.size for layer in diff_id_of)
        tasks = [asyncio.ensure_future(self._layer(layer, str(diff_id), budget)) for layer, diff_id in diff_id_of.items()]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _layer(self, layer: Descriptor, diff_id: str, budget: Budget) -> None:
        async with self._slots:
            await self._blob(layer)
            await self._world.blocking(self._store.add_layer, diff_id, layer.digest, budget)
            self._progress.ready += 1
            self._progress.tell()

    async def _blob(self, blob: Descriptor) -> None:
        """Gets one blob, unless it is here; waits if another pull is getting it."""
        store, progress = self._store, self._progress
        while (lock := store.try_lock(f"blob-{store.blob(blob.digest).name[:32]}")) is None:
            await self._world.sleep(0.1)
        try:
            if store.blob(blob.digest).exists():
                progress.done += blob.size
                progress.tell()
                return
            await _Download(self._world, store, blob, self._repository, progress).run()
        finally:
            os.close(lock)


class _Download:
    """One blob on its way into a file of ``partial/``."""

    def __init__(
        self, world: World, store: ImageStore, blob: Descriptor, repository: Repository, progress: Progress
    ) -> None:
        self._world, self._store, self._descriptor, self._repository, self._progress = (
            world,
            store,
            blob,
            repository,
            progress,
        )
        self._path: Path = store.partial(blob.digest)
        self._hash, self._length = hashlib.sha256(), 0

    async def run(self) -> None:
        blocking, descriptor, breaks = self._world.blocking, self._descriptor, 0
        await blocking(self._check_room)
        await blocking(self._resume)
        self._count(self._length)
        while self._length < descriptor.size:
            before = self._length
            try:
                await self._some()
                if self._length < descriptor.size:
                    raise Lost(f"{self._repository.host}: the blob ends after {self._length} of {descriptor.size} bytes")
            except RegistryError as error:
                if error.code == 416:  # it does not know that byte of the blob: from the first one, then
                    await blocking(self._restart)
                elif not isinstance(error, Lost):
                    raise
                breaks = breaks + 1 if self._length <= before else 1
                if breaks >= MAX_BREAKS:
                    raise
                await self._world.sleep(0.2 * 2**breaks)
        await blocking(self._finish)

    def _check_room(self) -> None:
        disk = os.statvfs(self._store.root)
        if disk.f_bavail * disk.f_frsize < self._descriptor.size + MIN_ROOM:
            free = disk.f_bavail * disk.f_frsize
            raise OSError(
                f"no space left for a blob of {self._descriptor.size} bytes: {free} are free; see: navarch image prune"
            )

    def _resume(self) -> None:
        """Reads what an earlier pull left, for the digest is of the whole."""
        self._hash, self._length = hashlib.sha256(), 0
        try:
            with open(self._path, "rb") as file:
                while data := file.read(PIECE):
                    self._hash.update(data)
                    self._length += len(data)
        except FileNotFoundError:
            return
        if self._length > self._descriptor.size:
            self._restart()

    def _restart(self) -> None:
        self._count(-self._length)
        self._hash, self._length = hashlib.sha256(), 0
        self._path.unlink(missing_ok=True)

    def _count(self, size: int) -> None:
        self._progress.done += size
        self._progress.tell()

    async def _some(self) -> None:
        """Appends what comes over one connection."""
        waiting = bytearray()
        pieces = self._repository.blob(self._descriptor.digest, self._length)
        try:
            async for piece in pieces:
                if isinstance(piece, int):
                    if piece != self._length:  # a registry without ranges begins anew
                        if piece:
                            raise RegistryError(
                                f"{self._repository.host}: asked from byte {self._length}, it sent from {piece}"
                            )
                        self._restart()
                    continue
                waiting += piece
                if self._length + len(waiting) > self._descriptor.size:
                    self._restart()
                    raise BadManifest(
                        f"blob {self._descriptor.digest} has more bytes than the {self._descriptor.size} announced"
                    )
                if len(waiting) >= PIECE:
                    await self._world.blocking(self._append, bytes(waiting))
                    waiting.clear()
        finally:
            if waiting and self._length + len(waiting) <= self._descriptor.size:
                await self._world.blocking(self._append, bytes(waiting))
            await pieces.aclose()  # type: ignore[attr-defined]

    def _append(self, data: bytes) -> None:
        with open(self._path, "ab") as file:
            file.write(data)
        self._hash.update(data)
        self._length += len(data)
        self._count(len(data))

    def _finish(self) -> None:
        digest = "sha256:" + self._hash.hexdigest()
        if digest != self._descriptor.digest:
            self._path.unlink(missing_ok=True)
            raise BadManifest(f"blob is {digest}, not {self._descriptor.digest} as announced")
        self._path.touch()  # a blob may have no bytes
        os.chmod(self._path, 0o644)
        os.rename(self._path, self._store.blob(digest))


def _has_blobs(store: ImageStore, manifest_digest: str, manifest: manifests.Manifest) -> bool:
    blobs = (manifest_digest, manifest.config.digest, *(layer.digest for layer in manifest.layers))
    return all(store.blob(blob).exists() for blob in blobs)


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _keep(store: ImageStore, data: bytes, digest: str) -> None:
    import io

    store.add_blob(io.BytesIO(data), digest)


def _present(store: ImageStore, name: str) -> Record | None:
    """The image of REPOSITORY@DIGEST if all of it is here."""
    record = store.find(name)
    return record if record is not None and store.is_whole(record) else None


def _finish(
    store: ImageStore, manifest_digest: str, manifest: manifests.Manifest, name: str, digest: str
) -> Record | None:
    """Names the image; None if parts of it went away again meanwhile."""
    with store.lock("collection", shared=True):
        if not _has_blobs(store, manifest_digest, manifest):
            return None
        return store.add(manifest_digest, [name], digest, pulled=True)


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def default_registries(home: Path) -> Callable[[], Registries]:
    """The registries of a home's file."""
    from nodeagent.images import registries

    return lambda: registries.load(home / "registries.conf")


__all__ = ["Endpoint", "Progress", "PullFailed", "Puller"]
