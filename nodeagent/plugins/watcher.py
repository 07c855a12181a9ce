"""Plugins that put a registration socket into ``plugins_registry``: each is asked who it is, registered and told so; a socket
that goes takes its plugin along (kubelet's plugin registration, version v1)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from navarch.rpc.sockets import Caller
from navarch.world import Backoff, TaskGroup, World
from protos import pluginregistration_pb2 as messages

log = logging.getLogger(__name__)
SERVICE = "/pluginregistration.Registration/"
PERIOD = 0.5  # seconds between two looks
TIMEOUT = 10.0  # seconds


class PluginError(Exception):
    """A plugin cannot be registered; it is told the message."""


class Handler(Protocol):
    """Takes in plugins of one type."""

    async def register(self, name: str, endpoint: Path, versions: Sequence[str]) -> None:
        """Raises PluginError, RpcError, StatusError, TransportError."""
        ...

    async def deregister(self, name: str) -> None: ...


Plugin = tuple[str, str]  # type and name


@dataclass
class _Socket:
    identity: tuple[int, int]  # device and inode: a plugin that came back has another
    task: asyncio.Task[None]
    plugin: Plugin | None = None  # once it is registered


class PluginWatcher:
    """``handlers``: by type, such as CSIPlugin."""

    def __init__(self, world: World, folder: Path, handlers: Mapping[str, Handler]) -> None:
        self._world, self._folder, self._handlers = world, folder, handlers
        self._sockets: dict[str, _Socket] = {}
        self._locks: dict[Plugin, asyncio.Lock] = {}
        self._group: TaskGroup

    async def run(self) -> None:
        """Watches until cancelled."""
        backoff = Backoff(self._world, first=PERIOD, most=30.0)
        async with self._world.task_group() as self._group:
            while True:
                try:
                    self._look()
                    backoff.reset()
                    await self._world.sleep(PERIOD)
                except OSError as error:  # what is registered stays so
                    log.error("plugins in %s: %s", self._folder, error)
                    await self._world.sleep(backoff.next())

    def _look(self) -> None:
        present = _sockets_of(self._folder)
        for file, socket in list(self._sockets.items()):
            if present.get(file) != socket.identity:
                socket.task.cancel()
                del self._sockets[file]
                if socket.plugin is not None and file not in present:  # one that came back registers anew
                    self._leave(socket.plugin)
        for file, identity in present.items():
            if file not in self._sockets:
                task = self._group.start(self._register(file), name=f"plugin {file}")
                self._sockets[file] = _Socket(identity, task)

    def _leave(self, plugin: Plugin) -> None:
        """A plugin's socket is gone. If it has another one (its successor's), that one is asked again where the plugin is."""
        others = [file for file, socket in self._sockets.items() if socket.plugin == plugin]
        for file in others:
            self._sockets.pop(file).task.cancel()
        if not others:
            self._group.start(self._deregister(plugin), name=f"plugin {plugin[1]} goes")

    async def _deregister(self, plugin: Plugin) -> None:
        """Until it is told, or the plugin is there again: the API server may be away."""
        backoff = Backoff(self._world, first=0.5, most=30.0)
        while True:
            async with self._locks.setdefault(plugin, asyncio.Lock()):
                if any(socket.plugin == plugin for socket in self._sockets.values()):
                    return
                try:
                    await self._handlers[plugin[0]].deregister(plugin[1])
                    return
                except Exception as error:
                    log.warning("plugin %s is gone: %s", plugin[1], error)
            await self._world.sleep(backoff.next())

    async def _register(self, file: str) -> None:
        """Until it is registered: a plugin may be slow, or not wanted now."""
        backoff = Backoff(self._world, first=0.5, most=30.0)
        caller = Caller(self._folder / file)
        try:
            while True:
                try:
                    await self._once(file, caller)
                    return
                except Exception as error:
                    log.warning("plugin %s: %s", file, error)
                await self._world.sleep(backoff.next())
        finally:
            await caller.close()

    async def _once(self, file: str, caller: Caller) -> None:
        info = await caller.call(SERVICE + "GetInfo", messages.InfoRequest(), messages.PluginInfo, TIMEOUT)
        plugin, text = (info.type, info.name), ""
        try:
            handler = self._handlers.get(info.type)
            if handler is None:
                raise PluginError(f"no handler registered for plugin type: {info.type} at socket {caller.socket}")
            endpoint = Path(info.endpoint) if info.endpoint else caller.socket
            async with self._locks.setdefault(plugin, asyncio.Lock()):
                await handler.register(info.name, endpoint, list(info.supported_versions))
                self._sockets[file].plugin = plugin  # before it is told: it may go while it is
        except Exception as error:
            text = str(error) or type(error).__name__
            raise
        finally:
            status = messages.RegistrationStatus(plugin_registered=not text, error=text)
            await caller.call(SERVICE + "NotifyRegistrationStatus", status, messages.RegistrationStatusResponse, TIMEOUT)
        log.info("plugin %s of type %s registered at %s", info.name, info.type, endpoint)


def _sockets_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Device and inode of each socket in a folder, which is made if it is not there. Raises OSError."""
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    present: dict[str, tuple[int, int]] = {}
    for path in sorted(folder.iterdir()):
        with contextlib.suppress(OSError):  # it went, or is a link to nothing
            info = path.stat()
            if not path.name.startswith(".") and stat.S_ISSOCK(info.st_mode):
                present[path.name] = info.st_dev, info.st_ino
    return present
