"""Real API servers on a real store, killed and started again while clients use them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

from navarch.client import kubeconfig
from navarch.client.transport import HTTPSTransport, TransportError, connect
from navarch.world import World
from tests.apiserver.storage.etcd_server import Etcd, free_port

ROOT = Path(__file__).parents[3]


class Servers:
    """``count`` API servers on one store ("etcd" or "sqlite") in ``folder``, each on a port that it keeps."""

    def __init__(self, world: World, folder: Path, store: str, count: int = 1) -> None:
        self.world, self.folder = world, folder
        self.etcd = Etcd(folder) if store == "etcd" else None
        self.store = f"etcd:{self.etcd.endpoint}" if self.etcd else f"sqlite:{folder / 'store.db'}"
        self.ports = [free_port() for _ in range(count)]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * count

    async def start(self) -> None:
        if self.etcd:
            self.etcd.start()
        for number in range(len(self.ports)):  # one after the other: the first makes the certificates
            self.start_server(number)
            await self.ready(number)

    def start_server(self, number: int) -> None:
        flags = (
            "--store",
            self.store,
            "--cert-dir",
            str(self.folder / "pki"),
            "--secure-port",
            str(self.ports[number]),
        )
        with (self.folder / f"server-{number}.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(
                [sys.executable, "-m", "apiserver", *flags], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=log
            )

    def kill_server(self, number: int) -> None:
        process = self._processes[number]
        if process is not None:
            process.kill()
            process.wait()
            self._processes[number] = None

    async def ready(self, number: int) -> None:
        """Waits until the server answers that it is ready. AssertionError if that takes more than 30 s."""
        end = self.world.monotonic() + 30
        while True:
            assert self.world.monotonic() < end, (self.folder / f"server-{number}.log").read_text()[-4000:]
            if (self.folder / "pki" / "admin.kubeconfig").exists():
                client = self.client(number)
                try:
                    if (await client.request("GET", "/readyz", timeout=5)).status == 200:
                        return
                except (TransportError, TimeoutError):
                    pass
                finally:
                    await client.close()
            await self.world.sleep(0.05)

    def client(self, number: int) -> HTTPSTransport:
        """A client of one server, as its administrator."""
        config = kubeconfig.load(self.folder / "pki" / "admin.kubeconfig")
        return connect(dataclasses.replace(config, server=f"https://127.0.0.1:{self.ports[number]}"))

    def stop(self) -> None:
        for number in range(len(self.ports)):
            self.kill_server(number)
        if self.etcd:
            self.etcd.stop()
