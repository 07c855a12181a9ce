"""Pushing an image: its blobs, unless the registry has them, then its manifest."""

from __future__ import annotations

import asyncio

import msgspec

from nodeagent.images import manifests
from nodeagent.images.distribution import RegistryError, Repository
from nodeagent.images.manifests import Descriptor
from nodeagent.images.pull import PARALLEL_LAYERS, Progress
from nodeagent.images.reference import Reference
from nodeagent.images.store import MANIFEST_TYPE, ImageStore, Record


class PushFailed(Exception):
    """The image could not be sent; the message says why, in the registry's words."""


async def push(store: ImageStore, record: Record, target: Reference, repository: Repository, progress: Progress) -> str:
    """Sends an image to where ``target`` says; the digest by which it can be pulled. Raises PushFailed."""
    raw = store.blob(record.manifest).read_bytes()
    document = msgspec.json.decode(raw)
    manifest = manifests.read(document)
    blobs = list(dict.fromkeys((*manifest.layers, manifest.config)))
    progress.total, progress.layers = sum(blob.size for blob in blobs), len(blobs)
    slots = asyncio.Semaphore(PARALLEL_LAYERS)

    async def send(blob: Descriptor) -> None:
        async with slots:
            if not await repository.has_blob(blob.digest):
                await repository.upload(blob.digest, lambda: open(store.blob(blob.digest), "rb"))  # noqa: SIM115 - aiohttp closes it
            progress.done += blob.size
            progress.ready += 1
            progress.tell()

    tasks = [asyncio.ensure_future(send(blob)) for blob in blobs]
    try:
        await asyncio.gather(*tasks)
        await repository.put_manifest(target.tag or record.manifest, raw, document.get("mediaType") or MANIFEST_TYPE)
    except RegistryError as error:
        raise PushFailed(f'failed to push image "{target}": {error}') from error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return record.manifest
