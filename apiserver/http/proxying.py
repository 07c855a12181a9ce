"""The HTTP proxies to pods, services and nodes: where a request leads, and how its paths are told apart from ours."""

from __future__ import annotations

from urllib.parse import quote

from apiserver.http.forwarding import Forwarder
from apiserver.http.proxytargets import Targets
from apiserver.request import Context, RequestInfo
from apiserver.wire.asgi import Request
from navarch.world import World


def _parts(info: RequestInfo) -> int:
    """How many slashes there are up to the one behind ``/proxy``."""
    return 8 if info.namespace else 6


def tail(request: Request, info: RequestInfo) -> str | None:
    """The path behind ``/proxy``, percent-encoded as it came; None if not even a slash follows."""
    raw = request.scope.get("raw_path") or quote(request.path).encode()
    rest = raw.decode("latin-1").split("/", _parts(info))[_parts(info) :]
    return "/" + rest[0] if rest else None


class Proxy:
    """Serves the subresource ``proxy`` of pods, services and nodes."""

    def __init__(self, world: World, targets: Targets) -> None:
        self.targets = targets
        self._forwarder = Forwarder(world)

    async def close(self) -> None:
        await self._forwarder.close()

    async def serve(self, request: Request, context: Context) -> None:
        """One request, once it is authorized. Raises what ``Targets.find`` does, and ServiceUnavailable."""
        target = await self.targets.find(context.info)
        path = tail(request, context.info)
        query = (request.scope.get("query_string") or b"").decode("latin-1")
        if path is None and request.method in ("GET", "HEAD") and request.scope["type"] == "http":
            # So that relative links in what comes are right.
            location = request.path + "/" + (f"?{query}" if query else "")
            return await request.reply(301, b"", b"text/plain", [(b"location", location.encode("latin-1"))])
        base = "/".join(request.path.split("/", _parts(context.info))[: _parts(context.info)])
        line = (path or "/") + (f"?{query}" if query else "")
        await self._forwarder.forward(request, target, line, base=base)
