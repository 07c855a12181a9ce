"""Plugins that put a registration socket into ``plugins_registry``: each is asked who it is, registered and told so; a socket
that goes takes its plugin along (kubelet's plugin registration, version v1)."""

from __future__ import annotations

import asyncio
import logging
import os
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


@dataclass
class _Socket:
    identity: tuple[int, int]  # device and inode: a plugin that came back has another
    task: asyncio.Task[None]
    type: str = ""
    name: str = ""  # once it is registered


class PluginWatcher:
    """``handlers``: by type, such as CSIPlugin."""

    def __init__(self, world: World, folder: Path, handlers: Mapping[str, Handler]) -> None:
        self._world, self._folder, self._handlers = world, folder, handlers
        self._sockets: dict[str, _Socket] = {}
        self._group: TaskGroup

    async def run(self) -> None:
        """Watches until cancelled."""
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        async with self._world.task_group() as self._group:
            while True:
                await self._look()
                await self._world.sleep(PERIOD)

    async def _look(self) -> None:
        present = {}
        for entry in sorted(os.scandir(self._folder), key=lambda e: e.name):
            if not entry.name.startswith(".") and Path(entry.path).is_socket():
                info = os.stat(entry.path)
                present[entry.name] = info.st_dev, info.st_ino
        for file, socket in list(self._sockets.items()):
            if present.get(file) != socket.identity:
                socket.task.cancel()
                del self._sockets[file]
                if socket.name and file not in present:  # one that came back registers anew
                    await self._handlers[socket.type].deregister(socket.name)
        for file, identity in present.items():
            if file not in self._sockets:
                task = self._group.start(self._register(file), name=f"plugin {file}")
                self._sockets[file] = _Socket(identity, task)

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
        text = ""
        try:
            handler = self._handlers.get(info.type)
            if handler is None:
                raise PluginError(f"no handler registered for plugin type: {info.type} at socket {caller.socket}")
            endpoint = Path(info.endpoint) if info.endpoint else caller.socket
            await handler.register(info.name, endpoint, list(info.supported_versions))
        except Exception as error:
            text = str(error)
            raise
        finally:
            status = messages.RegistrationStatus(plugin_registered=not text, error=text)
            await caller.call(SERVICE + "NotifyRegistrationStatus", status, messages.RegistrationStatusResponse, TIMEOUT)
        socket = self._sockets[file]
        socket.type, socket.name = info.type, info.name
        log.info("plugin %s of type %s registered at %s", info.name, info.type, endpoint)


