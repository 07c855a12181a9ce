"""The admission chain: plugins that may change a request (admit), then plugins that may only refuse it (validate).

A plugin says once which operations and kinds it handles; the chain remembers the answer, so that a request only pays
for the plugins that look at its kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

from apiserver.request import Attributes
from navarch.api.kinds import Kind


class Plugin(Protocol):
    """One admission plugin; subclass :class:`BasePlugin` to write only the half that you need."""

    name: str

    def handles(self, operation: str, kind: Kind) -> bool:
        """Whether requests of this operation (CREATE, UPDATE, DELETE, CONNECT) on this kind concern the plugin."""
        ...

    async def admit(self, attributes: Attributes) -> None:
        """May change ``attributes.obj`` in place; raises a StatusError to refuse. Must be idempotent: a retried
        write runs it again on the fresh object."""
        ...

    async def validate(self, attributes: Attributes) -> None:
        """Raises a StatusError to refuse; must not change anything."""
        ...


class Follows(Protocol):
    """A plugin that also wants to know what became of a request."""

    async def finished(self, attributes: Attributes) -> None:
        """A change that it handles was stored."""
        ...

    async def removed(self, kind: Kind, obj: dict[str, Any]) -> None:
        """An object has left the store, by whatever way."""
        ...


@runtime_checkable
class KeepsUp(Protocol):
    """A plugin that acts by objects of the API and compiles them beforehand."""

    async def prepare(self) -> None:
        """Takes the objects as they are now; before the server is ready."""
        ...

    async def follow(self) -> None:
        """Keeps up with them for ever."""
        ...


class BasePlugin:
    """A plugin that lets everything pass."""

    name = ""

    def handles(self, operation: str, kind: Kind) -> bool:
        return True

    async def admit(self, attributes: Attributes) -> None:
        return None

    async def validate(self, attributes: Attributes) -> None:
        return None


class Chain:
    """Plugins in their order. An empty chain admits everything."""

    def __init__(self, plugins: Sequence[Plugin] = ()) -> None:
        self.plugins = tuple(plugins)
        self._followers = _followers(plugins)
        self._chosen: dict[tuple[str, Kind], tuple[tuple[Plugin, ...], tuple[Plugin, ...]]] = {}

    def replace(self, plugins: Sequence[Plugin]) -> None:
        """Takes other plugins from now on."""
        self.plugins = tuple(plugins)
        self._followers = _followers(plugins)
        self._chosen.clear()

    def forget(self) -> None:
        """Asks the plugins anew which kinds they handle: kinds or what plugins go by have changed."""
        self._chosen.clear()

    def _for(self, attributes: Attributes) -> tuple[tuple[Plugin, ...], tuple[Plugin, ...]]:
        key = attributes.operation, attributes.kind
        plugins = self._chosen.get(key)
        if plugins is None:
            handling = [p for p in self.plugins if p.handles(*key)]
            plugins = self._chosen[key] = (
                tuple(p for p in handling if _overrides(p, "admit") and _changes(p, *key)),
                tuple(p for p in handling if _overrides(p, "validate")),
            )
        return plugins

    def mutates(self, attributes: Attributes) -> bool:
        """Whether :meth:`admit` has anything to call."""
        return bool(self._for(attributes)[0])

    async def finished(self, attributes: Attributes) -> None:
        """Tells the plugins that follow what becomes of a change that it was stored."""
        for plugin in self._followers:
            if plugin.handles(attributes.operation, attributes.kind):  # type: ignore[attr-defined]
                await plugin.finished(attributes)

    async def removed(self, kind: Kind, obj: dict[str, Any]) -> None:
        for plugin in self._followers:
            await plugin.removed(kind, obj)

    async def admit(self, attributes: Attributes) -> None:
        for plugin in self._for(attributes)[0]:
            await plugin.admit(attributes)
        if attributes.again:
            attributes.round = 1
            for plugin in self._for(attributes)[0]:
                await plugin.admit(attributes)

    async def validate(self, attributes: Attributes) -> None:
        for plugin in self._for(attributes)[1]:
            await plugin.validate(attributes)


def _followers(plugins: Sequence[Plugin]) -> tuple[Follows, ...]:
    return tuple(cast(Follows, p) for p in plugins if hasattr(p, "finished"))


def _changes(plugin: Plugin, operation: str, kind: Kind) -> bool:
    """Whether a plugin changes what it handles; one that only judges some of it says so by ``changes``."""
    ask = getattr(plugin, "changes", None)
    return ask is None or bool(ask(operation, kind))


def _overrides(plugin: Plugin, method: str) -> bool:
    return getattr(type(plugin), method, None) is not getattr(BasePlugin, method)
