"""A small cluster of real processes (API server, controllers, scheduler, one hollow node) for all tests of this room,
and ``navarch`` run inside the test's own process."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cli.main import run
from navarch.world import RealWorld

ROOT = Path(__file__).parents[2]


class Ran(NamedTuple):
    code: int
    out: str
    err: str


class Navarch:
    """Runs commands against the cluster; ``namespace`` is this test's own."""

    def __init__(self, capfd: pytest.CaptureFixture[str], namespace: str) -> None:
        self.capfd, self.namespace = capfd, namespace

    def __call__(self, *arguments: str) -> Ran:
        self.capfd.readouterr()
        code = 0
        try:
            run([*arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        sys.stdout.flush()
        out, err = self.capfd.readouterr()
        return Ran(code, out, err)

    def ok(self, *arguments: str) -> str:
        ran = self(*arguments)
        assert ran.code == 0, ran
        return ran.out


def _until(test: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = 30) -> None:
    """Waits for a condition that another process brings about."""
    world = RealWorld()
    end = world.monotonic() + seconds

    async def wait() -> None:
        while not test():
            assert process.poll() is None, log.read_text()
            assert world.monotonic() < end, log.read_text()
            await world.sleep(0.02)

    world.run(wait)


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The cluster; ends with the tests."""
    root = tmp_path_factory.mktemp("cluster")
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str, before: tuple[str, ...] = ()) -> tuple[subprocess.Popen[bytes], Path]:
        log = root / f"{name}.log"
        with log.open("wb") as file:
            command = [*before, sys.executable, "-m", name, *arguments]
            process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
        started.append(process)
        return process, log

    try:
        path = root / "pki" / "admin.kubeconfig"
        server, log = start("apiserver", "--store", "memory", "--cert-dir", str(root / "pki"), "--secure-port", "0")
        _until(lambda: b"serving on" in log.read_bytes() and path.exists(), server, log)
        common = ("--kubeconfig", str(path))
        start("controllers", *common)
        start("scheduler", *common)
        folders = ("--root-dir", str(root / "pods"), "--run-dir", str(root / "run"))
        server_files = (
            "--tls-cert-file",
            str(root / "pki/server.crt"),
            "--tls-private-key-file",
            str(root / "pki/server.key"),
        )
        node, log = start(
            "nodeagent", *common, "--runtime", "hollow", "--node-name", "n1", "--node-ip", "127.0.0.1", "--port", "0",
            *folders, *server_files, "--client-ca-file", str(root / "pki/ca.crt"),
            before=("unshare", "--mount", "--propagation", "private"),  # its tmpfs shall go when it does
        )  # fmt: skip
        _until(lambda: b"registered node" in log.read_bytes(), node, log)
        yield str(path)
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def command(kubeconfig: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Navarch:
    """``navarch`` with the cluster's kubeconfig."""
    monkeypatch.setenv("KUBECONFIG", kubeconfig)
    monkeypatch.delenv("NAVARCH_LAB", raising=False)
    return Navarch(capfd, "default")


@pytest.fixture
def navarch(command: Navarch, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Navarch]:
    """``navarch``, with a namespace of the test's own."""
    command.namespace = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[:50].strip("-")
    file = tmp_path / "namespace.yaml"
    file.write_text(f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {command.namespace}}}}}")
    command.ok("apply", "-f", str(file))
    yield command
    command("delete", "namespace", command.namespace, "--wait=false")


@pytest.fixture
def kubectl(kubeconfig: str) -> Callable[..., Ran]:
    """The real kubectl on the same cluster."""
    program = shutil.which("kubectl")
    if program is None:
        pytest.fail("no kubectl on PATH: run deploy/test")

    def run(*arguments: str, stdin: str = "") -> Ran:
        done = subprocess.run(
            [program, "--kubeconfig", kubeconfig, *arguments], input=stdin, capture_output=True, text=True, timeout=30
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run
