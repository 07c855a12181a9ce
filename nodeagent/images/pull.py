"""Pulling images from registries, by skopeo."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path

from nodeagent.images import archive
from nodeagent.images.advice import advice
from nodeagent.images.reference import parse
from nodeagent.images.store import ImageStore, Record

TIMEOUT = "10m"


class PullFailed(Exception):
    """The image could not be fetched; the message says why, in skopeo's words."""


def pull(
    store: ImageStore,
    name: str,
    credentials: tuple[str, str] | None = None,
    *,
    insecure: frozenset[str] = frozenset(),
    program: str = "skopeo",
) -> Record:
    """Fetches an image and adds it to the store. ``insecure`` registries may speak plain HTTP. It blocks.

    Raises PullFailed, InvalidReference.
    """
    reference = parse(name)
    if shutil.which(program) is None:
        raise PullFailed(f'failed to pull image "{name}": {program} is not installed')
    # A digest says it all, and skopeo takes only one of tag and digest.
    source = f"docker://{reference.repository}" + (
        f"@{reference.digest}" if reference.digest else f":{reference.tag}"
    )
    with store.temporary() as scratch:
        target = Path(scratch) / "image"
        line = [program, "--command-timeout", TIMEOUT, "copy", "--quiet", "--retry-times", "0"]
        if reference.domain in insecure:
            line.append("--src-tls-verify=false")
        if credentials is not None:
            path = Path(scratch) / "auth.json"
            token = b64encode(f"{credentials[0]}:{credentials[1]}".encode()).decode()
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "w") as file:
                json.dump({"auths": {reference.domain: {"auth": token}}}, file)
            line.append(f"--src-authfile={path}")
        line += ["--preserve-digests", source, f"dir:{target}"]
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            present = [each for names in store.names().values() for each in names]
            raise PullFailed(f'failed to pull image "{name}": {advice(reference, present, _reason(done.stderr))}')
        try:
            return archive.load_directory(store, target, [str(reference)])
        except Exception as error:  # manifests, tars and streams of strangers fail in all ways there are
            raise PullFailed(f'failed to pull image "{name}": {error or type(error).__name__}') from error


def _reason(stderr: str) -> str:
    """The last line of skopeo's log, without time and level."""
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    text = lines[-1] if lines else "no message"
    _, found, message = text.partition('msg="')
    return message.rstrip('"').replace('\\"', '"') if found else text
