"""A private etcd on unix sockets in a folder."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
from pathlib import Path
from types import TracebackType

from apiserver.storage.etcd_connection import TLS


def free_port() -> int:
    """A port that nobody listens on, and that no client gets by chance before it is used: the kernel gives those from 32768."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


class Etcd:
    """Runs while its ``with`` lasts. Its socket is there a little later; clients wait for it."""

    def __init__(self, folder: Path, tls: TLS | None = None, *more: str) -> None:
        """``tls``: on a port of the loopback instead, for clients with a certificate. ``more``: options for etcd."""
        self.folder, self.tls, self.more = folder, tls, more
        self.port = free_port() if tls else 0
        self.endpoint = f"localhost:{self.port}" if tls else f"unix:{folder}/localhost:1"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        client, peer = "unix://localhost:1", "unix://localhost:2"
        options: list[str] = []
        if self.tls is not None:
            client = f"https://127.0.0.1:{self.port}"
            options = ["--client-cert-auth", "--trusted-ca-file", str(self.tls.ca)]
            options += ["--cert-file", str(self.tls.certificate), "--key-file", str(self.tls.key)]
        for name in ("localhost:1", "localhost:2"):
            (self.folder / name).unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [
                *("etcd", "--name", "e", "--data-dir", str(self.folder / "data"), "--initial-cluster", f"e={peer}"),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--heartbeat-interval", "10", "--election-timeout", "100", "--log-level", "error", "--logger", "zap"),
                *options,
                *self.more,
            ],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """Kills it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Etcd:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
