"""Images for containers: pull policy, back-off, and the events that people read when an image does not come."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

from navarch.api.types import core_v1
from navarch.world import World
from nodeagent.images.credentials import Login, of_secrets
from nodeagent.images.reference import InvalidReference
from nodeagent.images.reference import parse as parse_reference
from nodeagent.pods.backoff import BackoffTable
from nodeagent.pods.observed import AnyContainer, duration
from nodeagent.runtime.runtime import Image, Runtime, RuntimeError_

Tell = Callable[[str, str, str], None]  # type, reason, message

# distribution's reference grammar: [host[:port]/]path[:tag][@digest]
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])"
_REFERENCE = re.compile(
    rf"(?:{_HOST}(?::[0-9]+)?/)?{_PART}(?:/{_PART})*(?::[\w][\w.-]{{0,127}})?"
    r"(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?"
)


class ImageError(Exception):
    """The image is not to be had now. ``reason`` is the container's waiting reason; ``retry_in`` seconds."""

    def __init__(self, reason: str, message: str, retry_in: float) -> None:
        super().__init__(message)
        self.reason, self.message, self.retry_in = reason, message, retry_in


def valid_reference(image: str) -> bool:
    return bool(_REFERENCE.fullmatch(image))


def policy_of(container: AnyContainer) -> str:
    """imagePullPolicy, with the default that depends on the tag."""
    if container.image_pull_policy:
        return container.image_pull_policy
    image = container.image or ""
    name = image.rsplit("/", 1)[-1]
    tagged = "@" in name or (":" in name and not name.endswith(":latest"))
    return "IfNotPresent" if tagged else "Always"


def _logins(image: str, secrets: Sequence[core_v1.Secret]) -> list[Login]:
    """The logins that a pod's pull secrets have for an image's registry."""
    try:
        return of_secrets(parse_reference(image), secrets)
    except InvalidReference:
        return []


class Images:
    """All pulls of the node: a few at a time, one image only once at a time, failures remembered with back-off."""

    def __init__(self, runtime: Runtime, world: World, parallel: int = 2) -> None:
        self._runtime, self._world = runtime, world
        self._slots = asyncio.Semaphore(parallel)
        self._failures = BackoffTable()
        self._failed_at: dict[str, tuple[float, str]] = {}  # key -> when, and the error

    async def ensure(
        self, pod: core_v1.Pod, container: AnyContainer, tell: Tell, secrets: Sequence[core_v1.Secret] = ()
    ) -> Image:
        """The image of a container, pulled (with the pull secrets) if its policy wants it. Raises ImageError."""
        image = container.image or ""
        if not valid_reference(image):
            message = f'couldn\'t parse image name "{image}": invalid reference format'
            tell("Warning", "InspectFailed", f'Failed to apply default image tag "{image}": {message}')
            raise ImageError("InvalidImageName", f'Failed to apply default image tag "{image}": {message}', 60.0)
        policy = policy_of(container)
        present = await self._runtime.image(image)
        if present is not None and policy != "Always":
            tell("Normal", "Pulled", f'Container image "{image}" already present on machine')
            return present
        if policy == "Never":
            message = f'Container image "{image}" is not present with pull policy of Never'
            tell("Warning", "ErrImageNeverPull", message)
            raise ImageError("ErrImageNeverPull", message, 10.0)
        key = f"{pod.metadata.uid}/{image}"
        now = self._world.now()
        failed_at, why = self._failed_at.get(key, (0.0, ""))
        until = self._failures.until(key, failed_at) if failed_at else 0.0
        if until > now:
            tell("Normal", "BackOff", f'Back-off pulling image "{image}"')
            message = f'Back-off pulling image "{image}": ErrImagePull: {why}'
            raise ImageError("ImagePullBackOff", message, until - now)
        return await self._pull(key, image, tell, _logins(image, secrets))

    async def _pull(self, key: str, image: str, tell: Tell, logins: Sequence[Login]) -> Image:
        began = self._world.monotonic()
        tell("Normal", "Pulling", f'Pulling image "{image}"')
        try:
            async with self._slots:
                slot = self._world.monotonic()
                pulled = await self._runtime.pull(image, logins)
        except RuntimeError_ as error:
            now = self._world.now()
            previous = self._failed_at.get(key, (now, ""))[0]
            self._failures.next(key, previous, now)
            self._failed_at[key] = now, error.message
            tell("Warning", "Failed", f'Failed to pull image "{image}": {error.message}')
            reason = error.reason if error.reason in ("ErrImagePull", "RegistryUnavailable") else "ErrImagePull"
            raise ImageError(reason, error.message, 1.0) from error
        self._failures.forget(key)
        self._failed_at.pop(key, None)
        end = self._world.monotonic()
        took, whole = duration(round(end - slot, 3)), duration(round(end - began, 3))
        size = f" Image size: {pulled.size} bytes."
        tell("Normal", "Pulled", f'Successfully pulled image "{image}" in {took} ({whole} including waiting).{size}')
        return pulled

    def forget(self, pod_uid: str) -> None:
        """The pod is gone: so are its failures."""
        for key in [k for k in self._failed_at if k.startswith(f"{pod_uid}/")]:
            self._failures.forget(key)
            del self._failed_at[key]
