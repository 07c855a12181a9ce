"""HTTP probes and hooks against servers that redirect, refuse, or speak something else."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from navarch.api.types import core_v1
from navarch.world import RealWorld
from nodeagent.pods import httpget
from nodeagent.pods.handlers import Outcome
from nodeagent.pods.httpget import Warned

CONTAINER = core_v1.Container(name="a", ports=[core_v1.ContainerPort(container_port=80, name="web")])
Ask = Callable[..., Awaitable[Any]]


class Servers:
    """Two servers, on two addresses; ``seen`` has (host header, path) of what reached each."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[str, str]]] = {"127.0.0.1": [], "127.0.0.2": []}
        self.ports: dict[str, int] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        here = request.transport.get_extra_info("sockname")[0]
        self.seen[here].append((request.headers.get("Host", ""), request.path))
        first, _, rest = request.path.strip("/").partition("/")
        other = self.ports["127.0.0.2"]
        match first:
            case "status":
                return web.Response(status=int(rest), text="body")
            case "away":
                return web.Response(status=int(rest), headers={"Location": f"http://127.0.0.2:{other}/status/200"}, text="x")
            case "to":
                return web.Response(status=302, headers={"Location": f"/{rest}"})
            case "port":  # the same host, on another port
                return web.Response(status=307, headers={"Location": f"http://127.0.0.1:{self.ports['127.0.0.1']}/{rest}"})
            case "loop":
                return web.Response(status=301, headers={"Location": f"/loop/{int(rest or 0) + 1}"})
            case "nowhere":
                return web.Response(status=int(rest))
            case "scheme":
                return web.Response(status=302, headers={"Location": "file:///etc/passwd"})
        return web.Response(text="ok")


def run(body: Callable[[Servers, Ask, Ask], Awaitable[None]]) -> None:
    async def main() -> None:
        servers = Servers()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", servers.answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        for address in servers.seen:
            site = web.TCPSite(runner, address, 0)
            await site.start()
            servers.ports[address] = runner.addresses[-1][1]

        def action(path: str, more: dict[str, Any]) -> core_v1.HTTPGetAction:
            return msgspec.convert({"path": path, "port": servers.ports["127.0.0.1"], **more}, core_v1.HTTPGetAction)

        async def probe(path: str, **more: Any) -> str:
            return await httpget.probe(action(path, more), CONTAINER, "127.0.0.1", 5, "kube-probe/1.34")

        async def hook(path: str, **more: Any) -> None:
            await httpget.hook(action(path, more), CONTAINER, "127.0.0.1", 5, "kube-lifecycle/1.34")

        try:
            await body(servers, probe, hook)
        finally:
            await runner.cleanup()

    RealWorld().run(main)


def test_probes_follow_redirects_on_their_own_host_only() -> None:
    async def body(servers: Servers, probe: Ask, hook: Ask) -> None:
        assert await probe("/") == "ok" and await probe("/to/status/204") == ""
        assert await probe("/port/status/200") == "body" == await probe("to/to/to/status/200")
        for code in (301, 302, 303, 307, 308):
            with pytest.raises(Warned, match="Probe terminated redirects, Response body: x"):
                await probe(f"/away/{code}")
            with pytest.raises(Warned):
                await probe(f"/nowhere/{code}")  # no Location
        for code in (300, 304):
            with pytest.raises(Warned):
                await probe(f"/status/{code}")
        for code in (400, 404, 500, 503):
            with pytest.raises(Outcome, match=f"HTTP probe failed with statuscode: {code}"):
                await probe(f"/to/status/{code}")
        servers.seen["127.0.0.1"].clear()
        with pytest.raises(Outcome, match="stopped after 10 redirects"):
            await probe("/loop/")
        assert len(servers.seen["127.0.0.1"]) == 10
        with pytest.raises(Outcome, match="unsupported protocol scheme"):
            await probe("/scheme")
        with pytest.raises(Warned):
            await hook_like(hook)
        assert servers.seen["127.0.0.2"] == []  # nobody was asked on a container's behalf

    async def hook_like(hook: Ask) -> None:
        await hook("/away/302")
        raise Warned("a hook takes it for an answer")

    run(body)


def test_hooks_take_any_answer() -> None:
    async def body(servers: Servers, probe: Ask, hook: Ask) -> None:
        for code in (200, 204, 302, 404, 500, 503):
            await hook(f"/status/{code}")
        assert len(servers.seen["127.0.0.1"]) == 6
        await hook("/to/status/500")
        with pytest.raises(Outcome, match="connection refused"):
            await hook("/", port=1)
        with pytest.raises(Outcome, match="couldn't find port"):
            await hook("/", port="none")

    run(body)


def test_https_that_is_none() -> None:
    """A probe fails at a server for HTTP; a hook asks it in HTTP, without its credentials."""

    async def body(servers: Servers, probe: Ask, hook: Ask) -> None:
        with pytest.raises(Outcome, match="server gave HTTP response to HTTPS client"):
            await probe("/", scheme="HTTPS")
        await hook("/status/500", scheme="HTTPS", httpHeaders=[{"name": "Authorization", "value": "secret"}])
        assert servers.seen["127.0.0.1"][-1][1] == "/status/500"

    run(body)


def test_headers() -> None:
    async def body(servers: Servers, probe: Ask, hook: Ask) -> None:
        host = [{"name": "Host", "value": "web.example"}]
        await probe("/to/status/200", httpHeaders=host)
        assert [seen[0] for seen in servers.seen["127.0.0.1"]] == ["web.example", "web.example"]
        await probe("/port/status/200", httpHeaders=host)
        assert servers.seen["127.0.0.1"][-1][0] == f"127.0.0.1:{servers.ports['127.0.0.1']}"

    run(body)


async def test_a_server_that_never_answers() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for scheme in ("HTTP", "HTTPS"):
            action = core_v1.HTTPGetAction(port=port, scheme=scheme)
            with pytest.raises(Outcome, match="deadline exceeded"):
                await httpget.probe(action, CONTAINER, "127.0.0.1", 0.2, "x")


async def test_certificates_are_not_asked_for_names(tmp_path: Path) -> None:
    from lab.certificates import Authority

    Authority(tmp_path, "test").issue("server", "somebody-else", (), ())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")

    app = web.Application()
    app.router.add_get("/", lambda request: web.Response(text="tls"))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    action = core_v1.HTTPGetAction(port=runner.addresses[0][1], scheme="HTTPS")
    assert await httpget.probe(action, CONTAINER, "127.0.0.1", 5, "x") == "tls"
    await runner.cleanup()
