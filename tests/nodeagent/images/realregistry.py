"""Debian's docker-registry on a loopback port, and a front before it that asks for logins, breaks connections and lies."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CONFIG = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {data}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def docker_registry(folder: Path) -> Iterator[str]:
    """Gives its address once it answers."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yml").write_text(CONFIG.format(data=folder / "data", port=port))
    process = subprocess.Popen(["docker-registry", "serve", str(folder / "config.yml")], stderr=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, "docker-registry ended"
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@dataclass
class Faults:
    """How the front behaves. ``cut``: bytes after which a blob's connection breaks, once a blob; ``corrupt``: a byte of each
    blob is changed; ``user``: a login is wanted, by ``scheme``; ``ranges``: whether it knows byte ranges."""

    user: str = ""
    password: str = ""
    scheme: str = "Bearer"
    cut: int = 0
    corrupt: bool = False
    ranges: bool = True
    lying_size: int = 0  # bytes that are added to each blob
    asked: list[tuple[str, str]] = field(default_factory=list)  # method and path of each request
    ranged: list[str] = field(default_factory=list)  # ranges that were asked for
    logins: list[str] = field(default_factory=list)  # Authorization of each request to the registry itself
    broken: dict[str, None] = field(default_factory=dict)

    def count(self, part: str) -> int:
        return sum(part in path for method, path in self.asked if method == "GET")


@contextlib.contextmanager
def front(registry: str, faults: Faults, certificate: Path | None = None) -> Iterator[str]:
    """A proxy of the registry with these faults: its address. ``certificate``: a file with key and certificate, for TLS."""
    good = "Basic " + base64.b64encode(f"{faults.user}:{faults.password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            url = urllib.parse.urlsplit(self.path)
            own = self.headers.get("Authorization", "")
            if url.path == "/token":
                query = urllib.parse.parse_qs(url.query)
                assert query["service"] == ["test"] and query["scope"][0].startswith("repository:"), query
                if own != good:
                    return self.say(401, b'{"details": "incorrect username or password"}')
                return self.say(200, json.dumps({"token": "t0ken", "expires_in": 300}).encode())
            faults.asked.append((self.command, url.path))
            faults.logins.append(own)
            if faults.user and own != ("Bearer t0ken" if faults.scheme == "Bearer" else good):
                realm = (
                    f'realm="http://{self.headers["Host"]}/token",service="test"'
                    if faults.scheme == "Bearer"
                    else 'realm="x"'
                )
                body = b'{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}'
                return self.say(401, body, {"WWW-Authenticate": f"{faults.scheme} {realm}"})
            self.forward(url.path)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do

        def forward(self, path: str) -> None:
            upstream = http.client.HTTPConnection(registry, timeout=20)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            headers = {k: v for k, v in self.headers.items() if k in ("Accept", "Content-Type", "Range", "Host")}
            if range_ := headers.get("Range"):
                faults.ranged.append(range_)
                if not faults.ranges:
                    del headers["Range"]
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            data = answer.read()
            upstream.close()
            if "/blobs/" in path and self.command == "GET":
                if faults.corrupt:
                    data = data[:-1] + bytes([data[-1] ^ 1])
                data += b"\0" * faults.lying_size
            keep = {
                k: v
                for k, v in answer.getheaders()
                if k.lower() not in ("content-length", "connection", "transfer-encoding")
            }
            if self.command == "HEAD":
                return self.say(
                    answer.status, b"", {**keep, "Content-Length": answer.getheader("Content-Length") or "0"}
                )
            if faults.cut and "/blobs/" in path and path not in faults.broken and len(data) > faults.cut:
                faults.broken[path] = None
                self.say(answer.status, data, keep, faults.cut)
                self.close_connection = True
                return self.connection.shutdown(socket.SHUT_RDWR)
            self.say(answer.status, data, keep)

        def say(self, code: int, data: bytes, headers: dict[str, str] | None = None, cut: int = 0) -> None:
            self.send_response(code)
            for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[:cut] if cut else data)
                self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
