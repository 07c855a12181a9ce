"""Makes a driver known to the node's agent: a registration socket in plugins_registry (node-driver-registrar's part)."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from navarch.rpc.sockets import Method, Server
from protos import pluginregistration_pb2 as messages

log = logging.getLogger(__name__)


class Registrar:
    """``endpoint``: the driver's socket as the node sees it."""

    def __init__(self, driver: str, endpoint: str) -> None:
        self.driver, self.endpoint = driver, endpoint

    async def run(self, folder: Path) -> None:
        """Serves until cancelled. Raises OSError."""
        server = Server(folder / f"{self.driver}-reg.sock")
        methods = {
            "GetInfo": Method(messages.InfoRequest, self._info),
            "NotifyRegistrationStatus": Method(messages.RegistrationStatus, self._note),
        }
        server.add("pluginregistration.Registration", methods)
        await server.start()
        try:
            await asyncio.Event().wait()
        finally:
            await server.stop()

    async def _info(self, request: messages.InfoRequest) -> messages.PluginInfo:
        return messages.PluginInfo(
            type="CSIPlugin", name=self.driver, endpoint=self.endpoint, supported_versions=["1.0.0"]
        )

    async def _note(self, status: messages.RegistrationStatus) -> messages.RegistrationStatusResponse:
        if status.plugin_registered:
            log.info("driver %s is registered", self.driver)
        else:
            log.error("driver %s is not registered: %s", self.driver, status.error)
        return messages.RegistrationStatusResponse()
