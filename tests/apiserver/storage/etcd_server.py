"""A private etcd on unix sockets in a folder."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType


class Etcd:
    """Runs while its ``with`` lasts. Its socket is there a little later; clients wait for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endpoint = f"unix:{folder}/localhost:1"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        client, peer = "unix://localhost:1", "unix://localhost:2"
        for socket in ("localhost:1", "localhost:2"):
            (self.folder / socket).unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [
                *("etcd", "--name", "e", "--data-dir", str(self.folder / "data"), "--initial-cluster", f"e={peer}"),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--heartbeat-interval", "10", "--election-timeout", "100", "--log-level", "error", "--logger", "zap"),
            ],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

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
