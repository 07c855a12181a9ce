"""OpenAPI, from which kubectl learns how to apply, explain and validate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiserver.http.asgi import Request
from navarch.api.errors import NotFound

if TYPE_CHECKING:
    from apiserver.server import APIServer


class OpenAPI:
    def __init__(self, server: APIServer) -> None:
        self.server = server

    async def handle(self, request: Request) -> None:
        raise NotFound("the server could not find the requested resource")
