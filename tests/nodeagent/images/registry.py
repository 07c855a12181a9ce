"""Just enough of a registry to pull from: it serves what an image store has, on a loopback port of its own."""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from nodeagent.images.reference import parse
from nodeagent.images.store import MANIFEST_TYPE, ImageStore


@contextlib.contextmanager
def registry(store: ImageStore, user: str = "", password: str = "") -> Iterator[str]:
    """Gives its address. Repository and tag of a request name an image of ``store`` under ``localhost/``."""
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode() if user else None

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if wanted is not None and self.headers.get("Authorization") != wanted:
                return self.answer(401, b"{}", {"WWW-Authenticate": 'Basic realm="test"'})
            parts = self.path.strip("/").split("/")
            data: bytes | None = b"{}" if parts == ["v2"] else None
            kind = "application/json"
            if len(parts) > 3 and parts[-2] == "blobs" and store.blob(parts[-1]).exists():
                data, kind = store.blob(parts[-1]).read_bytes(), "application/octet-stream"
            elif len(parts) > 3 and parts[-2] == "manifests":
                digest = parts[-1]
                if not digest.startswith("sha256:"):
                    record = store.find(str(parse(f"localhost/{'/'.join(parts[1:-2])}:{digest}")))
                    digest = record.manifest if record else ""
                if digest and store.blob(digest).exists():
                    data, kind = store.blob(digest).read_bytes(), MANIFEST_TYPE
            if data is None:
                return self.answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}', {})
            return self.answer(200, data, {"Content-Type": kind})

        do_HEAD = do_GET

        def answer(self, code: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(code)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
