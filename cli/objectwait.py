"""Waiting for an object: list, then watch, until a test says yes; again from the start if the watch breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cli.errors import CommandError
from cli.session import Resource, Session, Tree
from navarch.api.durations import DurationError, parse_seconds
from navarch.api.errors import Expired, Gone, NotFound
from navarch.client.transport import TransportError
from navarch.client.watch import DELETED

Test = Callable[[Tree | None], bool]
"""Looks at the object, None if it is not there; true ends the wait."""

FOREVER = float("inf")


async def until(
    session: Session,
    resource: Resource,
    name: str,
    namespace: str | None,
    test: Test,
    timeout: float = FOREVER,
    retry_after: float = 0.5,
) -> Tree | None:
    """The object (None if gone) for which ``test`` is true. Raises CommandError after ``timeout`` seconds."""
    try:
        async with asyncio.timeout(None if timeout == FOREVER else timeout):
            while True:
                try:
                    done, tree = await _follow(session, resource, name, namespace, test)
                    if done:
                        return tree
                except (Expired, Gone, TransportError):
                    await session.world.sleep(retry_after)
    except TimeoutError:
        raise CommandError(f"timed out waiting for the condition on {resource.kind.resource}/{name}") from None


async def _follow(
    session: Session, resource: Resource, name: str, namespace: str | None, test: Test
) -> tuple[bool, Tree | None]:
    client = session.of(resource)
    page = await client.list(namespace, field_selector=f"metadata.name={name}")
    tree = page.items[0] if page.items else None
    if test(tree):
        return True, tree
    async with client.watch(namespace, name=name, resource_version=page.resource_version) as events:
        async for event in events:
            if event.type == "BOOKMARK":
                continue
            tree = None if event.type == DELETED else event.object
            if test(tree):
                return True, tree
    return False, None


async def wait_for_deletion(
    session: Session, resource: Resource, name: str, namespace: str | None, uid: str, timeout: float = FOREVER
) -> None:
    """Returns once the object with this uid does not exist any more (another one of the same name may)."""

    def test(tree: Tree | None) -> bool:
        return tree is None or (bool(uid) and tree["metadata"].get("uid") != uid)

    try:
        await until(session, resource, name, namespace, test, timeout)
    except NotFound:
        pass


def parse_duration(text: str, option: str = "timeout") -> float:
    """Go's durations (``1h30m``, ``500ms``) and plain seconds, as seconds. Raises CommandError."""
    try:
        return parse_seconds(text)
    except DurationError as error:
        raise CommandError(f'invalid argument "{text}" for "--{option}" flag: {error}') from None
