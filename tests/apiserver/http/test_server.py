"""The real server on a socket: TLS, client certificates, streams to an agent, a clean end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apiserver.assembly import assemble
from apiserver.config import Config
from apiserver.http.protocol import PEER, TAKE_OVER, Listener
from apiserver.server import APIServer
from apiserver.storage.memory import MemoryStore
from apiserver.tls import make_certificates, server_context, write_admin_kubeconfig
from navarch.api.errors import StatusError
from navarch.client import kubeconfig
from navarch.client.transport import HTTPSTransport
from navarch.world import RealWorld

POD = "/api/v1/namespaces/default/pods/p"
V4 = ["v4.channel.k8s.io"]


async def agent(scope: Any, receive: Any, send: Any) -> None:
    """Stands in for a node agent: echoes what it was asked, and on exec what it is sent."""
    assert scope[PEER], "the API server shows its certificate"
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0]})
        await send({"type": "websocket.send", "bytes": b"\x01" + scope["query_string"]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": b"\x01" + message["bytes"][1:].upper()})
            if message["bytes"] == b"\x00exit":
                await send({"type": "websocket.send", "bytes": b'\x03{"status":"Success"}'})
                await send({"type": "websocket.close", "code": 1000})
                return
        return
    if TAKE_OVER in scope:
        return await upgraded(scope)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    text = scope["path"].encode() + b"?" + scope["query_string"] + b"\n"
    await send({"type": "http.response.body", "body": text, "more_body": True})
    if b"follow=true" in scope["query_string"]:
        await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b"more\n", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def upgraded(scope: Any) -> None:
    """The agent's SPDY, which here is: says what it was asked for, then echoes."""
    version = dict(scope["headers"]).get(b"x-stream-protocol-version", b"")
    reader, writer = scope[TAKE_OVER]()
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\n")
    writer.write(b"X-Stream-Protocol-Version: " + version.split(b",")[-1] + b"\r\n\r\n" + scope["path"].encode())
    while data := await reader.read(65536):
        writer.write(data.upper())
        await writer.drain()
        if data.endswith(b"."):
            break
    writer.close()


def serving(directory: Path, test: Callable[[APIServer, HTTPSTransport], Awaitable[None]]) -> None:
    world = RealWorld()
    config = make_certificates(world, Config(cert_dir=str(directory), secure_port=0, shutdown_grace=1))
    config = replace(config, kubelet_certificate_authority=config.client_ca_file)

    async def main() -> None:
        server = assemble(world, MemoryStore(), config)
        ready: asyncio.Future[list[tuple[str, int]]] = asyncio.get_running_loop().create_future()
        async with world.task_group() as group:
            running = group.start(server.run(ready.set_result))
            (address,) = await ready
            transport = HTTPSTransport(kubeconfig.load(write_admin_kubeconfig(config, address)))
            try:
                await test(server, transport)
            finally:
                await transport.close()
                server.stop()
                async with asyncio.timeout(5):
                    await running

    world.run(main)


async def with_agent(server: APIServer, transport: HTTPSTransport, test: Callable[[], Awaitable[None]]) -> None:
    listener = Listener(server.world, agent, server_context(server.config))
    ((host, port),) = await listener.start([("127.0.0.1", 0)])
    status = {
        "addresses": [{"type": "InternalIP", "address": host}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    for path, body in (
        ("/api/v1/nodes", {"metadata": {"name": "n"}, "status": status}),
        ("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}}),
        (
            "/api/v1/namespaces/default/pods",
            {"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}},
        ),
    ):
        answer = await transport.request("POST", path, body=json.dumps(body).encode())
        assert answer.status == 201, answer.body
    try:
        await test()
    finally:
        await listener.close(0.5)


def test_logs_and_exec(tmp_path: Path) -> None:
    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        async def streams() -> None:
            logs = await transport.request("GET", POD + "/log", query=[("tailLines", "3")])
            assert logs.body == b"/containerLogs/default/p/c?tailLines=3\n"
            bad = await transport.request("GET", POD + "/log", query=[("container", "x")])
            assert bad.status == 400 and b"container x is not valid for pod p" in bad.body
            for query, code, message in (
                ([("tailLines", "-1"), ("limitBytes", "0")], 422,
                 'PodLogOptions "p" is invalid: [tailLines: Invalid value: -1: must be greater than or equal to 0, '
                 "limitBytes: Invalid value: 0: must be greater than 0]"),
                ([("sinceSeconds", "0")], 422,
                 'PodLogOptions "p" is invalid: sinceSeconds: Invalid value: 0: must be greater than 0'),
                ([("sinceTime", "now")], 400,
                 'parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006"'),
            ):  # fmt: skip
                refused = await transport.request("GET", POD + "/log", query=query)
                assert (refused.status, json.loads(refused.body)["message"]) == (code, message)
            async with transport.stream("GET", POD + "/log", query=[("follow", "true")]) as stream:
                text = b"".join([chunk async for chunk in stream.chunks()])
            assert text.endswith(b"more\n")
            query = [("command", "echo"), ("command", "a b"), ("stdin", "true")]
            async with transport.websocket(POD + "/exec", query=query, protocols=V4) as socket:
                assert socket.protocol == V4[0]
                assert await socket.receive() == b"\x01command=echo&command=a+b&stdin=true"
                await socket.send(b"\x00hello")
                assert await socket.receive() == b"\x01HELLO"
                await socket.send(b"\x00exit")
                assert await socket.receive() == b"\x01EXIT"
                assert await socket.receive() == b'\x03{"status":"Success"}'
                assert await socket.receive() is None
            with pytest.raises(StatusError) as refused:
                async with transport.websocket(POD + "/exec", query=[("container", "x")], protocols=V4):
                    pass
            assert refused.value.http_code == 400

        await with_agent(server, transport, streams)

    serving(tmp_path, test)


def test_spdy_passes_through(tmp_path: Path) -> None:
    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        async def streams() -> None:
            offers = {"X-Stream-Protocol-Version": "v5.channel.k8s.io,v4.channel.k8s.io"}
            query = [("command", "x"), ("stdout", "true")]
            for verb, path in (("exec", "/exec/default/p/c"), ("portforward", "/portForward/default/p")):
                async with transport.upgrade(
                    "POST", f"{POD}/{verb}", protocol="SPDY/3.1", query=query, headers=offers
                ) as up:
                    assert up.headers["x-stream-protocol-version"] == "v4.channel.k8s.io"
                    assert await up.reader.readexactly(len(path)) == path.encode()
                    text = b"a" * 300_000 + b"."
                    up.writer.write(text)
                    assert await up.reader.read(-1) == text.upper()  # all of it, and then the end
            tunnel = "SPDY/3.1+portforward.k8s.io"
            async with transport.websocket(POD + "/portforward", protocols=[tunnel]) as socket:
                assert socket.protocol == tunnel
                assert await socket.receive() == b"/portForward/default/p"
                await socket.send(b"hello.")
                assert await socket.receive() == b"HELLO."
                assert await socket.receive() is None
            with pytest.raises(StatusError, match="Upgrade request required"):
                async with transport.upgrade("POST", POD + "/portforward", protocol="h2c"):
                    pass
            answer = await transport.request("POST", POD + "/exec", query=query)
            assert answer.status == 400
            while any(t.get_name().startswith("relay-") for t in asyncio.all_tasks()):
                await asyncio.sleep(0.01)

        await with_agent(server, transport, streams)

    serving(tmp_path, test)


def test_certificates_anonymous_and_drain(tmp_path: Path) -> None:
    async def test(server: APIServer, transport: HTTPSTransport) -> None:
        review = b'{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}'
        who = await transport.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=review)
        assert json.loads(who.body)["status"]["userInfo"]["username"] == "kubernetes-admin"
        known = transport.config
        nobody = HTTPSTransport(replace(known, client_certificate=b"", client_key=b""))
        assert (await nobody.request("GET", "/version")).status == 200
        assert (await nobody.request("GET", "/api/v1/pods")).status == 403
        wrong = HTTPSTransport(replace(known, client_certificate=b"", client_key=b"", token="no.such.token"))
        assert (await wrong.request("GET", "/api/v1/pods")).status == 401
        await nobody.close()
        await wrong.close()
        async with transport.stream("GET", "/api/v1/namespaces", query=[("watch", "1")]) as stream:
            chunks = stream.chunks()
            assert b"ADDED" in await anext(chunks)
            server.stop()  # ends watches in order: no error, just the end
            async with asyncio.timeout(5):
                async for _ in chunks:
                    pass

    serving(tmp_path, test)
