"""A real API server as a process of its own, and kubectl to ask it."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from navarch.world import RealWorld

ROOT = Path(__file__).parents[3]


@contextmanager
def running(home: Path, *flags: str, store: str = "") -> Iterator[Kubectl]:
    """A server on a free port, with its certificates in ``home``; ``store`` default: sqlite there."""
    log = home / "server.log"
    command = [sys.executable, "-m", "apiserver", "--cert-dir", str(home / "pki"), "--secure-port", "0"]
    with log.open("wb") as file:
        server = subprocess.Popen(
            [*command, "--store", store or f"sqlite:{home / 'db'}", *flags], cwd=ROOT, stdout=file, stderr=file
        )
    world = RealWorld()

    async def ready() -> None:
        end = world.monotonic() + 30
        while b"kubeconfig:" not in log.read_bytes():
            assert server.poll() is None and world.monotonic() < end, log.read_text()
            await world.sleep(0.02)

    try:
        world.run(ready)
        yield Kubectl(home)
    finally:
        server.terminate()
        server.wait(20)


class Kubectl:
    def __init__(self, home: Path) -> None:
        found = shutil.which("kubectl")
        if found is None:
            pytest.fail("kubectl is not installed: run deploy/test")
        self.binary, self.home = found, home
        self.config = home / "pki" / "admin.kubeconfig"

    def run(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        environment = {"HOME": str(self.home), "KUBECONFIG": str(self.config), "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            [self.binary, *arguments], input=text, capture_output=True, text=True, env=environment, timeout=60
        )

    def __call__(self, *arguments: str, text: str = "") -> str:
        done = self.run(*arguments, text=text)
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout

    def fails(self, *arguments: str, text: str = "") -> str:
        done = self.run(*arguments, text=text)
        assert done.returncode != 0, (arguments, done.stdout)
        return done.stderr

    @property
    def server(self) -> list[str]:
        """Arguments for a client without credentials."""
        url = self("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
        return ["--kubeconfig", "/dev/null", "--server", url, "--certificate-authority", str(self.home / "pki" / "ca.crt")]

    def anonymous(self, path: str) -> tuple[int, str]:
        """Status and body of a GET without credentials (kubectl would ask for a password)."""
        trust = ssl.create_default_context(cafile=str(self.home / "pki" / "ca.crt"))
        try:
            with urllib.request.urlopen(self.server[3] + path, context=trust, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def token(self, token: str) -> list[str]:
        return [*self.server, "--token", token]
