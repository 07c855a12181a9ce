"""Authentication and authorization that a component leaves to the API server (Kubernetes' delegated authentication): a
bearer token is asked about with a TokenReview, the right to a page with a SubjectAccessReview on its path.

For pages on an address that every user of the machine can reach. A unix socket in a private folder needs none of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from navarch.api.errors import StatusError
from navarch.api.types import authentication_v1, authorization_v1
from navarch.client.client import Client
from navarch.client.transport import TransportError
from navarch.world import World

OPEN = ("/healthz", "/livez", "/readyz")
GOOD_SECONDS, BAD_SECONDS = 60.0, 10.0  # seconds for which an answer is kept
MAX_KEPT = 1000


class Delegated:
    """Permissions to read pages: who may read which; ``open_`` to everybody."""

    def __init__(self, client: Client, world: World, open_: Collection[str] = OPEN) -> None:
        self._client, self._world, self._open = client, world, open_
        self._answers: dict[tuple[str, str], tuple[float, int, str]] = {}

    async def check(self, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
        """(200, "") if the page may be read, else the status and why. ``headers`` by lower-case names."""
        if path in self._open:
            return 200, ""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return 401, "Unauthorized"
        now = self._world.monotonic()
        until, status, why = self._answers.get((token, path), (0.0, 0, ""))
        if now >= until:
            status, why = await self._ask(path, token)
            while len(self._answers) >= MAX_KEPT:
                self._answers.pop(next(iter(self._answers)))
            if status != 500:
                self._answers[token, path] = now + (GOOD_SECONDS if status == 200 else BAD_SECONDS), status, why
        return status, why

    async def _ask(self, path: str, token: str) -> tuple[int, str]:
        try:
            spec = authentication_v1.TokenReviewSpec(token=token)
            token_review = await self._client[authentication_v1.TokenReview].create(authentication_v1.TokenReview(spec=spec))
            user = token_review.status.user if token_review.status and token_review.status.authenticated else None
            if user is None:
                return 401, "Unauthorized"
            review = authorization_v1.SubjectAccessReview(
                spec=authorization_v1.SubjectAccessReviewSpec(
                    user=user.username,
                    groups=list(user.groups or ()),
                    non_resource_attributes=authorization_v1.NonResourceAttributes(path=path, verb="get"),
                ),
                status=authorization_v1.SubjectAccessReviewStatus(allowed=False),
            )
            answer = await self._client[authorization_v1.SubjectAccessReview].create(review)
        except (StatusError, TransportError) as error:
            return 500, f"asking the API server: {error}"
        if answer.status and answer.status.allowed:
            return 200, ""
        return 403, f'forbidden: User "{user.username}" cannot get path "{path}"'
