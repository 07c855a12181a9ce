"""The same verbs over both transports; TLS, tokens, broken connections."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from navarch.api import errors
from navarch.api.types import core_v1, meta_v1
from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.https import AT_ONCE
from navarch.client.kubeconfig import Config
from navarch.client.transport import HTTPSTransport, InProcessTransport, TransportError
from navarch.world import RealWorld
from tests.client.double import Double

PODS = "/api/v1/namespaces/default/pods"


def pod(name: str, **labels: str) -> core_v1.Pod:
    meta = meta_v1.ObjectMeta(name=name, namespace="default", labels=labels or None)
    return core_v1.Pod(metadata=meta, spec=core_v1.PodSpec(containers=[]))


@contextlib.asynccontextmanager
async def served(app: Any, **options: Any) -> AsyncIterator[int]:
    """The port of an ASGI application on 127.0.0.1."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, lifespan="off", log_level="error", **options)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        server.force_exit = True
        await server.shutdown()


def certificate() -> tuple[bytes, bytes]:
    """A self-signed certificate for 127.0.0.1 that is also its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    start = datetime.datetime(2020, 1, 1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(x509.BasicConstraints(True, None), True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    return made.public_bytes(pem), key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)


async def exercise(client: Client, server: Double) -> None:
    """Every verb once."""
    pods = client[core_v1.Pod]
    made = await pods.create(pod("a", app="web"), field_manager="me")
    assert made.metadata.name == "a" and made.metadata.resource_version == "11"
    assert (await pods.get("a", "default")).metadata.labels == {"app": "web"}
    with pytest.raises(errors.AlreadyExists):
        await pods.create(pod("a"))
    with pytest.raises(errors.NotFound) as missing:
        await pods.get("zz", "default")
    assert missing.value.message == 'pods "zz" not found'
    listed = await pods.list("default")
    assert [p.metadata.name for p in listed.items] == ["a"] and listed.resource_version == "11"
    patched = await pods.patch("a", "default", {"metadata": {"labels": {"app": None, "tier": "x"}}})
    assert patched.metadata.labels == {"tier": "x"}
    with pytest.raises(errors.Conflict):
        await pods.update(made)
    seen = []
    async with pods.watch("default", resource_version="11", bookmarks=True) as events:
        assert await pods.delete("a", "default") is None
        async for event in events:
            seen.append((event.type, event.resource_version))
            if len(seen) == 2:
                break
    assert seen == [("MODIFIED", "12"), ("DELETED", "13")]
    server.oldest = 13
    with pytest.raises(errors.Expired):
        await anext(pods.watch("default", resource_version="1"))
    assert (await client.tree(pods.kind).list()).items == []
    server.fail = [(429, {"retry-after": "0"}), (500, {})]
    with pytest.raises(errors.StatusError) as failed:
        await pods.list()
    assert failed.value.http_code == 500 and not server.fail


async def test_in_process() -> None:
    world = RealWorld()

    server = Double()
    client = Client(InProcessTransport(server, "alice"), world, "tester/1")
    await exercise(client, server)
    who = await client.get_json("/whoami")
    assert who["user"] == "alice" and "tester/1" in who["headers"]


async def test_in_process_failures_are_transport_errors() -> None:
    world = RealWorld()

    async def breaks(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"type":"ADDED","ob', "more_body": True})
        raise ValueError("bug")

    async def hangs(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()

    with pytest.raises(TransportError):
        await anext(Client(InProcessTransport(breaks, None), world)[core_v1.Pod].watch())
    with pytest.raises(TransportError):
        await Client(InProcessTransport(hangs, None), world).request("GET", "/", timeout=0.01)


async def test_https(tmp_path: Any) -> None:
    world = RealWorld()
    pem, key = certificate()
    (tmp_path / "cert.pem").write_bytes(pem)
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "token").write_text("secret\n")

    server = Double()
    options = {
        "ssl_certfile": str(tmp_path / "cert.pem"),
        "ssl_keyfile": str(tmp_path / "key.pem"),
        "ssl_ca_certs": str(tmp_path / "cert.pem"),
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
    }
    async with served(server, **options) as port:
        url = f"https://127.0.0.1:{port}"
        config = Config(url, pem, pem, key, token_file=str(tmp_path / "token"))
        client = Client(HTTPSTransport(config), world, "tester/1")
        await exercise(client, server)
        assert "Bearer secret" in (await client.get_json("/whoami"))["headers"]
        await client.close()
        for bad in (Config(url, pem), Config(url, b"", pem, key)):
            client = Client(HTTPSTransport(bad), world)
            with pytest.raises(TransportError):
                await client.get_json("/whoami")
            await client.close()
    client = Client(HTTPSTransport(Config(f"http://127.0.0.1:{port}")), world)
    with pytest.raises(TransportError):
        await client.get_json("/whoami")
    await client.close()


async def test_many_requests_share_few_connections_and_streams_do_not_count() -> None:
    clients: set[Any] = set()
    waiting, most, go_on = 0, 0, asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal waiting, most
        streams = scope["path"] == "/stream"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        if streams:
            await go_on.wait()
        else:
            clients.add(scope["client"])
            waiting += 1
            most = max(most, waiting)
            await asyncio.sleep(0)
            waiting -= 1
        await send({"type": "http.response.body", "body": b""})

    async with served(app) as port:
        transport = HTTPSTransport(Config(server=f"http://127.0.0.1:{port}"))
        async with contextlib.AsyncExitStack() as open_streams:
            for _ in range(AT_ONCE + 1):
                await open_streams.enter_async_context(transport.stream("GET", "/stream"))
            answers = await asyncio.gather(*(transport.request("GET", "/") for _ in range(10 * AT_ONCE)))
            assert {a.body for a in answers} == {b"x"}
            assert most <= AT_ONCE and len(clients) <= AT_ONCE
            go_on.set()
        await transport.close()


async def test_websocket() -> None:
    world = RealWorld()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            body = b'{"kind":"Status","reason":"Forbidden","message":"no","code":403}'
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": body})
            return
        await receive()
        if scope["path"] == "/refused":
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0]})
        data = (await receive())["bytes"]
        await send({"type": "websocket.send", "bytes": data[::-1]})
        await send({"type": "websocket.close"})

    async with served(app) as port:
        client = Client(HTTPSTransport(Config(f"http://127.0.0.1:{port}")), world)
        async with client.websocket("/exec", query=[("command", "a")], protocols=["v5.channel.k8s.io"]) as socket:
            assert socket.protocol == "v5.channel.k8s.io"
            await socket.send(b"abc")
            assert await socket.receive() == b"cba"
            assert await socket.receive() is None
        with pytest.raises(errors.Forbidden, match="no"):
            async with client.websocket("/refused"):
                pass
        await client.close()


def test_kubeconfig_round_trip_and_errors(tmp_path: Any, monkeypatch: Any) -> None:
    config = Config("https://127.0.0.1:1", b"CA", b"CERT", b"KEY", namespace="shop", user="u", cluster="c", context="x")
    path = tmp_path / "config"
    kubeconfig.write(path, config)
    assert path.stat().st_mode & 0o777 == 0o600
    assert kubeconfig.load(path) == config
    with pytest.raises(kubeconfig.KubeconfigError, match="context 'y' does not exist"):
        kubeconfig.load(path, "y")
    (tmp_path / "ca").write_bytes(b"CA2")
    (tmp_path / "two").write_text(
        "current-context: z\nclusters: [{name: d, cluster: {server: 'https://d', certificate-authority: ca}}]\n"
        "contexts: [{name: z, context: {cluster: d, user: u}}]\n"
    )
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'two'}:{tmp_path / 'absent'}:{path}")
    merged = kubeconfig.load()
    assert (merged.server, merged.ca, merged.client_key) == ("https://d", b"CA2", b"KEY")
    (tmp_path / "bad").write_text("a: [")
    for broken in ("bad", "absent"):
        with pytest.raises(kubeconfig.KubeconfigError):
            kubeconfig.load(tmp_path / broken)
