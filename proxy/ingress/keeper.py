"""Keeps nginx equal to what objects say; an object that nginx refuses is set aside and named, and the others go on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from navarch.world import World
from proxy.ingress.config import Place, render
from proxy.ingress.model import Site
from proxy.ingress.nginx import NginxError, Pairs

log = logging.getLogger(__name__)

T = TypeVar("T")
Refusals = dict[str, str]
"""nginx's word on an object, by the object's key."""


class Serves(Protocol):
    """nginx, or a test's stand-in."""

    def write_pairs(self, pairs: Pairs) -> None: ...
    def forget_pairs(self, pairs: Pairs) -> None: ...
    def refusal(self, text: str) -> str: ...
    def apply(self, text: str) -> None: ...
    def pid(self) -> int: ...
    def watch(self, ended: Callable[[], None]) -> None: ...


class Keeper(Generic[T]):
    """``build`` makes a site of some of the objects; ``ended`` is called when nginx has ended by itself."""

    def __init__(
        self, world: World, nginx: Serves, place: Place, key: Callable[[T], str], build: Callable[[Sequence[T]], Site],
        ended: Callable[[], None],
    ) -> None:  # fmt: skip
        self.world, self.nginx, self.place, self.ended = world, nginx, place, ended
        self.key, self.build = key, build
        self.text = ""

    async def keep(self, objects: Sequence[T]) -> tuple[Site, Refusals]:
        """Brings nginx to the objects. Returns what it serves, and what it refuses. Raises NginxError."""
        site, guilty = self.build(objects), Refusals()
        if self._text(site) == self.text and self.text and self.nginx.pid():
            return site, guilty
        if refusal := await self._refusal(site):
            await self._halve(objects, guilty)
            if not guilty:
                raise NginxError(refusal)
            site = self.build([one for one in objects if self.key(one) not in guilty])
        await self.world.blocking(self.nginx.write_pairs, site.certificates)
        text = render(site, self.place)
        await self.world.blocking(self.nginx.apply, text)
        await self.world.blocking(self.nginx.forget_pairs, site.certificates)
        self.text = text
        log.info("%d objects, %d hosts, %d refused", len(objects), len(site.hosts), len(guilty))
        self.nginx.watch(self._ended)
        return site, guilty

    def _text(self, site: Site) -> str:
        try:
            return render(site, self.place)
        except ValueError:
            return ""

    async def _refusal(self, site: Site) -> str:
        try:
            text = render(site, self.place)
        except ValueError as error:
            return str(error)
        await self.world.blocking(self.nginx.write_pairs, site.certificates)
        return str(await self.world.blocking(self.nginx.refusal, text))

    async def _halve(self, suspects: Sequence[T], guilty: Refusals) -> None:
        refusal = await self._refusal(self.build(suspects))
        if not refusal or not suspects:
            return
        if len(suspects) == 1:
            guilty[self.key(suspects[0])] = refusal
            return
        middle = len(suspects) // 2
        await self._halve(suspects[:middle], guilty)
        await self._halve(suspects[middle:], guilty)

    def _ended(self) -> None:
        log.error("nginx has ended; starting it again")
        self.ended()
