"""The HTTP proxies: what passes through, what does not, and where names lead."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from apiserver.http import forwarding, proxytargets
from apiserver.http.htmllinks import rewrite_links
from apiserver.http.protocol import Listener
from apiserver.http.proxytargets import check_address, split_name
from apiserver.http.requestinfo import parse_request
from apiserver.server import APIServer
from apiserver.serviceresolver import NoEndpoint
from apiserver.tls import server_context
from navarch.api.errors import BadRequest, StatusError
from navarch.client.transport import HTTPSTransport
from tests.apiserver.http.test_server import serving

NODE = "/api/v1/nodes/n/proxy"
PAGE = """<!DOCTYPE html><!-- <a href="/no"> --><HTML manifest=/m><body background='/b'>
<a class=x href="/a?b=1&amp;c=2#d">\u00fc</a><a href="rel"></a><a href="//other/x"></a><a href="http://other/x"></a>
<img src = '/i.png' alt="/alt"><form action="/f/"></form><script src="/s.js">document.write('<a href="/js">')</script>
<a href="HOST/abs"><a href="BASE/done"><input value="/v" formaction="/go"></body>"""


async def backend(scope: Any, receive: Any, send: Any) -> None:
    """Tells what it was asked; the path decides how."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "subprotocol": (scope["subprotocols"] or [None])[-1]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": (message.get("text") or "binary").upper()})
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = {k.decode(): v.decode() for k, v in scope["headers"]}
    path = scope["raw_path"].decode()
    status, extra = 200, []
    if path.startswith("/moved"):
        status, extra = 302, [(b"location", b"/else%20where?a=b")]
    if path.startswith("/page"):
        text = PAGE.encode()
        head = [(b"content-type", b"text/html; charset=utf-8"), (b"access-control-allow-origin", b"*")]
        if path == "/page.gz":
            text = gzip.compress(text)
            head.append((b"content-encoding", b"gzip"))
        await send({"type": "http.response.start", "status": 200, "headers": head})
        return await send({"type": "http.response.body", "body": text})
    if path == "/never":
        while (await receive())["type"] != "http.disconnect":
            pass
        stopped.set()
        return
    said = {"method": scope["method"], "path": path, "query": scope["query_string"].decode(), "headers": headers}
    text = json.dumps(said | {"body": len(body)})
    head = [(b"content-type", b"application/json"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), *extra]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": text.encode()})


stopped = asyncio.Event()
Test = Callable[[APIServer, HTTPSTransport], Awaitable[None]]


def with_backend(tmp_path: Path, test: Test) -> None:
    async def main(server: APIServer, transport: HTTPSTransport) -> None:
        listener = Listener(server.world, backend, server_context(server.config))
        ((host, port),) = await listener.start([("127.0.0.1", 0)])
        status = {
            "addresses": [{"type": "InternalIP", "address": host}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        node = json.dumps({"metadata": {"name": "n"}, "status": status}).encode()
        assert (await transport.request("POST", "/api/v1/nodes", body=node)).status == 201
        try:
            await test(server, transport)
        finally:
            await listener.close(0.2)

    serving(tmp_path, main)


def test_requests_pass_through(tmp_path: Path) -> None:
    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        headers = {"Connection": "X-One", "X-One": "1", "X-Two": "2"}
        answer = await transport.request(
            "POST", NODE + "/a b/c", query=[("x", "1 2"), ("x", "3")], body=b"z" * 5_000_000, headers=headers
        )
        said = json.loads(answer.body)
        assert (said["method"], said["path"], said["query"], said["body"]) == (
            "POST", "/a%20b/c", "x=1+2&x=3", 5_000_000,
        )  # fmt: skip
        assert said["headers"]["x-two"] == "2" and "x-one" not in said["headers"]
        assert said["headers"]["x-forwarded-uri"] == NODE + "/a%20b/c"
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            answer = await transport.request(method, NODE + "/x", body=None if method == "GET" else b"b")
            assert json.loads(answer.body)["method"] == method
        bare = await transport.request("GET", NODE)
        assert bare.status == 301 and bare.headers["location"] == NODE + "/"
        moved = await transport.request("GET", NODE + "/moved")
        assert moved.status == 302 and moved.headers["location"] == NODE + "/else%20where?a=b"
        absent = await transport.request("GET", "/api/v1/nodes/m/proxy/x")
        assert absent.status == 404
        info = json.loads((await transport.request("GET", "/api/v1")).body)
        assert {"nodes/proxy", "pods/proxy", "services/proxy"} <= {r["name"] for r in info["resources"]}

    with_backend(tmp_path, test)


def test_upgrades_and_clients_that_leave(tmp_path: Path) -> None:
    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        async with transport.websocket(NODE + "/ws", protocols=["one", "two"]) as socket:
            assert socket.protocol == "two"
            await socket.send(b"\x00\x01")
            assert await socket.receive() == b"BINARY"
        stopped.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), transport.stream("GET", NODE + "/never"):
                pass
        await stopped.wait()  # the backend hears that nobody waits any more

    with_backend(tmp_path, test)


def test_links_in_pages_stay_below_the_proxy(tmp_path: Path) -> None:
    base = NODE

    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        for path in ("/page", "/page.gz"):
            answer = await transport.request("GET", NODE + path, accept="text/html")
            body = gzip.decompress(answer.body) if path == "/page.gz" else answer.body
            assert answer.headers.get("content-length") == str(len(answer.body))
            assert "access-control-allow-origin" not in answer.headers
            expected = (
                PAGE.replace("manifest=/m", f'manifest="{base}/m"').replace("'/b'", f'"{base}/b"')
                .replace('"/a?', f'"{base}/a?').replace("'/i.png'", f'"{base}/i.png"').replace('"/f/"', f'"{base}/f/"')
                .replace('"/s.js"', f'"{base}/s.js"').replace('"/go"', f'"{base}/go"')
            )  # fmt: skip
            assert body.decode() == expected

    with_backend(tmp_path, test)


def test_addresses_in_html() -> None:
    def below(address: str) -> str:
        return "/p" + address if address.startswith("/") and not address.startswith("//") else address

    for text, expected in (
        ("<a href=/x>", '<a href="/p/x">'), ("<A HREF='/x'>", '<A HREF="/p/x">'),
        ("<a HREF = \"/x&quot;y\">", '<a HREF = "/p/x&quot;y">'),
        ("<a data-href=/x>", "<a data-href=/x>"), ("<p href=/x>", "<p href=/x>"), ("<a href=/x", "<a href=/x"),
        ("<style><a href=/x></style><a href=/y>", '<style><a href=/x></style><a href="/p/y">'),
        ("<video poster=/a src='/b'>", '<video poster="/p/a" src="/p/b">'), ("<!-- <a href=/x>", "<!-- <a href=/x>"),
        ('<a title="a > b" href="/x">', '<a title="a > b" href="/p/x">'), ("<a href>", "<a href>"),
    ):  # fmt: skip
        assert rewrite_links(text, below) == expected
    rewrite_links("<a " + "x='" * 100_000, below)  # takes no longer than it is long


def test_names_and_addresses() -> None:
    assert split_name("web", "pod") == ("", "web", "")
    assert split_name("web:80", "pod") == ("", "web", "80")
    assert split_name("https:web:", "pod") == ("https", "web", "")
    for bad in ("ftp:web:80", "a:b:c:d", ":80"):
        with pytest.raises(BadRequest, match="invalid pod request"):
            split_name(bad, "pod")
    assert check_address("10.1.2.3") == "10.1.2.3"
    for bad in ("127.0.0.1", "169.254.169.254", "::1", "0.0.0.0", "", "::ffff:127.0.0.1", "2002:7f00:1::", "fe80::1%lo"):
        with pytest.raises(BadRequest, match="address not allowed"):
            check_address(bad)
    info = parse_request("PUT", "/api/v1/namespaces/d/services/https:web:443/proxy/api/v1/x", {})
    assert (info.verb, info.resource, info.name, info.subresource) == ("update", "services", "https:web:443", "proxy")


SLICE = {
    "metadata": {"name": "s1", "labels": {"kubernetes.io/service-name": "s"}},
    "addressType": "IPv4",
    "ports": [{"name": "web", "port": 8080}],
    "endpoints": [
        {"addresses": ["10.1.0.1"], "conditions": {"ready": False}},
        {"addresses": ["10.1.0.2"], "conditions": {"ready": True}},
    ],
}


SERVICE_PORTS = [{"name": "web", "port": 80, "targetPort": 8080}, {"name": "tls", "port": 443}]
DEFAULT = "/api/v1/namespaces/default"


class Targets:
    """Service s of namespace default, and where the server's proxy leads for its names."""

    def __init__(self, server: APIServer, transport: HTTPSTransport) -> None:
        self.server, self.transport = server, transport

    async def begin(self) -> None:
        await self.make(DEFAULT + "/services", {"metadata": {"name": "s"}, "spec": {"ports": SERVICE_PORTS}})
        await self.transport.request("GET", "/api/v1/nodes/none/proxy/")  # makes the proxy
        assert self.server.streams._proxy is not None

    async def make(self, path: str, body: Any) -> None:
        answer = await self.transport.request("POST", path, body=json.dumps(body).encode())
        assert answer.status == 201, answer.body

    async def add_slice(self) -> None:
        await self.make("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", SLICE)
        await self.server.cache.current()

    async def find(self, name: str) -> str:
        proxy = self.server.streams._proxy
        assert proxy is not None
        return (await proxy.targets.find(parse_request("GET", f"{DEFAULT}/services/{name}/proxy", {}))).authority


def test_targets_of_services(tmp_path: Path) -> None:
    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        targets = Targets(server, transport)
        await targets.begin()
        with pytest.raises(StatusError, match='no endpoints available for service "s:80"'):
            await targets.find("s:80")
        with pytest.raises(StatusError, match='no service port 81 found for service "s"'):
            await targets.find("s:81")
        await targets.add_slice()
        assert await targets.find("s:80") == await targets.find("s:web") == "10.1.0.2:8080"
        assert proxytargets.Target("fd00::1", 80, None).authority == "[fd00::1]:80"

    serving(tmp_path, test)


def test_addresses_that_are_denied_are_no_targets(tmp_path: Path) -> None:
    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        targets = Targets(server, transport)
        await targets.begin()
        await targets.add_slice()
        assert await targets.find("s:80") == "10.1.0.2:8080"
        server.resolver.denied = ("10.1.0.0/16",)
        for host in ("10.1.0.2", "::ffff:10.1.0.2", "2002:a01:2::"):
            assert not server.resolver.reachable(host), host
        assert server.resolver.reachable("10.2.0.2") and server.resolver.reachable("web.example.com")
        with pytest.raises(StatusError, match="nobody answers"):
            await targets.find("s:80")
        with pytest.raises(NoEndpoint, match="no endpoints available"):
            server.resolver.address("default", "s", 80)
        with pytest.raises(OSError, match="nobody answers at localhost"):
            server.resolver.denied = ("127.0.0.0/8", "::1/128")
            await server.resolver.names().resolve("localhost", 80)

    serving(tmp_path, test)


def test_header_lines_of_an_upgrade_have_any_character() -> None:
    assert forwarding._bytes("X-A: \xe9") == b"X-A: \xe9"  # a byte of the client's
    assert forwarding._bytes("X-Remote-User: J\u00f6rg \u20ac") == "X-Remote-User: J\u00f6rg \u20ac".encode()
