"""Brings images from our store into containerd, when a container needs them.

Pulling, credentials, policies, progress and clean-up stay the store's, which all nodes of a home share; an image's id is
the digest of its config in both. containerd has its own copy of what it runs: it is imported once a node, by the program
that comes with containerd, as an OCI layout with one image; see docs/decisions.md, D75.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import msgspec

from nodeagent.images import archive
from nodeagent.images.store import CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE, ImageStore
from nodeagent.runtime.cri.layout import PAUSE_IMAGE

NAMESPACE = "k8s.io"  # containerd's, for what comes through CRI
NAME = "io.containerd.image.name"


class ImportFailed(Exception):
    """containerd does not have the image afterwards; the text is its own."""


class Importer:
    """Imports into the containerd at a socket, one image at a time. Blocks."""

    def __init__(self, store: ImageStore, socket: Path) -> None:
        self._store, self._socket, self._lock = store, socket, threading.Lock()

    def image(self, image_id: str) -> None:
        """An image of the store. Raises ImportFailed, KeyError if it is not in the store."""
        store, record = self._store, self._store.record(image_id)
        if record is None:
            raise KeyError(image_id)
        names = store.names().get(image_id) or [f"localhost/navarch/images:{image_id.removeprefix('sha256:')}"]
        raw = store.blob(record.manifest).read_bytes()
        manifest = msgspec.json.decode(raw)
        inside = [record.id, *(layer["digest"] for layer in manifest.get("layers") or ())]
        blobs = {record.manifest: store.blob(record.manifest)} | {digest: store.blob(digest) for digest in inside}
        described = {"mediaType": manifest.get("mediaType", MANIFEST_TYPE), "digest": record.manifest, "size": len(raw)}
        described["platform"] = {
            "architecture": store.config(record.id).architecture or archive.architecture(), "os": "linux"
        }  # fmt: skip
        files = {digest: (path.stat().st_size, partial(path.open, "rb")) for digest, path in blobs.items()}
        with store.lock("collection", shared=True):
            self._run(lambda target: write_layout(target, names[0], described, files))

    def pause(self) -> None:
        """The image of the process that holds a sandbox's namespaces. Raises ImportFailed."""
        program = shutil.which("catatonit")
        if program is None:
            raise ImportFailed("catatonit is not installed: run deploy/setup")
        described, contents = pause_image(Path(program).read_bytes())
        files = {digest: (len(data), partial(io.BytesIO, data)) for digest, data in contents.items()}
        self._run(lambda target: write_layout(target, PAUSE_IMAGE, described, files))

    def _run(self, write: Callable[[IO[bytes]], None]) -> None:
        program = shutil.which("ctr")
        if program is None:
            raise ImportFailed("ctr, which comes with containerd, is not installed")
        line = [program, "--address", str(self._socket), "--namespace", NAMESPACE, "images", "import", "-"]
        pipe = subprocess.PIPE
        with self._lock, subprocess.Popen(line, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe) as child:
            assert child.stdin is not None and child.stderr is not None
            try:
                write(child.stdin)
                child.stdin.close()
            except BrokenPipeError:
                pass  # it says why
            text = child.stderr.read().decode(errors="replace").strip()
            if child.wait() != 0:
                raise ImportFailed(text.splitlines()[-1] if text else f"ctr ended with {child.returncode}")


def pause_image(program: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """An image with this static program, which reaps: the descriptor of its manifest, and its blobs by digest."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        member = tarfile.TarInfo("pause")
        member.mode, member.size = 0o755, len(program)
        tar.addfile(member, io.BytesIO(program))
    config = msgspec.json.encode(
        {
            "architecture": archive.architecture(),
            "os": "linux",
            "config": {"Entrypoint": ["/pause", "-P"], "User": "65535:65535", "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]},
        }
    )
    manifest = msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": _digest(config), "size": len(config)},
            "layers": [
                {"mediaType": LAYER_TYPE, "digest": _digest(layer.getvalue()), "size": len(layer.getvalue())},
            ],
        }
    )
    blobs = {_digest(data): data for data in (manifest, config, layer.getvalue())}
    return {"mediaType": MANIFEST_TYPE, "digest": _digest(manifest), "size": len(manifest)}, blobs


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def write_layout(
    target: IO[bytes], name: str, manifest: dict[str, Any], blobs: Mapping[str, tuple[int, Callable[[], IO[bytes]]]]
) -> None:
    """Writes a tar of an OCI layout with one image. ``manifest`` is its descriptor; ``blobs``: size and opener by digest."""
    index = {"schemaVersion": 2, "manifests": [{**manifest, "annotations": {NAME: name}}]}
    own = (("oci-layout", {"imageLayoutVersion": "1.0.0"}), ("index.json", index))
    with tarfile.open(fileobj=target, mode="w|") as tar:
        for file, document in own:
            data = msgspec.json.encode(document)
            _add(tar, file, len(data), io.BytesIO(data))
        for digest, (size, open_) in blobs.items():
            with open_() as stream:
                _add(tar, f"blobs/sha256/{digest.removeprefix('sha256:')}", size, stream)


def _add(tar: tarfile.TarFile, name: str, size: int, stream: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    tar.addfile(member, stream)
